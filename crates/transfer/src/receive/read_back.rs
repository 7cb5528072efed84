//! Reads the staged files back: each piece must be what the donor read, wherever its bytes came from.
//!
//! Most of it comes from the page cache. So this proves that every byte was put together and written correctly and
//! that memory has kept it, but not that the disk has: a disk that loses or changes a write shows that only later.
//!
//! For every piece the donor sends a digest of all its bytes, including those that it does not send. A digest is
//! valid until a part of its piece is sent again; then only that part can have one.
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use protocol::chunk::digest;
use protocol::extents::Extents;
use protocol::limits::RANGE_BYTES;

use crate::cancel::Cancel;
use crate::failure::{Failure, Kind};
use crate::receive::origin::{Opened, Origin};
use crate::receive::staged::StagedFile;
use crate::threads::{Thread, in_threads, lock};

/// Digests of shorter pieces are not stored, unless the piece begins a range. Donors send few such pieces, and their
/// digests would take more memory than they have bytes.
const PIECE_MIN: u32 = 4 << 10;
/// Pieces that a thread takes at once.
const AT_ONCE: usize = 64;

/// The digests of a file, in ascending order. They take some thirty bytes for each piece, which is 1 MiB as a rule.
#[derive(Debug, Default)]
pub(super) struct Digests(Vec<(u64, Piece)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    len: u32,
    digest: u64,
}

impl Digests {
    /// Records that these bytes were written. Without a digest nothing is known of them.
    pub fn note(&mut self, offset: u64, len: u32, digest: Option<u64>) {
        let end = offset + u64::from(len);
        // A piece never crosses a range.
        let before = offset.saturating_sub(u64::from(RANGE_BYTES));
        let near = self.from(before)..self.from(end);
        let mut at = near.start;
        for _ in near {
            let (start, piece) = self.0[at];
            if start + u64::from(piece.len) > offset {
                self.0.remove(at);
            } else {
                at += 1;
            }
        }
        let worth = len >= PIECE_MIN || offset.is_multiple_of(u64::from(RANGE_BYTES));
        if let Some(digest) = digest.filter(|_| worth) {
            if self.0.is_empty() {
                // Most files have only one piece.
                self.0.reserve_exact(1);
            }
            self.0.insert(self.from(offset), (offset, Piece { len, digest }));
        }
    }

    /// `Some(Some(digest))` if one digest covers a file of this length, `Some(None)` if there is no digest, `None` if
    /// there are others.
    pub fn only_one(&self, size: u64) -> Option<Option<u64>> {
        match self.0.as_slice() {
            [] => Some(None),
            [(0, piece)] if u64::from(piece.len) == size => Some(Some(piece.digest)),
            _ => None,
        }
    }

    /// Index of the first digest that begins at `offset` or later.
    fn from(&self, offset: u64) -> usize {
        self.0.partition_point(|(at, _)| *at < offset)
    }

    /// The digests that lie within a file of this length.
    fn of_length(&self, size: u64) -> Vec<(u64, Piece)> {
        let within = |(at, piece): &(u64, Piece)| at + u64::from(piece.len) <= size;
        self.0.iter().copied().filter(within).collect()
    }
}

/// Pieces of one file that one thread reads.
struct Part {
    file: Arc<StagedFile>,
    origin: Arc<Origin>,
    /// The bytes that are staged; the others are in the old file.
    staged: Arc<Extents>,
    pieces: Vec<(u64, Piece)>,
}

/// Reads staged files with up to `threads` threads. Returns how many bytes were correct.
///
/// # Errors
/// Some bytes are wrong; a file cannot be read; cancelled.
pub(super) fn read_back(
    files: impl Iterator<Item = Arc<StagedFile>> + Send,
    threads: u16,
    cancel: &Cancel,
) -> Result<u64> {
    let (parts, bytes) = (Mutex::new(files.flat_map(parts_of)), AtomicU64::new(0));
    let next = || lock(&parts).next();
    let read = || -> Result<()> {
        let mut buffer = vec![0; RANGE_BYTES as usize];
        while let Some(part) = next() {
            cancel.check()?;
            bytes.fetch_add(part.read(&mut buffer)?, Ordering::Relaxed);
        }
        Ok(())
    };
    in_threads(Thread::BlockReader, usize::from(threads), &read)?;
    Ok(bytes.into_inner())
}

