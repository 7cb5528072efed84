//! A part of a file in transit, as the donor read it.
use serde::{Deserialize, Serialize};

use crate::delta::Delta;
use crate::inventory::FileId;
use crate::limits::RANGE_BYTES;

/// Bytes of a file within one range of [`RANGE_BYTES`]; usually the whole range. A part of a file may be sent
/// more than once: the last version counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// The file.
    pub file: FileId,
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub len: u32,
    /// The parts that are sent: (start relative to the first byte, length), ascending. The payload holds them
    /// in this order.
    pub parts: Vec<(u32, u32)>,
    /// The parts that the joiner's own file already holds, ascending.
    pub same: Vec<(u32, u32)>,
    /// The blocks that the joiner rebuilds from its own, ascending. The payload holds the bytes for that
    /// behind the parts. Bytes in none of the three lists are zero.
    pub deltas: Vec<Delta>,
    /// The encoding of the payload.
    pub packing: Packing,
    /// The [`digest`] of the unpacked payload.
    pub digest: u64,
    /// The digest of all bytes of the range as the donor read them, if it differs from that of the payload.
    pub whole: Option<u64>,
}

/// XXH3-64 of some bytes, or 0 if all of them are zero. It detects accidental damage by a disk or by memory.
pub fn digest(bytes: &[u8]) -> u64 {
    if is_zero(bytes) { 0 } else { xxhash_rust::xxh3::xxh3_64(bytes) }
}

/// Whether all bytes are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    // Nonzero data nearly always shows in the first bytes (a page's checksum and number).
    let (words, tail) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && tail.iter().all(|byte| *byte == 0)
}

impl Chunk {
    /// A whole range that the joiner's own file holds.
    pub fn same(file: FileId, offset: u64, len: u32) -> Chunk {
        let (parts, same, deltas, packing) = (Vec::new(), vec![(0, len)], Vec::new(), Packing::Plain);
        Chunk { file, offset, len, parts, same, deltas, packing, digest: 0, whole: None }
    }

    /// Whether the joiner's own file holds the whole range.
    pub fn is_same(&self) -> bool {
        self.same == [(0, self.len)]
    }

    /// The digest of the range as the joiner will assemble it.
    pub fn whole(&self) -> u64 {
        self.whole.unwrap_or(self.digest)
    }
}

/// The encoding of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Packing {
    /// Uncompressed.
    Plain,
    /// One zstd frame.
    Zstd,
}

/// A chunk whose parts do not fit its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("chunk at {offset} of file number {file} describes impossible parts")]
pub struct BadParts {
    /// File number.
    pub file: u32,
    /// First byte of the range.
    pub offset: u64,
}

impl Chunk {
    /// Returns the lengths of the unpacked payload of the parts and of the deltas. They are valid if the
    /// parts of each kind are ascending, disjoint, not empty and inside the range, no byte is of two kinds,
    /// and the range is not too long. Then neither length exceeds [`RANGE_BYTES`], so the caller may allocate
    /// a buffer of this size.
    pub fn payload_len(&self) -> Result<(u32, u32), BadParts> {
        let bad = BadParts { file: self.file.0, offset: self.offset };
        let deltas: Vec<(u32, u32)> = self.deltas.iter().map(|delta| (delta.start, delta.len)).collect();
        let kinds = [&self.parts, &self.same];
        let sent = sum_of(&self.parts, self.len).ok_or(bad.clone())?;
        sum_of(&self.same, self.len).ok_or(bad.clone())?;
        let mut all: Vec<(u32, u32)> = kinds.into_iter().flatten().chain(&deltas).copied().collect();
        all.sort_unstable();
        if !deltas.is_sorted() || self.len > RANGE_BYTES {
            return Err(bad);
        }
        let mut end = 0u32;
        for (start, len) in all {
            let next = start.checked_add(len).filter(|next| len > 0 && *next <= self.len);
            end = next.filter(|_| start >= end).ok_or(bad.clone())?;
        }
        let literals: Option<u32> = self.deltas.iter().map(Delta::literal_len).sum();
        Ok((sent, literals.ok_or(bad)?))
    }
}

/// The length of parts that are ascending, disjoint, not empty and inside a range of `range` bytes.
fn sum_of(parts: &[(u32, u32)], range: u32) -> Option<u32> {
    let (mut end, mut sum) = (None, 0u32);
    for &(start, len) in parts {
        let next = start.checked_add(len)?;
        if len == 0 || end.is_some_and(|end| start <= end) || next > range {
            return None;
        }
        end = Some(next);
        sum += len;
    }
    Some(sum)
}
