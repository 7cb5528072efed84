//! What limits the speed of a transfer on the donor: the rate limit (`rlimit`), one budget for all that is sent, pages and
//! redo alike, and beside it the rate at which files may be read while the donor's server needs the machine (see
//! [`crate::load`]). Both may change while bytes wait for them.
//!
//! Only reading is slowed for the server's sake: what is not read is not sent, and redo must never wait for that, because
//! the server would overwrite it.
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::cancel::{Cancel, LOOK_EVERY};
use crate::failure::Failure;
use crate::send::in_flight::{CONSIDERATE, InFlight, Turn};
use crate::threads::lock;

/// How far ahead of the rate bytes may be sent or read, as a time.
const BURST: Duration = Duration::from_millis(200);

/// Says when bytes may be sent or read.
pub struct Throttle {
    sending: Mutex<Budget>,
    reading: Mutex<Budget>,
    in_flight: InFlight,
    /// The server has clients, which wait for the disk.
    busy: AtomicBool,
    /// The last second was hard for the server.
    strained: AtomicBool,
    /// Bytes of files that were read.
    read: AtomicU64,
    /// The operator permits that reading is slowed for the server's sake (`adaptive-throttle`).
    adaptive: AtomicBool,
    /// So does the snapshot.
    yields: AtomicBool,
    /// Odd during a consistency point: how often one began or ended.
    points: AtomicU64,
}

/// The right to send or read some bytes, once the budget has earned them.
#[derive(Clone, Copy, Debug)]
struct Ticket(f64);

impl Throttle {
    /// `rate`: bytes per second that may be sent; `None` = no limit.
    pub fn new(rate: Option<u64>) -> Throttle {
        Throttle {
            sending: Mutex::new(Budget::new(rate, Instant::now())),
            reading: Mutex::new(Budget::new(None, Instant::now())),
            in_flight: InFlight::default(),
            // Until it is known.
            busy: AtomicBool::new(true),
            strained: AtomicBool::new(false),
            read: AtomicU64::new(0),
            adaptive: AtomicBool::new(false),
            yields: AtomicBool::new(false),
            points: AtomicU64::new(0),
        }
    }

    /// Bytes per second that may be sent; `None` = no limit.
    pub fn rate(&self) -> Option<u64> {
        lock(&self.sending).rate
    }

    /// Changes it, also for bytes that wait.
    pub fn set_rate(&self, rate: Option<u64>) {
        lock(&self.sending).set(rate, Instant::now());
    }

    /// Bytes of files per second that may be read; `None` = no limit.
    pub fn reading(&self) -> Option<u64> {
        lock(&self.reading).rate
    }

    /// Changes it, also for bytes that wait.
    pub fn set_reading(&self, rate: Option<u64>) {
        lock(&self.reading).set(rate, Instant::now());
    }

    /// Takes the right to send `bytes` more, which [`Throttle::wait`] grants.
    fn pay(&self, bytes: usize) -> Ticket {
        lock(&self.sending).pay(bytes, Instant::now())
    }

    /// How long to wait before these bytes are sent, at the present rate.
    fn wait(&self, ticket: Ticket) -> Duration {
        lock(&self.sending).wait(ticket, Instant::now())
    }

    /// Waits until so many bytes more may be sent, at a rate that may change meanwhile. `meanwhile` is called after every moment
    /// of waiting.
    ///
    /// # Errors
    /// Cancelled; those of `meanwhile`.
    pub fn hold_back(
        &self,
        bytes: usize,
        cancel: &Cancel,
        mut meanwhile: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let ticket = self.pay(bytes);
        loop {
            let wait = self.wait(ticket);
            if wait.is_zero() {
                return Ok(cancel.check()?);
            }
            cancel.sleep(wait.min(LOOK_EVERY))?;
            meanwhile()?;
        }
    }

    /// Waits until so many bytes more may be read.
    ///
    /// # Errors
    /// Cancelled.
    pub fn read(&self, bytes: usize, cancel: &Cancel) -> Result<(), Failure> {
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
        if !self.gives_way() {
            return Ok(());
        }
        let ticket = lock(&self.reading).pay(bytes, Instant::now());
        loop {
            let wait = lock(&self.reading).wait(ticket, Instant::now());
            if wait.is_zero() || !self.gives_way() {
                return Ok(());
            }
            cancel.sleep(wait.min(LOOK_EVERY))?;
        }
    }

