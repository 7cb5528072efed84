//! Measures what each of several ways to do the same thing costs, and chooses the cheapest.
//!
//! A way is kept for a turn of many bytes, and its cost counts only after the first part of the turn. What a range costs
//! is mostly its wait for the link, and that depends on the ranges *before* it: on what is queued, and on what the
//! buffers of the sockets still take. If each range chose for itself, every way would be measured with the queue that
//! the others left, and none would differ much from the mixture.
use std::time::Duration;

/// A trial ends early if a quarter of a window costs so many times what the cheapest way does.
const TOO_DEAR: f64 = 1.5;
/// A range with fewer bytes than this tells more about latency than about throughput.
const BYTES_MIN: u64 = 65536;
/// After a trial the cheapest way is kept for twice as many windows as before, or more the more expensive the other way was:
/// so many times, and so many windows, at most.
const LONGER_MAX: f64 = 16.0;
const KEPT_MAX: u32 = 128;

/// How long a way is kept to measure it.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Bytes at the beginning of a turn that are not measured.
    pub warm_up: u64,
    /// Bytes that are measured at a time.
    pub bytes: u64,
    /// For so many windows the first way is kept before another one is tried.
    pub kept: u32,
}

/// The measured costs of several ways.
#[derive(Debug)]
pub struct CostModel {
    window: Window,
    /// What the cost of each way is multiplied by, for costs that are not measured here.
    handicaps: Vec<f64>,
    /// Nanoseconds per byte, and the turn in which that was measured; `None` before the first time.
    costs: Vec<Option<(f64, u32)>>,
    turn: Turn,
    /// How many windows the cheapest way is kept.
    kept: u32,
    /// No other way is tried.
    held: bool,
    /// Ways that are not taken any more.
    excluded: Vec<bool>,
}

/// A way that is in use.
#[derive(Debug, Default)]
struct Turn {
    number: u32,
    way: usize,
    /// Another way is thought to be the cheapest.
    trial: bool,
    /// Bytes since it began.
    bytes: u64,
    /// A quarter of a window, before the first one begins.
    warming: Sum,
    /// Since the last window ended.
    measured: Sum,
    windows: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    bytes: u64,
    nanos: u128,
}

/// The way that was chosen for a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Its number.
    pub way: usize,
    turn: u32,
}

impl CostModel {
    /// Nothing has been measured yet. The first way is taken first. A handicap of 1.0 is that of a way without costs that
    /// are not measured here.
    pub fn new(window: Window, handicaps: Vec<f64>) -> CostModel {
        let (costs, excluded) = (vec![None; handicaps.len()], vec![false; handicaps.len()]);
        let (turn, kept) = (Turn::default(), window.kept);
        CostModel { window, handicaps, costs, turn, kept, held: false, excluded }
    }

    /// The way to take.
    pub fn choose(&self) -> Choice {
        Choice { way: self.turn.way, turn: self.turn.number }
    }

    /// Whether the cheapest way is kept without trying another one.
    pub fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// A way is not taken any more, unless there is no other.
    pub fn exclude(&mut self, way: usize) {
        let Some(other) = self.permitted().find(|other| *other != way) else { return };
        self.excluded[way] = true;
        self.costs[way] = None;
        if self.turn.way == way {
            let number = self.turn.number.wrapping_add(1);
            self.turn = Turn { number, way: self.cheapest().unwrap_or(other), ..Turn::default() };
        }
    }

