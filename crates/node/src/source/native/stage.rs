//! The backup locks, in a guard: whatever happens, they are given back.
//!
//! `BACKUP STAGE START, FLUSH, BLOCK_DDL, BLOCK_COMMIT, END` (sql/backup.cc, MariaDB 10.11). With a session that
//! takes part in replication BLOCK_DDL also desyncs and pauses the provider until END, *before* it asks for the lock
//! and without a timeout; so a try that fails is ended at once. If we die, the server ends the stage of the session
//! it loses.
use std::time::{Duration, Instant};

use super::login::Login;
use super::sql::{Answer, Session, Step};
use crate::cancel::Cancel;
use crate::failure::Failure;
use crate::source::declined::Declined;

/// How long START may wait for a running DDL statement at a time, in seconds.
const START_WAIT: u32 = 2;

/// A session that holds, or may hold, backup locks.
pub struct Stage {
    session: Session,
    login: Login,
    patience: Duration,
    held: bool,
    /// When the provider may have been paused.
    paused_since: Option<Instant>,
}

impl Stage {
    /// Opens the session. A statement may take `patience` until the session is given up.
    ///
    /// # Errors
    /// No login.
    pub fn open(login: &Login, patience: Duration) -> Result<Stage, Declined> {
        let session = open(login, patience)?;
        Ok(Stage { session, login: login.clone(), patience, held: false, paused_since: None })
    }

    /// The session, for questions.
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Opens a new session after the server ended this one, and with it the stage.
    ///
    /// # Errors
    /// No login.
    pub fn reopen(&mut self) -> Result<(), Declined> {
        self.held = false;
        self.paused_since = None;
        self.session = open(&self.login, self.patience)?;
        Ok(())
    }

    /// START, tried until `deadline`: it waits for some DDL itself.
    ///
    /// # Errors
    /// Not granted in time (the server's error), cancelled, or from the server.
    pub fn start(&mut self, deadline: Instant, cancel: &Cancel) -> Result<Answer<()>, Failure> {
        loop {
            cancel.check()?;
            let step = self.session.set_lock_wait_timeout(START_WAIT).and_then(|()| self.step(Step::Start));
            match step {
                Err(e) if e.is_lock_wait() && Instant::now() < deadline => {}
                answer => return Ok(answer),
            }
        }
    }

    /// FLUSH, then BLOCK_DDL without waiting for its lock.
    ///
    /// # Errors
    /// From the server; the caller ends the stage at once.
    pub fn flush(&mut self) -> Answer<()> {
        self.session.set_lock_wait_timeout(START_WAIT)?;
        self.step(Step::Flush)
    }

    /// BLOCK_DDL without waiting for its lock.
    ///
    /// # Errors
    /// From the server; the caller ends the stage at once.
    pub fn block_ddl(&mut self) -> Answer<()> {
        self.session.set_lock_wait_timeout(0)?;
        self.paused_since = Some(Instant::now());
        self.step(Step::BlockDdl)
    }

    /// BLOCK_COMMIT.
    ///
    /// # Errors
    /// From the server; the caller ends the stage at once.
    pub fn block_commit(&mut self) -> Answer<()> {
        self.session.set_lock_wait_timeout(START_WAIT)?;
        self.step(Step::BlockCommit)
    }

    /// END. Answers how long the provider may have been paused.
    ///
    /// # Errors
    /// From the server; the session must be given up then.
    pub fn end(&mut self) -> Answer<Duration> {
        let result = self.session.backup_stage(Step::End);
        // ER_BACKUP_NOT_RUNNING: the server has ended it already, as after a failed START.
        match result {
            Err(e) if e.code != 4144 => return Err(e),
            _ => {}
        }
        self.held = false;
        Ok(self.paused_since.take().map_or(Duration::ZERO, |since| since.elapsed()))
    }

    fn step(&mut self, step: Step) -> Answer<()> {
        self.held = true;
        self.session.backup_stage(step)
    }
}

#[cfg(not(feature = "unpaused"))]
fn open(login: &Login, patience: Duration) -> Result<Session, Declined> {
    Session::open(login, patience)
}

/// A test build, see the feature's word in Cargo.toml.
#[cfg(feature = "unpaused")]
fn open(login: &Login, patience: Duration) -> Result<Session, Declined> {
    let mut session = Session::open(login, patience)?;
    tracing::warn!(
        "TEST BUILD: replication is not paused in the settled moment; the joiner may come out wrong"
    );
    session.leave_replication().map_err(|e| Declined::SessionLost(e.to_string()))?;
    Ok(session)
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.held
            && let Err(e) = self.end()
        {
            tracing::warn!("BACKUP STAGE END failed ({e}); closing the session ends the stage");
        }
    }
}
