//! Ends the sessions of a snapshot early. A session cannot be interrupted while it waits for its server, which may be sorting, or
//! waiting for a disk or a lock. So one thread watches everything that may end the snapshot, and kills the sessions over one that was
//! opened beforehand: later the server may accept no more connections.
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::error::ReadError;
use crate::cancel::Cancel;
use crate::failure::Failure;
use crate::panics::caught;
use crate::snapshot::declined::{Declined, SnapshotError};
use crate::snapshot::online::stage;
use crate::sql::Session;
use crate::threads::{Thread, lock, scoped};

/// How often it looks.
const LOOK: Duration = Duration::from_millis(50);
/// How often the session that keeps the tables open is asked whether it still does.
const GUARDIAN_EVERY: Duration = Duration::from_secs(3);

/// What may end a snapshot early.
pub(super) struct RowWatch<'a> {
    ender: Mutex<Session>,
    sessions: Vec<u32>,
    cancel: &'a Cancel,
    /// Locks that are held until everything is read, and for how long they may be.
    locks: Mutex<Option<(stage::Watch, Duration)>>,
    guardian: Mutex<Option<Session>>,
    why: Mutex<Option<Ended>>,
    over: AtomicBool,
}

/// Why the sessions were ended, if not because the transfer was cancelled.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ended {
    /// Locks were held for so long.
    HeldTooLong(Duration),
    /// What is read is no longer one state.
    Disturbed(String),
}

impl From<Ended> for ReadError {
    fn from(ended: Ended) -> ReadError {
        match ended {
            Ended::HeldTooLong(limit) => Declined::HeldTooLong { limit }.into(),
            Ended::Disturbed(why) => ReadError::Disturbed(why),
        }
    }
}

impl<'a> RowWatch<'a> {
    /// Of these sessions. `ender` ends them.
    pub fn new(ender: Session, sessions: Vec<u32>, cancel: &'a Cancel) -> RowWatch<'a> {
        RowWatch {
            ender: Mutex::new(ender),
            sessions,
            cancel,
            locks: Mutex::default(),
            guardian: Mutex::default(),
            why: Mutex::default(),
            over: AtomicBool::new(false),
        }
    }

    /// Watches while `body` runs.
    ///
    /// # Errors
    /// From `body`, or why its sessions were ended.
    pub fn during<T>(&self, body: impl FnOnce() -> Result<T, ReadError>) -> Result<T, ReadError> {
        let done = std::thread::scope(|scope| {
            let watching = scoped(scope, Thread::RowWatch, || self.run());
            let done = caught(|| Ok(body()));
            self.over.store(true, Ordering::Release);
            watching.join()?;
            done
        });
        done?.map_err(|error| self.reason(error))
    }

    /// Locks must be held until everything is read, and for no longer than `limit`.
    pub fn needs(&self, locks: stage::Watch, limit: Duration) {
        *lock(&self.locks) = Some((locks, limit));
    }

    /// This session keeps tables open in its transaction.
    pub fn asks(&self, guardian: Session) {
        *lock(&self.guardian) = Some(guardian);
    }

    /// Fails if a definition has changed since the tables were opened.
    ///
    /// # Errors
    /// One has.
    pub fn check_definitions(&self) -> Result<(), ReadError> {
        match self.disturbed() {
            None => Ok(()),
            Some(why) => Err(ReadError::Disturbed(why)),
        }
    }

    /// What ends the transfer.
    pub fn cancel(&self) -> &'a Cancel {
        self.cancel
    }

    /// Fails once the transfer is cancelled.
    ///
    /// # Errors
    /// It is.
    pub fn check(&self) -> Result<(), Failure> {
        self.cancel.check()
    }

    /// Ends one of the sessions: what it reads is of no use.
    pub fn end(&self, session: u32) {
        // It fails if the session is gone.
        let _ = lock(&self.ender).kill(session);
    }

    /// Ends all sessions that read: what they read is of no use. The one that keeps tables open can still say whether it does.
    pub fn end_reading(&self) {
        let guardian = lock(&self.guardian).as_ref().map(Session::id);
        self.sessions.iter().filter(|id| Some(**id) != guardian).for_each(|id| self.end(*id));
    }

    fn end_all(&self) {
        self.sessions.iter().for_each(|id| self.end(*id));
    }

    fn run(&self) -> anyhow::Result<()> {
        let mut asked = Instant::now();
        while !self.over.load(Ordering::Acquire) {
            let mut why = self.locks_are_over();
            if why.is_none() && asked.elapsed() >= GUARDIAN_EVERY {
                why = self.disturbed().map(Ended::Disturbed);
                asked = Instant::now();
            }
            if why.is_some() || self.cancel.check().is_err() {
                *lock(&self.why) = why;
                self.end_all();
                break;
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Why the locks that are needed may no longer be held.
    fn locks_are_over(&self) -> Option<Ended> {
        let locks = lock(&self.locks).clone();
        let (watch, limit) = locks?;
        match watch.check() {
            Ok(()) => None,
            Err(e) if e.is_over() => Some(Ended::HeldTooLong(limit)),
            Err(e) => Some(Ended::Disturbed(e.text)),
        }
    }

    /// Why the tables may no longer be open.
    fn disturbed(&self) -> Option<String> {
        match lock(&self.guardian).as_mut()?.has_view() {
            Ok(true) => None,
            Ok(false) => Some("a table was changed by DDL while rows were read".to_owned()),
            Err(e) => Some(e.text),
        }
    }

    /// What ended the snapshot. A session that was ended says only that it is gone.
    fn reason(&self, error: ReadError) -> ReadError {
        if let Err(cancelled) = self.cancel.check() {
            return anyhow::Error::from(cancelled).into();
        }
        // The locks' own session may have failed a moment before the thread has looked.
        let why = lock(&self.why).clone().or_else(|| self.locks_are_over());
        match (why, error) {
            (Some(why), _) => why.into(),
            // Whatever the server said of a table: its definition may have changed since it was described.
            (None, ReadError::Over(SnapshotError::Declined(said))) if self.disturbed().is_some() => {
                ReadError::Disturbed(said.to_string())
            }
            (None, error) => error,
        }
    }
}