    fn permitted(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.costs.len()).filter(|way| !self.excluded[*way])
    }

    /// Records that `bytes` bytes took `took` in the way that was chosen.
    pub fn learn(&mut self, choice: Choice, bytes: u64, took: Duration) {
        if bytes < BYTES_MIN || choice.turn != self.turn.number {
            return;
        }
        let warm = self.turn.windows > 0 || self.turn.bytes >= self.window.warm_up;
        self.turn.bytes += bytes;
        let measured = if warm { &mut self.turn.measured } else { &mut self.turn.warming };
        measured.add(bytes, took);
        let cost = if self.turn.measured.bytes >= self.window.bytes {
            self.turn.measured.cost()
        } else if self.turn.warming.bytes >= self.window.bytes / 4 {
            let cost = std::mem::take(&mut self.turn.warming).cost();
            // The first ranges of the cheapest way still wait for those of the trial before it.
            if !self.turn.trial || !self.is_too_dear(cost) {
                return;
            }
            cost
        } else {
            return;
        };
        if let Some(known) = self.costs.get_mut(self.turn.way) {
            *known = Some((cost, self.turn.number));
        }
        tracing::debug!("way {} costs {cost:.1} ns/byte", self.turn.way);
        self.turn.windows += 1;
        self.turn.measured = Sum::default();
        let next = self.next();
        if next != self.turn.way {
            let (number, trial) = (self.turn.number.wrapping_add(1), Some(next) != self.cheapest());
            self.turn = Turn { number, way: next, trial, ..Turn::default() };
        }
    }

    /// Even while the buffers take a part of it, a trial costs clearly more than the cheapest way: the rest of the turn would
    /// be wasted.
    fn is_too_dear(&self, cost: f64) -> bool {
        let cheapest = self.cheapest().and_then(|way| self.weighted(way));
        let handicap = self.handicaps.get(self.turn.way).copied().unwrap_or(1.0);
        cheapest.is_some_and(|cheapest| cost * handicap > cheapest * TOO_DEAR)
    }

    fn weighted(&self, way: usize) -> Option<f64> {
        Some(self.costs.get(way)?.as_ref()?.0 * self.handicaps.get(way)?)
    }

    /// The way that costs least, of those that were measured.
    fn cheapest(&self) -> Option<usize> {
        let known = (0..self.costs.len()).filter_map(|way| Some((way, self.weighted(way)?)));
        known.min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(way, _)| way)
    }

    /// The way that follows a window.
    fn next(&mut self) -> usize {
        let best = self.cheapest().unwrap_or(self.turn.way);
        if best != self.turn.way {
            if self.turn.trial {
                let cost = |way: usize| self.weighted(way).unwrap_or(f64::INFINITY);
                let longer = (cost(self.turn.way) / cost(best)).powi(2).clamp(2.0, LONGER_MAX);
                self.kept = ((f64::from(self.kept) * longer) as u32).min(KEPT_MAX);
                // The cheapest of all may be one that nobody has tried.
                return self.permitted().find(|way| self.costs[*way].is_none()).unwrap_or(best);
            }
            return best;
        }
        if self.turn.windows < self.kept || self.held {
            return best;
        }
        // The one that was measured longest ago, or never.
        let age = |way: &usize| self.costs.get(*way).and_then(|cost| cost.map(|(_, turn)| turn));
        self.permitted().filter(|way| *way != best).min_by_key(age).unwrap_or(best)
    }
}

impl Sum {
    fn add(&mut self, bytes: u64, took: Duration) {
        self.bytes += bytes;
        self.nanos += took.as_nanos();
    }

