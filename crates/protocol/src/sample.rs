//! An estimate of how much two nodes share, from a few blocks, and whether comparing them pays at all.
use serde::{Deserialize, Serialize};

use crate::fingerprint::{BLOCK_BYTES, Fingerprint};
use crate::inventory::Place;

/// At most this many blocks are sampled. The share is then known to about 3 %.
pub const SAMPLE_BLOCKS: usize = 256;
/// Little data gets fewer sampled blocks, because they would be much of what is sent.
const SAMPLE_BLOCKS_MIN: u64 = 96;
/// One block is sampled for this many bytes, between the two limits.
const BYTES_FOR_ONE: u64 = 4 << 20;
/// With fewer sampled blocks than this, it proves nothing that none is the same.
const ENOUGH: usize = 32;
/// Pages of two unrelated databases are alike to this extent, because of their layout.
const BY_CHANCE: f64 = 0.1;

/// A few blocks of the joiner's data files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// The blocks, without those of zeros.
    pub blocks: Vec<Sampled>,
    /// Bytes of the files that they represent.
    pub bytes: u64,
    /// All files are to be compared, whatever these blocks show: the joiner has more files than these, of an interrupted transfer or
    /// a backup, or it does not permit that everything is sent.
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
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// The fingerprints of a few of its pieces ([`crate::delta::few_fingerprints`]).
    pub pieces: Vec<u8>,
}

/// The part of a sample that the donor has too.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shared {
    /// Blocks that are equal.
    pub same: usize,
    /// The share of equal bytes in the other blocks; 0 if parts of pages are not sent.
    pub alike: f64,
}

/// The conclusion from a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Files are compared, and this many of the donor's bytes will probably be sent.
    Incremental {
        /// Bytes, before packing.
        about: u64,
        /// The same estimate if only parts of differing pages are sent.
        in_parts: u64,
        /// The lower bound, from the sampled files alone: the others may be equal.
        at_least: u64,
    },
    /// Nothing is compared, because the joiner's data is unrelated.
    Full,
}

impl Sample {
    /// Decides for a donor that shares this much of the sample, and has `bytes` in all.
    pub fn decide(&self, shared: Shared, bytes: u64) -> Decision {
        let Shared { same, alike } = shared;
        if same == 0 && alike < BY_CHANCE && self.blocks.len() >= ENOUGH && !self.more {
            return Decision::Full;
        }
        let share = same as f64 / self.blocks.len().max(1) as f64;
        let less = |share: f64| bytes.saturating_sub((self.bytes as f64 * share) as u64);
        let in_parts = less(share + (1.0 - share) * alike);
        let differs = (self.bytes as f64 * (1.0 - share) * (1.0 - alike)) as u64;
        Decision::Incremental { about: less(share), in_parts, at_least: differs.min(in_parts) }
    }

    /// The most of a donor's `bytes` that the joiner probably has, if the donor shares this much of the sample: a standard
    /// deviation more than that, and all that was not sampled. `None` if the sample says nothing of it.
    pub fn may_share(&self, shared: Shared, bytes: u64) -> Option<u64> {
        let (same, blocks) = (shared.same as f64, self.blocks.len());
        if blocks < ENOUGH || self.more {
            return None;
        }
        let share = ((same + same.sqrt() + 1.0) / blocks as f64).min(1.0);
        let sampled = self.bytes.min(bytes);
        Some((sampled as f64 * share) as u64 + (bytes - sampled))
    }
}

/// The number of blocks to sample for this many bytes.
pub fn blocks_of(bytes: u64) -> usize {
    (bytes / BYTES_FOR_ONE).clamp(SAMPLE_BLOCKS_MIN, SAMPLE_BLOCKS as u64) as usize
}

/// Chooses blocks of files of these sizes, evenly over all their bytes: file and block number, at most
/// `wanted`.
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
        let (place, fingerprint, pieces) = (Place::Datadir, Fingerprint::default(), Vec::new());
        let block = Sampled { place, path: "d/t.ibd".into(), block: 0, fingerprint, pieces };
        Sample { blocks: vec![block; blocks], bytes, more }
    }

    #[test]
    fn decides_by_what_is_the_same() {
        let decide = |sample: Sample, same, alike| sample.decide(Shared { same, alike }, 1200);
        let about = |about, in_parts, at_least| Decision::Incremental { about, in_parts, at_least };
        assert_eq!(decide(sample(256, 1000, false), 192, 0.0), about(450, 450, 250));
        assert_eq!(decide(sample(256, 1000, false), 192, 0.5), about(450, 325, 125));
        assert_eq!(decide(sample(256, 1000, false), 0, 0.05), Decision::Full);
        // Nodes that modified all pages independently.
        assert_eq!(decide(sample(256, 1000, false), 0, 0.9), about(1200, 300, 99));
        // Too few blocks to conclude anything, or the joiner has more files than were sampled.
        assert_eq!(decide(sample(10, 1000, false), 0, 0.0), about(1200, 1200, 1000));
        assert_eq!(decide(sample(256, 1000, true), 0, 0.0), about(1200, 1200, 1000));
        assert_eq!(decide(sample(0, 0, false), 0, 0.0), about(1200, 1200, 0));
        assert_eq!(decide(sample(4, 9000, false), 4, 0.0), about(0, 0, 0));
        // Most bytes are in files that were not sampled, and the sampled ones are equal.
        assert_eq!(decide(sample(19, 20, false), 19, 0.0), about(1180, 1180, 0));
    }

    #[test]
    fn what_may_be_shared_is_more_than_what_was_found() {
        let may_share = |sample: Sample, same| sample.may_share(Shared { same, alike: 0.9 }, 100_000);
        assert_eq!(may_share(sample(256, 90_000, false), 0), Some(10_000 + 351));
        assert_eq!(may_share(sample(256, 90_000, false), 16), Some(10_000 + 7382));
        assert_eq!(may_share(sample(256, 90_000, false), 256), Some(100_000));
        assert_eq!(may_share(sample(256, 200_000, false), 0), Some(390));
        assert_eq!(may_share(sample(10, 90_000, false), 0), None);
        assert_eq!(may_share(sample(256, 90_000, true), 0), None, "leftovers are not sampled");
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
