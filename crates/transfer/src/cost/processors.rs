//! How much of the host's processors this program can have: what it uses, and what nobody uses.
use std::fs;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::clock;
use crate::remembered::trust;
use crate::threads::lock;

/// They are looked at so often.
const EVERY: Duration = Duration::from_millis(250);
/// On a host without idle processors, the scheduler still gives us about as much as the others have.
const SHARED: f64 = 0.5;
/// Nanoseconds of a tick of `/proc/stat` (USER_HZ is 100 on all architectures that Linux runs servers on).
const TICK: f64 = 1e7;

/// The processors of this host.
#[derive(Debug)]
pub struct Processors {
    all: f64,
    looked: Mutex<Looked>,
}

#[derive(Clone, Copy, Debug)]
struct Looked {
    at: Instant,
    own: Duration,
    /// Ticks.
    idle: Option<u64>,
    available: f64,
}

impl Processors {
    /// All of them are available until the first look at what others use.
    pub fn of_this_host() -> Processors {
        let all = std::thread::available_parallelism().map_or(1.0, |all| all.get() as f64);
        let own = clock::of_program();
        Processors {
            all,
            looked: Mutex::new(Looked { at: Instant::now(), own, idle: idle(), available: all }),
        }
    }

    /// How many the host has.
    pub fn all(&self) -> f64 {
        self.all
    }

    /// How many this program uses or could use.
    pub fn available(&self) -> f64 {
        let mut looked = lock(&self.looked);
        let elapsed = looked.at.elapsed();
        if elapsed >= EVERY {
            let now = Looked { at: Instant::now(), own: clock::of_program(), idle: idle(), ..*looked };
            let (before, nanos) = (*looked, elapsed.as_nanos() as f64);
            let own = now.own.saturating_sub(before.own).as_nanos() as f64 / nanos;
            let idle = now
                .idle
                .zip(before.idle)
                .map(|(now, before)| now.saturating_sub(before) as f64 * TICK / nanos);
            let available = idle.map_or(self.all, |idle| (own + idle).clamp(self.all * SHARED, self.all));
            *looked = Looked { available, ..now };
        }
        looked.available
    }
}

/// Identifies the running kernel, to hosts that may be containers on one machine; `None` where it cannot be read.
pub fn kernel() -> Option<u64> {
    let [a, b, c, d, e, f, g, h, ..] = trust::boot()?;
    Some(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
}

/// Ticks for which the processors had nothing to do, or only waited for disks.
fn idle() -> Option<u64> {
    parse(&fs::read_to_string("/proc/stat").ok()?)
}

/// The line `cpu  user nice system idle iowait ...` (proc_stat(5)).
fn parse(text: &str) -> Option<u64> {
    let mut fields = text.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace().skip(3);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_read_from_the_first_line() {
        assert_eq!(parse("cpu  100 2 30 4000 500 0 6 0 0 0\ncpu0 50 1 15 2000 250 0 3 0 0 0\n"), Some(4500));
        assert_eq!([parse(""), parse("cpu  1 2 3\n"), parse("intr 1\n")], [None; 3]);
        assert!(idle().is_some());
    }

    #[test]
    fn what_is_available_is_at_most_what_there_is() {
        let processors = Processors::of_this_host();
        assert_eq!(processors.available(), processors.all);
        std::thread::sleep(EVERY);
        assert!((processors.all * SHARED..=processors.all).contains(&processors.available()));
    }
}
