//! How long to hold back pages that a requested checkpoint will write: a page that is copied before is sent twice.
use std::time::{Duration, Instant};

use super::estimate::{Again, Prices, Redo};

/// Pages are held no longer than this many seconds without a sign that the server writes them.
const WORTH_MAX_S: f64 = 60.0;

/// The time that a checkpoint saves: the redo, and a second reading and sending of all pages that it writes.
pub fn worth_holding(prices: Prices, redo: Redo, page_size: u32) -> Duration {
    let again = Again { bytes: redo.touched.pages * u64::from(page_size), files: redo.touched.spaces };
    let seconds = prices.redo(redo) + prices.round(again, Redo::default());
    Duration::from_secs_f64(seconds.clamp(0.0, WORTH_MAX_S))
}

/// A requested checkpoint, and how many pages the server had to write for it.
pub struct Holding {
    asked: Instant,
    dirty_pages: Option<u64>,
}

impl Holding {
    /// `dirty_pages`: as the server counted them at the request.
    pub fn new(asked: Instant, dirty_pages: Option<u64>) -> Holding {
        Holding { asked, dirty_pages }
    }

    /// Until when pages are held if `dirty_pages` are left to write: for as long as the checkpoint is worth. A server
    /// that is slower, but will be done within as long again, is waited for.
    pub fn until(&self, now: Instant, dirty_pages: Option<u64>, worth: Duration) -> Instant {
        let least = self.asked + worth;
        match self.remaining(now, dirty_pages) {
            Some(remaining) if remaining <= worth => least.max(now + worth),
            _ => least,
        }
    }

    /// How long the server needs for the rest at its rate so far. `None` while pages become dirty as fast as it writes
    /// them.
    fn remaining(&self, now: Instant, dirty_pages: Option<u64>) -> Option<Duration> {
        let (before, left) = (self.dirty_pages?, dirty_pages?);
        let written = before.checked_sub(left).filter(|written| *written > 0)?;
        let elapsed = now.duration_since(self.asked);
        Some(elapsed.mul_f64(left as f64 / written as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::super::dirty::Touched;
    use super::*;

    /// A donor had 600 MB of redo over 35,217 pages, and its server took ten seconds to write them. Pages copied before
    /// that were sent twice: hundreds of megabytes for three changed rows.
    #[test]
    fn pages_are_held_for_as_long_as_sending_them_twice_would_take() {
        let redo = |pages| Redo { bytes: 633_800_000, touched: Touched { pages, spaces: 5 } };
        let prices = Prices::new(None, None, 0.0);
        assert!(worth_holding(prices, redo(35_217), 16384) > Duration::from_secs(13));
        assert!(worth_holding(prices, redo(35_217), 16384) > worth_holding(prices, redo(0), 16384));
        // Even on a link that carries nothing, the wait is bounded.
        let slow = Prices::new(None, Some(1), 0.0);
        assert_eq!(worth_holding(slow, redo(35_217), 16384), Duration::from_secs(60));
    }

    #[test]
    fn a_server_that_gets_ahead_is_waited_for() {
        let asked = Instant::now();
        let after = |seconds| asked + Duration::from_secs(seconds);
        let holding = Holding::new(asked, Some(1000));
        let worth = Duration::from_secs(2);
        // Three quarters are written after three seconds, so it needs one more.
        assert_eq!(holding.until(after(3), Some(250), worth), after(5));
        // A tenth is written: 27 seconds are left, which is more than the checkpoint is worth.
        assert_eq!(holding.until(after(3), Some(900), worth), after(2));
        // Pages become dirty as fast as they are written, or nothing is known.
        assert_eq!(holding.until(after(3), Some(1000), worth), after(2));
        assert_eq!(holding.until(after(3), Some(1200), worth), after(2));
        assert_eq!(holding.until(after(3), None, worth), after(2));
        // Nothing is left, and the record of the checkpoint is about to be written.
        assert_eq!(holding.until(after(3), Some(0), worth), after(5));
    }
}
