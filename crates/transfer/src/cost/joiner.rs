//! Measures a joiner's work, and says now and then what it takes, so that the donor can choose with it.
use std::sync::Mutex;
use std::time::{Duration, Instant};

use protocol::message::JoinerPace;

use super::pace::{Pace, PerByte, Work};
use super::processors::{Processors, kernel};
use crate::threads::lock;

/// The donor is told at most so often.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// The work of a joiner.
#[derive(Debug)]
pub struct JoinersWork {
    pace: Pace,
    processors: Processors,
    kernel: u64,
    /// Seconds of waiting, per nanosecond of the receiving threads.
    waiting: Mutex<PerByte>,
    /// The donor understands what it is told.
    tells: bool,
    /// When it was told last.
    told: Mutex<Option<Instant>>,
}

impl JoinersWork {
    /// Nothing has been measured yet. `tells`: the donor understands what it is told.
    pub fn new(tells: bool) -> JoinersWork {
        JoinersWork {
            pace: Pace::of_joiner(),
            processors: Processors::of_this_host(),
            kernel: kernel().unwrap_or(0),
            waiting: Mutex::new(PerByte::assumed(1.0)),
            tells,
            told: Mutex::default(),
        }
    }

    /// So many bytes took so much processor time.
    pub fn add(&self, work: Work, bytes: u64, took: Duration) {
        self.pace.add(work, bytes, took);
    }

    /// A thread that receives was blocked for so long of so long.
    pub fn waited(&self, blocked: Duration, all: Duration) {
        lock(&self.waiting).add(blocked.as_nanos() as f64, all.as_nanos() as u64);
    }

    /// What to tell the donor, if it is time to. At first that is what host this is.
    pub fn due(&self) -> Option<JoinerPace> {
        let mut told = lock(&self.told);
        if !self.tells || told.is_some_and(|told| told.elapsed() < TELL_EVERY) {
            return None;
        }
        *told = Some(Instant::now());
        Some(JoinerPace {
            kernel: self.kernel,
            processors: (self.processors.available() * 1e3) as u32,
            waiting: (lock(&self.waiting).value() * 1e3).min(1e3) as u16,
            work: self.pace.nanos().to_message(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_donor_is_told_now_and_then_if_it_understands() {
        let work = JoinersWork::new(true);
        assert!(work.due().is_some_and(|told| told.kernel == kernel().unwrap_or(0)));
        assert_eq!(work.due(), None);
        for _ in 0..100 {
            work.waited(Duration::from_millis(2), Duration::from_millis(10));
        }
        std::thread::sleep(TELL_EVERY);
        let told = work.due().unwrap();
        assert!((180..=220).contains(&told.waiting) && told.processors > 0, "{told:?}");
        assert_eq!(work.due(), None);
        assert_eq!(JoinersWork::new(false).due(), None);
    }
}
