//! What a consistency point established.
use std::fs::File;
use std::time::Duration;

use formats::Lsn;
use protocol::inventory::FileId;

use super::catalog::FirstPage;

/// What the consistency point established, and what it cost.
#[derive(Debug)]
pub struct ConsistencyPoint {
    /// End of the log when files were listed: later file operations are about names that were listed.
    pub list_lsn: Lsn,
    /// LSN at which the copy ends.
    pub end: Lsn,
    /// End of the log when the locks were released.
    pub max: Lsn,
    /// The cluster's last committed write-set.
    pub seqno: Option<i64>,
    /// `gtid_binlog_state`, if there is a binary log.
    pub binlog_state: Option<String>,
    /// How long DDL was held and the provider paused.
    pub ddl_held: Duration,
    /// The part of it that the server took to pause the provider and grant the lock.
    pub granting: Duration,
    /// How long commits on this server were held.
    pub commits_held: Duration,
    /// How long listing the files took.
    pub listing: Duration,
    /// Files that may have been imported; they are checked later.
    pub written: Vec<Written>,
    /// Number of files copied under the locks.
    pub files: usize,
    /// Number of tries.
    pub tries: u32,
    /// How long failed tries paused the provider, in total.
    pub failed_held: Duration,
}

/// A data file that was written to since the snapshot began.
#[derive(Debug)]
pub struct Written {
    pub(super) id: FileId,
    pub(super) now: Now,
}

#[derive(Debug)]
pub(super) enum Now {
    /// Kept open: once the locks are released, the file may have another name, or none.
    Open(File),
    /// Its first page.
    First(FirstPage),
}
