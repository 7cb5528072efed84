//! How fast a donor may read its files: a rate from what was seen in each second. No I/O and no clock.
//!
//! Without strain there is no limit. A strained server makes the rate fall below what was read; it rises again in small steps,
//! and the rate at which the server was strained is tried again only after a wait that doubles with each failure. So
//! a load that stays leads to a rate that hardly moves, and one that goes is noticed within a minute.

/// No transfer reads less than this many bytes per second for the server's sake.
pub const FLOOR: u64 = 8 << 20;
/// Nor less than this part of what it read before it was slowed, for clients whose commits take longer: it takes at most half as long
/// again.
const FLOOR_PART: f64 = 0.67;
/// Where the whole cluster waits for this node, it may take four times as long.
const FLOOR_PART_SEVERE: f64 = 0.25;
/// So many strained seconds in a row count: one alone may be a checkpoint, or a single large statement.
const STRAINED_FOR: u32 = 2;
/// Seconds in which a new rate takes effect before the next cut.
const SETTLES_IN: u32 = 2;
/// A cut leaves this part of what was read, after a sign that the cluster waits for this node that.
const CUT: f64 = 0.7;
const CUT_HARD: f64 = 0.5;
/// A calm second adds this part of the rate, as long as it stays below this part of the rate that was too much.
const RISE: f64 = 0.1;
const SAFE: f64 = 0.9;
/// What a try above that adds.
const TRY: f64 = 1.25;
/// Calm seconds before such a try: at first, and at most.
const PATIENCE_MIN: u32 = 4;
const PATIENCE_MAX: u32 = 32;
/// So many strained seconds at the least rate, without a calm one: if slowing changed nothing, something else strains the server.
const IN_VAIN: u32 = 6;
/// Weight of a faster second in the rate without a limit, and of a slower one: the beginning of a transfer is slow.
const FASTER: f64 = 0.7;
const SLOWER: f64 = 0.2;

/// How one second was for the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strain {
    /// As before the transfer.
    Calm,
    /// Between calm and strained: nothing changes.
    Some,
    /// Commits take markedly longer than before the transfer.
    High,
    /// The cluster waits for this node, or will.
    Severe,
}

/// The controller of one transfer.
#[derive(Clone, Debug)]
pub struct Controller {
    /// Bytes per second; `None` without a limit.
    rate: Option<u64>,
    /// Bytes per second that were read without a limit, smoothed.
    free: Option<f64>,
    /// The rate at which the server was strained last.
    bad: f64,
    strained: u32,
    calm: u32,
    settling: u32,
    patience: u32,
    /// A rate that was too much before is being tried.
    tried: bool,
    /// Strained seconds at the least rate, without a calm one.
    in_vain: u32,
}

impl Default for Controller {
    fn default() -> Self {
        let patience = PATIENCE_MIN;
        Controller {
            rate: None,
            free: None,
            bad: 0.0,
            strained: 0,
            calm: 0,
            settling: 0,
            patience,
            tried: false,
            in_vain: 0,
        }
    }
}

impl Controller {
    /// The rate for the next second, after one in which `read` bytes were read.
    pub fn next(&mut self, strain: Strain, read: u64) -> Option<u64> {
        if self.rate.is_none() && read > 0 {
            let (read, free) = (read as f64, self.free.unwrap_or(read as f64));
            self.free = Some(free + (read - free) * if read > free { FASTER } else { SLOWER });
        }
        // What hardly reads is not what strains the server.
        let reads = self.rate.is_some() || read > FLOOR;
        let least = self.rate.is_some_and(|rate| rate <= self.floor(Strain::High));
        self.in_vain = match strain {
            Strain::High if least => self.in_vain + 1,
            Strain::Some if least => self.in_vain,
            _ => 0,
        };
        self.settling = self.settling.saturating_sub(1);
        (self.strained, self.calm) = match strain {
            Strain::Calm => (0, self.calm + 1),
            Strain::Some => (0, 0),
            Strain::High | Strain::Severe if !reads => (0, 0),
            Strain::High | Strain::Severe => (self.strained + 1, 0),
        };
        match strain {
            Strain::Severe if self.settling == 0 => self.cut(read, strain),
            Strain::High if self.settling == 0 && self.strained >= STRAINED_FOR => self.cut(read, strain),
            Strain::Calm => self.rise(),
            _ => {}
        }
        self.rate
    }

    /// The rate, as [`Controller::next`] returned it.
    pub fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// True if the server has been strained for long at the least rate.
    pub fn slows_in_vain(&self) -> bool {
        self.in_vain >= IN_VAIN
    }

    /// Forgets everything but how fast files can be read.
    pub fn start_over(&mut self) {
        *self = Controller { free: self.free, ..Controller::default() };
    }

    /// Bytes per second that a transfer may always read under this strain.
    fn floor(&self, strain: Strain) -> u64 {
        let part = if strain == Strain::Severe { FLOOR_PART_SEVERE } else { FLOOR_PART };
        FLOOR.max((self.free.unwrap_or(0.0) * part) as u64)
    }

    fn cut(&mut self, read: u64, strain: Strain) {
        // More than the limit is read in a second now and then.
        let used = self.rate.map_or(read, |rate| rate.min(read));
        let part = if strain == Strain::Severe { CUT_HARD } else { CUT };
        let floor = self.floor(strain);
        if used <= floor {
            return;
        }
        self.bad = used as f64;
        self.rate = Some(floor.max((self.bad * part) as u64));
        (self.strained, self.settling, self.tried) = (0, SETTLES_IN, false);
        self.patience = (self.patience * 2).min(PATIENCE_MAX);
    }

