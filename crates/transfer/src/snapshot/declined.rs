//! The reasons why a snapshot is not possible. Another one is tried next unless the reason or the operator rules it out, and both
//! hosts log why.
use std::time::Duration;

use formats::Lsn;

use crate::sql::NoLogin;

/// Why this snapshot is not possible. Nothing on the donor remains locked after any of these.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Declined {
    /// The redo log has the layout of another server version.
    #[error(
        "the layout of the redo log is not supported ({0}); MariaDB 10.8 or later writes a supported one"
    )]
    RedoFormat(String),
    /// The server writes its redo log to archived files.
    #[error(
        "innodb_log_archive=ON on the donor: the server writes its redo log to ib_<LSN>.log files, which this version \
         cannot follow"
    )]
    RedoArchived,
    /// Its redo log is in archived files, and files are what is sent.
    #[error(
        "the redo log of the donor is in ib_<LSN>.log files only (innodb_log_archive=ON): a joiner's server does not start on a copy of \
         them without ib_logfile0"
    )]
    RedoOnlyArchived,
    /// The server overwrote redo that had not been read yet.
    #[error(
        "the server overwrote redo before it could be read: {behind} bytes were waiting in a log of {capacity}; \
         set innodb_log_file_size={wanted} or more on the donor"
    )]
    RedoOverrun {
        /// Bytes between what was read and what the server had written.
        behind: u64,
        /// Capacity of the log in bytes.
        capacity: u64,
        /// A size in bytes that would have been enough.
        wanted: u64,
    },
    /// Bytes below the LSN that the server calls durable are not valid redo.
    #[error("the redo log cannot be read at LSN {at}: {why}")]
    RedoUnreadable {
        /// LSN of these bytes.
        at: Lsn,
        /// What was found there.
        why: String,
    },
    /// The server did not write its log up to the end of the snapshot in time.
    #[error("the server did not write its redo log up to LSN {wanted} within {} s; it was at {reached}", waited.as_secs())]
    RedoNotWritten {
        /// The LSN needed.
        wanted: Lsn,
        /// The LSN up to which the log was read.
        reached: Lsn,
        /// How long we waited.
        waited: Duration,
    },
    /// The log has no record of the checkpoint that the copy starts from.
    #[error("the redo log has no record of its own checkpoint at LSN {0}")]
    CheckpointMissing(Lsn),
    /// No account could log in.
    #[error(transparent)]
    NoLogin(#[from] NoLogin),
    /// The account lacks a privilege.
    #[error("the account lacks a privilege; run: {grant}")]
    MissingPrivilege {
        /// The `GRANT` statement that an administrator can run as it is.
        grant: String,
    },
    /// The server does not pause replication for a backup while `wsrep_sst_method` is mariabackup.
    #[error(
        "the donor's wsrep_sst_method is mariabackup: its server does not pause replication for a backup then"
    )]
    DonorMethodMariabackup,
    /// Nor does it with `BF_ABORT_MARIABACKUP` in `wsrep_mode`.
    #[error(
        "wsrep_mode of the donor has BF_ABORT_MARIABACKUP: its server does not pause replication for a backup then"
    )]
    BfAbortMariabackup,
    /// The account's sessions do not take part in replication, so the server does not pause it for them.
    #[error(
        "wsrep_on is OFF in the donor's session: its server does not pause replication for a backup then"
    )]
    SessionWsrepOff,
    /// The locks were granted, but the server did not pause the provider for us.
    #[error(
        "the server did not pause replication: wsrep_desync_count is {after} under the backup lock and was {before}"
    )]
    NotPaused {
        /// `wsrep_desync_count` before the lock.
        before: u64,
        /// `wsrep_desync_count` under the lock.
        after: u64,
    },
    /// The position moved although replication was paused, in every try.
    #[error("the position moved in the consistency point: from {before} to {after}")]
    PositionMoved {
        /// Seqno when the locks were granted.
        before: i64,
        /// Seqno before they were released.
        after: i64,
    },
    /// The server is not in the primary component, so its data is not a state of the cluster.
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
    /// The server lacks the status variable that proves that replication was paused.
    #[error("the server has no status variable {0}, so nothing proves that replication was paused")]
    NoStatus(String),
    /// The locks were not granted in time, because another session holds one. That ends by itself, so no other snapshot
    /// is tried.
    #[error("no consistency point within {} s and {tries} tries; {holder}", waited.as_secs())]
    NotGranted {
        /// How long we waited.
        waited: Duration,
        /// Number of tries.
        tries: u32,
        /// Which session holds the lock, as far as the account can see.
        holder: String,
    },
    /// Reading under the locks took too long.
    #[error(
        "the consistency point took longer than {} s: too much without redo is written (MyISAM, Aria), or the server does \
         not answer", held.as_secs()
    )]
    TooLong {
        /// How long the locks may be held.
        held: Duration,
    },
    /// A tablespace was imported during the copy.
    #[error("tablespace {space} ({name}) was discarded or imported during the copy")]
    Import {
        /// Number of the tablespace.
        space: u32,
        /// Its file.
        name: String,
    },
    /// Files appeared or disappeared under the backup lock, in every try.
    #[error("files changed under the backup lock: {0}")]
    NotSettled(String),
    /// Tables changed while the logical snapshot read them, in every try.
    #[error("tables changed while their rows were read: {0}")]
    RowsDisturbed(String),
    /// The logical snapshot held the locks until everything was read, and that took too long.
    #[error(
        "reading rows under the backup locks took longer than the {} s that blocking= under [sst] on the donor allows", limit.as_secs()
    )]
    HeldTooLong {
        /// How long they may be held.
        limit: Duration,
    },
    /// Pages are corrupt on the donor.
    #[error("{count} corrupt pages on the donor, the first: {first}")]
    CorruptPages {
        /// Number of corrupt pages.
        count: u64,
        /// File and page of the first one, and what is wrong.
        first: String,
    },
    /// The server ended our session, more often than we try again.
    #[error("the server ended our session: {0}")]
    SessionLost(String),
    /// mariadb-backup made no backup, or not one that can be sent.
    #[error("mariadb-backup: {0}")]
    Backup(String),
    /// mariadb-backup itself failed. It does so when a statement changes tables in a bad moment, so it may succeed next time.
    #[error("{0}")]
    BackupFailed(String),
    /// mariadb-backup failed at its beginning: a table was renamed while it listed them.
    #[error("{0}")]
    BackupTripped(String),
    /// It waited for its locks for so long that it was ended.
    #[error(
        "mariadb-backup waited too long for its backup locks, while replication was paused: a statement of the donor's \
         clients, DDL above all, held them"
    )]
    BackupHeldUp,
    /// What this node or the joiner remembered of a file is not what the file contains.
    #[error("{0}")]
    WrongFingerprints(String),
    /// The donor's data contains something that this snapshot does not handle.
    #[error("{0}")]
    Layout(String),
}

