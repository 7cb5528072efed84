//! Reads the staged files back: each piece must be what the donor read, wherever its bytes came from.
//!
//! Most of it comes from the page cache. So this proves that every byte was put together and written correctly and
//! that memory has kept it, but not that the disk has: a disk that loses or changes a write shows that only later.
//!
//! For every piece the donor sends a digest of all its bytes, including those that it does not send. A digest is
//! valid until a part of its piece is sent again; then only that part can have one.
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use protocol::chunk::digest;
use protocol::extents::Extents;
use protocol::limits::RANGE_BYTES;

use crate::cancel::Cancel;
use crate::failure::{Failure, Kind};
use crate::receive::digests::Piece;
use crate::receive::origin::{Opened, Origin};
use crate::receive::staged::StagedFile;
use crate::threads::{Thread, in_threads, lock};

/// Pieces that a thread takes at once.
const AT_ONCE: usize = 64;

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
    // The others do not read to the end before the error is heard of.
    let failed = AtomicBool::new(false);
    let next = || if failed.load(Ordering::Relaxed) { None } else { lock(&parts).next() };
    let read = || -> Result<()> {
        let mut buffer = vec![0; RANGE_BYTES as usize];
        while let Some(part) = next() {
            cancel.check()?;
            let read = part.read(&mut buffer).inspect_err(|_| failed.store(true, Ordering::Relaxed));
            bytes.fetch_add(read?, Ordering::Relaxed);
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
                let text = format!("{target} at {at}: the staged bytes are not what the donor read");
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
