//! The files of a node: where they are, which of them a donor sends, which a joiner replaces.
pub mod accept;
pub mod backup_files;
pub mod cpat;
pub(crate) mod database;
pub(crate) mod directories;
pub mod encrypted;
pub mod engines;
mod found;
pub mod layout;
pub mod lineage;
mod log_names;
pub mod managed;
pub mod of_server;
pub mod own_position;
pub mod owner;
mod page_files;
mod played_pages;
#[cfg(test)]
mod real_tests;
pub mod recognise;
pub mod recovered_position;
mod redo_file;
pub(crate) mod sample;
pub mod scan;
pub mod server_on;
pub mod system_files;
#[cfg(test)]
pub(crate) mod testing;
mod unknown_position;
pub(crate) mod walk;

/// The directory of the previous state and of all records in a datadir. Names that begin with `#sql` are
/// invisible to a server's clients, and the server leaves them alone (observed on 10.11.19: SHOW DATABASES,
/// mariadb-dump, mariadb-check, mariadb-upgrade, start, recovery).
pub const KEPT_DIRECTORY: &str = "#sql-rejoin";

/// What the names of the files begin with in which a node remembers fingerprints ([`crate::remembered::store`]). They belong
/// to this node's files and are never sent, replaced or removed with them.
pub const FINGERPRINTS_FILE: &str = "rejoin-fingerprints";
