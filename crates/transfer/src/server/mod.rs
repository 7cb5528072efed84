//! Our own server: the process that started us, what it passes to us, and what it expects from us.
//!
//! | module | owns |
//! |---|---|
//! | [`options`] | the option files and arguments, read as the server reads them |
//! | [`reporter`] | reports the progress |
//! | [`report`] | stdout, which the server reads: the only writer |
//! | [`parent`] | noticing that the server died, or that we must stop |
//! | [`shutdown`] | noticing that the server is shutting down in order |
//! | [`changes`] | options of a running transfer that an operator changes |
//! | `connections` | what the connections of a transfer have moved |
//! | [`companion`] | processes of ours that end with the server |
//! | [`credentials`] | the accounts that the server passes to us |
//! | [`descriptors`] | descriptors that the server leaks to us |
//! | [`error_log`] | what the provider has logged during the transfer |
//! | [`health`] | whether a transfer makes progress |
//! | [`local_work`] | work for which nothing travels |
//! | [`ledger`], `tables` | what the record of a transfer is made from |
//! | [`recorder`], [`records`] | the record, a file beside the log; reading records |
//! | [`ist_endpoints`] | where donors connect for IST, and whether it can pass through us |
//! | [`log`] | the error log's lines and the log file of one transfer |
//! | [`metrics`] | the progress as Prometheus metrics |
//! | [`niceness`] | our out-of-memory score and priority |
//! | [`markers`] | `sst_in_progress` and `wsrep_sst.pid` |
//! | [`remaining`] | how long a transfer will still take |
//! | [`retries`] | how often a join failed |
//! | [`privileges`] | running root's verbs as the server's user |
//! | [`progress`] | phases and counts |
//! | [`status`] | the status file |
//! | [`provider_options`] | the provider's options as a map |
//! | [`users`] | the users of this host |
//! | `command_line` | the arguments of a process |
//! | [`version`] | the server's version |
//! | [`synced`] | waiting, after our own end, until the node is Synced |
pub mod changes;
pub(crate) mod command_line;
pub mod companion;
pub mod compiled_in;
mod connections;
pub mod credentials;
pub mod descriptors;
pub mod error_log;
pub mod health;
pub mod ist_endpoints;
pub mod ledger;
pub mod local_work;
pub mod log;
pub mod markers;
pub mod metrics;
pub mod niceness;
pub mod options;
pub mod parent;
pub mod privileges;
pub mod progress;
pub mod provider_options;
pub mod recorder;
pub mod records;
pub mod remaining;
pub mod report;
pub mod reporter;
pub mod retries;
pub mod shutdown;
pub mod status;
pub mod synced;
mod tables;
pub mod users;
pub mod version;
