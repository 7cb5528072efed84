//! The ways in which the bytes of a range can travel, and which of them is taken: the one that [`crate::cost`] finds to be the cheapest.
//!
//! What decides is measured on every range that is handed over in any way. What only another way would show, one range in
//! [`TRIAL_EVERY`] is made to show: its blocks are compared piece by piece and compressed, whatever is sent of them then.
use std::cell::Cell;
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use protocol::message::JoinerPace;

use crate::compare::comparison::Parts;
use crate::cost::clock;
use crate::cost::link::Link;
use crate::cost::pace::{Nanos, Pace, PerByte, Work};
use crate::cost::processors::{Processors, kernel};
use crate::cost::stages::{Host, Shares, Stages, Waits, Way};
use crate::send::packer::Compression;
use crate::threads::lock;

/// The first ranges that differ, and then one in so many, show what each way takes.
const TRIALS_FIRST: u64 = 4;
const TRIAL_EVERY: u64 = 32;

/// The way that sends least is taken if it takes at most so many times as long as the fastest: others use the network too.
const LEAST_BYTES: f64 = 1.1;

/// It is thought over so often.
const CHOSEN_FOR: Duration = Duration::from_millis(20);

/// What is assumed of the bytes until some were sent. A sample tells what differs.
const SHARES: Shares = Shares { differing: 0.5, pieces: 0.2, packed_blocks: 0.4, packed_pieces: 0.6 };
/// What is assumed of redo.
const REDO_PACKED: f64 = 0.4;

thread_local! {
    /// Processor time of the calling thread when it was done with its last range.
    static DONE: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// The calling thread is done with a range: what it does now is reading the next one.
pub fn range_is_done() {
    DONE.set(Some(clock::of_thread()));
}

/// What was seen of a range that was handed over.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Its bytes that are not zero.
    pub bytes: u64,
    /// It was compared: these differ, in whole blocks.
    pub differing: Option<u64>,
    /// It was to be compared, and the joiner did not describe it in time.
    pub unanswered: bool,
    /// Its pieces were compared: these had to be sent, uncompressed.
    pub pieces: Option<u64>,
    /// The processor time that comparing blocks and comparing pieces took.
    pub took: (Duration, Duration),
    /// How long the joiner's answers about blocks and about pieces were waited for.
    pub waited: (Duration, Duration),
}

/// Shares and waits, as measured.
#[derive(Debug)]
struct Measured {
    differing: PerByte,
    pieces: PerByte,
    packed_blocks: PerByte,
    packed_pieces: PerByte,
    packed_redo: PerByte,
    waits_for_blocks: PerByte,
    waits_for_pieces: PerByte,
    threads: HashSet<ThreadId>,
}

/// What the joiner tells of its host.
#[derive(Clone, Copy, Debug)]
struct Joiner {
    nanos: Nanos,
    processors: Option<f64>,
    waiting: f64,
    one_host: bool,
}

/// The ways that the operator permits, and what is known of them.
#[derive(Debug)]
pub struct Ways {
    permitted: Vec<Way>,
    /// The same without comparing anything; redo travels like that too.
    uncompared: Vec<Way>,
    /// What the donor's work takes.
    pub pace: Pace,
    /// The link.
    pub link: Link,
    processors: Processors,
    limit: AtomicU64,
    joiner: Mutex<Joiner>,
    measured: Mutex<Measured>,
    /// Comparing has ended.
    ended: AtomicBool,
    trials: AtomicU64,
    chosen: Mutex<Option<(Instant, Way)>>,
}