    /// Whether the server has clients that wait for the disk.
    pub fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::Release);
    }

    /// Whether the server is strained now.
    pub fn set_strained(&self, strained: bool) {
        self.strained.store(strained, Ordering::Release);
    }

    /// The server is strained, and the transfer gives way to it.
    pub fn is_strained(&self) -> bool {
        self.gives_way() && self.strained.load(Ordering::Acquire)
    }

    /// Waits until so many bytes may be read from the disk beside what is being read.
    pub fn turn(&self, bytes: usize) -> Turn<'_> {
        self.in_flight
            .turn(bytes, &|| (self.gives_way() && self.busy.load(Ordering::Acquire)).then_some(CONSIDERATE))
    }

    /// Bytes of files that were read so far.
    pub fn read_bytes(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Whether the operator permits that the transfer gives way to the server.
    pub fn set_adaptive(&self, adaptive: bool) {
        self.adaptive.store(adaptive, Ordering::Release);
    }

    /// Whether the snapshot permits it: not if the server blocks writes until everything is read.
    pub fn set_yields(&self, yields: bool) {
        self.yields.store(yields, Ordering::Release);
    }

    /// Whether both do.
    pub fn gives_way(&self) -> bool {
        self.adaptive.load(Ordering::Acquire) && self.yields.load(Ordering::Acquire)
    }

    /// A consistency point begins, or ends.
    pub fn at_consistency_point(&self, begins: bool) {
        let is_odd = |points: u64| points % 2 == 1;
        let next = |points| (is_odd(points) != begins).then_some(points + 1);
        let _ = self.points.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
    }

    /// How often a consistency point has begun or ended: odd during one.
    pub fn consistency_points(&self) -> u64 {
        self.points.load(Ordering::Acquire)
    }
}

/// Bytes that are earned at a rate, and spent in the order in which they were asked for.
#[derive(Debug)]
struct Budget {
    /// Bytes per second; `None` = no limit.
    rate: Option<u64>,
    /// Bytes earned until `at`.
    earned: f64,
    at: Instant,
    /// Bytes that were promised.
    promised: f64,
}

impl Budget {
    fn new(rate: Option<u64>, now: Instant) -> Budget {
        Budget { rate: rate.filter(|rate| *rate > 0), earned: 0.0, at: now, promised: 0.0 }
    }

    fn set(&mut self, rate: Option<u64>, now: Instant) {
        self.earn(now);
        self.rate = rate.filter(|rate| *rate > 0);
        if self.rate.is_none() {
            self.earned = self.earned.max(self.promised);
        }
    }

    fn earn(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.earned += self.rate.map_or(0.0, |rate| rate as f64 * seconds);
        self.at = self.at.max(now);
    }

    fn pay(&mut self, bytes: usize, now: Instant) -> Ticket {
        self.earn(now);
        // What was earned and not used is lost.
        self.promised = self.promised.max(self.earned);
        if self.rate.is_some() {
            self.promised += bytes as f64;
        }
        Ticket(self.promised)
    }

    fn wait(&mut self, ticket: Ticket, now: Instant) -> Duration {
        self.earn(now);
        let Some(rate) = self.rate else { return Duration::ZERO };
        let seconds = (ticket.0 - self.earned).max(0.0) / rate as f64;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX).saturating_sub(BURST)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn a_new_rate_counts_for_what_waits_already() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut budget = Budget::new(Some(1000), start);
        let ticket = budget.pay(MIB, start);
        assert!(budget.wait(ticket, at(1.0)) > Duration::from_secs(1000));
        budget.set(Some(MIB as u64), at(1.0));
        assert!(budget.wait(ticket, at(1.0)) < Duration::from_secs(1));
        budget.set(Some(10), at(1.0));
        assert!(budget.wait(ticket, at(1.0)) > Duration::from_secs(10_000));
        budget.set(None, at(1.0));
        assert_eq!(budget.wait(ticket, at(1.0)), Duration::ZERO);
        // Time without a limit leaves neither debts nor savings.
        budget.pay(1000 * MIB, at(2.0));
        budget.set(Some(MIB as u64), at(3.0));
        let ticket = budget.pay(MIB, at(3.0));
        assert_eq!(budget.wait(ticket, at(3.0)), Duration::from_millis(800));
    }

    #[test]
    fn a_limit_of_zero_is_none() {
        let throttle = Throttle::new(Some(0));
        assert_eq!((throttle.rate(), throttle.wait(throttle.pay(MIB))), (None, Duration::ZERO));
    }

    #[test]
    fn a_consistency_point_is_counted_once() {
        let throttle = Throttle::new(None);
        let after = |begins| {
            throttle.at_consistency_point(begins);
            throttle.consistency_points()
        };
        assert_eq!([false, true, true, false, false].map(after), [0, 1, 1, 2, 2]);
    }

    proptest! {
        /// Whatever is asked for, and however the limit changes, no more is granted than the limit and one burst, and in
        /// order.
        #[test]
        fn no_more_passes_than_the_rate_permits(
            steps in prop::collection::vec((0u64..500, 1usize..MIB, 1u64..(50 << 20)), 1..60),
        ) {
            let start = Instant::now();
            let (mut now, mut rate) = (start, 1u64 << 20);
            let mut budget = Budget::new(Some(rate), start);
            let (mut permitted, mut sent, mut fastest) = (0.0, 0.0, rate);
            for (idle_ms, bytes, next) in steps {
                let asked = now + Duration::from_millis(idle_ms);
                let ticket = budget.pay(bytes, asked);
                let sends = asked + budget.wait(ticket, asked);
                permitted += rate as f64 * (sends - now).as_secs_f64();
                sent += bytes as f64;
                prop_assert!(sent <= permitted + fastest as f64 * BURST.as_secs_f64() + 1.0);
                prop_assert!(budget.wait(ticket, sends + Duration::from_nanos(1)).is_zero());
                (now, rate, fastest) = (sends, next, fastest.max(next));
                budget.set(Some(rate), now);
            }
        }
    }
}
