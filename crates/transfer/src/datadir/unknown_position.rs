//! Why the position of a datadir cannot be determined from its files.
use formats::innodb::redo_page::Gap;
use formats::{Lsn, PageNo, SpaceId};

use super::redo_file::BadLog;

/// Why a position cannot be determined.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// The system tablespace does not exist, or its first page is unreadable.
    #[error("the system tablespace has no readable first page")]
    NoSystemTablespace,
    /// The redo log.
    #[error(transparent)]
    Log(#[from] BadLog),
    /// The redo is encrypted, and changes pages from this LSN on.
    #[error("the redo log is encrypted, and changes pages from LSN {0} on")]
    EncryptedRedo(Lsn),
    /// An invalid record.
    #[error("a redo record in the mini-transaction at LSN {0} is invalid")]
    BadRecord(Lsn),
    /// The content of a relevant page is not known.
    #[error("page {page} of tablespace {space} {1}", space = .0.0, page = .0.1)]
    Page((SpaceId, PageNo), Gap),
    /// A page was changed after the log's end, so the files do not belong together.
    #[error("page {page} of tablespace {space} is newer than the end of the redo log at LSN {1}", space = .0.0, page = .0.1)]
    PageAhead((SpaceId, PageNo), Lsn),
    /// There are more undo logs than the limit.
    #[error("{0} pages of undo logs would have to be followed")]
    TooManyUndoLogs(usize),
    /// The set of relevant pages kept changing.
    #[error("the redo log names rollback segments that were never created")]
    NeverMade,
    /// A transaction was prepared by a user's XA statement, or outside the cluster.
    #[error("a transaction from outside the cluster was prepared when the server ended")]
    PreparedElsewhere,
    /// The server will consult its binary log.
    #[error("transactions were prepared when the server ended, and its binary log decides on them")]
    BinlogDecides,
}