    /// Nanoseconds per byte.
    fn cost(&self) -> f64 {
        self.nanos as f64 / self.bytes.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const WINDOW: Window = Window { warm_up: 32 * MIB, bytes: 16 * MIB, kept: 4 };
    const SHORT: Window = Window { warm_up: 0, bytes: MIB, kept: 4 };

    /// A way: work for each byte, in nanoseconds, and how many bytes of it go over the link.
    #[derive(Clone, Copy)]
    struct Way {
        work: f64,
        sent: f64,
    }

    /// Hands over `ranges` ranges of 1 MiB in eight threads, which share two processors and a link of `link` bytes a second
    /// with room for `room` bytes. Returns the seconds, and the bytes that were sent.
    fn simulate(ways: &[Way], link: f64, room: f64, ranges: u32, mut choose: impl Chooser) -> (f64, f64) {
        let (mut threads, mut drained, mut worked, mut sent) = ([0.0_f64; 8], 0.0_f64, 0.0_f64, 0.0);
        for _ in 0..ranges {
            let next = (0..8).min_by(|a, b| threads[*a].total_cmp(&threads[*b])).unwrap();
            let began = threads[next];
            let choice = choose.choose();
            let way = ways[choice.way];
            let (bytes, work) = (MIB as f64 * way.sent, MIB as f64 * way.work / 1e9);
            worked = worked.max(began) + work / 2.0;
            let ready = worked.max(began + work);
            drained = drained.max(ready) + bytes / link;
            threads[next] = ready.max(drained - room / link);
            sent += bytes;
            choose.learn(choice, Duration::from_secs_f64(threads[next] - began));
        }
        (threads.iter().fold(drained, |a, b| a.max(*b)), sent)
    }

    trait Chooser {
        fn choose(&self) -> Choice;
        fn learn(&mut self, choice: Choice, took: Duration);
    }

    impl Chooser for &mut CostModel {
        fn choose(&self) -> Choice {
            CostModel::choose(self)
        }
        fn learn(&mut self, choice: Choice, took: Duration) {
            CostModel::learn(self, choice, MIB, took);
        }
    }

    /// Always the same way.
    struct Fixed(usize);

    impl Chooser for Fixed {
        fn choose(&self) -> Choice {
            Choice { way: self.0, turn: 0 }
        }
        fn learn(&mut self, _: Choice, _: Duration) {}
    }

    /// Parts of pages, whole pages compressed, and plain ones.
    const WAYS: [Way; 3] =
        [Way { work: 3.0, sent: 0.1 }, Way { work: 2.5, sent: 0.5 }, Way { work: 0.4, sent: 1.0 }];

    /// What the connections and the buffers of their sockets take: these grow with the speed of the link.
    fn room(link: f64) -> f64 {
        4e6 + (link * 0.1).min(20e6)
    }

    #[test]
    fn takes_hardly_longer_than_the_best_way_at_any_speed_of_the_link() {
        for link in [12e6, 125e6, 400e6, 1.25e9, 5e9] {
            let fixed = |way| simulate(&WAYS, link, room(link), 8000, Fixed(way)).0;
            let best = (0..WAYS.len()).map(fixed).min_by(f64::total_cmp).unwrap();
            let mut model = CostModel::new(WINDOW, vec![1.0; WAYS.len()]);
            let (took, _) = simulate(&WAYS, link, room(link), 8000, &mut model);
            assert!(
                took < best * 1.15 + 0.3,
                "link of {link} bytes/s: {took:.1} s, the best way {best:.1} s"
            );
        }
    }

    #[test]
    fn a_link_that_is_the_bottleneck_carries_little_more_than_the_shortest_way() {
        let mut model = CostModel::new(WINDOW, vec![0.5, 1.4, 1.0]);
        let (_, sent) = simulate(&WAYS, 125e6, room(125e6), 500, &mut model);
        let (_, least) = simulate(&WAYS, 125e6, room(125e6), 500, Fixed(0));
        assert!(sent < least * 2.0, "{} MB, at least {} MB", sent / 1e6, least / 1e6);
    }

    #[test]
    fn a_way_with_a_handicap_must_be_so_much_cheaper() {
        let choice = |part: f64| {
            let mut model = CostModel::new(SHORT, vec![2.0, 1.0]);
            let mut last = 0;
            for _ in 0..2 * SHORT.kept {
                let choice = model.choose();
                last = choice.way;
                model.learn(choice, MIB, Duration::from_secs_f64([part, 1.0][last]));
            }
            last
        };
        assert_eq!(choice(0.4), 0);
        assert_eq!(choice(0.6), 1, "not cheap enough");
    }

    #[test]
    fn what_was_never_tried_is_tried_after_a_trial_that_was_lost() {
        let mut model = CostModel::new(SHORT, vec![1.0; 3]);
        (0..SHORT.kept).for_each(|_| model.learn(model.choose(), MIB, Duration::from_millis(3)));
        assert_eq!(model.choose().way, 1);
        model.learn(model.choose(), MIB, Duration::from_millis(4));
        assert_eq!(model.choose().way, 2, "not the first again for many windows");
        model.learn(model.choose(), MIB, Duration::from_millis(2));
        assert_eq!(model.choose().way, 2);
    }

    #[test]
    fn follows_a_link_that_changes_and_ignores_what_began_in_another_turn() {
        let mut model = CostModel::new(SHORT, vec![1.0, 1.0]);
        let first = model.choose();
        (0..SHORT.kept).for_each(|_| model.learn(model.choose(), MIB, Duration::from_millis(3)));
        assert_eq!(model.choose().way, 1, "it is tried");
        model.learn(model.choose(), MIB, Duration::from_millis(10));
        assert_eq!(model.choose().way, 0);
        model.learn(first, MIB, Duration::from_secs(100));
        assert_eq!(model.choose().way, 0, "that was of the first turn");
        model.learn(model.choose(), 1000, Duration::from_secs(100));
        assert_eq!(model.choose().way, 0, "that was latency");
        model.learn(model.choose(), MIB, Duration::from_millis(20));
        assert_eq!(model.choose().way, 1, "the first became the more expensive one");
        let (mut second, mut other) = (0, 0);
        for _ in 0..500 {
            let choice = model.choose();
            *(if choice.way == 1 { &mut second } else { &mut other }) += 1;
            let took = Duration::from_millis(if choice.way == 1 { 10 } else { 20 });
            model.learn(choice, MIB, took);
        }
        assert!((1..=20).contains(&other), "{other} of {second} probes");
    }
}
