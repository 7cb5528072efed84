//! How long to hold back pages that a requested checkpoint will write: a page that is copied before is sent twice. And
//! how long to hold back pages of which that is not known yet.
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use formats::Lsn;

use super::estimate::{Again, Prices, Redo};

/// Pages are held no longer than this many seconds without a sign that the server writes them.
const WORTH_MAX_S: f64 = 60.0;

/// Until the tail has read the redo that existed when the copy began, any page may be one of those that it changes. Pages
/// are held for that reason no longer than this, and not at all if the tail needs longer: a link that carries nothing
/// meanwhile costs as much as sending all of it again.
const KNOWN_WITHIN: Duration = Duration::from_secs(2);
/// How long the tail must have read until its speed is known, and how long until it must have read something.
const SPEED_AFTER: Duration = Duration::from_millis(100);
const BEGUN_WITHIN: Duration = Duration::from_millis(500);
/// Ranges that are read meanwhile all the same, so that the first byte is not delayed and the speed of the link becomes
/// known.
const READ_AHEAD: u32 = 16;

/// The redo that existed when the copy began.
pub struct OldRedo {
    began: Instant,
    from: Lsn,
    end: Lsn,
    /// Ranges that may be read before it is known.
    ahead: AtomicU32,
}

impl OldRedo {
    /// The tail reads it from `from` to `end`, from now on.
    pub fn new(began: Instant, from: Lsn, end: Lsn) -> OldRedo {
        OldRedo { began, from, end, ahead: AtomicU32::new(READ_AHEAD) }
    }

    /// Whether a range is better read later because the tail, which has come to `noted`, is about to know more. If not, the
    /// range is read now.
    pub fn is_waited_for(&self, noted: Lsn, now: Instant) -> bool {
        let less = |ahead: u32| ahead.checked_sub(1);
        noted < self.end
            && self.is_soon_known(noted, now)
            && self.ahead.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_err()
    }

    fn is_soon_known(&self, noted: Lsn, now: Instant) -> bool {
        let waited = now.saturating_duration_since(self.began);
        match noted.0.saturating_sub(self.from.0) {
            _ if waited < SPEED_AFTER => true,
            0 => waited < BEGUN_WITHIN,
            read => {
                let all = self.end.0.saturating_sub(self.from.0);
                waited.mul_f64(all as f64 / read as f64) <= KNOWN_WITHIN
            }
        }
    }
}

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

    /// A tail that reads 400 MB/s of this much old redo, and threads that would read one range after the other: how many
    /// milliseconds after the beginning the first ones are read, and for how many it then waits.
    fn held(megabytes: u64) -> (u64, u64) {
        let (began, from) = (Instant::now(), Lsn(10_000));
        let old = OldRedo::new(began, from, Lsn(from.0 + megabytes * 1_000_000));
        let at = |ms: u64| {
            (Lsn(from.0 + (ms * 400_000).min(megabytes * 1_000_000)), began + Duration::from_millis(ms))
        };
        let is_held = |ms: u64| {
            let (noted, now) = at(ms);
            old.is_waited_for(noted, now)
        };
        let first = (0..100_000).find(|ms| !is_held(*ms)).unwrap();
        let held = (first..100_000).filter(|ms| is_held(*ms)).count();
        (first, held as u64)
    }

    /// With a redo log of many GB, no large file was begun for as long as the tail took to read it.
    #[test]
    fn no_first_byte_waits_for_old_redo() {
        assert_eq!(held(0), (0, 0));
        let (first, waits) = held(600);
        assert!(
            first == 0 && (1400..1500).contains(&waits),
            "it is soon known which pages are in it: {waits}"
        );
        for megabytes in [1_000, 4_000, 16_000, 100_000] {
            let (first, waits) = held(megabytes);
            assert!(first == 0 && waits <= 100, "{megabytes} MB: {waits} ms");
        }
    }

    #[test]
    fn old_redo_is_not_waited_for_if_the_tail_does_not_come_on() {
        let (began, from) = (Instant::now(), Lsn(10_000));
        let old = OldRedo { ahead: AtomicU32::new(0), ..OldRedo::new(began, from, Lsn(600_000_000)) };
        let is_held = |ms, noted| old.is_waited_for(noted, began + Duration::from_millis(ms));
        assert!(is_held(400, from) && !is_held(600, from));
        // It has stopped halfway.
        assert!(is_held(900, Lsn(300_000_000)) && !is_held(1100, Lsn(300_000_000)));
        assert!(!is_held(0, Lsn(600_000_000)));
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
