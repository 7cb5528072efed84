//! How many bytes of files the donor reads from the disk at once.
//!
//! A commit waits until its log is on the disk, and a disk serves it after what was asked for before. With eight reads of 1 MiB in flight
//! a log write took 37 ms at p99 where it took 2 ms with one, and no more was read (docs/figures.md, "A busy donor").
use std::sync::{Condvar, Mutex, PoisonError};

use crate::threads::lock;

/// So much is read at once while a server has clients: one range, or more of smaller files.
pub const CONSIDERATE: usize = 1 << 20;

/// Counts bytes that are being read.
#[derive(Debug, Default)]
pub struct InFlight {
    reading: Mutex<usize>,
    ended: Condvar,
}

/// The right to read some bytes now, until it is dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    in_flight: &'a InFlight,
    bytes: usize,
}

impl InFlight {
    /// Waits until so many bytes are read beside at most `most` together; `None` = no limit. What is larger is read alone.
    pub fn turn(&self, bytes: usize, most: Option<usize>) -> Turn<'_> {
        let must_wait =
            |reading: &mut usize| *reading > 0 && most.is_some_and(|most| *reading + bytes > most);
        let waited = self.ended.wait_while(lock(&self.reading), must_wait);
        *waited.unwrap_or_else(PoisonError::into_inner) += bytes;
        Turn { in_flight: self, bytes }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *lock(&self.in_flight.reading) -= self.bytes;
        // Those that wait ask for different numbers of bytes.
        self.in_flight.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// The most bytes that eight threads read at once, each ten times.
    fn most_at_once(bytes: usize) -> usize {
        let (in_flight, now, most) = (InFlight::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        let read = || {
            for _ in 0..10 {
                let _turn = in_flight.turn(bytes, Some(CONSIDERATE));
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
        let _first = in_flight.turn(1, Some(1));
        drop(in_flight.turn(1, None));
    }
}
