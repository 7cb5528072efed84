//! Marks: keyed fingerprints by which two nodes learn what they both have.
//!
//! A mark is the first 128 bits of keyed BLAKE3 over the bytes. The key is made for one attempt of one transfer, so who
//! writes rows cannot make two contents with one mark; by chance, 10^12 pages meet a wrong mark with a probability below
//! 10^-26 (each page is compared with one other, not with all).
//!
//! A file is marked range by range ([`RANGE_BYTES`]: 16 bytes each, 0.0015 % of the file); where a range differs, block
//! by block.
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

/// The parts of `range` that are the same as those whose block marks are `theirs`, of a range of `their_len` bytes: start
/// and length, ascending, not touching.
pub fn same_parts(key: &MarkKey, range: &[u8], theirs: &[Mark], their_len: u32) -> Vec<(u32, u32)> {
    let block = BLOCK_BYTES as usize;
    let mut same: Vec<(u32, u32)> = Vec::new();
    for (number, (ours, theirs)) in range.chunks(block).zip(theirs).enumerate() {
        let start = number * block;
        let their_end = (their_len as usize).min(start + block);
        // The end of a file that is longer on one side.
        if start + ours.len() != their_end || mark(key, ours) != *theirs {
            continue;
        }
        let (start, len) = (start as u32, ours.len() as u32);
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
    fn parts_that_are_the_same_are_found_block_by_block() {
        let key = [7; 32];
        let ours: Vec<u8> = (0..100_000u32).map(|n| (n / 7) as u8).collect();
        let mut theirs = ours.clone();
        theirs[40_000] ^= 1;
        let marks = block_marks(&key, &theirs);
        assert_eq!(marks.len(), 7);
        let same = same_parts(&key, &ours, &marks, theirs.len() as u32);
        assert_eq!(same, [(0, 32768), (49152, 100_000 - 49152)]);
        // Another key makes other marks.
        assert!(same_parts(&[8; 32], &ours, &marks, theirs.len() as u32).is_empty());
        // Ours ends earlier, in the last block: that one is another one, whatever its beginning holds.
        let same = same_parts(&key, &ours[..99_000], &marks, theirs.len() as u32);
        assert_eq!(same, [(0, 32768), (49152, 98304 - 49152)]);
    }
}
