//! Ending a transfer early: a reason that every wait checks.
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::failure::{Failure, Kind, kind_of};
use crate::threads::{self, Thread};

/// How often a blocked wait checks whether it must end. It bounds how long a dead server goes unnoticed.
pub const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long a broken data connection waits for the peer's reason.
const SHADOW: Duration = Duration::from_millis(500);

/// A time limit for a transfer, until this value is dropped.
#[derive(Debug)]
pub struct Limit(#[expect(dead_code, reason = "its end is what counts")] Sender<()>);

/// Shared by all threads of a transfer. The first reason stays.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    reason: Arc<OnceLock<(Kind, String)>>,
    /// Our own server died or a signal came: see [`Cancel::end_now`].
    at_once: Arc<AtomicBool>,
}

impl Cancel {
    /// Not cancelled.
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// Ends the transfer for this reason, unless there already is another.
    pub fn cancel(&self, kind: Kind, reason: impl Into<String>) {
        let _ = self.reason.set((kind, reason.into()));
    }

    /// Ends the transfer for this reason after a time, unless the limit is dropped before.
    ///
    /// # Errors
    /// The thread that waits cannot be started.
    pub fn after(&self, thread: Thread, limit: Duration, reason: String) -> Result<Limit, Failure> {
        let (alive, ended) = channel();
        let cancel = self.clone();
        let watch = move || {
            if ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                cancel.cancel(Kind::Timeout, reason);
            }
        };
        threads::spawn(thread, watch)?;
        Ok(Limit(alive))
    }

    /// Our own server died, or we received a signal: ends the transfer, and also any wait after a failure
    /// ([`Cancel::sleep_unless_ended`]), whatever the first reason was.
    pub fn end_now(&self, kind: Kind, reason: impl Into<String>) {
        self.cancel(kind, reason);
        self.at_once.store(true, Ordering::Release);
    }

    /// Whether [`Cancel::end_now`] was called.
    pub fn is_ended_now(&self) -> bool {
        self.at_once.load(Ordering::Acquire)
    }

    /// Sleeps although the transfer has failed. True when [`Cancel::end_now`] ended the sleep early.
    pub fn sleep_unless_ended(&self, duration: Duration) -> bool {
        let end = Instant::now() + duration;
        while !self.is_ended_now() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            std::thread::sleep(left.min(LOOK_EVERY));
        }
        true
    }

    /// A data connection failed. Usually the peer has aborted and sends its reason on the control connection, so that
    /// reason gets a moment to arrive first.
    pub fn cancel_by_worker(&self, error: &anyhow::Error) {
        let kind = kind_of(error);
        if kind == Kind::Peer {
            let _ = self.sleep(SHADOW);
        }
        self.cancel(kind, format!("{error:#}"));
    }

    /// Fails with the reason once there is one.
    pub fn check(&self) -> Result<(), Failure> {
        match self.reason.get() {
            None => Ok(()),
            Some((kind, reason)) => Err(Failure::new(*kind, reason.clone())),
        }
    }

    /// Sleeps in steps of [`LOOK_EVERY`]; fails as soon as there is a reason.
    pub fn sleep(&self, duration: Duration) -> Result<(), Failure> {
        let end = Instant::now() + duration;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(LOOK_EVERY));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_transfer_can_still_sleep_and_is_woken_by_the_end_of_our_server() {
        let cancel = Cancel::new();
        cancel.cancel(Kind::Peer, "the donor closed the connection");
        assert!(cancel.sleep(Duration::from_secs(60)).is_err());
        let began = Instant::now();
        assert!(!cancel.sleep_unless_ended(Duration::from_millis(50)));
        assert!(began.elapsed() >= Duration::from_millis(50));
        let other = cancel.clone();
        let ends = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            other.end_now(Kind::Server, "our own server died");
        });
        assert!(cancel.sleep_unless_ended(Duration::from_secs(60)));
        assert_eq!(cancel.check().unwrap_err().kind, Kind::Peer, "the first reason stays");
        ends.join().unwrap();
    }
}
