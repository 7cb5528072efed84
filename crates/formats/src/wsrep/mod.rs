//! The contract between the server and its SST program: arguments, lines, addresses, credentials.

pub mod address;
pub mod credentials;
pub mod invocation;
pub mod report;
pub mod state_id;
pub mod tables_flushed;
