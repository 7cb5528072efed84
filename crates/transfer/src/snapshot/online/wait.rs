//! The wait for the consistency point: pauses between tries, who is in the way, and when it is over.
//!
//! What holds a lock passes by itself: it is waited for, by name, for as long as the operator allows. A try disturbs the
//! donor's clients a little, so the pauses grow.
use std::time::{Duration, Instant};

use super::holders;
use super::settle::{Again, Held};
use crate::cancel::Cancel;
use crate::snapshot::declined::{Declined, SnapshotError};
use crate::snapshot::sink::SnapshotSink;
use crate::sql::Session;

/// Pauses between the first tries, in milliseconds: long enough for a short statement to end, different each time.
const FIRST: [u64; 10] = [170, 130, 290, 210, 100, 170, 130, 290, 210, 100];
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long a DDL statement is looked at again and again before the pauses grow.
const LOOK: Duration = Duration::from_millis(100);
/// What takes longer is said.
const SAID_AFTER: Duration = Duration::from_secs(1);
/// How often the wait is logged.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// Moments that were not what they must be: a server that does not pause will not pause the next time either.
const DISCARDED_MAX: u32 = 4;
/// Sessions that may be lost: somebody ends each of them.
const LOST_MAX: u32 = 10;
/// Tries that may take too long: what they would have to read does not become less.
const TOO_LONG_MAX: u32 = 2;

/// One wait.
pub struct Wait<'a> {
    limit: Duration,
    cancel: &'a Cancel,
    sink: &'a dyn SnapshotSink,
    began: Instant,
    /// Tries so far.
    pub tries: u32,
    /// What failed tries held the provider for, together.
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

    /// A try failed: waits before the next one, and says for whom when that takes long. `ours` are sessions of our own.
    ///
    /// # Errors
    /// The limit is over, or this server does not serve; cancelled.
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

    /// Waits behind somebody.
    fn behind(&mut self, held: &Held, observer: &mut Session, ours: &[u32]) -> Result<(), SnapshotError> {
        let waited = self.began.elapsed();
        if waited >= SAID_AFTER || waited >= self.limit {
            let holder = match observer.see(ours) {
                Ok(seen) => holders::name(&seen),
                Err(e) => format!("who holds it cannot be asked: {e}"),
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
