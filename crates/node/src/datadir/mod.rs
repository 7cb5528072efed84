//! The files of a node: where they lie, which of them a donor sends, which a joiner replaces.
mod accept;
pub mod cpat;
mod database;
pub mod engines;
pub mod layout;
pub mod managed;
pub mod own_position;
mod page_files;
mod played_pages;
#[cfg(test)]
mod real_tests;
pub mod recovered_position;
mod redo_file;
pub mod scan;
pub mod system_files;
#[cfg(test)]
mod testing;
mod walk;
