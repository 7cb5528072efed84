//! Parts of a block. When two nodes modify the same page independently (header LSN, transaction ids, roll
//! pointers), most of its bytes stay the same.
//!
//! The joiner cuts its block into pieces of [`PIECE_BYTES`] and sends a short fingerprint of each; the donor
//! sends the pieces whose fingerprints differ. Short fingerprints collide by chance (for one block with a
//! hundred differing pieces in about 650), so a rebuilt block is accepted only if its whole [`Fingerprint`]
//! is the donor's; otherwise the donor sends the whole block. `docs/decisions/0011-parts-of-pages.md`
//! explains why this is not a rolling match or an error-correcting code.
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::fingerprint::{BLOCK_BYTES, Fingerprint, FingerprintKey, fingerprint};

/// Bytes of a piece.
pub const PIECE_BYTES: usize = 32;

/// Bytes of the fingerprint of a piece.
pub const PIECE_FINGERPRINT_BYTES: usize = 2;

/// A block that differs in more than this share is sent whole, because the list of pieces would not pay.
const WORTH_IT: f64 = 0.75;

/// A block that the joiner rebuilds from its own and the pieces that follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// First byte of the block, from the chunk's first byte.
    pub start: u32,
    /// Length in bytes.
    pub len: u32,
    /// One bit for each piece, the lowest first; it is set if the piece is sent.
    pub sent: Vec<u8>,
    /// The fingerprint of the donor's block.
    pub fingerprint: Fingerprint,
}

/// The fingerprints of the pieces of a block, concatenated.
pub fn piece_fingerprints(key: &FingerprintKey, block: &[u8]) -> Vec<u8> {
    let seed = seed(key);
    let fingerprints = block.chunks(PIECE_BYTES).map(|piece| xxh3_64_with_seed(piece, seed).to_le_bytes());
    fingerprints.flat_map(|fingerprint| fingerprint.into_iter().take(PIECE_FINGERPRINT_BYTES)).collect()
}

/// One in this many pieces of a block is sampled.
const FEW: usize = 32;

/// The fingerprints of a few pieces, spread evenly over a block.
pub fn few_fingerprints(key: &FingerprintKey, block: &[u8]) -> Vec<u8> {
    let few = block.chunks(PIECE_BYTES).step_by(FEW);
    few.flat_map(|piece| piece_fingerprints(key, piece)).collect()
}

/// Compares the sampled pieces of a block with their fingerprints. Returns how many are equal, and how many
/// there are. Pieces of zeros do not count.
pub fn alike(key: &FingerprintKey, block: &[u8], theirs: &[u8]) -> (usize, usize) {
    let few = block.chunks(PIECE_BYTES).step_by(FEW).zip(theirs.chunks(PIECE_FINGERPRINT_BYTES));
    let telling: Vec<bool> = few
        .filter(|(piece, _)| piece.iter().any(|byte| *byte != 0))
        .map(|(piece, theirs)| piece_fingerprints(key, piece) == theirs)
        .collect();
    (telling.iter().filter(|alike| **alike).count(), telling.len())
}

/// A deliberate collision only costs bandwidth, so this key need not be cryptographic.
fn seed(key: &FingerprintKey) -> u64 {
    key.iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte))
}

/// The length of the piece fingerprints of a block of `len` bytes.
pub fn fingerprints_len(len: usize) -> usize {
    len.div_ceil(PIECE_BYTES) * PIECE_FINGERPRINT_BYTES
}

/// Finds the pieces of a `block` at `start`, with the fingerprint `whole`, that must be sent to a node whose
/// block has the piece fingerprints `theirs`. Appends their bytes to `literals`. Returns `None` if the block
/// is better sent whole.
pub fn diff(
    key: &FingerprintKey,
    start: u32,
    block: &[u8],
    whole: Fingerprint,
    theirs: &[u8],
    literals: &mut Vec<u8>,
) -> Option<Delta> {
    if theirs.len() != fingerprints_len(block.len()) {
        return None;
    }
    let ours = piece_fingerprints(key, block);
    let pairs = ours.chunks(PIECE_FINGERPRINT_BYTES).zip(theirs.chunks(PIECE_FINGERPRINT_BYTES));
    let mut sent = vec![0; block.len().div_ceil(PIECE_BYTES).div_ceil(8)];
    let before = literals.len();
    for (number, ((ours, theirs), piece)) in pairs.zip(block.chunks(PIECE_BYTES)).enumerate() {
        if ours != theirs {
            if let Some(byte) = sent.get_mut(number / 8) {
                *byte |= 1 << (number % 8);
            }
            literals.extend_from_slice(piece);
        }
    }
    if (literals.len() - before) as f64 > block.len() as f64 * WORTH_IT {
        literals.truncate(before);
        return None;
    }
    Some(Delta { start, len: block.len() as u32, sent, fingerprint: whole })
}

impl Delta {
    /// The number of bytes that are sent, if the list fits the block.
    pub fn literal_len(&self) -> Option<u32> {
        let pieces = (self.len as usize).div_ceil(PIECE_BYTES);
        let fits = self.len > 0 && self.len <= BLOCK_BYTES && self.sent.len() == pieces.div_ceil(8);
        // No bit may be set beyond the last piece.
        let beyond = || (pieces..self.sent.len() * 8).any(|number| self.is_sent(number));
        if !fits || beyond() {
            return None;
        }
        Some(self.pieces().filter(|(number, _)| self.is_sent(*number)).map(|(_, len)| len).sum())
    }

