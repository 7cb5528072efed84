//! Whether comparing is worth what it costs. Where nearly everything differs, looking for the rest can take longer than sending
//! it: then the donor asks no more, the joiner reads its old files no further, and what was not compared is sent whole.
//!
//! What both take is estimated by [`crate::cost`]. Comparing ends for good, so it does not end for a small gain, and not while the
//! joiner may still have much of what follows.
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::human::size;
use crate::threads::lock;

/// Bytes that are compared before they are judged.
pub const WINDOW: u64 = 32 << 20;

/// So many windows in a row must not have been worth it.
const IN_A_ROW: u32 = 2;

/// If the joiner has more than this share of the bytes, they are compared in any case.
const LITTLE: f64 = 0.2;

/// Comparing must take so many times as long as sending everything.
const DEARER: f64 = 1.15;

/// How much the joiner may have, as its sample shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prospect {
    /// Bytes of all files.
    pub all: u64,
    /// The most of them that it probably has.
    pub shared: u64,
}

impl Prospect {
    /// The share that it does not have.
    pub fn differing(&self) -> f64 {
        1.0 - self.shared.min(self.all) as f64 / self.all.max(1) as f64
    }
}

/// What comparing has saved so far. By default it never ends.
#[derive(Debug, Default)]
pub(super) struct Worth {
    prospect: Option<Prospect>,
    window: u64,
    stopped: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes that were compared, and those that the joiner had: of this window, and of those before that were not worth it.
    window: (u64, u64),
    poor: (u64, u64),
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
        lock(&self.state).add(bytes, bytes, true);
    }

    /// A range of `len` bytes was handed over, of which `saved` need not be sent. `comparing_or_not`: what a byte takes with and
    /// without comparing, if this share of the bytes differs. Returns the reason if comparing ends with it.
    pub fn weigh(
        &self,
        len: u64,
        saved: u64,
        compared: bool,
        comparing_or_not: impl FnOnce(f64) -> (f64, f64),
    ) -> Option<String> {
        let prospect = self.prospect?;
        let mut state = lock(&self.state);
        if self.is_stopped() {
            return None;
        }
        state.add(len, saved, compared);
        if state.window.0 < self.window {
            return None;
        }
        let (bytes, saved) = std::mem::take(&mut state.window);
        let left = prospect.all.saturating_sub(state.done);
        // What was sampled elsewhere may still come.
        let may_come = prospect.shared.saturating_sub(state.saved) as f64 / left.max(1) as f64;
        let share = may_come.max(saved as f64 / bytes as f64);
        let (comparing, sending) = comparing_or_not(1.0 - share.min(1.0));
        if share > LITTLE || comparing < sending * DEARER {
            (state.poor, state.in_a_row) = ((0, 0), 0);
            return None;
        }
        state.poor = (state.poor.0 + bytes, state.poor.1 + saved);
        state.in_a_row += 1;
        // Near the end there is nothing to gain.
        if state.in_a_row < IN_A_ROW || left < self.window {
            return None;
        }
        self.stopped.store(true, Ordering::Release);
        Some(reason(left, state.poor, comparing / sending))
    }
}

impl State {
    fn add(&mut self, len: u64, saved: u64, compared: bool) {
        self.done += len;
        self.saved += saved;
        // A range that was not compared says nothing of what the joiner has.
        if compared {
            self.window = (self.window.0 + len, self.window.1 + saved);
        }
    }
}

fn reason(left: u64, (bytes, saved): (u64, u64), times: f64) -> String {
    let found = match saved {
        0 => "nothing".to_owned(),
        saved => size(saved),
    };
    format!(
        "plan: the other {} are sent whole without being compared: of the last {} the joiner had {found}, and comparing takes {times:.1} \
         times as long as sending everything",
        size(left),
        size(bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const ALL: u64 = 10_000 * MIB;

    /// Hands over ranges of 1 MiB, of which this share is saved, until comparing ends: after how many, and why. Comparing takes one
    /// nanosecond a byte, and sending so many for each byte that differs.
    fn ends(worth: &Worth, ranges: u64, share: f64, sending: f64) -> Option<(u64, String)> {
        let saved = (MIB as f64 * share) as u64;
        let costs = |differing: f64| (1.0 + differing * sending, sending);
        (1..=ranges).find_map(|number| Some((number, worth.weigh(MIB, saved, true, costs)?)))
    }

    fn worth(shared: u64) -> Worth {
        Worth::new(Prospect { all: ALL, shared }, WINDOW)
    }

    #[test]
    fn it_ends_where_nearly_nothing_is_found_and_sending_is_fast() {
        let fast = worth(200 * MIB);
        let (after, why) = ends(&fast, 9000, 0.02, 1.0).unwrap();
        assert_eq!(after, 64);
        assert_eq!(
            why,
            "plan: the other 9.7 GiB are sent whole without being compared: of the last 64.0 MiB the joiner had 1.3 MiB, and \
             comparing takes 2.0 times as long as sending everything"
        );
        assert!(fast.is_stopped() && !fast.unless_stopped(|| unreachable!()));
        assert_eq!(ends(&fast, 9000, 0.0, 1.0), None, "it ends once");
        let (_, why) = ends(&worth(0), 9000, 0.0, 1.0).unwrap();
        assert!(why.contains("had nothing, and comparing takes 2.0 times"), "{why}");
    }

    #[test]
    fn a_slow_link_makes_little_worth_finding() {
        assert_eq!(ends(&worth(0), 9000, 0.02, 80.0), None);
        // What is more than little is looked for in any case.
        assert_eq!(ends(&worth(0), 9000, 0.25, 1.0), None);
    }

    #[test]
    fn a_part_that_is_shared_begins_the_count_anew() {
        let worth = worth(0);
        assert_eq!(ends(&worth, 60, 0.0, 1.0), None);
        worth.same(20 * MIB);
        assert_eq!(ends(&worth, 60, 0.0, 1.0), None);
        assert!(worth.unless_stopped(|| {}));
        assert!(ends(&worth, 100, 0.0, 1.0).is_some());
    }

    #[test]
    fn what_the_sample_found_and_nobody_has_come_across_yet_keeps_it_going() {
        // A large table that differs, before others that do not.
        let half = worth(ALL / 2);
        assert_eq!(ends(&half, 4000, 0.0, 1.0), None);
        half.same(ALL / 2);
        // All that the sample found has been found.
        assert!(ends(&half, 700, 0.0, 1.0).is_some());
        // Without a sample nothing is known of the rest.
        assert_eq!(ends(&Worth::default(), 9000, 0.0, 1.0), None);
        assert_eq!(Prospect { all: 4, shared: 1 }.differing(), 0.75);
    }

    #[test]
    fn what_was_not_compared_says_nothing_and_the_end_is_not_worth_a_word() {
        let worth = worth(0);
        assert!((0..1000).all(|_| worth.weigh(MIB, 0, false, |_| (9.0, 1.0)).is_none()));
        assert!(ends(&worth, 256, 0.0, 1.0).is_some());
        let small = Worth::new(Prospect { all: 60 * MIB, shared: 0 }, WINDOW);
        assert_eq!(ends(&small, 60, 0.0, 1.0), None);
    }
}
