//! What a few blocks say of how much two nodes share, before anything is compared: an estimate, and whether it is worth
//! comparing at all.
use serde::{Deserialize, Serialize};

use crate::inventory::Place;
use crate::marks::{BLOCK_BYTES, Mark};

/// Blocks that are looked at at most: the share is known to about three hundredths then.
pub const SAMPLE_BLOCKS: usize = 256;
/// Of little data fewer are: they would be much of what travels.
const SAMPLE_BLOCKS_MIN: u64 = 96;
/// Bytes for which one block is looked at, between the two.
const BYTES_FOR_ONE: u64 = 4 << 20;
/// With fewer than this, none that is the same says nothing.
const ENOUGH: usize = 32;
/// Pages of two databases have as much in common by chance: their layout.
const BY_CHANCE: f64 = 0.1;

/// A few blocks of the joiner's data files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// The blocks; none of zeros.
    pub blocks: Vec<Sampled>,
    /// Bytes of the files that they stand for.
    pub bytes: u64,
    /// The joiner has more than these files: what a broken transfer left, or a backup.
    pub more: bool,
}

/// One block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sampled {
    /// The directory of its file.
    pub place: Place,
    /// Path of the file in it.
    pub path: String,
    /// Its number in the file, in [`BLOCK_BYTES`].
    pub block: u64,
    /// Its mark.
    pub mark: Mark,
    /// The marks of a few of its pieces ([`crate::delta::few_marks`]).
    pub pieces: Vec<u8>,
}

/// What of a sample a donor has.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shared {
    /// Blocks that are the same.
    pub same: usize,
    /// Of the bytes of the others the share that is the same; nothing where parts of pages are not sent.
    pub alike: f64,
}

/// What follows from a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Files are compared, and of so many bytes that the donor has this many are probably sent.
    Incremental {
        /// Bytes, before packing.
        about: u64,
        /// The same, where of pages that differ only parts are sent.
        in_parts: u64,
    },
    /// Nothing is compared: the joiner's data is another one.
    Full,
}

impl Sample {
    /// Decides, when the donor has so much of it, and `bytes` in all.
    pub fn decide(&self, shared: Shared, bytes: u64) -> Decision {
        let Shared { same, alike } = shared;
        if same == 0 && alike < BY_CHANCE && self.blocks.len() >= ENOUGH && !self.more {
            return Decision::Full;
        }
        let share = same as f64 / self.blocks.len().max(1) as f64;
        let less = |share: f64| bytes.saturating_sub((self.bytes as f64 * share) as u64);
        Decision::Incremental { about: less(share), in_parts: less(share + (1.0 - share) * alike) }
    }
}

/// How many blocks of so many bytes are looked at.
pub fn blocks_of(bytes: u64) -> usize {
    (bytes / BYTES_FOR_ONE).clamp(SAMPLE_BLOCKS_MIN, SAMPLE_BLOCKS as u64) as usize
}

/// Blocks of files of these sizes, evenly over all of their bytes: file and number, at most `wanted`.
pub fn spread(sizes: &[u64], wanted: usize) -> Vec<(usize, u64)> {
    let blocks = |size: &u64| size / u64::from(BLOCK_BYTES);
    let total: u64 = sizes.iter().map(blocks).sum();
    let step = total.div_ceil(wanted.max(1) as u64).max(1);
    let (mut chosen, mut skip) = (Vec::new(), step / 2);
    for (file, blocks) in sizes.iter().map(blocks).enumerate() {
        let mut at = skip;
        while at < blocks {
            chosen.push((file, at));
            at += step;
        }
        skip = at - blocks;
    }
    chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(blocks: usize, bytes: u64, more: bool) -> Sample {
        let (place, mark, pieces) = (Place::Datadir, Mark::default(), Vec::new());
        let block = Sampled { place, path: "d/t.ibd".into(), block: 0, mark, pieces };
        Sample { blocks: vec![block; blocks], bytes, more }
    }

    #[test]
    fn decides_by_what_is_the_same() {
        let decide = |sample: Sample, same, alike| sample.decide(Shared { same, alike }, 1200);
        let about = |about, in_parts| Decision::Incremental { about, in_parts };
        assert_eq!(decide(sample(256, 1000, false), 192, 0.0), about(450, 450));
        assert_eq!(decide(sample(256, 1000, false), 192, 0.5), about(450, 325));
        assert_eq!(decide(sample(256, 1000, false), 0, 0.05), Decision::Full);
        // Nodes that rewrote all pages, each in its own way.
        assert_eq!(decide(sample(256, 1000, false), 0, 0.9), about(1200, 300));
        // Too few to tell, or there is more than was looked at.
        assert_eq!(decide(sample(10, 1000, false), 0, 0.0), about(1200, 1200));
        assert_eq!(decide(sample(256, 1000, true), 0, 0.0), about(1200, 1200));
        assert_eq!(decide(sample(0, 0, false), 0, 0.0), about(1200, 1200));
        assert_eq!(decide(sample(4, 9000, false), 4, 0.0), about(0, 0));
    }

    proptest! {
        #[test]
        fn is_spread_evenly(sizes in proptest::collection::vec(0u64..50_000_000, 0..20), wanted in 1usize..300) {
            let chosen = spread(&sizes, wanted);
            let blocks: Vec<u64> = sizes.iter().map(|size| size / u64::from(BLOCK_BYTES)).collect();
            let total: u64 = blocks.iter().sum();
            prop_assert!(chosen.len() <= wanted + 1 && (total == 0) == chosen.is_empty());
            prop_assert!(chosen.iter().all(|&(file, block)| block < blocks[file]));
            let place = |&(file, block): &(usize, u64)| blocks[..file].iter().sum::<u64>() + block;
            let steps: Vec<u64> = chosen.windows(2).map(|two| place(&two[1]) - place(&two[0])).collect();
            prop_assert!(steps.windows(2).all(|two| two[0] == two[1]));
        }
    }
}
