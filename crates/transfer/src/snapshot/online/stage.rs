//! The backup locks, in a guard: whatever happens to us, the server releases them.
//!
//! `BACKUP STAGE START, FLUSH, BLOCK_DDL, BLOCK_COMMIT, END` (sql/backup.cc, MariaDB 10.11). If the session takes part
//! in replication, BLOCK_DDL also desyncs and pauses the provider until END, *before* it asks for the lock; so a try
//! that fails is ended at once.
//!
//! The session belongs to a thread of its own, and its `wait_timeout` is `LETS_GO_AFTER_S`. The thread sends a ping
//! every `PING_EVERY` while no statement runs. If this program is stopped or starved, no ping arrives, and the server
//! closes the session and thereby ends the stage. If [`Stage::end`] succeeds, the stage was held without a gap since
//! START: END succeeds only in the session that holds the stage, and a closed session answers nothing.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::cancel::Cancel;
use crate::snapshot::declined::Declined;
use crate::sql::Login;
use crate::sql::{Answer, Session, SqlError, Step};
use crate::threads::{self, Thread};

/// How long a step may wait for its lock, in seconds. A waiting START delays `LOCK TABLES ... WRITE` of other sessions.
const LOCK_WAIT_S: u32 = 1;
/// After this many seconds without a ping the server closes the session and ends the stage.
const LETS_GO_AFTER_S: u32 = 3;
/// How often the server is pinged while no statement runs.
const PING_EVERY: Duration = Duration::from_millis(500);
/// How long a statement may run while the session holds locks, in seconds.
const STATEMENT_S: u32 = 10;
/// How long the server may leave a statement unanswered. Then the thread ends, and the session with it.
const SILENCE: Duration = Duration::from_secs(60);
/// How long the provider may take to pause: it has no timeout of its own, and KILL does not end it (MariaDB 10.11).
const PAUSE_WITHIN: Duration = Duration::from_secs(5);
/// How often a wait for an answer checks whether it must end.
const LOOK: Duration = Duration::from_millis(50);

type Question = Box<dyn FnOnce(&mut Session) + Send>;

/// A session that holds, or may hold, backup locks. Dropping it releases them.
pub struct Stage {
    questions: Option<Sender<Question>>,
    id: u32,
    watch: Watch,
    /// START succeeded, and there was no END since.
    entered: bool,
    /// Since when the provider may have been paused.
    paused_since: Option<Instant>,
}

/// Tells whether the stage may still be held.
#[derive(Clone, Debug)]
pub struct Watch {
    alive: Arc<AtomicBool>,
    until: Instant,
    cancel: Cancel,
}

impl Watch {
    /// Fails if the session is gone, its time is over, or the transfer was cancelled.
    ///
    /// # Errors
    /// [`SqlError::lost`] or [`SqlError::over`].
    pub fn check(&self) -> Answer<()> {
        if !self.alive.load(Ordering::Acquire) {
            return Err(SqlError::lost());
        }
        if self.is_over() { Err(SqlError::over()) } else { Ok(()) }
    }

    fn is_over(&self) -> bool {
        Instant::now() > self.until || self.cancel.check().is_err()
    }
}

impl Stage {
    /// Opens the session, for `limit` at most.
    ///
    /// # Errors
    /// No login.
    pub fn open(login: &Login, limit: Duration, cancel: &Cancel) -> Result<Stage, Declined> {
        let mut session = open(login)?;
        let guarded = session.set_holding(LETS_GO_AFTER_S, STATEMENT_S, LOCK_WAIT_S);
        guarded.map_err(|e| Declined::SessionLost(e.to_string()))?;
        let id = session.id();
        let until = Instant::now() + limit;
        let watch = Watch { alive: Arc::new(AtomicBool::new(true)), until, cancel: cancel.clone() };
        let (questions, asked) = channel();
        let serving = watch.clone();
        let serve = move || {
            serve(session, &asked, &serving);
            serving.alive.store(false, Ordering::Release);
        };
        threads::spawn(Thread::BackupLocks, serve).map_err(|e| Declined::Layout(e.to_string()))?;
        Ok(Stage { questions: Some(questions), id, watch, entered: false, paused_since: None })
    }

    /// Connection ID of the session.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Tells other threads whether the stage may still be held.
    pub fn watch(&self) -> Watch {
        self.watch.clone()
    }