fn parts_of(file: Arc<StagedFile>) -> Vec<Part> {
    let (origin, staged) = file.content();
    let (origin, staged) = (Arc::new(origin), Arc::new(staged));
    let range = |(at, piece): &(u64, Piece)| *at..at + u64::from(piece.len);
    let pieces: Vec<_> = lock(&file.digests)
        .of_length(file.size)
        .into_iter()
        .filter(|piece| staged.overlaps(range(piece)))
        .collect();
    let part = |pieces: &[(u64, Piece)]| Part {
        file: Arc::clone(&file),
        origin: Arc::clone(&origin),
        staged: Arc::clone(&staged),
        pieces: pieces.to_vec(),
    };
    pieces.chunks(AT_ONCE).map(part).collect()
}

impl Part {
    fn read(&self, buffer: &mut [u8]) -> Result<u64> {
        let target = self.file.target.display();
        let opened = self.origin.open().with_context(|| format!("cannot read back {target}"))?;
        let mut sum = 0;
        for (at, piece) in &self.pieces {
            sum += u64::from(piece.len);
            if self.is_hole(&opened, *at, *piece) {
                continue;
            }
            let bytes = buffer.get_mut(..piece.len as usize).context("a piece longer than a range")?;
            opened
                .read(*at, bytes, &self.staged)
                .with_context(|| format!("cannot read back {target} at {at}"))?;
            if digest(bytes) != piece.digest {
                let text = format!("{target} at {at}: what was staged is not what the donor read");
                let hint = "look for errors of the disk and the memory in this host's kernel log, then start the node again: \
                            the correct parts are reused";
                return Err(Failure::new(Kind::Disk, text).hint(hint).into());
            }
        }
        Ok(sum)
    }

    /// Whether a piece is zeros that were never written: reading them takes longer than reading data that is in
    /// memory.
    fn is_hole(&self, opened: &Opened, at: u64, piece: Piece) -> bool {
        let range = at..at + u64::from(piece.len);
        piece.digest == digest(&[])
            && self.staged.covers(range.clone())
            && opened.received_in(range).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_counts_until_something_of_its_piece_comes_again() {
        let range = u64::from(RANGE_BYTES);
        let at = |digests: &Digests, size| {
            digests.of_length(size).iter().map(|(at, piece)| (*at, piece.digest)).collect::<Vec<_>>()
        };
        let mut digests = Digests::default();
        digests.note(0, RANGE_BYTES, Some(1));
        digests.note(range, RANGE_BYTES, Some(2));
        digests.note(2 * range, 100, Some(3));
        assert_eq!(at(&digests, 3 * range), [(0, 1), (range, 2), (2 * range, 3)]);
        // The file became shorter, so its last piece is incomplete.
        assert_eq!(at(&digests, 2 * range - 1), [(0, 1)]);
        // A page of the second piece, and the whole first piece again.
        digests.note(range + 16384, 16384, Some(4));
        digests.note(0, RANGE_BYTES, Some(5));
        assert_eq!(at(&digests, 3 * range), [(0, 5), (range + 16384, 4), (2 * range, 3)]);
        // A write beside it leaves its digest valid; a short piece has no digest of its own.
        digests.note(range, 16384, None);
        digests.note(range + 32768, 100, Some(6));
        assert_eq!(at(&digests, 3 * range), [(0, 5), (range + 16384, 4), (2 * range, 3)]);
        digests.note(range + 32767, 1, None);
        assert_eq!(at(&digests, 3 * range), [(0, 5), (2 * range, 3)]);
    }
}
