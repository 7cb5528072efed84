//! The ways in which the bytes of a range can travel, and which of them is the cheapest, as measured.
use std::sync::Mutex;
use std::time::Duration;

use crate::compare::comparison::Parts;
use crate::send::cost_model::{Choice, CostModel, Window};
use crate::send::packer::Compression;
use crate::threads::lock;

/// The buffers of the sockets take tens of megabytes, whatever the link carries.
const WINDOW: Window = Window { warm_up: 32 << 20, bytes: 16 << 20, kept: 4 };

/// Parts of blocks may cost more time than whole ones: these take many times the bytes, of a network that others use too.
const PARTS_HANDICAP: f64 = 0.5;

/// A busy joiner takes bytes slowly whatever the link could carry, and decompressing makes it busier.
const ZSTD_HANDICAP: f64 = 1.4;

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
}

impl Ways {
    /// Nothing has been measured yet. `parts` is `None` if nothing is compared. The way that sends least is tried first:
    /// where little differs, the transfer ends before another one is.
    pub fn new(parts: Option<Parts>, compression: Compression) -> Ways {
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
        Ways { ways, model }
    }

    /// The way of the next range.
    pub fn choose(&self) -> (Choice, Way) {
        let choice = lock(&self.model).choose();
        (choice, self.ways.get(choice.way).copied().unwrap_or(Way { parts: false, zstd: false }))
    }

    /// Records that `differing` bytes of a range, which the joiner did not have, were queued after `took`.
    pub fn learn(&self, choice: Choice, differing: u64, took: Duration) {
        lock(&self.model).learn(choice, differing, took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_decide_which_ways_there_are() {
        let ways = |parts, compression| {
            let ways = Ways::new(parts, compression).ways;
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
