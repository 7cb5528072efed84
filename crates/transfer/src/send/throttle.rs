//! The rate limit (`rlimit`): one budget for all that is sent, pages and redo alike.
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How far ahead of the rate bytes may be sent, as a time.
const BURST: Duration = Duration::from_millis(200);

/// Says when bytes may be sent, for a given rate.
pub struct Throttle {
    /// Bytes per second; `None` = no limit.
    rate: Option<u64>,
    /// When everything admitted so far would be sent at the given rate.
    paid_until: Mutex<Instant>,
}

impl Throttle {
    /// `rate`: bytes per second; `None` = no limit.
    pub fn new(rate: Option<u64>) -> Throttle {
        Throttle { rate: rate.filter(|r| *r > 0), paid_until: Mutex::new(Instant::now()) }
    }

    /// Bytes per second; `None` = no limit.
    pub fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// Takes the right to send `bytes` more, and returns how long to wait before they are sent.
    pub fn pay(&self, bytes: usize) -> Duration {
        let Some(rate) = self.rate else { return Duration::ZERO };
        let price = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let now = Instant::now();
        let mut until = self.paid_until.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *until = (*until).max(now) + price;
        until.saturating_duration_since(now + BURST)
    }
}
