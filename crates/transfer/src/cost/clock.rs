//! What a thread got of the processors. Unlike elapsed time, this does not depend on what else the host does.
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// Processor time of the calling thread.
pub fn of_thread() -> Duration {
    read(ClockId::ThreadCPUTime)
}

/// Processor time of this program.
pub fn of_program() -> Duration {
    read(ClockId::ProcessCPUTime)
}

/// Splits the processor time of one thread into laps.
#[derive(Debug)]
pub struct Laps(Duration);

impl Laps {
    /// The first lap begins now.
    pub fn begin() -> Laps {
        Laps(of_thread())
    }

    /// Processor time since the last lap ended.
    pub fn lap(&mut self) -> Duration {
        let now = of_thread();
        now.saturating_sub(std::mem::replace(&mut self.0, now))
    }
}

/// Tells for how long one thread was blocked: neither running nor waiting for a processor.
#[derive(Debug)]
pub struct Blocked {
    /// `/proc/thread-self/schedstat`; `None` where the kernel does not count waits for a processor.
    counted: Option<File>,
}

/// A moment in the life of a thread.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// By the clock.
    pub at: Instant,
    ran: Duration,
    waited: Duration,
}

impl Blocked {
    /// For the calling thread. No other may use it.
    pub fn of_this_thread() -> Blocked {
        Blocked { counted: File::open("/proc/thread-self/schedstat").ok() }
    }

    /// Now.
    pub fn now(&self) -> Moment {
        let waited = self.counted.as_ref().and_then(waited).unwrap_or_default();
        Moment { at: Instant::now(), ran: of_thread(), waited }
    }

    /// For how long it was blocked since then, and how long it ran.
    pub fn since(&self, then: Moment) -> (Duration, Duration) {
        let now = self.now();
        let ran = now.ran.saturating_sub(then.ran);
        let not_blocked = ran + now.waited.saturating_sub(then.waited);
        (now.at.duration_since(then.at).saturating_sub(not_blocked), ran)
    }
}

/// The second number is the time that the thread has waited for a processor, in nanoseconds (Documentation/scheduler/sched-stats.rst).
fn waited(file: &File) -> Option<Duration> {
    let mut text = [0; 64];
    let len = file.read_at(&mut text, 0).ok()?;
    let text = std::str::from_utf8(text.get(..len)?).ok()?;
    text.split_ascii_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeping_is_blocked_and_working_is_not() {
        let blocked = Blocked::of_this_thread();
        let began = blocked.now();
        std::thread::sleep(Duration::from_millis(30));
        let (slept, ran) = blocked.since(began);
        assert!(slept >= Duration::from_millis(20) && ran < Duration::from_millis(20), "{slept:?}, {ran:?}");
        let (began, mut laps) = (blocked.now(), Laps::begin());
        while laps.0 + Duration::from_millis(30) > of_thread() {}
        let (stood, ran) = blocked.since(began);
        assert!(stood < ran && ran >= Duration::from_millis(30), "{stood:?}, {ran:?}");
        assert!(laps.lap() >= Duration::from_millis(30) && laps.lap() < Duration::from_millis(20));
        assert!(of_program() >= Duration::from_millis(30));
    }
}
