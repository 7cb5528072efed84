//! Why a logical snapshot ends early.
use crate::snapshot::declined::{Declined, SnapshotError};
use crate::snapshot::online::locking::TryError;
use crate::sql::SqlError;

/// Why reading ends early.
pub(super) enum ReadError {
    /// The view that was read is gone, because a table was changed. Another snapshot may succeed.
    Disturbed(String),
    /// The table has no tablespace.
    Discarded,
    /// None will, or the transfer is over.
    Over(SnapshotError),
}

impl From<SqlError> for ReadError {
    fn from(e: SqlError) -> Self {
        // ER_LOCK_DEADLOCK: how the provider ends a transaction. ER_TABLE_DEF_CHANGED, ER_NO_SUCH_TABLE, ER_BAD_DB_ERROR,
        // ER_UNKNOWN_COM_ERROR of a server that is no member, ER_QUERY_INTERRUPTED and its like.
        match e.code {
            // ER_TABLESPACE_DISCARDED.
            1814 => ReadError::Discarded,
            1213 | 1205 | 1412 | 1146 | 1049 | 1047 => ReadError::Disturbed(e.text),
            _ if e.is_lost() || e.is_no_stage() => ReadError::Disturbed(e.text),
            _ => ReadError::Over(Declined::Layout(format!("the server does not show its data: {e}")).into()),
        }
    }
}

impl From<Declined> for ReadError {
    fn from(e: Declined) -> Self {
        ReadError::Over(e.into())
    }
}

impl From<SnapshotError> for ReadError {
    fn from(e: SnapshotError) -> Self {
        ReadError::Over(e)
    }
}

impl From<anyhow::Error> for ReadError {
    fn from(e: anyhow::Error) -> Self {
        match e.chain().find_map(|cause| cause.downcast_ref::<SqlError>()) {
            Some(sql) => sql.clone().into(),
            None => ReadError::Over(e.into()),
        }
    }
}

/// The reason where a table without a tablespace is an error.
pub(super) fn discarded() -> Declined {
    Declined::Layout("a table has no tablespace where rows of it are needed".to_owned())
}

/// Under the locks: a table that changes there is no reason to begin again, the next try is.
impl From<ReadError> for TryError {
    fn from(e: ReadError) -> Self {
        match e {
            ReadError::Disturbed(why) => TryError::Again(crate::snapshot::online::locking::Again::Discarded(
                Declined::RowsDisturbed(why),
            )),
            ReadError::Discarded => TryError::Over(discarded().into()),
            ReadError::Over(e) => TryError::Over(e),
        }
    }
}