impl Declined {
    /// True if the online snapshot cannot read what the server writes: its redo log, also where that is not written on in time, or the
    /// layout of its files. The server's own mariadb-backup can.
    pub fn is_unreadable(&self) -> bool {
        matches!(
            self,
            Declined::RedoFormat(_)
                | Declined::RedoArchived
                | Declined::RedoUnreadable { .. }
                // The server may have archived its log for the time of a BACKUP SERVER.
                | Declined::RedoNotWritten { .. }
                | Declined::CheckpointMissing(_)
                | Declined::Layout(_)
        )
    }

    /// True if the reason lies in the server's data or state, so that another snapshot of it would be no better.
    pub fn is_of_the_server(&self) -> bool {
        matches!(
            self,
            Declined::CorruptPages { .. } | Declined::OutsidePrimary { .. } | Declined::NoPosition { .. }
        )
    }
}

/// How a snapshot fails.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// This snapshot is not possible; another one may be.
    #[error("this snapshot is not possible: {0}")]
    Declined(#[from] Declined),
    /// The transfer is over: the sink failed, or it was cancelled.
    #[error("{0:#}")]
    Failed(anyhow::Error),
}

impl From<NoLogin> for SnapshotError {
    fn from(error: NoLogin) -> Self {
        SnapshotError::Declined(error.into())
    }
}

impl From<anyhow::Error> for SnapshotError {
    /// A reason to decline is found however deep it lies in the error chain.
    fn from(error: anyhow::Error) -> Self {
        match error.chain().find_map(|cause| cause.downcast_ref::<Declined>()) {
            Some(declined) => SnapshotError::Declined(declined.clone()),
            None => SnapshotError::Failed(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mariadb_backup_is_tried_where_redo_does_not_come() {
        let waited = Duration::from_secs(30);
        assert!(Declined::RedoNotWritten { wanted: Lsn(2), reached: Lsn(1), waited }.is_unreadable());
        assert!(Declined::RedoArchived.is_unreadable());
        assert!(!Declined::RedoOverrun { behind: 2, capacity: 1, wanted: 3 }.is_unreadable());
    }
}
