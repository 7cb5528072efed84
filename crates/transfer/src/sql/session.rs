//! A session with a server: every statement that this program runs is a named operation here.
//!
//! Names of variables and errors from sql/mysqld.cc, sql/wsrep_mysqld.cc and
//! include/mysqld_error.h, MariaDB 10.11.
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mysql::Conn;
use mysql::prelude::Queryable;

use super::error::{Answer, SqlError};
use super::login::{Login, NoLogin};
use crate::threads::lock;

/// DEFAULT would be what the operator set for all sessions.
const OF_EVERY_SESSION: &str =
    "sql_select_limit = 18446744073709551615, sql_big_selects = 1, autocommit = 1, completion_type = 0";

/// How long a server may take to answer the few questions that a transfer asks beside its snapshot.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Sessions of this program that hold no lock and run no DDL, whatever their statements look like.
static BYSTANDERS: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// Statements that this program has run, in all its sessions.
static STATEMENTS: AtomicU64 = AtomicU64::new(0);

/// One session.
pub struct Session {
    pub(super) conn: Conn,
    bystander: bool,
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.bystander {
            let id = self.id();
            lock(&BYSTANDERS).retain(|other| *other != id);
        }
    }
}

impl Session {
    /// Logs in. A statement that gives no answer for `patience` breaks the session.
    ///
    /// # Errors
    /// The login failed.
    pub fn open(login: &Login, patience: Duration) -> Result<Session, NoLogin> {
        let conn = login.connect(patience)?;
        let mut session = Session { conn, bystander: false };
        session.set_up().map_err(|e| NoLogin { answers: e.to_string(), advice: None })?;
        Ok(session)
    }

    /// Makes answers independent of what the operator set for all sessions: they are complete, and each question is a transaction of
    /// its own, which sees the present state and is over when it is answered.
    fn set_up(&mut self) -> Answer<()> {
        self.run(&format!("SET SESSION {OF_EVERY_SESSION}"))?;
        // Without it a statement waits for the appliers, which wait for us.
        match self.run("SET SESSION wsrep_sync_wait = 0") {
            // A server without Galera has no such variable: ER_UNKNOWN_SYSTEM_VARIABLE.
            Err(e) if e.code != 1193 => Err(e),
            _ => Ok(()),
        }
    }

    /// Runs one statement. Each is counted, because the server counts it among those of its clients.
    pub(crate) fn statement(&mut self) -> &mut Conn {
        STATEMENTS.fetch_add(1, Ordering::Relaxed);
        &mut self.conn
    }

    /// How many statements this program has run so far, in all its sessions.
    pub(super) fn statements() -> u64 {
        STATEMENTS.load(Ordering::Relaxed)
    }

    /// For the scenario that must find wrong joiners, in a test build only: the server does not pause replication for
    /// the backup locks of this session any more.
    ///
    /// # Errors
    /// From the server; needs SUPER.
    #[cfg(feature = "unpaused")]
    pub fn leave_replication(&mut self) -> Answer<()> {
        self.run("SET SESSION wsrep_on = OFF")
    }

    /// Marks this session as one that only measures the load: searches for lock holders and for DDL skip it.
    pub fn stands_by(&mut self) {
        if !std::mem::replace(&mut self.bystander, true) {
            lock(&BYSTANDERS).push(self.id());
        }
    }

    /// Whether a session of this number only looks at the load.
    pub(crate) fn is_bystander(session: u64) -> bool {
        lock(&BYSTANDERS).iter().any(|id| u64::from(*id) == session)
    }

    /// The server's number for this session.
    pub fn id(&self) -> u32 {
        self.conn.connection_id()
    }

    /// Seconds a lock may be waited for by this session; 0 does not wait.
    ///
    /// # Errors
    /// From the server.
    pub fn set_lock_wait_timeout(&mut self, seconds: u32) -> Answer<()> {
        self.run(&format!("SET SESSION lock_wait_timeout = {seconds}"))
    }

    /// Makes this a session that may hold locks: the server closes it after `idle` seconds without a statement, ends each
    /// statement after `statement` seconds, and waits for locks for `lock` seconds.
    ///
    /// # Errors
    /// From the server.
    pub fn set_holding(&mut self, idle: u32, statement: u32, lock: u32) -> Answer<()> {
        self.run(&format!(
            "SET SESSION wait_timeout = {idle}, max_statement_time = {statement}, lock_wait_timeout = {lock}"
        ))
    }

    /// Tells the server that we are there.
    ///
    /// # Errors
    /// The session is gone.
    pub fn ping(&mut self) -> Answer<()> {
        self.conn.ping().map_err(SqlError::from)
    }

    /// One step of the backup locks.
    ///
    /// # Errors
    /// From the server.
    pub fn backup_stage(&mut self, step: Step) -> Answer<()> {
        self.run(match step {
            Step::Start => "BACKUP STAGE START",
            Step::Flush => "BACKUP STAGE FLUSH",
            Step::BlockDdl => "BACKUP STAGE BLOCK_DDL",
            Step::BlockCommit => "BACKUP STAGE BLOCK_COMMIT",
            Step::End => "BACKUP STAGE END",
        })
    }

    /// Makes the log reach its file. Without effect when `innodb_flush_log_at_trx_commit` is 0.
    ///
    /// # Errors
    /// From the server.
    pub fn flush_engine_logs(&mut self) -> Answer<()> {
        self.run("FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS")
    }

