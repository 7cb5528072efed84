//! The ways in which the bytes of a range can travel, and which of them is the cheapest, as measured.
use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::compare::comparison::Parts;
use crate::send::cost_model::{Choice, CostModel, Window};
use crate::send::packer::Compression;
use crate::threads::lock;

/// The buffers of the sockets take tens of megabytes, whatever the link carries.
const WINDOW: Window = Window { warm_up: 32 << 20, bytes: 16 << 20, kept: 4 };

/// Parts of blocks may cost a tenth more time than whole ones: these take many times the bytes, of a network that others use too.
const PARTS_HANDICAP: f64 = 0.9;

/// A busy joiner takes bytes slowly whatever the link could carry, and decompressing makes it busier.
const ZSTD_HANDICAP: f64 = 1.4;

/// Connections that are busy for so much of the time are what everything waits for.
const BUSY: f64 = 0.7;
/// Over so long.
const SAMPLE: Duration = Duration::from_millis(250);

/// A thread that was done with a range longer ago than this has waited for something else than the next one.
const PAUSE: Duration = Duration::from_secs(1);

thread_local! {
    /// When the calling thread was done with its last range.
    static DONE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// When the calling thread began to work on the range that it has: as soon as it was done with the one before. A range costs
/// what its reading takes too, because threads that wait for the link, for the joiner or for a processor read later; what
/// one of these takes by itself says little about how soon all is sent.
pub fn range_began() -> Instant {
    DONE.get().filter(|done| done.elapsed() < PAUSE).unwrap_or_else(Instant::now)
}

/// The calling thread is done with a range.
pub fn range_is_done() {
    DONE.set(Some(Instant::now()));
}

/// How busy the connections are.
#[derive(Debug)]
struct Connections {
    count: u16,
    /// Microseconds of all of them.
    busy: AtomicU64,
    sample: Mutex<Sample>,
}

#[derive(Debug)]
struct Sample {
    at: Instant,
    busy: u64,
    /// Of the time before `at`.
    share: f64,
}

impl Connections {
    fn new(count: u16) -> Connections {
        let sample = Mutex::new(Sample { at: Instant::now(), busy: 0, share: 0.0 });
        Connections { count, busy: AtomicU64::new(0), sample }
    }

    /// Whether they are what everything waits for.
    fn are_the_limit(&self) -> bool {
        let mut sample = lock(&self.sample);
        let elapsed = sample.at.elapsed();
        if elapsed >= SAMPLE {
            let busy = self.busy.load(Ordering::Relaxed);
            let time = elapsed.as_micros() as f64 * f64::from(self.count);
            *sample =
                Sample { at: Instant::now(), busy, share: busy.saturating_sub(sample.busy) as f64 / time };
        }
        sample.share >= BUSY
    }
}

/// How the bytes of a range travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Of blocks that the joiner has in another version, only the differing pieces are sent.
    pub parts: bool,
    /// What is sent is compressed.
    pub zstd: bool,
}

/// The ways that the operator permits.
#[derive(Debug)]
pub struct Ways {
    ways: Vec<Way>,
    model: Mutex<CostModel>,
    connections: Connections,
}

impl Ways {
    /// Nothing has been measured yet. `parts` is `None` if nothing is compared. Sends on so many connections. The way that sends least is tried first:
    /// where little differs, the transfer ends before another one is.
    pub fn new(parts: Option<Parts>, compression: Compression, connections: u16) -> Ways {
        let mut ways = Vec::new();
        if matches!(parts, Some(Parts::Always | Parts::Auto)) {
            ways.push(Way { parts: true, zstd: compression != Compression::Never });
        }
        if parts != Some(Parts::Always) {
            if compression != Compression::Never {
                ways.push(Way { parts: false, zstd: true });
            }
            if compression != Compression::Always {
                ways.push(Way { parts: false, zstd: false });
            }
        }
        let handicap = |way: &Way| match way {
            Way { parts: true, .. } => PARTS_HANDICAP,
            Way { zstd: true, .. } => ZSTD_HANDICAP,
            _ => 1.0,
        };
        let model = Mutex::new(CostModel::new(WINDOW, ways.iter().map(handicap).collect()));
        Ways { ways, model, connections: Connections::new(connections) }
    }

