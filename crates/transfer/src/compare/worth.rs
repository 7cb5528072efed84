//! Whether comparing is worth what it costs. Where nearly everything differs, looking for the rest can take longer than sending
//! it: then the donor asks no more, the joiner reads its old files no further, and what was not compared is sent whole.
//!
//! Both sides of the decision are measured on the threads that hand over ranges: how long they compare, and how long they take to
//! pack and queue what differs, which is what each saved byte would have taken too. Where the connections are what everything waits
//! for, waiting for the joiner's answers costs nothing, because other threads keep them busy. So a slow link makes even little worth
//! finding, and a fast one does not.
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::human::size;
use crate::threads::lock;

/// Bytes that are compared before they are judged.
pub const WINDOW: u64 = 64 << 20;

/// So many windows in a row must not have been worth it.
const IN_A_ROW: u32 = 4;

/// If more than this share of the bytes need not be sent, they are compared in any case.
const NEARLY_NOTHING: f64 = 0.1;

/// The joiner reads and fingerprints the same bytes as the donor, which is not measured here. The donor only sees the part for
/// which it waits.
const BOTH_HOSTS: f64 = 2.0;

/// How much the joiner may have, as its sample shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prospect {
    /// Bytes of all files.
    pub all: u64,
    /// The most of them that it probably has.
    pub shared: u64,
}

/// A range that was compared: what that saved, and what it took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weighed {
    /// Its bytes without zeros; 0 if the joiner had not described it.
    pub bytes: u64,
    /// Those that need not be sent.
    pub saved: u64,
    /// Time to compare it, without what is hidden behind the connections.
    pub comparing: Duration,
    /// Time to pack and to queue the rest.
    pub sending: Duration,
}

/// What comparing has cost and saved so far. By default it never ends.
#[derive(Debug, Default)]
pub(super) struct Worth {
    prospect: Option<Prospect>,
    window: u64,
    stopped: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    window: Weighed,
    /// The last windows, none of which was worth it.
    poor: Weighed,
    in_a_row: u32,
    /// Bytes that were handed over, compared or not, and those of them that the joiner had.
    done: u64,
    saved: u64,
}

impl Worth {
    /// Judges by `window` bytes at a time.
    pub fn new(prospect: Prospect, window: u64) -> Worth {
        Worth { prospect: Some(prospect), window, ..Worth::default() }
    }

    /// Nothing is compared any more.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Does something unless comparing has ended, and not while it ends. Returns whether it was done.
    pub fn unless_stopped(&self, act: impl FnOnce()) -> bool {
        let _state = lock(&self.state);
        if self.is_stopped() {
            return false;
        }
        act();
        true
    }

    /// So many bytes need not be sent, and finding that out took next to no time.
    pub fn same(&self, bytes: u64) {
        lock(&self.state).add(bytes, &Weighed { bytes, saved: bytes, ..Weighed::default() });
    }

    /// A range of `len` bytes was handed over. Returns the reason if comparing ends with it.
    pub fn weigh(&self, len: u64, range: Weighed) -> Option<String> {
        let prospect = self.prospect?;
        let mut state = lock(&self.state);
        if self.is_stopped() {
            return None;
        }
        state.add(len, &range);
        if state.window.bytes < self.window {
            return None;
        }
        let window = std::mem::take(&mut state.window);
        if !window.is_poor() {
            (state.poor, state.in_a_row) = (Weighed::default(), 0);
            return None;
        }
        state.poor.add(&window);
        state.in_a_row += 1;
        let left = prospect.all.saturating_sub(state.done);
        let may_share = prospect.shared.saturating_sub(state.saved) as f64;
        // Near the end there is nothing to gain, and what was sampled elsewhere may still come.
        if state.in_a_row < IN_A_ROW || left < self.window || may_share > left as f64 * NEARLY_NOTHING {
            return None;
        }
        self.stopped.store(true, Ordering::Release);
        Some(state.poor.reason(left))
    }
}

impl State {
    fn add(&mut self, len: u64, range: &Weighed) {
        self.done += len;
        self.saved += range.saved;
        // A range that was not compared says nothing of what comparing costs.
        if range.bytes > 0 {
            self.window.add(range);
        }
    }
}

impl Weighed {
    fn add(&mut self, other: &Weighed) {
        self.bytes += other.bytes;
        self.saved += other.saved;
        self.comparing += other.comparing;
        self.sending += other.sending;
    }

    /// Seconds that comparing took, of both hosts.
    fn cost(&self) -> f64 {
        self.comparing.as_secs_f64() * BOTH_HOSTS
    }

