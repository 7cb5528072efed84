//! The index at the end of a complete segment: all its block headers once more.
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::block::{BLOCK_HEADER_LEN, BlockHeader};
use super::error::ArchiveError;
use super::segment::SEGMENT_HEADER_LEN;
use crate::bytes::{le32, le64, put};

/// Bytes at the very end of a complete segment.
pub const TRAILER_LEN: usize = 32;
/// The most bytes of an index: a segment is closed long before.
pub const INDEX_MAX: usize = 64 << 20;

const MAGIC: &[u8; 8] = b"rjindex1";

/// What the last bytes of a complete segment say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// Blocks in the segment.
    pub blocks: u32,
    checksum: u64,
}

impl Trailer {
    /// Reads the last [`TRAILER_LEN`] bytes of a segment of this number. `None`: the segment was not completed.
    pub fn parse(bytes: &[u8], serial: u64) -> Option<Trailer> {
        let right = bytes.starts_with(MAGIC)
            && bytes.len() == TRAILER_LEN
            && le64(bytes, 24) == bytes.get(..24).map(|head| xxh3_64_with_seed(head, serial));
        let trailer = Trailer { blocks: le32(bytes, 8)?, checksum: le64(bytes, 16)? };
        (right && trailer.len() <= INDEX_MAX).then_some(trailer)
    }

    /// Bytes of the block headers before it.
    pub fn len(&self) -> usize {
        (self.blocks as usize).saturating_mul(BLOCK_HEADER_LEN)
    }

    /// The segment has no block.
    pub fn is_empty(&self) -> bool {
        self.blocks == 0
    }
}

/// What is written behind the last block.
pub fn index_bytes(blocks: &[BlockHeader], serial: u64) -> Vec<u8> {
    let mut out: Vec<u8> = blocks.iter().flat_map(|block| block.encode(serial)).collect();
    let mut trailer = [0; TRAILER_LEN];
    put(&mut trailer, 0, MAGIC);
    put(&mut trailer, 8, &u32::try_from(blocks.len()).unwrap_or(u32::MAX).to_le_bytes());
    put(&mut trailer, 16, &xxh3_64_with_seed(&out, serial).to_le_bytes());
    let checksum = xxh3_64_with_seed(trailer.get(..24).unwrap_or_default(), serial);
    put(&mut trailer, 24, &checksum.to_le_bytes());
    out.extend_from_slice(&trailer);
    out
}

/// The blocks of a segment of this number and `file_len` bytes, by the bytes before its trailer.
///
/// # Errors
/// The index is damaged, or is not that of a file of this length.
pub fn parse_index(
    bytes: &[u8],
    trailer: &Trailer,
    serial: u64,
    file_len: u64,
) -> Result<Vec<BlockHeader>, ArchiveError> {
    if bytes.len() != trailer.len() || xxh3_64_with_seed(bytes, serial) != trailer.checksum {
        return Err(ArchiveError::Checksum("index"));
    }
    let blocks: Vec<BlockHeader> = bytes
        .chunks_exact(BLOCK_HEADER_LEN)
        .map(|header| BlockHeader::parse(header, serial))
        .collect::<Result<_, _>>()?;
    let behind = (bytes.len() as u64).saturating_add(TRAILER_LEN as u64);
    let together =
        blocks.iter().fold(SEGMENT_HEADER_LEN as u64, |sum, block| sum.saturating_add(block.len()));
    match together.checked_add(behind) == Some(file_len) {
        true => Ok(blocks),
        false => Err(ArchiveError::Range("index")),
    }
}