    /// The way of the next range.
    pub fn choose(&self) -> (Choice, Way) {
        let choice = lock(&self.model).choose();
        (choice, self.ways.get(choice.way).copied().unwrap_or(Way { parts: false, zstd: false }))
    }

    /// Whether the connections are what everything waits for.
    pub fn connections_are_the_limit(&self) -> bool {
        self.connections.are_the_limit()
    }

    /// Nothing is compared any more, so there are no parts.
    pub fn drop_parts(&self) {
        let mut model = lock(&self.model);
        (0..self.ways.len()).filter(|way| self.ways[*way].parts).for_each(|way| model.exclude(way));
    }

    /// Records that a connection was busy for so long with what it had to send.
    pub fn sent(&self, took: Duration) {
        self.connections.busy.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
    }

    /// Records that `differing` bytes of a range, which the joiner did not have, were queued after `took`.
    pub fn learn(&self, choice: Choice, way: Way, differing: u64, took: Duration) {
        // Whole blocks are several times the bytes: where the connections are the limit they take so many times as long, and
        // on a slow link a trial alone takes seconds. Compressed blocks may be the dearer ones for a busy joiner, which
        // makes connections wait too; so plain ones are tried in any case.
        let held = way.parts && self.connections.are_the_limit();
        let mut model = lock(&self.model);
        model.hold(held);
        model.learn(choice, differing, took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_begins_where_the_one_before_was_done() {
        let rest = Duration::from_millis(20);
        // A thread that has not been done with any.
        let own = move || {
            assert!(range_began().elapsed() < rest);
            range_is_done();
            std::thread::sleep(rest);
            range_began().elapsed()
        };
        assert!(std::thread::spawn(own).join().unwrap() >= rest);
    }

    /// Parts of blocks are kept on a slow link; otherwise the other ways are tried after some windows.
    #[test]
    fn whole_blocks_are_not_tried_where_the_connections_are_the_limit() {
        let tried = |busy: f64| {
            let ways = Ways::new(Some(Parts::Auto), Compression::Auto, 2);
            std::thread::sleep(SAMPLE);
            ways.sent(SAMPLE.mul_f64(2.0 * busy));
            (0..200).any(|_| {
                let (choice, way) = ways.choose();
                ways.learn(choice, way, 1 << 20, Duration::from_millis(1));
                !way.parts
            })
        };
        assert!(tried(0.2));
        assert!(!tried(1.0));
    }

    #[test]
    fn without_parts_the_other_ways_remain() {
        let ways = Ways::new(Some(Parts::Auto), Compression::Auto, 2);
        assert!(ways.choose().1.parts);
        ways.drop_parts();
        assert!((0..400).all(|_| {
            let (choice, way) = ways.choose();
            ways.learn(choice, way, 1 << 20, Duration::from_millis(1));
            !way.parts
        }));
        // It is the only one that the operator permits: blocks are sent whole then.
        let ways = Ways::new(Some(Parts::Always), Compression::Auto, 2);
        ways.drop_parts();
        assert_eq!(ways.choose().1, Way { parts: true, zstd: true });
    }

    #[test]
    fn the_options_decide_which_ways_there_are() {
        let ways = |parts, compression| {
            let ways = Ways::new(parts, compression, 1).ways;
            ways.iter().map(|way| (way.parts, way.zstd)).collect::<Vec<_>>()
        };
        let (parts, zstd, plain) = ((true, true), (false, true), (false, false));
        assert_eq!(ways(Some(Parts::Auto), Compression::Auto), [parts, zstd, plain]);
        assert_eq!(ways(Some(Parts::Always), Compression::Auto), [parts]);
        assert_eq!(ways(Some(Parts::Never), Compression::Auto), [zstd, plain]);
        assert_eq!(ways(None, Compression::Auto), [zstd, plain]);
        assert_eq!(ways(None, Compression::Always), [zstd]);
        assert_eq!(ways(Some(Parts::Auto), Compression::Never), [(true, false), plain]);
    }
}
