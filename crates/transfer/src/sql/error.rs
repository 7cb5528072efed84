//! What a statement answers, and why it failed.

/// An error of a statement: the server's number where it answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct SqlError {
    /// Error number; 0 when the connection broke.
    pub code: u16,
    /// The server's text.
    pub text: String,
}

/// Of [`SqlError::over`]: no error number of a server's.
const OVER: u16 = u16::MAX - 1;
/// Of [`SqlError::hangs`].
const HANGS: u16 = u16::MAX - 2;

impl SqlError {
    /// The session that held the backup locks is gone.
    pub fn lost() -> SqlError {
        SqlError { code: 0, text: "the session that held the backup locks is gone".to_owned() }
    }

    /// The time for which the backup locks may be held is over, or the transfer was cancelled.
    pub fn over() -> SqlError {
        SqlError { code: OVER, text: "the time for holding the backup locks is over".to_owned() }
    }

    /// As [`SqlError::over`].
    pub fn is_over(&self) -> bool {
        self.code == OVER
    }

    /// The server does not pause the provider, because another session has paused it.
    pub fn hangs() -> SqlError {
        SqlError { code: HANGS, text: "the server has not paused replication yet".to_owned() }
    }

    /// As [`SqlError::hangs`].
    pub fn is_hanging(&self) -> bool {
        self.code == HANGS
    }

    /// ER_BACKUP_NOT_RUNNING: the stage had ended.
    pub fn is_no_stage(&self) -> bool {
        self.code == 4146
    }

    /// The session is gone: killed, or the server is.
    pub fn is_lost(&self) -> bool {
        // ER_SERVER_SHUTDOWN, ER_QUERY_INTERRUPTED, ER_CONNECTION_KILLED; 0: nothing came back.
        matches!(self.code, 0 | 1053 | 1317 | 1927)
    }

    /// The lock was not granted in time: ER_LOCK_WAIT_TIMEOUT, ER_LOCK_DEADLOCK, ER_STATEMENT_TIMEOUT.
    pub fn is_lock_wait(&self) -> bool {
        matches!(self.code, 1205 | 1213 | 1969)
    }

    /// ER_SPECIFIC_ACCESS_DENIED_ERROR, ER_ACCESS_DENIED_ERROR, ER_DBACCESS_DENIED_ERROR.
    pub fn is_denied(&self) -> bool {
        matches!(self.code, 1044 | 1045 | 1227)
    }
}

impl From<mysql::Error> for SqlError {
    fn from(error: mysql::Error) -> Self {
        match error {
            mysql::Error::MySqlError(e) => {
                SqlError { code: e.code, text: format!("{} ({})", e.message, e.code) }
            }
            other => SqlError { code: 0, text: other.to_string() },
        }
    }
}

/// What a statement gives.
pub type Answer<T> = Result<T, SqlError>;
