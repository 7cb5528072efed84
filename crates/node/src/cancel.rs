//! The one way a transfer is told to end early: a reason that every wait looks at.
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::failure::{Failure, Kind, kind_of};

/// How often a blocked wait looks whether it must end. Bounds how long a dead server goes unnoticed.
pub const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long a broken data connection waits for the peer's reason.
const SHADOW: Duration = Duration::from_millis(500);

/// Shared by all threads of a transfer. The first reason stays.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    reason: Arc<OnceLock<(Kind, String)>>,
}

impl Cancel {
    /// Nothing has happened yet.
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// Ends the transfer for this reason unless another came first.
    pub fn cancel(&self, kind: Kind, reason: impl Into<String>) {
        let _ = self.reason.set((kind, reason.into()));
    }

    /// A data connection failed. That its peer is gone is mostly the shadow of an abort whose reason comes on the control
    /// connection: that reason gets a moment to be the first.
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