impl Ways {
    /// Nothing has been measured yet. `parts` is `None` if nothing is compared. `held_still`: the server blocks writes, so that
    /// comparing may cost more than it saves at any time, not only at the end.
    pub fn new(parts: Option<Parts>, compression: Compression, held_still: bool) -> Ways {
        let packings = match compression {
            Compression::Auto => vec![true, false],
            Compression::Always => vec![true],
            Compression::Never => vec![false],
        };
        let each = |compare, parts| packings.iter().map(move |zstd| Way { compare, parts, zstd: *zstd });
        let mut permitted = Vec::new();
        match parts {
            None => permitted.extend(each(false, false)),
            Some(Parts::Always) => permitted.extend(each(true, true)),
            Some(Parts::Never) => permitted.extend(each(true, false)),
            Some(Parts::Auto) => permitted.extend(each(true, true).chain(each(true, false))),
        }
        if held_still && parts.is_some() {
            permitted.extend(each(false, false));
        }
        let uncompared = each(false, false).collect();
        let assumed = PerByte::assumed;
        Ways {
            permitted,
            uncompared,
            pace: Pace::of_donor(),
            link: Link::default(),
            processors: Processors::of_this_host(),
            limit: AtomicU64::new(u64::MAX),
            joiner: Mutex::new(Joiner {
                nanos: Nanos::JOINER,
                processors: None,
                waiting: 1.0,
                one_host: false,
            }),
            measured: Mutex::new(Measured {
                differing: assumed(SHARES.differing),
                pieces: assumed(SHARES.pieces),
                packed_blocks: assumed(SHARES.packed_blocks),
                packed_pieces: assumed(SHARES.packed_pieces),
                packed_redo: assumed(REDO_PACKED),
                waits_for_blocks: assumed(0.0),
                waits_for_pieces: assumed(0.0),
                threads: HashSet::new(),
            }),
            ended: AtomicBool::new(false),
            trials: AtomicU64::new(0),
            chosen: Mutex::new(None),
        }
    }

    /// What the joiner's sample showed: this share of the bytes differs.
    pub fn expect(&self, differing: f64) {
        lock(&self.measured).differing = PerByte::assumed(differing);
    }