    /// Runs `question` in the session.
    ///
    /// # Errors
    /// From the server, or as [`Watch::check`]. The session is given up unless the server answered.
    pub fn ask<T: Send + 'static>(
        &mut self,
        question: impl FnOnce(&mut Session) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        self.ask_within(SILENCE, question)
    }

    fn ask_within<T: Send + 'static>(
        &mut self,
        patience: Duration,
        question: impl FnOnce(&mut Session) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        let (tell, told) = channel();
        let question = Box::new(move |session: &mut Session| drop(tell.send(question(session))));
        let sent = self.questions.as_ref().is_some_and(|questions| questions.send(question).is_ok());
        let answer = match sent {
            true => self.wait_for(&told, patience),
            false => Err(SqlError::lost()),
        };
        if answer.as_ref().is_err_and(|e| e.is_lost() || e.is_over() || e.is_hanging()) {
            self.give_up();
        }
        answer
    }

    fn wait_for<T>(&self, told: &Receiver<Answer<T>>, patience: Duration) -> Answer<T> {
        let until = Instant::now() + patience;
        loop {
            match told.recv_timeout(LOOK) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Disconnected) => return Err(SqlError::lost()),
                // The statement may hang in the provider. Nothing can end it, but we need not wait for it.
                Err(RecvTimeoutError::Timeout) if self.watch.is_over() => return Err(SqlError::over()),
                Err(RecvTimeoutError::Timeout) if Instant::now() > until => return Err(SqlError::hangs()),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Lets the thread end, which closes the session.
    fn give_up(&mut self) {
        self.questions = None;
        self.entered = false;
    }

    /// Runs BACKUP STAGE START.
    ///
    /// # Errors
    /// As [`Stage::ask`]; nothing is held then.
    pub fn start(&mut self) -> Answer<()> {
        self.ask(|session| session.backup_stage(Step::Start))?;
        self.entered = true;
        Ok(())
    }

    /// Runs BACKUP STAGE FLUSH.
    ///
    /// # Errors
    /// As [`Stage::ask`]; the caller ends the stage at once.
    pub fn flush(&mut self) -> Answer<()> {
        self.ask(|session| session.backup_stage(Step::Flush))
    }

    /// Runs BACKUP STAGE BLOCK_DDL without waiting for its lock.
    ///
    /// # Errors
    /// As [`Stage::ask`]; the caller ends the stage at once. [`SqlError::hangs`]: another session has paused the
    /// provider, and our session waits for it and has to be killed.
    pub fn block_ddl(&mut self) -> Answer<()> {
        self.ask(|session| session.set_lock_wait_timeout(0))?;
        self.paused_since = Some(Instant::now());
        self.ask_within(PAUSE_WITHIN, |session| session.backup_stage(Step::BlockDdl))
    }

    /// Runs BACKUP STAGE BLOCK_COMMIT.
    ///
    /// # Errors
    /// As [`Stage::ask`]; the caller ends the stage at once.
    pub fn block_commit(&mut self) -> Answer<()> {
        self.ask(|session| {
            session.set_lock_wait_timeout(LOCK_WAIT_S)?;
            session.backup_stage(Step::BlockCommit)
        })
    }

    /// Runs BACKUP STAGE END. Success proves that the stage was held until now.
    ///
    /// # Errors
    /// As [`Stage::ask`]: the stage had ended before, or ends with the session.
    pub fn end(&mut self) -> Answer<()> {
        if !self.entered {
            return Err(SqlError::lost());
        }
        self.entered = false;
        self.ask(|session| session.backup_stage(Step::End))
    }

    /// How long the provider can have been paused.
    pub fn paused_for(&self) -> Duration {
        self.paused_since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.entered
            && let Err(e) = self.end()
        {
            tracing::debug!("BACKUP STAGE END was not answered ({e}): the stage ends with its session");
        }
    }
}

/// Runs questions and keeps the session alive between them, until no more can come, the session is gone, or its time is
/// over. The session is closed on return.
fn serve(mut session: Session, questions: &Receiver<Question>, watch: &Watch) {
    loop {
        match questions.recv_timeout(PING_EVERY) {
            Ok(question) => question(&mut session),
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) if watch.is_over() || session.ping().is_err() => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

#[cfg(not(feature = "unpaused"))]
fn open(login: &Login) -> Result<Session, Declined> {
    Ok(Session::open(login, SILENCE)?)
}

/// Test build: see the feature `unpaused` in Cargo.toml.
#[cfg(feature = "unpaused")]
fn open(login: &Login) -> Result<Session, Declined> {
    let mut session = Session::open(login, SILENCE)?;
    tracing::warn!(
        "TEST BUILD: replication is not paused in the consistency point; the joiner may come out wrong"
    );
    session.leave_replication().map_err(|e| Declined::SessionLost(e.to_string()))?;
    Ok(session)
}
