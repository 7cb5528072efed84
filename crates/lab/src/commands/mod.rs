//! One file for each command.

pub mod cluster;
pub mod demo;
pub mod joins;
mod watch;
