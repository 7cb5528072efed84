//! What a server says of itself: its status, and its variables.
use std::collections::BTreeMap;

use formats::Lsn;
use mysql::prelude::Queryable;

use super::error::{Answer, SqlError};
use super::session::Session;

/// Where the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPosition {
    /// End of what was written to the buffer.
    pub current: Lsn,
    /// End of what is durable in the file.
    pub flushed: Lsn,
}

/// How busy a server is with its clients and its cluster; `None` where it does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Busyness {
    /// Statements of clients and write-sets of other members, since the server was started. This program's own do not count.
    pub requests: Option<u64>,
    /// Write-sets that wait to be applied.
    pub queue: Option<u64>,
    /// Messages of flow control that this node has sent.
    pub flow_control: Option<u64>,
}

impl Session {
    /// A status number; `None` when there is no such one.
    ///
    /// # Errors
    /// From the server.
    pub fn status_number(&mut self, name: &str) -> Answer<Option<i64>> {
        Ok(self.status(name)?.and_then(|text| text.parse().ok()))
    }

    /// A status text.
    ///
    /// # Errors
    /// From the server.
    pub fn status(&mut self, name: &str) -> Answer<Option<String>> {
        let like = name.replace('_', "\\_");
        let row: Option<(String, String)> =
            self.statement().query_first(format!("SHOW GLOBAL STATUS LIKE '{like}'"))?;
        Ok(row.map(|(_, value)| value))
    }

    /// A variable of this session, or the global one; `None` when there is no such one.
    ///
    /// # Errors
    /// From the server.
    pub fn variable(&mut self, name: &str) -> Answer<Option<String>> {
        let like = name.replace('_', "\\_");
        let row: Option<(String, String)> =
            self.statement().query_first(format!("SHOW VARIABLES LIKE '{like}'"))?;
        Ok(row.map(|(_, value)| value))
    }

    /// All global variables.
    ///
    /// # Errors
    /// From the server.
    pub fn variables(&mut self) -> Answer<BTreeMap<String, String>> {
        self.pairs("SHOW GLOBAL VARIABLES")
    }

    /// All of the global status.
    ///
    /// # Errors
    /// From the server.
    pub fn statuses(&mut self) -> Answer<BTreeMap<String, String>> {
        self.pairs("SHOW GLOBAL STATUS")
    }

    fn pairs(&mut self, question: &str) -> Answer<BTreeMap<String, String>> {
        let rows: Vec<(String, Option<String>)> = self.statement().query(question)?;
        Ok(rows.into_iter().map(|(name, value)| (name, value.unwrap_or_default())).collect())
    }

    /// Where the log is.
    ///
    /// # Errors
    /// From the server.
    pub fn log_position(&mut self) -> Answer<LogPosition> {
        let rows: Vec<(String, String)> =
            self.statement().query("SHOW GLOBAL STATUS LIKE 'Innodb\\_lsn\\_%'").map_err(SqlError::from)?;
        let number = |name: &str| {
            let row = rows.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
            let value = row.and_then(|(_, v)| v.parse().ok()).map(Lsn);
            value.ok_or_else(|| SqlError { code: u16::MAX, text: format!("the server has no status {name}") })
        };
        Ok(LogPosition { current: number("Innodb_lsn_current")?, flushed: number("Innodb_lsn_flushed")? })
    }

    /// Bytes of redo since the last checkpoint; `None` when the server does not tell.
    ///
    /// # Errors
    /// From the server.
    pub fn redo_since_checkpoint(&mut self) -> Answer<Option<u64>> {
        let (end, last) =
            (self.status_number("Innodb_lsn_current")?, self.status_number("Innodb_lsn_last_checkpoint")?);
        Ok(end.zip(last).and_then(|(end, last)| u64::try_from(end - last).ok()))
    }

    /// Pages of the buffer pool that the server has still to write; `None` when it does not tell.
    ///
    /// # Errors
    /// From the server.
    pub fn dirty_pages(&mut self) -> Answer<Option<u64>> {
        Ok(self.status_number("Innodb_buffer_pool_pages_dirty")?.and_then(|pages| u64::try_from(pages).ok()))
    }

    /// `wsrep_local_state`, 4 for Synced; `None` without a provider.
    ///
    /// # Errors
    /// From the server.
    pub fn local_state(&mut self) -> Answer<Option<i64>> {
        self.status_number("wsrep_local_state")
    }

    /// How busy the server is with its clients and its cluster.
    ///
    /// # Errors
    /// From the server.
    pub fn busyness(&mut self) -> Answer<Busyness> {
        let rows: Vec<(String, String)> = self.statement().query(
            "SHOW GLOBAL STATUS WHERE Variable_name IN \
             ('Questions', 'wsrep_received', 'wsrep_local_recv_queue', 'wsrep_flow_control_sent')",
        )?;
        let number = |name: &str| -> Option<u64> {
            let row = rows.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
            row.and_then(|(_, value)| value.parse().ok())
        };
        Ok(Busyness {
            requests: number("Questions")
                .map(|all| all.saturating_sub(Session::statements()) + number("wsrep_received").unwrap_or(0)),
            queue: number("wsrep_local_recv_queue"),
            flow_control: number("wsrep_flow_control_sent"),
        })
    }

    /// Undo logs that purge has not processed.
    ///
    /// # Errors
    /// From the server.
    pub fn history_length(&mut self) -> Answer<Option<i64>> {
        self.status_number("Innodb_history_list_length")
    }
}
