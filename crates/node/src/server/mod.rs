//! Our own server: the process that started us, what it told us and what it wants to hear.
//!
//! | module | owns |
//! |---|---|
//! | [`options`] | the option files and arguments, read as the server reads them |
//! | [`report`] | stdout, the wire to the server: the only writer |
//! | [`parent`] | noticing that the server died or that we are told to stop |
//! | [`credentials`] | the accounts the server hands over |
//! | [`descriptors`] | what the server leaks into us |
//! | [`log`] | the error log's lines and the log file of one transfer |
//! | [`manners`] | being a considerate guest on its host |
//! | [`markers`] | `sst_in_progress` and `wsrep_sst.pid` |
//! | [`progress`] | phases, counts, the status file |
//! | [`sql`] | the few questions we ask it |
//! | [`version`] | which server this is |
//! | [`synced`] | waiting, after our own end, until the node is Synced |
pub mod credentials;
pub mod descriptors;
pub mod log;
pub mod manners;
pub mod markers;
pub mod options;
pub mod parent;
pub mod progress;
pub mod report;
pub mod sql;
pub mod synced;
pub mod version;
