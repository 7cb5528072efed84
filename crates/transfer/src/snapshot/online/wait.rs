//! The wait for the consistency point: pauses between tries, the session that blocks us, and when to give up.
//!
//! Locks of other sessions end by themselves, so their holder is named and waited for as long as the operator allows. A
//! try disturbs the donor's clients a little, so the pauses grow.
use std::time::{Duration, Instant};

use super::holders;
use super::locking::{Again, Held};
use crate::cancel::Cancel;
use crate::snapshot::declined::{Declined, SnapshotError};
use crate::snapshot::sink::SnapshotSink;
use crate::sql::Session;

/// Pauses between the first tries, in milliseconds: long enough for a short statement to end, different each time.
const FIRST: [u64; 10] = [170, 130, 290, 210, 100, 170, 130, 290, 210, 100];
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often a DDL statement is checked before the pauses grow.
const LOOK: Duration = Duration::from_millis(100);
/// A wait that is longer than this is reported.
const SAID_AFTER: Duration = Duration::from_secs(1);
/// How often the wait is logged.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// How many consistency points may be invalid: a server that does not pause replication will not pause it the next time
/// either.
const DISCARDED_MAX: u32 = 4;
/// How many sessions may be lost: something ends each of them.
const LOST_MAX: u32 = 10;
/// How many tries may take too long: the amount to read under the locks does not become less.
const TOO_LONG_MAX: u32 = 2;

/// The wait for one consistency point.
pub struct Wait<'a> {
    limit: Duration,
    cancel: &'a Cancel,
    sink: &'a dyn SnapshotSink,
    began: Instant,
    /// Tries so far.
    pub tries: u32,
    /// How long failed tries paused the provider, in total.
    pub failed_held: Duration,
    discarded: u32,
    lost: u32,
    too_long: u32,
    logged: Option<Instant>,
}

impl<'a> Wait<'a> {
    /// Nothing was tried yet.
    pub fn new(limit: Duration, cancel: &'a Cancel, sink: &'a dyn SnapshotSink) -> Wait<'a> {
        Wait {
            limit,
            cancel,
            sink,
            began: Instant::now(),
            tries: 0,
            failed_held: Duration::ZERO,
            discarded: 0,
            lost: 0,
            too_long: 0,
            logged: None,
        }
    }

    /// Handles a failed try: pauses before the next one, and names the session that blocks us if the wait is long.
    /// `ours`: our own sessions.
    ///
    /// # Errors
    /// The limit is over, this snapshot is not possible, or cancelled.
    pub fn after(
        &mut self,
        again: Again,
        held: Duration,
        observer: &mut Session,
        ours: Vec<u32>,
    ) -> Result<(), SnapshotError> {
        self.failed_held += held;
        match again {
            Again::Held(held) => return self.behind(&held, observer, &ours),
            Again::Lost(e) => {
                tracing::warn!(
                    "the backup locks were lost before the consistency point was complete ({e}); it is tried again"
                );
                self.lost += 1;
                if self.lost >= LOST_MAX {
                    return Err(Declined::SessionLost(e.to_string()).into());
                }
            }
            Again::TooLong { held } => {
                tracing::warn!(
                    "the consistency point was not complete after {} s; it is tried again",
                    held.as_secs()
                );
                self.too_long += 1;
                if self.too_long >= TOO_LONG_MAX {
                    return Err(Declined::TooLong { held }.into());
                }
            }
            Again::Discarded(why) => {
                tracing::info!("the consistency point was discarded: {why}");
                self.discarded += 1;
                if self.discarded >= DISCARDED_MAX {
                    return Err(why.into());
                }
            }
        }
        self.sleep(self.pause())
    }

    /// Waits for another session.
    fn behind(&mut self, held: &Held, observer: &mut Session, ours: &[u32]) -> Result<(), SnapshotError> {
        let waited = self.began.elapsed();
        if waited >= SAID_AFTER || waited >= self.limit {
            let holder = match observer.see(ours) {
                Ok(seen) => holders::name(&seen),
                Err(e) => format!("the session that holds the lock is unknown: {e}"),
            };
            let holder = match held {
                Held::Paused => format!(
                    "another session has paused or desynced replication (FLUSH TABLES WITH READ LOCK, an RSU statement): {holder}"
                ),
                _ => holder,
            };
            if waited >= self.limit {
                return Err(Declined::NotGranted { waited, tries: self.tries, holder }.into());
            }
            self.say(&holder, waited);
        }
        let pause = if *held == Held::Ddl && waited < SAID_AFTER * 10 { LOOK } else { self.pause() };
        self.sleep(pause)
    }

    fn say(&mut self, holder: &str, waited: Duration) {
        let text = format!("waiting for the consistency point: {holder}");
        if self.logged.is_none_or(|logged| logged.elapsed() >= LOG_EVERY) {
            let limit = self.limit.as_secs();
            tracing::info!(
                "{text} (waited {} s; consistency-point-timeout={limit} ends it)",
                waited.as_secs()
            );
            self.logged = Some(Instant::now());
        }
        self.sink.waits(Some(&text));
    }

    fn pause(&self) -> Duration {
        match FIRST.get(self.tries as usize) {
            Some(ms) => Duration::from_millis(*ms),
            None => {
                let doubled = self.tries as usize - FIRST.len();
                PAUSE_MAX.min(Duration::from_millis(250 << doubled.min(8)))
            }
        }
    }

    fn sleep(&self, pause: Duration) -> Result<(), SnapshotError> {
        let left = self.limit.saturating_sub(self.began.elapsed()).max(Duration::from_millis(1));
        self.cancel.sleep(pause.min(left)).map_err(|e| anyhow::Error::from(e).into())
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if self.logged.is_some() {
            tracing::info!("waited {:.1} s for the consistency point", self.began.elapsed().as_secs_f64());
        }
        self.sink.waits(None);
    }
}