    /// Bytes per second that may be sent.
    pub fn limit(&self, limit: Option<u64>) {
        self.limit.store(limit.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The way of the next range.
    pub fn choose(&self) -> Way {
        let mut chosen = lock(&self.chosen);
        if let Some((_, way)) = chosen.filter(|(at, _)| at.elapsed() < CHOSEN_FOR) {
            return way;
        }
        let (stages, before) = (self.stages(), chosen.map(|(_, way)| way));
        let way = cheapest(&stages, self.permitted());
        if before != Some(way) {
            tracing::debug!("ranges travel by {way:?}: {stages:?}");
        }
        *chosen = Some((Instant::now(), way));
        way
    }

    /// Nothing is compared any more: everything travels whole.
    pub fn compare_no_more(&self) {
        self.ended.store(true, Ordering::Release);
        *lock(&self.chosen) = None;
    }

    fn permitted(&self) -> &[Way] {
        if self.ended.load(Ordering::Acquire) { &self.uncompared } else { &self.permitted }
    }

    /// Whether pieces may be compared.
    pub fn may_compare_pieces(&self) -> bool {
        self.permitted().iter().any(|way| way.parts)
    }

    /// Whether what the joiner does not have travels compressed.
    pub fn packs_whole(&self) -> bool {
        cheapest(&self.stages(), &self.uncompared).zstd
    }

    /// Whether redo travels compressed.
    pub fn packs_redo(&self) -> bool {
        let (mut stages, packed) = (self.stages(), lock(&self.measured).packed_redo.value());
        stages.shares.packed_blocks = packed;
        cheapest(&stages, &self.uncompared).zstd
    }

    /// Whether the next range that differs is to show what each way takes.
    pub fn is_trial(&self) -> bool {
        let number = self.trials.load(Ordering::Relaxed);
        self.permitted().len() > 1 && (number < TRIALS_FIRST || number.is_multiple_of(TRIAL_EVERY))
    }

    /// How long a byte takes now, in nanoseconds: in the cheapest way that compares, and in the cheapest one that does not, if this
    /// share of the bytes differs.
    pub fn comparing_or_not(&self, differing: f64) -> (f64, f64) {
        let mut stages = self.stages();
        stages.shares.differing = differing;
        let cheapest = |ways: &[Way]| ways.iter().map(|way| stages.nanos(*way)).fold(f64::INFINITY, f64::min);
        (cheapest(&self.permitted), cheapest(&self.uncompared))
    }

    /// A range of so many bytes was read by the calling thread since it was done with the one before.
    pub fn range_is_read(&self, bytes: usize) {
        if let Some(done) = DONE.take() {
            self.pace.add(Work::Read, bytes as u64, clock::of_thread().saturating_sub(done));
        }
    }

    /// Records what was seen of a range.
    pub fn learn(&self, seen: &Seen) {
        let mut measured = lock(&self.measured);
        measured.threads.insert(std::thread::current().id());
        let nanos = |time: Duration| time.as_nanos() as f64;
        if seen.unanswered || seen.differing.is_some() {
            measured.waits_for_blocks.add(nanos(seen.waited.0), seen.bytes);
        }
        if seen.unanswered || seen.differing.is_some_and(|bytes| bytes > 0) {
            self.trials.fetch_add(1, Ordering::Relaxed);
        }
        let Some(differing) = seen.differing else { return };
        measured.differing.add(differing as f64, seen.bytes);
        self.pace.add(Work::Fingerprint, seen.bytes, seen.took.0);
        if let Some(pieces) = seen.pieces.filter(|_| differing > 0) {
            measured.pieces.add(pieces as f64, differing);
            measured.waits_for_pieces.add(nanos(seen.waited.1), differing);
            self.pace.add(Work::Pieces, differing, seen.took.1);
        }
    }

    /// Records that so many bytes became so many when they were compressed, which took so much processor time.
    pub fn packed(&self, what: Packed, bytes: usize, packed: usize, took: Duration) {
        self.pace.add(Work::Pack, bytes as u64, took);
        let mut measured = lock(&self.measured);
        let share = match what {
            Packed::Blocks => &mut measured.packed_blocks,
            Packed::Pieces => &mut measured.packed_pieces,
            Packed::Redo => &mut measured.packed_redo,
        };
        share.add(packed as f64, bytes as u64);
    }

    /// Records that so many bytes were sent on one of the connections: how long it was blocked, and the processor time.
    pub fn sent(&self, bytes: usize, blocked: Duration, took: Duration) {
        self.pace.add(Work::Carry, bytes as u64, took);
        self.link.sent(bytes as u64, blocked, lock(&self.joiner).waiting);
    }

    /// Records what the joiner tells of its host.
    pub fn joiner_tells(&self, told: &JoinerPace) {
        *lock(&self.joiner) = Joiner {
            nanos: Nanos::from_message(told.work),
            processors: Some((f64::from(told.processors) / 1e3).max(0.1)),
            waiting: f64::from(told.waiting) / 1e3,
            one_host: kernel() == Some(told.kernel),
        };
    }

    fn stages(&self) -> Stages {
        let joiner = *lock(&self.joiner);
        let donor = Host { nanos: self.pace.nanos(), processors: self.processors.available() };
        let theirs = joiner.processors.unwrap_or(donor.processors);
        // On one host, both have counted the same idle processors.
        let left = self.processors.all() - donor.processors;
        let theirs = if joiner.one_host { theirs.min(left).max(0.0) } else { theirs };
        let limit = self.limit.load(Ordering::Relaxed).max(1) as f64;
        let measured = lock(&self.measured);
        Stages {
            donor,
            joiner: Host { nanos: joiner.nanos, processors: theirs },
            one_host: joiner.one_host,
            link: self.link.speed().min(limit),
            threads: measured.threads.len().max(1) as f64,
            waits: Waits {
                blocks: measured.waits_for_blocks.value(),
                pieces: measured.waits_for_pieces.value(),
            },
            shares: Shares {
                differing: measured.differing.value(),
                pieces: measured.pieces.value(),
                packed_blocks: measured.packed_blocks.value(),
                packed_pieces: measured.packed_pieces.value(),
            },
        }
    }
}

/// What was compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packed {
    /// Blocks of a file.
    Blocks,
    /// Pieces of blocks.
    Pieces,
    /// Redo.
    Redo,
}

/// The way that sends least, of those that take hardly longer than the fastest.
fn cheapest(stages: &Stages, ways: &[Way]) -> Way {
    let fastest = ways.iter().map(|way| stages.nanos(*way)).fold(f64::INFINITY, f64::min);
    let fast = ways.iter().copied().filter(|way| stages.nanos(*way) <= fastest * LEAST_BYTES);
    let least = fast.min_by(|a, b| stages.sent(*a).total_cmp(&stages.sent(*b)));
    least.unwrap_or(Way { compare: false, parts: false, zstd: false })
}

#[cfg(test)]
mod tests {
    use protocol::message::JoinerWork;

    use super::*;

    const MIB: u64 = 1 << 20;
    const PARTS: Way = Way { compare: true, parts: true, zstd: true };

    fn ways(parts: Option<Parts>, compression: Compression) -> Ways {
        Ways::new(parts, compression, false)
    }

