//! The files of a node: where they lie, which of them a donor sends, which a joiner replaces.
mod accept;
pub mod cpat;
mod database;
pub mod engines;
pub mod layout;
pub mod managed;
pub mod own_position;
#[cfg(test)]
mod real_tests;
pub mod scan;
pub mod system_files;
#[cfg(test)]
mod testing;
mod walk;
