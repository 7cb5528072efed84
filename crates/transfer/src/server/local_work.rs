//! Work for which nothing travels, so that the counts of the transfer say nothing about it. A probe must still be able to tell it from a
//! transfer that hangs.
//!
//! A program with a time limit of its own counts as progress until that limit, because then it is ended. Without a limit only what is
//! visibly done counts: steps of the work (pieces that are copied or read back, operations of an install), lines that a program prints,
//! and bytes that a server reads and writes.
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::threads::lock;

/// What is done while nothing travels.
#[derive(Debug, Default)]
pub struct LocalWork {
    /// When the time of a program is over.
    until: Mutex<Option<Instant>>,
    /// A program whose input and output count.
    watched: Mutex<Option<u32>>,
    steps: AtomicU64,
}

impl LocalWork {
    /// Counts as progress for so long, unless the result is dropped earlier. `None`: not at all, because nothing would end it.
    pub fn until_limit(&self, limit: Option<Duration>) -> Counts<'_> {
        *lock(&self.until) = limit.and_then(|limit| Instant::now().checked_add(limit));
        Counts(self)
    }

    /// What the process reads and writes counts as progress until the result is dropped.
    pub fn watch(&self, process: u32) -> Counts<'_> {
        *lock(&self.watched) = Some(process);
        Counts(self)
    }

    /// A step of the work is done, or a program has printed a line.
    pub fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// How many steps are done.
    #[cfg(test)]
    pub(crate) fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// Differs from the last value if local work has made progress since.
    pub(super) fn sign(&self) -> Sign {
        let left = lock(&self.until).map_or(Duration::ZERO, |until| until.duration_since(Instant::now()));
        let bytes = lock(&self.watched).map_or(0, bytes_of);
        (left, bytes, self.steps.load(Ordering::Relaxed))
    }
}

/// See [`LocalWork::sign`]: what is left of a limit, bytes, steps.
pub(super) type Sign = (Duration, u64, u64);

/// Local work counts as progress until this is dropped.
#[must_use]
pub struct Counts<'a>(&'a LocalWork);

impl Drop for Counts<'_> {
    fn drop(&mut self) {
        *lock(&self.0.until) = None;
        *lock(&self.0.watched) = None;
    }
}

/// Bytes that a process has read and written so far; 0 if that cannot be read. A server without work moves none.
fn bytes_of(process: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/io")).unwrap_or_default();
    let number = |line: &str| line.split_once(": ").and_then(|(_, number)| number.parse::<u64>().ok());
    text.lines().filter_map(number).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_work_with_a_limit_counts_by_itself_and_only_until_then() {
        let work = LocalWork::default();
        let idle = work.sign();
        let counts = work.until_limit(Some(Duration::from_secs(60)));
        let first = work.sign();
        std::thread::sleep(Duration::from_millis(1));
        assert!(first != idle && work.sign() != first);
        drop(counts);
        assert_eq!(work.sign(), idle);
        let _over = work.until_limit(Some(Duration::ZERO));
        assert_eq!(work.sign(), idle);
        let _endless = work.until_limit(None);
        assert_eq!(work.sign(), idle);
        work.step();
        assert_ne!(work.sign(), idle);
    }

    #[test]
    fn what_a_watched_program_reads_and_writes_counts() {
        let work = LocalWork::default();
        let idle = work.sign();
        let counts = work.watch(std::process::id());
        let first = work.sign();
        std::fs::read("/proc/self/status").unwrap();
        assert!(first != idle && work.sign() != first);
        drop(counts);
        assert_eq!(work.sign(), idle);
    }
}
