//! Real Galera clusters on this machine, for tests, scenarios and the demo. Never shipped.
//!
//! Every node is a real `mariadbd` with its own directory, socket and ports on 127.0.0.1, run by an unprivileged
//! user. A [`Cluster`] kills what it started, and only that, when it goes away: also when a test panics, is
//! interrupted, or is killed (the kernel ends the servers with the test; the next cluster removes the directory).
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let cluster = rejoin_lab::Cluster::builder().nodes(2).method("rejoin").build()?;
//! let (n1, n2) = (cluster.node(1), cluster.node(2));
//! n1.bootstrap()?;
//! rejoin_lab::data::sysbench_tables(n1, 2, 10_000)?;
//! n2.wipe()?;
//! n2.join()?; // starts it and waits until it is Synced
//! rejoin_lab::compare::assert_equal(n1, n2)?;
//! # Ok(()) }
//! ```

pub mod archiver;
mod cleanup;
mod cluster;
pub mod compare;
mod config;
pub mod data;
pub mod ddl;
mod errorlog;
pub mod failed_ddl;
pub mod follow;
mod installation;
pub mod link;
pub mod load;
pub mod mounted;
mod network;
mod node;
mod node_files;
mod node_sql;
pub mod other;
pub mod outage;
pub mod page_cache;
pub mod places;
pub mod ports;
pub mod process;
pub mod progress;
pub mod relay;
pub mod repeated;
pub mod skipped;
pub mod sql;
pub mod sst;

pub mod sample_schema;
pub mod states;
mod template;
mod tun;
pub mod usage;
pub mod watcher;
pub mod wire;

pub use cluster::{Builder, Cluster};
pub use errorlog::LogMark;
pub use installation::Installation;
pub use node::{DEFAULT_TIMEOUT, Node};
pub use node_files::{Position, Snapshot};
pub use template::copy_tree;
