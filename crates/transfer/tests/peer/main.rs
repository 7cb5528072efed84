//! Both ends of real connections on loopback, and strangers.
#![allow(clippy::unwrap_used, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "not the program: threads are started as they come")]

mod certificates;
mod common;
mod given_up;
mod hostile;
mod link;
mod listener;
mod parts;
mod strangers;
mod together;