    /// Seconds that sending what was saved would have taken.
    fn gain(&self) -> f64 {
        let sent = self.bytes.saturating_sub(self.saved).max(1);
        self.sending.as_secs_f64() * self.saved as f64 / sent as f64
    }

    fn is_poor(&self) -> bool {
        self.saved as f64 <= self.bytes as f64 * NEARLY_NOTHING && self.cost() > self.gain()
    }

    fn reason(&self, left: u64) -> String {
        let found = match self.saved {
            0 => "nothing".to_owned(),
            saved => size(saved),
        };
        let times = match self.cost() / self.gain() {
            times if times < 100.0 => format!("{times:.1} times"),
            _ => "more than a hundred times".to_owned(),
        };
        format!(
            "plan: the other {} are sent whole without being compared: of the last {} the joiner had {found}, and comparing them \
             took {times} as long as sending that much would",
            size(left),
            size(self.bytes)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const ALL: u64 = 10_000 * MIB;

    /// Hands over ranges of 1 MiB, of which this share is saved, until comparing ends: after how many, and why. Sending one takes
    /// `sending` milliseconds, comparing it one.
    fn ends(worth: &Worth, ranges: u64, share: f64, sending: f64) -> Option<(u64, String)> {
        let saved = (MIB as f64 * share) as u64;
        let sending = Duration::from_secs_f64(sending / 1000.0 * (1.0 - share));
        let range = Weighed { bytes: MIB, saved, comparing: Duration::from_millis(1), sending };
        (1..=ranges).find_map(|number| Some((number, worth.weigh(MIB, range)?)))
    }

    fn worth(shared: u64) -> Worth {
        Worth::new(Prospect { all: ALL, shared }, WINDOW)
    }

    #[test]
    fn it_ends_where_nearly_nothing_is_found_and_sending_is_fast() {
        let fast = worth(200 * MIB);
        let (after, why) = ends(&fast, 9000, 0.02, 8.0).unwrap();
        assert_eq!(after, 256);
        assert_eq!(
            why,
            "plan: the other 9.5 GiB are sent whole without being compared: of the last 256.0 MiB the joiner had 5.1 MiB, and \
             comparing them took 12.5 times as long as sending that much would"
        );
        assert!(fast.is_stopped() && !fast.unless_stopped(|| unreachable!()));
        assert_eq!(ends(&fast, 9000, 0.0, 8.0), None, "it ends once");
        let (_, why) = ends(&worth(0), 9000, 0.0, 8.0).unwrap();
        assert!(why.contains("had nothing, and comparing them took more than a hundred times"), "{why}");
    }

    #[test]
    fn a_slow_link_makes_little_worth_finding() {
        // 8 ms for 1 MiB on each of eight threads is 1 GiB/s; 700 ms are 12 MB/s.
        assert_eq!(ends(&worth(0), 9000, 0.02, 700.0), None);
        assert!(ends(&worth(0), 9000, 0.001, 700.0).is_some());
        // What is more than nearly nothing is looked for in any case.
        assert_eq!(ends(&worth(0), 9000, 0.12, 8.0), None);
    }

    #[test]
    fn a_part_that_is_shared_begins_the_count_anew() {
        let worth = worth(0);
        assert_eq!(ends(&worth, 250, 0.0, 8.0), None);
        worth.same(20 * MIB);
        assert_eq!(ends(&worth, 200, 0.0, 8.0), None);
        assert!(worth.unless_stopped(|| {}));
        assert!(ends(&worth, 100, 0.0, 8.0).is_some());
    }

    #[test]
    fn what_the_sample_found_and_nobody_has_come_across_yet_keeps_it_going() {
        // A large table that differs, before others that do not.
        let half = worth(ALL / 2);
        assert_eq!(ends(&half, 4000, 0.0, 8.0), None);
        half.same(ALL / 2);
        // All that the sample found has been found: there are some 800 MiB left.
        assert!(ends(&half, 700, 0.0, 8.0).is_some());
        // Without a sample nothing is known of the rest.
        assert_eq!(ends(&Worth::default(), 9000, 0.0, 8.0), None);
    }

    #[test]
    fn what_was_not_compared_says_nothing_and_the_end_is_not_worth_a_word() {
        let worth = worth(0);
        let apart = Weighed { sending: Duration::from_secs(9), ..Weighed::default() };
        assert!((0..1000).all(|_| worth.weigh(MIB, apart).is_none()));
        assert!(ends(&worth, 256, 0.0, 8.0).is_some());
        let small = Worth::new(Prospect { all: 300 * MIB, shared: 0 }, WINDOW);
        assert_eq!(ends(&small, 300, 0.0, 8.0), None);
    }
}
