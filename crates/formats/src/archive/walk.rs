//! The blocks of a segment: by its index, or found from block to block. The caller reads.
use std::ops::Range;

use super::block::{BLOCK_HEADER_LEN, BLOCK_MAGIC, BlockHeader};
use super::index::{TRAILER_LEN, Trailer, parse_index};
use super::segment::SEGMENT_HEADER_LEN;
use crate::Seqno;

/// Bytes that are searched at a time for the next whole block.
const WINDOW: usize = 1 << 20;

/// What lies between a segment's header and its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Blocks {
    /// The blocks, each with where it begins. Without an index only those whose body has the right checksum.
    pub blocks: Vec<(u64, BlockHeader)>,
    /// It has its index: its writer closed it in order.
    pub complete: bool,
    /// Bytes at its end that are no whole block: what its writer was writing when it ended.
    pub torn: u64,
    /// Bytes before a whole block that belong to none.
    pub damaged: Vec<Damage>,
}

/// Bytes between whole blocks that belong to none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Where they are.
    pub bytes: Range<u64>,
    /// The last seqno before them, if there is a block.
    pub behind: Option<Seqno>,
}

impl Blocks {
    /// Finds the blocks of the segment of this number and `len` bytes. `read` returns the bytes at an offset, fewer only at
    /// the end of the file; it is asked for no more than an index or a block may have.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn find<E>(
        len: u64,
        serial: u64,
        read: &mut impl FnMut(u64, usize) -> Result<Vec<u8>, E>,
    ) -> Result<Blocks, E> {
        if let Some(blocks) = indexed(len, serial, read)? {
            let mut at = SEGMENT_HEADER_LEN as u64;
            let place = |block: BlockHeader| {
                let here = at;
                at += block.len();
                (here, block)
            };
            let blocks = blocks.into_iter().map(place).collect();
            return Ok(Blocks { blocks, complete: true, ..Blocks::default() });
        }
        let (mut found, mut at) = (Blocks::default(), SEGMENT_HEADER_LEN as u64);
        while at < len {
            if let Some(block) = whole_block(at, len, serial, read)? {
                found.blocks.push((at, block));
                at += block.len();
                continue;
            }
            // What is no whole block is a torn end, unless a whole one follows: then it is damage.
            let Some(next) = search(at + 1, len, serial, read)? else {
                found.torn = len - at;
                break;
            };
            let behind = found.blocks.last().map(|(_, block)| block.last);
            found.damaged.push(Damage { bytes: at..next, behind });
            at = next;
        }
        Ok(found)
    }
}

/// The blocks by the index; `None` where there is none that is sound.
fn indexed<E>(
    len: u64,
    serial: u64,
    read: &mut impl FnMut(u64, usize) -> Result<Vec<u8>, E>,
) -> Result<Option<Vec<BlockHeader>>, E> {
    let Some(at) = len.checked_sub(TRAILER_LEN as u64) else { return Ok(None) };
    let Some(trailer) = Trailer::parse(&read(at, TRAILER_LEN)?, serial) else { return Ok(None) };
    let Some(at) = at.checked_sub(trailer.len() as u64) else { return Ok(None) };
    Ok(parse_index(&read(at, trailer.len())?, &trailer, serial, len).ok())
}

fn whole_block<E>(
    at: u64,
    len: u64,
    serial: u64,
    read: &mut impl FnMut(u64, usize) -> Result<Vec<u8>, E>,
) -> Result<Option<BlockHeader>, E> {
    let header = BlockHeader::parse(&read(at, BLOCK_HEADER_LEN)?, serial);
    let fits = |block: &BlockHeader| at.checked_add(block.len()).is_some_and(|end| end <= len);
    let Some(block) = header.ok().filter(fits) else { return Ok(None) };
    let stored = read(at + BLOCK_HEADER_LEN as u64, block.stored_len as usize)?;
    Ok(block.verify(&stored).is_ok().then_some(block))
}

/// Where the next whole block begins, from `from` on.
fn search<E>(
    from: u64,
    len: u64,
    serial: u64,
    read: &mut impl FnMut(u64, usize) -> Result<Vec<u8>, E>,
) -> Result<Option<u64>, E> {
    let mut from = from;
    while from < len {
        let window = read(from, WINDOW + BLOCK_MAGIC.len() - 1)?;
        let begins = window.windows(BLOCK_MAGIC.len()).enumerate().filter(|(_, bytes)| bytes == BLOCK_MAGIC);
        for at in begins.map(|(i, _)| from + i as u64) {
            if whole_block(at, len, serial, read)?.is_some() {
                return Ok(Some(at));
            }
        }
        from += WINDOW as u64;
    }
    Ok(None)
}