    /// A range of which half differs, a tenth of it in pieces.
    fn half(pieces: bool) -> Seen {
        let took = (Duration::from_micros(300), Duration::from_micros(500));
        let (differing, pieces) = (Some(MIB / 2), pieces.then_some(MIB / 20));
        let waited = (Duration::ZERO, Duration::ZERO);
        Seen { bytes: MIB, differing, unanswered: false, pieces, took, waited }
    }

    #[test]
    fn the_options_decide_which_ways_there_are() {
        let ways = |parts, compression, held| {
            let ways = Ways::new(parts, compression, held).permitted;
            ways.iter().map(|way| (way.compare, way.parts, way.zstd)).collect::<Vec<_>>()
        };
        let (parts, zstd, plain) = ((true, true, true), (true, false, true), (true, false, false));
        let all = [(false, false, true), (false, false, false)];
        assert_eq!(
            ways(Some(Parts::Auto), Compression::Auto, false),
            [parts, (true, true, false), zstd, plain]
        );
        assert_eq!(ways(Some(Parts::Always), Compression::Always, false), [parts]);
        assert_eq!(ways(Some(Parts::Never), Compression::Auto, false), [zstd, plain]);
        assert_eq!(ways(None, Compression::Auto, false), all);
        assert_eq!(ways(None, Compression::Auto, true), all);
        assert_eq!(ways(Some(Parts::Never), Compression::Never, true), [plain, all[1]]);
    }

    #[test]
    fn a_limit_makes_the_shortest_way_the_cheapest() {
        let ways = ways(Some(Parts::Auto), Compression::Auto);
        ways.limit(Some(10_000_000));
        (0..20).for_each(|_| ways.learn(&half(true)));
        assert_eq!(ways.choose(), PARTS);
        // Pieces of which nothing is saved are not worth comparing on a link without a limit.
        ways.limit(None);
        for _ in 0..200 {
            ways.learn(&Seen { pieces: Some(MIB / 2), ..half(true) });
        }
        std::thread::sleep(CHOSEN_FOR);
        assert!(!ways.choose().parts);
    }

    #[test]
    fn one_range_in_some_shows_what_each_way_takes() {
        let every = ways(Some(Parts::Auto), Compression::Auto);
        let trials = (0..3 * TRIAL_EVERY).filter(|_| {
            let trial = every.is_trial();
            every.learn(&half(trial));
            trial
        });
        assert_eq!(trials.count() as u64, TRIALS_FIRST + 2);
        assert!(!ways(Some(Parts::Always), Compression::Always).is_trial(), "there is nothing to choose");
        // What is the same shows nothing.
        let same = ways(Some(Parts::Auto), Compression::Auto);
        (0..9).for_each(|_| same.learn(&Seen { differing: Some(0), ..half(false) }));
        assert!(same.is_trial());
    }

    #[test]
    fn once_comparing_has_ended_everything_travels_whole() {
        let ways = ways(Some(Parts::Always), Compression::Auto);
        assert!(ways.choose().compare && ways.may_compare_pieces());
        ways.compare_no_more();
        assert!(!ways.choose().compare && !ways.may_compare_pieces());
    }

    #[test]
    fn a_joiner_without_processors_is_given_little_to_do() {
        let ways = ways(Some(Parts::Auto), Compression::Auto);
        (0..20).for_each(|_| ways.learn(&half(true)));
        let work = JoinerWork { pieces: 10_000, ..Nanos::JOINER.to_message() };
        ways.joiner_tells(&JoinerPace { kernel: 0, processors: 100, waiting: 0, work });
        assert!(!ways.choose().parts);
        let (comparing, not) = ways.comparing_or_not(1.0);
        assert!(comparing > not, "{comparing} {not}");
    }

    #[test]
    fn what_is_read_counts_from_the_end_of_the_range_before() {
        let ways = ways(None, Compression::Auto);
        let before = ways.pace.nanos();
        range_is_done();
        let until = clock::of_thread() + Duration::from_millis(20);
        while clock::of_thread() < until {}
        ways.range_is_read(MIB as usize);
        assert!(ways.pace.nanos().of(Work::Read) > before.of(Work::Read));
        let once = ways.pace.nanos();
        ways.range_is_read(MIB as usize);
        assert_eq!(ways.pace.nanos(), once, "it is counted once");
    }
}
