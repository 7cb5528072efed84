//! Fingerprints, with which two nodes find out what they both have.
//!
//! A fingerprint is the first 128 bits of keyed BLAKE3 over the bytes. The key is made for one attempt of one
//! transfer, so a user who writes rows cannot construct two contents with the same fingerprint. By chance,
//! 10^12 pages meet a wrong fingerprint with a probability below 10^-26 (each page is compared with one
//! other, not with all).
//!
//! A file is fingerprinted range by range ([`RANGE_BYTES`]: 16 bytes each, 0.0015 % of the file), and block
//! by block where a range differs. The fingerprint of a range is computed from those of its blocks, so one
//! pass over the file makes both. Small files share one fingerprint for as many files as make a range
//! ([`GroupHasher`]), because file names and separate messages would cost more than the fingerprints.
use crate::limits::RANGE_BYTES;

/// The size of the blocks of a range: a page of the usual size.
pub const BLOCK_BYTES: u32 = 16 << 10;

/// A fingerprint.
pub type Fingerprint = [u8; 16];

/// The key of the fingerprints of one attempt.
pub type FingerprintKey = [u8; 32];

/// The most fingerprints of ranges in one message.
pub const FINGERPRINTS_MAX: usize = 256;

/// The fingerprint of some bytes.
pub fn fingerprint(key: &FingerprintKey, bytes: &[u8]) -> Fingerprint {
    let hash = blake3::keyed_hash(key, bytes);
    let mut fingerprint = Fingerprint::default();
    fingerprint.copy_from_slice(&hash.as_bytes()[..16]);
    fingerprint
}

/// The fingerprints of the blocks of a range; the last one may be shorter.
pub fn block_fingerprints(key: &FingerprintKey, range: &[u8]) -> Vec<Fingerprint> {
    range.chunks(BLOCK_BYTES as usize).map(|block| fingerprint(key, block)).collect()
}

/// The fingerprint of a range with these blocks.
pub fn range_fingerprint(key: &FingerprintKey, blocks: &[Fingerprint]) -> Fingerprint {
    fingerprint(key, blocks.as_flattened())
}

/// Computes the common fingerprint of several files: from the length of each and the fingerprints of its
/// ranges, in order.
pub struct GroupHasher(blake3::Hasher);

impl GroupHasher {
    /// Starts with no file.
    pub fn new(key: &FingerprintKey) -> GroupHasher {
        GroupHasher(blake3::Hasher::new_keyed(key))
    }

    /// Adds a file. The length is `None` if there is no file of that name.
    pub fn add(&mut self, size: Option<u64>, ranges: &[Fingerprint]) {
        // One byte before the length tells a missing file from an empty one.
        self.0.update(&[u8::from(size.is_some())]);
        self.0.update(&size.unwrap_or(0).to_le_bytes());
        self.0.update(ranges.as_flattened());
    }

    /// The fingerprint of all files.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut fingerprint = Fingerprint::default();
        fingerprint.copy_from_slice(&self.0.finalize().as_bytes()[..16]);
        fingerprint
    }
}

/// Returns the parts of a range of `len` bytes, with the block fingerprints `ours`, that are equal to those
/// of a range of `their_len` bytes with the fingerprints `theirs`: start and length, ascending, not touching.
pub fn same_parts(ours: &[Fingerprint], len: u32, theirs: &[Fingerprint], their_len: u32) -> Vec<(u32, u32)> {
    let mut same: Vec<(u32, u32)> = Vec::new();
    for (number, (ours, theirs)) in (0u32..).zip(ours.iter().zip(theirs)) {
        let start = number * BLOCK_BYTES;
        let end = |len: u32| len.min(start + BLOCK_BYTES);
        // This is the end of a file that is longer on one side.
        if end(len) != end(their_len) || ours != theirs {
            continue;
        }
        let len = end(len).saturating_sub(start);
        match same.last_mut() {
            Some((from, before)) if *from + *before == start => *before += len,
            _ => same.push((start, len)),
        }
    }
    same
}

/// The number of ranges of a file of `size` bytes.
pub fn ranges(size: u64) -> u32 {
    u32::try_from(size.div_ceil(u64::from(RANGE_BYTES))).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_a_fingerprint_together() {
        let of = |key: u8, files: &[(Option<u64>, &[Fingerprint])]| {
            let mut together = GroupHasher::new(&[key; 32]);
            files.iter().for_each(|(size, ranges)| together.add(*size, ranges));
            together.fingerprint()
        };
        let (a, b) = ([[1; 16]], [[2; 16], [3; 16]]);
        let both = of(7, &[(Some(9), &a), (Some(10), &b)]);
        assert_eq!(both, of(7, &[(Some(9), &a), (Some(10), &b)]));
        let others: [&[(Option<u64>, &[Fingerprint])]; 5] = [
            &[(Some(10), &b), (Some(9), &a)],
            &[(Some(9), &a), (Some(11), &b)],
            &[(Some(9), &a), (Some(10), &b[..1])],
            &[(Some(9), &a)],
            &[(Some(9), &a), (Some(10), &b), (None, &[])],
        ];
        for other in others {
            assert!(of(7, other) != both, "{other:?}");
        }
        assert!(of(8, &[(Some(9), &a), (Some(10), &b)]) != both, "another key makes another fingerprint");
        assert!(of(7, &[(None, &[])]) != of(7, &[(Some(0), &[])]));
    }

    #[test]
    fn parts_that_are_the_same_are_found_block_by_block() {
        let key = [7; 32];
        let ours: Vec<u8> = (0..100_000u32).map(|n| (n / 7) as u8).collect();
        let mut theirs = ours.clone();
        theirs[40_000] ^= 1;
        let (fingerprints, len) = (block_fingerprints(&key, &theirs), theirs.len() as u32);
        assert_eq!(fingerprints.len(), 7);
        let of = |key: &FingerprintKey, ours: &[u8]| {
            same_parts(&block_fingerprints(key, ours), ours.len() as u32, &fingerprints, len)
        };
        let same = of(&key, &ours);
        assert_eq!(same, [(0, 32768), (49152, 100_000 - 49152)]);
        // Another key gives other fingerprints.
        assert!(of(&[8; 32], &ours).is_empty());
        // Ours ends earlier, within the last block, so that block differs whatever its beginning holds.
        let same = of(&key, &ours[..99_000]);
        assert_eq!(same, [(0, 32768), (49152, 98304 - 49152)]);
        // Ranges are equal if all their blocks are.
        let whole = |bytes: &[u8]| range_fingerprint(&key, &block_fingerprints(&key, bytes));
        assert_eq!(whole(&ours), whole(&ours.clone()));
        assert!(whole(&ours) != whole(&theirs) && whole(&ours) != whole(&ours[..99_000]));
        assert!(whole(&[]) != whole(&[0]));
    }
}