    /// The number and length of each piece.
    fn pieces(&self) -> impl Iterator<Item = (usize, u32)> + '_ {
        (0..self.len)
            .step_by(PIECE_BYTES)
            .enumerate()
            .map(|(number, from)| (number, (self.len - from).min(PIECE_BYTES as u32)))
    }

    fn is_sent(&self, number: usize) -> bool {
        self.sent.get(number / 8).is_some_and(|byte| byte >> (number % 8) & 1 == 1)
    }

    /// Turns the joiner's block into the donor's. Returns false if the result has another fingerprint.
    pub fn rebuild(&self, key: &FingerprintKey, block: &mut [u8], literals: &[u8]) -> bool {
        if block.len() != self.len as usize || self.literal_len() != Some(literals.len() as u32) {
            return false;
        }
        let mut rest = literals;
        for (number, piece) in block.chunks_mut(PIECE_BYTES).enumerate() {
            if self.is_sent(number) {
                let (now, later) = rest.split_at(piece.len());
                piece.copy_from_slice(now);
                rest = later;
            }
        }
        fingerprint(key, block) == self.fingerprint
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: FingerprintKey = [9; 32];

    fn diff_of(start: u32, ours: &[u8], theirs: &[u8], literals: &mut Vec<u8>) -> Option<Delta> {
        diff(&KEY, start, ours, fingerprint(&KEY, ours), &piece_fingerprints(&KEY, theirs), literals)
    }

    #[test]
    fn only_the_pieces_that_differ_are_sent() {
        let ours: Vec<u8> = (0..16384u32).map(|n| (n / 5) as u8).collect();
        let mut theirs = ours.clone();
        theirs[100] ^= 1;
        theirs[16383] ^= 1;
        let mut literals = vec![1, 2];
        let delta = diff_of(4096, &ours, &theirs, &mut literals).unwrap();
        assert_eq!((delta.start, delta.len, literals.len()), (4096, 16384, 2 + 64));
        assert!(delta.rebuild(&KEY, &mut theirs, &literals[2..]));
        assert_eq!(theirs, ours);
        // A block that changed after it was fingerprinted is detected, and so is a wrong number of bytes.
        theirs[5000] ^= 1;
        assert!(!delta.rebuild(&KEY, &mut theirs, &literals[2..]));
        assert!(!delta.rebuild(&KEY, &mut ours.clone(), &literals[3..]));
        // For an unrelated block a list does not pay.
        let other: Vec<u8> = ours.iter().map(|byte| byte ^ 0x55).collect();
        assert_eq!(diff_of(0, &ours, &other, &mut literals), None);
        assert_eq!(literals.len(), 66);
        assert_eq!(diff_of(0, &ours[..5], &other, &mut literals), None);
    }

    #[test]
    fn a_few_pieces_tell_how_much_of_a_block_is_the_same() {
        let ours: Vec<u8> = (0..16384u32).map(|n| (n / 5) as u8 | 1).collect();
        let mut theirs = ours.clone();
        theirs[..8192].iter_mut().for_each(|byte| *byte ^= 2);
        let fingerprints = few_fingerprints(&KEY, &theirs);
        assert_eq!((fingerprints.len(), alike(&KEY, &ours, &fingerprints)), (32, (8, 16)));
        assert_eq!(alike(&KEY, &ours, &[]), (0, 0));
        let zeros = vec![0; 16384];
        assert_eq!(alike(&KEY, &zeros, &few_fingerprints(&KEY, &zeros)), (0, 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_rebuilt_is_the_block(
            mut theirs in proptest::collection::vec(any::<u8>(), 1..2000),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
        ) {
            let mut ours = theirs.clone();
            for (at, byte) in changes {
                let at = at.index(ours.len());
                ours[at] = byte;
            }
            let mut literals = Vec::new();
            if let Some(delta) = diff_of(0, &ours, &theirs, &mut literals) {
                prop_assert_eq!(delta.literal_len(), Some(literals.len() as u32));
                // Short fingerprints collide by chance now and then; then the fingerprint of the whole block
                // differs.
                let by_chance = |(ours, theirs): (&[u8], &[u8])| {
                    ours != theirs && piece_fingerprints(&KEY, ours) == piece_fingerprints(&KEY, theirs)
                };
                let pieces = ours.chunks(PIECE_BYTES).zip(theirs.chunks(PIECE_BYTES));
                let missed = pieces.into_iter().any(by_chance);
                prop_assert_eq!(delta.rebuild(&KEY, &mut theirs, &literals), !missed);
                prop_assert_eq!(ours == theirs, !missed);
            }
        }

        #[test]
        fn no_list_makes_it_panic(
            len in 0u32..40_000, sent in proptest::collection::vec(any::<u8>(), 0..70), literals in 0usize..20_000,
        ) {
            let delta = Delta { start: 0, len, sent, fingerprint: Fingerprint::default() };
            let _ = delta.literal_len();
            prop_assert!(!delta.rebuild(&KEY, &mut vec![0; len as usize], &vec![0; literals]));
        }
    }
}
