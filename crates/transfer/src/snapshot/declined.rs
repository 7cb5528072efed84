//! Every reason for which the online snapshot does not serve. The blocking one is tried then, and both hosts log why.
use std::time::Duration;

use formats::Lsn;

use crate::sql::NoLogin;

/// Why this snapshot declines. Nothing on the donor stays held after any of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Declined {
    /// The log has the layout of another server version.
    #[error(
        "the redo log has a layout that is not followed ({0}); MariaDB 10.8 or later writes the one that is"
    )]
    RedoFormat(String),
    /// The server wrote over redo that was not read yet.
    #[error(
        "the redo log came round before it could be read: {behind} bytes were waiting in a log of {capacity}; \
         innodb_log_file_size={wanted} or more on the donor would have held them"
    )]
    RedoOverrun {
        /// Bytes between what was read and what the server had written.
        behind: u64,
        /// Bytes the log holds.
        capacity: u64,
        /// A size in bytes that would have been enough.
        wanted: u64,
    },
    /// The log does not read below the LSN that the server calls durable.
    #[error("the redo log cannot be read at LSN {at}: {why}")]
    RedoUnreadable {
        /// Where.
        at: Lsn,
        /// What is there instead.
        why: String,
    },
    /// The server did not write its log as far as needed.
    #[error("the server did not write its redo log up to LSN {wanted} within {} s; it was at {reached}", waited.as_secs())]
    RedoNotWritten {
        /// The LSN needed.
        wanted: Lsn,
        /// The LSN that can be read.
        reached: Lsn,
        /// How long was waited.
        waited: Duration,
    },
    /// The record of the checkpoint that the copy starts from was not in the log.
    #[error("the redo log has no record of its own checkpoint at LSN {0}")]
    CheckpointMissing(Lsn),
    /// No account could log in.
    #[error(transparent)]
    NoLogin(#[from] NoLogin),
    /// The account may not do what is needed.
    #[error("the account may not do what is needed; to allow it: {grant}")]
    MissingPrivilege {
        /// A statement an administrator can run as it is.
        grant: String,
    },
    /// The server does not pause replication for a backup while its own method has this name.
    #[error(
        "the donor's wsrep_sst_method is mariabackup: its server does not pause replication for a backup then"
    )]
    DonorMethodMariabackup,
    /// As above.
    #[error(
        "wsrep_mode of the donor has BF_ABORT_MARIABACKUP: its server does not pause replication for a backup then"
    )]
    BfAbortMariabackup,
    /// The account's sessions do not take part in replication, so the server does not pause it for them.
    #[error(
        "wsrep_on is OFF in the donor's session: its server does not pause replication for a backup then"
    )]
    SessionWsrepOff,
    /// The locks were granted, but the provider was not paused by us.
    #[error(
        "the server did not pause replication: wsrep_desync_count is {after} under the backup lock and was {before}"
    )]
    NotPaused {
        /// Before the lock.
        before: u64,
        /// Under it.
        after: u64,
    },
    /// The position moved although replication was paused, every time.
    #[error("the position moved in the consistency point: from {before} to {after}")]
    PositionMoved {
        /// Noted first.
        before: i64,
        /// Noted last.
        after: i64,
    },
    /// The server is cut off from the cluster: what it has is no state of it.
    #[error(
        "the donor's server is outside the primary component of its cluster (wsrep_cluster_status is {status:?})"
    )]
    OutsidePrimary {
        /// What the server says instead of `Primary`.
        status: String,
    },
    /// The server does not know which write-set it committed last.
    #[error("the donor's server has no position ({shown})")]
    NoPosition {
        /// What it shows instead of one.
        shown: String,
    },
    /// The server has no such status, so that nothing proves what it would prove.
    #[error("the server has no status {0}: nothing proves that replication was paused")]
    NoStatus(String),
    /// The locks were not granted in time: somebody holds one. It passes by itself, so no other snapshot is taken.
    #[error("no consistency point within {} s and {tries} tries; {holder}", waited.as_secs())]
    NotGranted {
        /// How long was waited.
        waited: Duration,
        /// Tries.
        tries: u32,
        /// Who holds the lock, as far as can be seen.
        holder: String,
    },
    /// What must be read under the locks is too much.
    #[error(
        "the consistency point took longer than {} s: too much without redo is written (MyISAM, Aria), or the server does \
         not answer", held.as_secs()
    )]
    TooLong {
        /// How long the locks may be held.
        held: Duration,
    },
    /// A tablespace was imported while it was copied.
    #[error("tablespace {space} ({name}) was discarded or imported during the copy")]
    Import {
        /// Tablespace.
        space: u32,
        /// File.
        name: String,
    },
    /// Files came or went under the lock, every time.
    #[error("files changed under the backup lock: {0}")]
    NotSettled(String),
    /// Pages that are damaged on the donor.
    #[error("{count} damaged pages on the donor, the first: {first}")]
    CorruptPages {
        /// How many.
        count: u64,
        /// File, page and what is wrong.
        first: String,
    },
    /// The server ended our session more often than it was tried again.
    #[error("the server ended our session: {0}")]
    SessionLost(String),
    /// Something in the donor's data this snapshot does not handle.
    #[error("{0}")]
    Layout(String),
}

impl Declined {
    /// Another snapshot of the same server would send the same.
    pub fn is_of_the_server(&self) -> bool {
        matches!(
            self,
            Declined::CorruptPages { .. } | Declined::OutsidePrimary { .. } | Declined::NoPosition { .. }
        )
    }
}

/// How a snapshot ends other than well.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// This snapshot does not serve; another may.
    #[error("the online snapshot declines: {0}")]
    Declined(#[from] Declined),
    /// The transfer is over: the sink failed, or we were told to stop.
    #[error("{0:#}")]
    Failed(anyhow::Error),
}

impl From<NoLogin> for SnapshotError {
    fn from(error: NoLogin) -> Self {
        SnapshotError::Declined(error.into())
    }
}

impl From<anyhow::Error> for SnapshotError {
    /// A reason to decline stays one however deep it lies in the chain.
    fn from(error: anyhow::Error) -> Self {
        match error.chain().find_map(|cause| cause.downcast_ref::<Declined>()) {
            Some(declined) => SnapshotError::Declined(declined.clone()),
            None => SnapshotError::Failed(error),
        }
    }
}
