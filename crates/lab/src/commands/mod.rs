//! One file for each command.

pub mod cluster;
pub mod demo;
pub mod joins;
pub mod storm;
mod watch;