    fn rise(&mut self) {
        let safe = (self.bad * SAFE) as u64;
        let due = self.rate.is_none_or(|rate| rate >= safe) && self.calm >= self.patience;
        if due {
            // The last try has held for as long as was asked for.
            if std::mem::replace(&mut self.tried, true) {
                self.patience = (self.patience / 4).max(PATIENCE_MIN);
            }
            self.calm = 0;
        }
        let Some(rate) = self.rate else { return };
        let next = if rate < safe {
            ((rate as f64 * (1.0 + RISE)) as u64).min(safe)
        } else if due {
            let next = rate as f64 * TRY;
            self.bad = next / SAFE;
            next as u64
        } else {
            rate
        };
        self.rate = Some(next).filter(|next| self.free.is_some_and(|free| (*next as f64) < free));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MB: u64 = 1_000_000;

    /// A donor that reads up to `most` bytes per second, and is strained by more than `bears`.
    fn run(controller: &mut Controller, most: u64, bears: u64, seconds: u32) -> Vec<(Option<u64>, Strain)> {
        let second = |_| {
            let read = controller.rate().map_or(most, |rate| rate.min(most));
            let strain = match read {
                read if read > bears => Strain::High,
                read if read > bears / 20 * 19 => Strain::Some,
                _ => Strain::Calm,
            };
            (controller.next(strain, read), strain)
        };
        (0..seconds).map(second).collect()
    }

    #[test]
    fn one_strained_second_slows_nothing_and_two_do() {
        let mut controller = Controller::default();
        assert_eq!(controller.next(Strain::Calm, 100 * MB), None);
        assert_eq!(controller.next(Strain::High, 100 * MB), None);
        assert_eq!(controller.next(Strain::Calm, 100 * MB), None);
        assert_eq!(controller.next(Strain::High, 100 * MB), None);
        assert_eq!(controller.next(Strain::High, 100 * MB), Some(70 * MB));
        // The cluster waits: that is not looked at twice.
        assert_eq!(Controller::default().next(Strain::Severe, 100 * MB), Some(50 * MB));
    }

    #[test]
    fn what_reads_little_is_not_slowed() {
        let mut controller = Controller::default();
        for _ in 0..100 {
            assert_eq!(controller.next(Strain::Severe, FLOOR), None);
            assert_eq!(controller.next(Strain::High, 0), None);
        }
    }

    #[test]
    fn slow_commits_cost_half_the_time_again_at_most_and_a_waiting_cluster_four_times() {
        let mut controller = Controller::default();
        let rates = run(&mut controller, 400 * MB, 0, 60);
        assert_eq!(rates.last().and_then(|(rate, _)| *rate), Some(268 * MB));
        for _ in 0..60 {
            controller.next(Strain::Severe, controller.rate().unwrap_or(400 * MB));
        }
        assert_eq!(controller.rate(), Some(100 * MB));
    }

    proptest! {
        #[test]
        fn a_rate_is_never_below_the_floor(
            seconds in prop::collection::vec((0u8..4, 0u64..(2000 * MB)), 1..300),
        ) {
            let mut controller = Controller::default();
            for (strain, read) in seconds {
                let strain = [Strain::Calm, Strain::Some, Strain::High, Strain::Severe][usize::from(strain)];
                let before = controller.rate();
                let read = before.map_or(read, |rate| read.min(rate));
                let rate = controller.next(strain, read);
                prop_assert!(rate.is_none_or(|rate| rate >= controller.floor(Strain::Severe)), "{rate:?}");
                if strain == Strain::High && rate < before {
                    prop_assert!(rate.is_none_or(|rate| rate >= controller.floor(Strain::High)), "{rate:?}");
                }
                // Strain never makes it faster.
                let most = before.unwrap_or(u64::MAX);
                prop_assert!(strain < Strain::High || rate.unwrap_or(u64::MAX) <= most);
            }
        }

        /// After a step of the load the rate comes near what the server bears, and stays there.
        #[test]
        fn a_step_leads_to_a_steady_rate(most in 50u64..3000, part in 0.72f64..0.85) {
            let most = most * MB;
            let bears = ((most as f64 * part) as u64).max(FLOOR * 2);
            prop_assume!(bears < most / 20 * 17);
            let mut controller = Controller::default();
            run(&mut controller, most, most * 2, 20);
            prop_assert_eq!(controller.rate(), None);
            let seconds = run(&mut controller, most, bears, 300);
            let began = seconds.iter().position(|(rate, _)| rate.is_some()).expect("slowed");
            prop_assert!(began <= 3);
            prop_assert!(seconds[began..].iter().all(|(rate, _)| rate.is_some()), "slowed once, not again and again");
            let steady = &seconds[100..];
            let strained = steady.iter().filter(|(_, strain)| *strain == Strain::High).count();
            prop_assert!(strained <= steady.len() / 8, "{strained} strained seconds");
            let rates: Vec<f64> = steady.iter().filter_map(|(rate, _)| Some((*rate)? as f64)).collect();
            let mean = rates.iter().sum::<f64>() / rates.len() as f64;
            prop_assert!(mean > bears as f64 * 0.6 && mean <= bears as f64 * 1.05, "{mean} of {bears}");
            // In most seconds nothing moves at all.
            let moves = rates.windows(2).filter(|two| two[0] != two[1]).count();
            prop_assert!(moves <= rates.len() / 2, "{moves} moves");
        }

        /// When the load is gone the limit goes within two minutes.
        #[test]
        fn it_recovers(most in 50u64..3000, part in 0.0f64..0.85, loaded in 3u32..400) {
            let most = most * MB;
            let mut controller = Controller::default();
            run(&mut controller, most, (most as f64 * part) as u64, loaded);
            let seconds = run(&mut controller, most, most * 2, 120);
            prop_assert_eq!(seconds.last().expect("seconds").0, None);
        }
    }
}
