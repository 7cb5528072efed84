//! Marks: keyed fingerprints by which two nodes learn what they both have.
//!
//! A mark is the first 128 bits of keyed BLAKE3 over the bytes. The key is made for one attempt of one transfer, so who
//! writes rows cannot make two contents with one mark; by chance, 10^12 pages meet a wrong mark with a probability below
//! 10^-26 (each page is compared with one other, not with all).
//!
//! A file is marked range by range ([`RANGE_BYTES`]: 16 bytes each, 0.0015 % of the file); where a range differs, block
//! by block. The mark of a range is that of the marks of its blocks, so that both are made by reading once. Small files have
//! one mark for as many as make a range ([`Together`]): a datadir of many of them would cost more than its marks otherwise.
use crate::limits::RANGE_BYTES;

/// Bytes of the blocks of a range that differs: a page of the usual size.
pub const BLOCK_BYTES: u32 = 16 << 10;

/// A fingerprint.
pub type Mark = [u8; 16];

/// What marks of one attempt are made with.
pub type MarkKey = [u8; 32];

/// Most marks of ranges in one message.
pub const MARKS_MAX: usize = 256;

/// The mark of some bytes.
pub fn mark(key: &MarkKey, bytes: &[u8]) -> Mark {
    let hash = blake3::keyed_hash(key, bytes);
    let mut mark = Mark::default();
    mark.copy_from_slice(&hash.as_bytes()[..16]);
    mark
}

/// The marks of the blocks of a range; the last one may be shorter.
pub fn block_marks(key: &MarkKey, range: &[u8]) -> Vec<Mark> {
    range.chunks(BLOCK_BYTES as usize).map(|block| mark(key, block)).collect()
}

/// The mark of a range with these blocks.
pub fn range_mark(key: &MarkKey, blocks: &[Mark]) -> Mark {
    mark(key, blocks.as_flattened())
}

/// The mark of several files together: of the length of each and of the marks of its ranges, in their order.
pub struct Together(blake3::Hasher);

impl Together {
    /// Of none yet.
    pub fn new(key: &MarkKey) -> Together {
        Together(blake3::Hasher::new_keyed(key))
    }

    /// The next file; no length when there is none of that name.
    pub fn add(&mut self, size: Option<u64>, ranges: &[Mark]) {
        // One byte before the length, so that no file and an empty one are not the same.
        self.0.update(&[u8::from(size.is_some())]);
        self.0.update(&size.unwrap_or(0).to_le_bytes());
        self.0.update(ranges.as_flattened());
    }

    /// Of all.
    pub fn mark(&self) -> Mark {
        let mut mark = Mark::default();
        mark.copy_from_slice(&self.0.finalize().as_bytes()[..16]);
        mark
    }
}

/// The parts of a range of `len` bytes, with the block marks `ours`, that are the same as those of one of `their_len` bytes
/// with the marks `theirs`: start and length, ascending, not touching.
pub fn same_parts(ours: &[Mark], len: u32, theirs: &[Mark], their_len: u32) -> Vec<(u32, u32)> {
    let mut same: Vec<(u32, u32)> = Vec::new();
    for (number, (ours, theirs)) in (0u32..).zip(ours.iter().zip(theirs)) {
        let start = number * BLOCK_BYTES;
        let end = |len: u32| len.min(start + BLOCK_BYTES);
        // The end of a file that is longer on one side.
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

/// Ranges of a file of `size` bytes.
pub fn ranges(size: u64) -> u32 {
    u32::try_from(size.div_ceil(u64::from(RANGE_BYTES))).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_a_mark_together() {
        let of = |key: u8, files: &[(Option<u64>, &[Mark])]| {
            let mut together = Together::new(&[key; 32]);
            files.iter().for_each(|(size, ranges)| together.add(*size, ranges));
            together.mark()
        };
        let (a, b) = ([[1; 16]], [[2; 16], [3; 16]]);
        let both = of(7, &[(Some(9), &a), (Some(10), &b)]);
        assert_eq!(both, of(7, &[(Some(9), &a), (Some(10), &b)]));
        let others: [&[(Option<u64>, &[Mark])]; 5] = [
            &[(Some(10), &b), (Some(9), &a)],
            &[(Some(9), &a), (Some(11), &b)],
            &[(Some(9), &a), (Some(10), &b[..1])],
            &[(Some(9), &a)],
            &[(Some(9), &a), (Some(10), &b), (None, &[])],
        ];
        for other in others {
            assert!(of(7, other) != both, "{other:?}");
        }
        assert!(of(8, &[(Some(9), &a), (Some(10), &b)]) != both, "another key makes another mark");
        assert!(of(7, &[(None, &[])]) != of(7, &[(Some(0), &[])]));
    }

    #[test]
    fn parts_that_are_the_same_are_found_block_by_block() {
        let key = [7; 32];
        let ours: Vec<u8> = (0..100_000u32).map(|n| (n / 7) as u8).collect();
        let mut theirs = ours.clone();
        theirs[40_000] ^= 1;
        let (marks, len) = (block_marks(&key, &theirs), theirs.len() as u32);
        assert_eq!(marks.len(), 7);
        let of =
            |key: &MarkKey, ours: &[u8]| same_parts(&block_marks(key, ours), ours.len() as u32, &marks, len);
        let same = of(&key, &ours);
        assert_eq!(same, [(0, 32768), (49152, 100_000 - 49152)]);
        // Another key makes other marks.
        assert!(of(&[8; 32], &ours).is_empty());
        // Ours ends earlier, in the last block: that one is another one, whatever its beginning holds.
        let same = of(&key, &ours[..99_000]);
        assert_eq!(same, [(0, 32768), (49152, 98304 - 49152)]);
        // A range is the same when all of its blocks are.
        let whole = |bytes: &[u8]| range_mark(&key, &block_marks(&key, bytes));
        assert_eq!(whole(&ours), whole(&ours.clone()));
        assert!(whole(&ours) != whole(&theirs) && whole(&ours) != whole(&ours[..99_000]));
        assert!(whole(&[]) != whole(&[0]));
    }
}
