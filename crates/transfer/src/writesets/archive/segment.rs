//! One segment as it lies on disk: its header, its blocks, and where it ends.
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use formats::Seqno;
use formats::archive::{
    BLOCK_HEADER_LEN, BODY_MAX, BlockHeader, BlockKind, Blocks, Damage, GapReason, SEGMENT_HEADER_LEN,
    SegmentHeader,
};

use crate::failure::{Failure, Kind};
use crate::writesets::gcache::read_up_to;

/// A part of what a segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// Actions without a gap.
    Run {
        /// The first seqno.
        first: Seqno,
        /// The last one.
        last: Seqno,
        /// When its first block was written, in milliseconds since 1970.
        first_ms: u64,
        /// When its last block was written.
        last_ms: u64,
    },
    /// What is missing, as the archiver recorded it.
    Gap {
        /// The first missing seqno.
        first: Seqno,
        /// The last one; less than the first when none is known to be missing.
        last: Seqno,
        /// Why.
        reason: GapReason,
        /// When that was found, in milliseconds since 1970.
        at_ms: u64,
    },
}

/// What is known of a segment without its actions.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Where it is.
    pub path: PathBuf,
    /// Its header.
    pub header: SegmentHeader,
    /// Bytes of the file.
    pub len: u64,
    /// Bytes of all bodies before they were compressed.
    pub body_bytes: u64,
    /// It has its index: its writer closed it in order.
    pub complete: bool,
    /// Bytes at its end that are no whole block: what its writer was writing when it ended.
    pub torn: u64,
    /// Between whole blocks lie bytes that are none.
    pub damaged: Vec<String>,
    /// Runs and gaps, in the order they were written.
    pub pieces: Vec<Piece>,
}

impl Segment {
    /// A segment without blocks.
    pub fn new(path: PathBuf, header: SegmentHeader) -> Segment {
        Segment {
            path,
            header,
            len: SEGMENT_HEADER_LEN as u64,
            body_bytes: 0,
            complete: false,
            torn: 0,
            damaged: Vec::new(),
            pieces: Vec::new(),
        }
    }

    /// Takes a block into account.
    pub fn add(&mut self, block: &BlockHeader) {
        self.body_bytes += u64::from(block.body_len);
        let at_ms = block.written_ms;
        match (block.kind, self.pieces.last_mut()) {
            // An action whose last part never came is none.
            (BlockKind::Part, _) => {}
            (BlockKind::Gap(reason), _) => {
                self.pieces.push(Piece::Gap { first: block.first, last: block.last, reason, at_ms });
            }
            (BlockKind::Actions | BlockKind::LastPart, Some(Piece::Run { last, last_ms, .. }))
                if last.0.checked_add(1) == Some(block.first.0) =>
            {
                (*last, *last_ms) = (block.last, at_ms);
            }
            (BlockKind::Actions | BlockKind::LastPart, _) => {
                let run =
                    Piece::Run { first: block.first, last: block.last, first_ms: at_ms, last_ms: at_ms };
                self.pieces.push(run);
            }
        }
    }

    /// When something was last written to it, in milliseconds since 1970.
    pub fn newest_ms(&self) -> u64 {
        self.pieces.last().map_or(self.header.created_ms, |piece| match piece {
            Piece::Run { last_ms: at, .. } | Piece::Gap { at_ms: at, .. } => *at,
        })
    }
}

/// A segment that is open for reading.
pub struct Reader {
    file: File,
    /// What is known of it.
    pub segment: Segment,
    /// Its whole blocks, each with where it begins.
    pub blocks: Vec<(u64, BlockHeader)>,
}

impl Reader {
    /// Opens the segment of this number. The blocks of one without an index are verified, to find where it ends.
    ///
    /// # Errors
    /// It cannot be read, or its header is damaged.
    pub fn open(path: &Path, serial: u64) -> Result<Reader> {
        let failed = || format!("cannot read {}", path.display());
        let file = File::open(path).with_context(failed)?;
        let len = file.metadata().with_context(failed)?.len();
        let refuse = |why: String| Failure::new(Kind::Disk, format!("{}: {why}", path.display()));
        let header = SegmentHeader::parse(&read_at(&file, 0, SEGMENT_HEADER_LEN).with_context(failed)?)
            .map_err(|error| refuse(error.to_string()))?;
        if header.serial != serial {
            return Err(refuse(format!("it says that it is segment {}", header.serial)).into());
        }
        let found = Blocks::find(len, serial, &mut |at, len| read_at(&file, at, len)).with_context(failed)?;
        let mut segment = Segment::new(path.to_owned(), header);
        (segment.len, segment.complete, segment.torn) = (len, found.complete, found.torn);
        segment.damaged = found.damaged.iter().map(|damage| in_words(damage, header.first)).collect();
        found.blocks.iter().for_each(|(_, block)| segment.add(block));
        Ok(Reader { file, segment, blocks: found.blocks })
    }

    /// The body of a block, verified and as it was before it was compressed.
    ///
    /// # Errors
    /// It is damaged, or cannot be read.
    pub fn body(&self, at: u64, block: &BlockHeader) -> Result<Vec<u8>> {
        let stored = read_at(&self.file, at + BLOCK_HEADER_LEN as u64, block.stored_len as usize)
            .with_context(|| format!("cannot read {}", self.segment.path.display()))?;
        block.verify(&stored).map_err(|error| self.damaged(at, block, &error.to_string()))?;
        if !block.compressed {
            return Ok(stored);
        }
        // The header was checked: this is at most `BODY_MAX`.
        let room = (block.body_len as usize).min(BODY_MAX);
        let body = zstd::bulk::decompress(&stored, room)
            .map_err(|error| self.damaged(at, block, &error.to_string()))?;
        if body.len() == room { Ok(body) } else { Err(self.damaged(at, block, "of another length").into()) }
    }

    /// Says what is wrong with which seqnos.
    pub fn damaged(&self, at: u64, block: &BlockHeader, what: &str) -> Failure {
        let text = format!(
            "seqnos {} to {} are damaged (block at byte {at} of {}): {what}",
            block.first,
            block.last,
            self.segment.path.display()
        );
        Failure::new(Kind::Disk, text)
    }
}

fn in_words(damage: &Damage, first: Seqno) -> String {
    let Damage { bytes, behind } = damage;
    let behind = behind.unwrap_or(Seqno(first.0.saturating_sub(1)));
    format!("bytes {} to {}, behind seqno {behind}, are damaged", bytes.start, bytes.end)
}

/// Up to `len` bytes; fewer only at the end of the file. The caller has checked `len`.
pub(super) fn read_at(file: &File, at: u64, len: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let there = read_up_to(file, at, &mut bytes)?;
    bytes.truncate(there);
    Ok(bytes)
}