    /// A checkpoint of all dirty pages now.
    ///
    /// # Errors
    /// From the server; needs SUPER.
    pub fn checkpoint_now(&mut self) -> Answer<()> {
        self.run("SET GLOBAL innodb_log_checkpoint_now = ON")
    }

    /// Whether [`Session::checkpoint_now`] would be allowed; OFF does nothing (`checkpoint_now_set`, handler/ha_innodb.cc).
    ///
    /// # Errors
    /// The session is gone.
    pub fn may_make_checkpoints(&mut self) -> Answer<bool> {
        match self.run("SET GLOBAL innodb_log_checkpoint_now = OFF") {
            Err(e) if e.is_denied() => Ok(false),
            Err(e) if e.is_lost() => Err(e),
            _ => Ok(true),
        }
    }

    /// The cluster's members as `(uuid, name, address for clients)`; none where the account may not read the table.
    ///
    /// # Errors
    /// The session is gone.
    pub fn members(&mut self) -> Answer<Vec<(String, String, String)>> {
        let question = "SELECT node_uuid, node_name, node_incoming_address FROM mysql.wsrep_cluster_members";
        match self.statement().query(question).map_err(SqlError::from) {
            Err(e) if !e.is_lost() => Ok(vec![]),
            answer => answer,
        }
    }

    /// Bytes of InnoDB's tablespaces; none where the account may not ask.
    ///
    /// # Errors
    /// The session is gone.
    pub fn innodb_bytes(&mut self) -> Answer<Option<u64>> {
        self.number_if_permitted(
            "SELECT CAST(SUM(FILE_SIZE) AS UNSIGNED) FROM information_schema.INNODB_SYS_TABLESPACES",
        )
    }

    /// Number of InnoDB's tablespaces; `None` without the right to know it.
    ///
    /// # Errors
    /// The connection is lost.
    pub fn tablespaces(&mut self) -> Answer<Option<u64>> {
        self.number_if_permitted("SELECT COUNT(*) FROM information_schema.INNODB_SYS_TABLESPACES")
    }

    /// A number that a question answers; `None` if there is none, or the server does not answer it to us.
    fn number_if_permitted(&mut self, question: &str) -> Answer<Option<u64>> {
        match self.statement().query_first(question).map_err(SqlError::from) {
            Err(e) if !e.is_lost() => Ok(None),
            answer => Ok(answer?.flatten()),
        }
    }

    /// Names of InnoDB's tablespaces in use, `database/table` as in the file's path.
    ///
    /// # Errors
    /// From the server; needs PROCESS.
    pub fn innodb_tablespaces(&mut self) -> Answer<HashSet<String>> {
        let names: Vec<String> =
            self.statement().query("SELECT NAME FROM information_schema.INNODB_SYS_TABLESPACES")?;
        Ok(names.into_iter().collect())
    }

    /// Whether this session may see the statements of others, which needs PROCESS.
    ///
    /// # Errors
    /// The session is gone.
    pub fn sees_others(&mut self) -> Answer<bool> {
        match self.run("SHOW ENGINE INNODB STATUS") {
            Err(e) if e.is_denied() => Ok(false),
            Err(e) if e.is_lost() => Err(e),
            _ => Ok(true),
        }
    }

    /// Asks for the end of the binary log, which needs BINLOG MONITOR.
    ///
    /// # Errors
    /// From the server.
    pub fn binlog_end(&mut self) -> Answer<()> {
        self.run("SHOW MASTER STATUS")
    }

    /// The GTID state of the binary log, one GTID a line.
    ///
    /// # Errors
    /// From the server.
    pub fn gtid_binlog_state(&mut self) -> Answer<String> {
        let list: Option<String> = self.statement().query_first("SELECT @@GLOBAL.gtid_binlog_state")?;
        let list = list.unwrap_or_default();
        Ok(list.split(',').filter(|gtid| !gtid.is_empty()).map(|gtid| format!("{gtid}\n")).collect())
    }

    /// `user@host` that this session is checked as.
    ///
    /// # Errors
    /// From the server.
    pub fn current_user(&mut self) -> Answer<String> {
        Ok(self.statement().query_first("SELECT CURRENT_USER()")?.unwrap_or_default())
    }

    /// The name with which this session logged in.
    ///
    /// # Errors
    /// From the server.
    pub fn user_name(&mut self) -> Answer<String> {
        let user: Option<String> = self.statement().query_first("SELECT USER()")?;
        Ok(user.unwrap_or_default().rsplit_once('@').map_or_else(String::new, |(name, _)| name.to_owned()))
    }

    /// Other sessions of this account that are in the middle of a step of the backup locks.
    ///
    /// # Errors
    /// From the server.
    pub fn own_backups(&mut self) -> Answer<Vec<u32>> {
        Ok(self.statement().query(
            "SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE 'BACKUP STAGE%' AND ID <> CONNECTION_ID() \
             AND USER = SUBSTRING_INDEX(USER(), '@', 1)",
        )?)
    }

    /// Ends another session of ours.
    ///
    /// # Errors
    /// From the server.
    pub fn kill(&mut self, session: u32) -> Answer<()> {
        self.run(&format!("KILL CONNECTION {session}"))
    }

    /// A statement that has no answer.
    pub(super) fn run(&mut self, statement: &str) -> Answer<()> {
        self.statement().query_drop(statement).map_err(SqlError::from)
    }
}

/// Steps of the backup locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// One backup at a time.
    Start,
    /// Tables of engines without transactions are flushed.
    Flush,
    /// DDL waits, and the provider is paused.
    BlockDdl,
    /// Commits wait.
    BlockCommit,
    /// Everything goes on.
    End,
}
