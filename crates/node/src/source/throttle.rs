//! The rate limit (`rlimit`): one budget for all workers.
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::cancel::Cancel;
use crate::failure::Failure;

/// Bytes that may be sent ahead of the rate, as a time.
const BURST: Duration = Duration::from_millis(200);

/// Lets bytes through at a given rate.
pub struct Throttle {
    /// Bytes a second; `None` = no limit.
    rate: Option<u64>,
    /// When everything let through so far would be sent at the given rate.
    paid_until: Mutex<Instant>,
}

impl Throttle {
    /// `rate` in bytes a second.
    pub fn new(rate: Option<u64>) -> Throttle {
        Throttle { rate: rate.filter(|r| *r > 0), paid_until: Mutex::new(Instant::now()) }
    }

    /// Waits until `bytes` more may be sent.
    pub fn pay(&self, bytes: usize, cancel: &Cancel) -> Result<(), Failure> {
        let Some(rate) = self.rate else { return Ok(()) };
        let price = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let now = Instant::now();
        let wait = {
            let mut until = self.paid_until.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            *until = (*until).max(now) + price;
            until.saturating_duration_since(now + BURST)
        };
        cancel.sleep(wait)
    }
}
