//! Bytes of a file on their way, as the donor read them.
use serde::{Deserialize, Serialize};

use crate::delta::Delta;
use crate::inventory::FileId;

/// Bytes of a file that lie in one range of [`RANGE_BYTES`](crate::limits::RANGE_BYTES); mostly the whole range. A part of a file
/// may come again: what came last counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// The file.
    pub file: FileId,
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub len: u32,
    /// Parts of it that are sent: (start from the first byte, length), ascending; the payload holds them in order.
    pub parts: Vec<(u32, u32)>,
    /// Parts of it that the joiner's own file holds, ascending.
    pub same: Vec<(u32, u32)>,
    /// Blocks of it that the joiner rebuilds from its own, ascending; what it takes for that is in the payload behind the
    /// parts. What is in none of the three is zero.
    pub deltas: Vec<Delta>,
    /// How the payload is packed.
    pub packing: Packing,
    /// Of the unpacked payload ([`digest`]).
    pub digest: u64,
    /// Of all bytes of the range, as the donor read them, where that is not the payload's.
    pub whole: Option<u64>,
}

/// Tells an accident, of a disk or of memory: XXH3-64 of some bytes, 0 where there are none but zeros.
pub fn digest(bytes: &[u8]) -> u64 {
    if is_zero(bytes) { 0 } else { xxhash_rust::xxh3::xxh3_64(bytes) }
}

/// Whether there is nothing but zeros.
pub fn is_zero(bytes: &[u8]) -> bool {
    // Others show themselves in their first bytes nearly always (a page's checksum, its number).
    let (words, tail) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && tail.iter().all(|byte| *byte == 0)
}

impl Chunk {
    /// A range that the joiner's own file holds.
    pub fn same(file: FileId, offset: u64, len: u32) -> Chunk {
        let (parts, same, deltas, packing) = (Vec::new(), vec![(0, len)], Vec::new(), Packing::Plain);
        Chunk { file, offset, len, parts, same, deltas, packing, digest: 0, whole: None }
    }

    /// It is one.
    pub fn is_same(&self) -> bool {
        self.same == [(0, self.len)]
    }

    /// The digest of what the joiner will have put together there.
    pub fn whole(&self) -> u64 {
        self.whole.unwrap_or(self.digest)
    }
}

/// How a payload is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Packing {
    /// As it is.
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
    /// Lengths of the unpacked payload that are of parts and of deltas, when those of each kind are ascending, apart, not
    /// empty and inside the range, and no byte is of two kinds.
    pub fn payload_len(&self) -> Result<(u32, u32), BadParts> {
        let bad = BadParts { file: self.file.0, offset: self.offset };
        let deltas: Vec<(u32, u32)> = self.deltas.iter().map(|delta| (delta.start, delta.len)).collect();
        let kinds = [&self.parts, &self.same];
        let sent = sum_of(&self.parts, self.len).ok_or(bad.clone())?;
        sum_of(&self.same, self.len).ok_or(bad.clone())?;
        let mut all: Vec<(u32, u32)> = kinds.into_iter().flatten().chain(&deltas).copied().collect();
        all.sort_unstable();
        if !deltas.is_sorted() {
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

/// Length of parts that are ascending, apart, not empty and inside a range of `range` bytes.
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
