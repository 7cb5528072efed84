//! How many bytes of files the donor reads from the disk at once.
//!
//! A commit waits until its log is on the disk, and a disk serves it after what was asked for before. With eight reads of 1 MiB in flight
//! a log write took 37 ms at p99 where it took 2 ms with one, and no more was read (decision 0039).
use std::sync::{Condvar, Mutex, PoisonError};

use crate::cancel::LOOK_EVERY;
use crate::threads::lock;

/// So much is read at once while a server has clients: one range, or more of smaller files.
pub const CONSIDERATE: usize = 1 << 20;

/// Counts bytes that are being read.
#[derive(Debug, Default)]
pub struct InFlight {
    reading: Mutex<Reading>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Reading {
    bytes: usize,
    /// Turns are given in the order in which they are asked for: small reads would pass a large one for ever.
    asked: u64,
    given: u64,
}

/// The right to read some bytes now, until it is dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    in_flight: &'a InFlight,
    bytes: usize,
}

impl InFlight {
    /// Waits until so many bytes are read beside at most `most` together; `None` = no limit. What is larger is read alone. The limit
    /// may change meanwhile.
    pub fn turn(&self, bytes: usize, most: &dyn Fn() -> Option<usize>) -> Turn<'_> {
        let mut reading = lock(&self.reading);
        let number = reading.asked;
        reading.asked += 1;
        let fits = |now: usize| now == 0 || most().is_none_or(|most| now + bytes <= most);
        while reading.given != number || !fits(reading.bytes) {
            let waited = self.changed.wait_timeout(reading, LOOK_EVERY);
            reading = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        reading.given += 1;
        reading.bytes += bytes;
        drop(reading);
        self.changed.notify_all();
        Turn { in_flight: self, bytes }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.in_flight.reading).bytes -= self.bytes;
        self.in_flight.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// The most bytes that eight threads read at once, each ten times.
    fn most_at_once(bytes: usize) -> usize {
        let (in_flight, now, most) = (InFlight::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        let read = || {
            for _ in 0..10 {
                let _turn = in_flight.turn(bytes, &|| Some(CONSIDERATE));
                most.fetch_max(now.fetch_add(bytes, Ordering::SeqCst) + bytes, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(1));
                now.fetch_sub(bytes, Ordering::SeqCst);
            }
        };
        thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(read))));
        most.into_inner()
    }

    #[test]
    fn no_more_is_read_at_once_than_the_limit_and_what_is_larger_alone() {
        assert_eq!(most_at_once(CONSIDERATE), CONSIDERATE);
        assert_eq!(most_at_once(CONSIDERATE * 3), CONSIDERATE * 3);
        assert!((CONSIDERATE / 2..=CONSIDERATE).contains(&most_at_once(CONSIDERATE / 4)));
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let in_flight = InFlight::default();
        let _first = in_flight.turn(1, &|| Some(1));
        drop(in_flight.turn(1, &|| None));
    }

    #[test]
    fn a_limit_that_goes_lets_those_through_that_wait() {
        let (in_flight, limited) = (InFlight::default(), AtomicBool::new(true));
        let most = || limited.load(Ordering::SeqCst).then_some(1);
        let _first = in_flight.turn(1, &most);
        thread::scope(|scope| {
            let waits = scope.spawn(|| drop(in_flight.turn(1, &most)));
            thread::sleep(Duration::from_millis(20));
            assert!(!waits.is_finished());
            limited.store(false, Ordering::SeqCst);
        });
    }

    #[test]
    fn a_large_read_is_not_passed_by_small_ones() {
        let in_flight = InFlight::default();
        let most = || Some(4);
        let small = in_flight.turn(2, &most);
        thread::scope(|scope| {
            let large = scope.spawn(|| drop(in_flight.turn(4, &most)));
            thread::sleep(Duration::from_millis(20));
            let next = scope.spawn(|| drop(in_flight.turn(1, &most)));
            thread::sleep(Duration::from_millis(20));
            assert!(!large.is_finished() && !next.is_finished());
            drop(small);
        });
    }
}
