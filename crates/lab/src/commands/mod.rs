//! One file for each command.

pub mod bench;
pub mod cluster;
pub mod demo;
pub mod figures;
pub mod joins;
pub mod moment;
mod observed;
pub mod storm;
mod watch;
