//! Two ends of real connections on loopback, and everybody who is not the other end.
#![allow(clippy::unwrap_used, missing_docs)]

extern crate rejoin_node as node;

mod certificates;
mod common;
mod door;
mod link;
mod parts;
mod strangers;
mod together;
