//! Reads the staged files back: each piece must be what the donor read, wherever its bytes came from.
//!
//! Long pieces are read from the disk, where the filesystem can write and read past the page cache. The others mostly come from
//! the cache. That proves that they were put together and written correctly and that memory has kept them, but not that the disk
//! has: a disk that loses or changes such a write shows that only later.
//!
//! Pieces that were written past the cache are read while others arrive (`Writer::read_behind`), and the rest at the end.
//!
//! For every piece the donor sends a digest of all its bytes, including those that it does not send. A digest is
//! valid until a part of its piece is sent again; then only that part can have one.
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use protocol::chunk::digest;
use protocol::extents::Extents;
use protocol::fingerprint::{Fingerprint, FingerprintKey, block_fingerprints, range_fingerprint};
use protocol::inventory::FileId;
use protocol::limits::RANGE_BYTES;
use protocol::remembered::{RANGE_RECORD_BYTES, REMEMBERED_BYTES_MAX};

use crate::cancel::Cancel;
use crate::disk::direct::{ALIGN, Buffer, Direct};
use crate::disk::direct_write::DIRECT_MIN;
use crate::failure::{Failure, Kind};
use crate::flavor::class::Class;
use crate::receive::digests::Piece;
use crate::receive::origin::{Opened, Origin};
use crate::receive::staged::StagedFile;
use crate::remembered::arrived::Arrived;
use crate::remembered::front::{Front, is_tablespace};
use crate::threads::{Thread, in_threads, lock};

/// Pieces that a thread takes at once.
const AT_ONCE: usize = 64;

/// No more fingerprints are computed: more cannot be remembered.
const FINGERPRINTS_MAX: usize = REMEMBERED_BYTES_MAX / RANGE_RECORD_BYTES;

/// What is learned of a part while it is read.
#[derive(Default)]
struct Learned {
    /// Fingerprints of whole ranges.
    fingerprints: Vec<(u32, Fingerprint)>,
    /// What the file begins with, if it is a tablespace of one part.
    front: Option<Front>,
}

/// What can be remembered of files that are read back.
pub(super) struct Learning<'a> {
    key: &'a FingerprintKey,
    arrived: Mutex<Arrived>,
    /// How many fingerprints were computed.
    computed: AtomicUsize,
    /// Files of which some parts were read. A small file has only one part, so there are few.
    unfinished: Mutex<HashMap<FileId, Unfinished>>,
}

struct Unfinished {
    parts_left: usize,
    /// Fingerprints of whole ranges, in no order.
    fingerprints: Vec<(u32, Fingerprint)>,
}

impl<'a> Learning<'a> {
    /// Fingerprints are made with `key`, and what is learned is added to `arrived`.
    pub fn new(key: &'a FingerprintKey, arrived: Arrived) -> Learning<'a> {
        let arrived = Mutex::new(arrived);
        Learning { key, arrived, computed: AtomicUsize::new(0), unfinished: Mutex::default() }
    }

    /// What was learned, once everything was read.
    pub fn arrived(self) -> Arrived {
        self.arrived.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// A part was read. What is known of its file is added after the last part.
    fn read(&self, part: &Part, learned: Learned) {
        let Learned { fingerprints: mut found, front } = learned;
        if self.computed.fetch_add(found.len(), Ordering::Relaxed) + found.len() > FINGERPRINTS_MAX {
            found.clear();
        }
        let Some(mut all) = self.of_whole_file(part, found) else { return };
        all.sort_unstable();
        let (file, size) = (&part.file, part.file.size);
        if file.class == Class::Table
            && let Some((_, ranges)) = file.to_remember(size, &all)
        {
            let pages = front.as_ref().map(Front::encoded_pages).unwrap_or_default();
            let front = front.as_ref().map(|front| front.kept(&pages));
            lock(&self.arrived).add(&file.target, size, None, front, &ranges);
        }
    }

    fn of_whole_file(&self, part: &Part, found: Vec<(u32, Fingerprint)>) -> Option<Vec<(u32, Fingerprint)>> {
        if part.of_parts == 1 {
            return Some(found);
        }
        let mut unfinished = lock(&self.unfinished);
        let new = || Unfinished { parts_left: part.of_parts, fingerprints: Vec::new() };
        let file = unfinished.entry(part.id).or_insert_with(new);
        file.fingerprints.extend(found);
        file.parts_left -= 1;
        if file.parts_left > 0 {
            return None;
        }
        unfinished.remove(&part.id).map(|file| file.fingerprints)
    }
}

/// Pieces of one file that one thread reads.
struct Part {
    id: FileId,
    file: Arc<StagedFile>,
    /// How many parts the file has.
    of_parts: usize,
    origin: Arc<Origin>,
    /// The bytes that are staged; the others are in the old file.
    staged: Arc<Extents>,
    pieces: Vec<(u64, Piece)>,
}

/// Reads staged files with up to `threads` threads, and learns what can be remembered of them. Returns the number of bytes that
/// were correct. `step` is called for each piece that was read.
///
/// # Errors
/// Some bytes are wrong; a file cannot be read; cancelled.
pub(super) fn read_back(
    files: impl Iterator<Item = (FileId, Arc<StagedFile>)> + Send,
    learning: Option<&Learning<'_>>,
    threads: u16,
    (cancel, step): (&Cancel, &(dyn Fn() + Sync)),
) -> Result<u64> {
    let (parts, sum) = (Mutex::new(files.flat_map(parts_of)), AtomicU64::new(0));
    // Stops the other threads: the error is reported only after all of them have ended.
    let failed = AtomicBool::new(false);
    let next = || if failed.load(Ordering::Relaxed) { None } else { lock(&parts).next() };
    let read = || -> Result<()> {
        let mut buffer = Buffer::default();
        while let Some(part) = next() {
            cancel.check()?;
            let mut learned = Learned::default();
            let bytes = part.read(&mut buffer, learning.map(|learning| learning.key), &mut learned, step);
            let bytes = bytes.inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
            sum.fetch_add(bytes, Ordering::Relaxed);
            if let Some(learning) = learning {
                learning.read(&part, learned);
            }
        }
        Ok(())
    };
    in_threads(Thread::BlockReader, usize::from(threads), &read)?;
    Ok(sum.into_inner())
}

fn parts_of((id, file): (FileId, Arc<StagedFile>)) -> Vec<Part> {
    let (origin, staged) = file.content();
    let (origin, staged) = (Arc::new(origin), Arc::new(staged));
    let range = |(at, piece): &(u64, Piece)| *at..at + u64::from(piece.len);
    let pieces: Vec<_> = lock(&file.digests)
        .of_length(file.size)
        .into_iter()
        .filter(|piece| staged.overlaps(range(piece)))
        .collect();
    let of_parts = pieces.len().div_ceil(AT_ONCE).max(1);
    let part = |pieces: &[(u64, Piece)]| Part {
        id,
        file: Arc::clone(&file),
        of_parts,
        origin: Arc::clone(&origin),
        staged: Arc::clone(&staged),
        pieces: pieces.to_vec(),
    };
    if pieces.is_empty() {
        // Nothing of it is read back, but what is known of it can be remembered.
        return vec![part(&[])];
    }
    pieces.chunks(AT_ONCE).map(part).collect()
}

impl Part {
    fn read(
        &self,
        buffer: &mut Buffer,
        key: Option<&FingerprintKey>,
        learned: &mut Learned,
        step: &dyn Fn(),
    ) -> Result<u64> {
        if self.pieces.is_empty() {
            return Ok(0);
        }
        let target = self.file.target.display();
        let open = || Ok::<_, io::Error>((self.origin.open()?, self.open_direct()?));
        let (opened, direct) = open().with_context(|| format!("cannot read back {target}"))?;
        let mut sum = 0;
        for (at, piece) in &self.pieces {
            sum += u64::from(piece.len);
            let key = key.filter(|_| is_range(&self.file, *at, *piece));
            if piece.read_back && (key.is_none() || piece.fingerprint.is_some()) {
                continue;
            }
            if self.is_hole(&opened, *at, *piece) {
                if let Some(key) = key {
                    let zeros = buffer.first(piece.len as usize);
                    zeros.fill(0);
                    learned.fingerprints.push(fingerprinted(key, *at, zeros));
                }
                continue;
            }
            let len = piece.len as usize;
            let read = match &direct {
                Some(direct) if self.is_read_from_disk(*at, *piece) => direct.read_exact(buffer, len, *at),
                _ => opened.read(*at, buffer.first(len), &self.staged),
            };
            read.with_context(|| format!("cannot read back {target} at {at}"))?;
            let bytes = &*buffer.first(len);
            check(&self.file, *at, *piece, bytes)?;
            step();
            if let Some(key) = key {
                learned.fingerprints.push(fingerprinted(key, *at, bytes));
                learned.front = self.front(*at, bytes).or(learned.front.take());
            }
        }
        Ok(sum)
    }

    /// What the file begins with, if this is its first range and all of it is read here.
    fn front(&self, at: u64, range: &[u8]) -> Option<Front> {
        let is_wanted = at == 0 && self.of_parts == 1 && is_tablespace(&self.file.target);
        is_wanted.then(|| Front::of(range)).flatten()
    }

    /// The staged file, if some of its pieces are read from the disk.
    fn open_direct(&self) -> io::Result<Option<Direct>> {
        let any = self.pieces.iter().any(|(at, piece)| self.is_read_from_disk(*at, *piece));
        any.then(|| Direct::open(&self.file.path, true)).transpose()
    }

    /// Long pieces are, if all of it is staged: most of them were written past the cache.
    fn is_read_from_disk(&self, at: u64, piece: Piece) -> bool {
        let long = piece.len as usize >= DIRECT_MIN && at.is_multiple_of(ALIGN as u64);
        long && self.file.writes.work() && self.staged.covers(at..at + u64::from(piece.len))
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

/// Fails if bytes of a staged file are not what the donor read.
pub(super) fn check(file: &StagedFile, at: u64, piece: Piece, bytes: &[u8]) -> Result<(), Failure> {
    if digest(bytes) == piece.digest {
        return Ok(());
    }
    let text = format!("{} at {at}: the staged bytes are not what the donor read", file.target.display());
    let hint = "look for errors of the disk and the memory in this host's kernel log, then start the node again: \
                the correct parts are reused";
    Err(Failure::new(Kind::Disk, text).hint(hint))
}

/// Whether a piece is a whole range of a table, whose fingerprint can be remembered.
pub(super) fn is_range(file: &StagedFile, at: u64, piece: Piece) -> bool {
    let whole = file.size.saturating_sub(at).min(u64::from(RANGE_BYTES)) == u64::from(piece.len);
    whole && at.is_multiple_of(u64::from(RANGE_BYTES)) && file.class == Class::Table
}

/// The number of the range at `at`, and its fingerprint.
pub(super) fn fingerprinted(key: &FingerprintKey, at: u64, bytes: &[u8]) -> (u32, Fingerprint) {
    let range = (at / u64::from(RANGE_BYTES)) as u32;
    (range, range_fingerprint(key, &block_fingerprints(key, bytes)))
}

#[cfg(test)]
#[path = "read_back_tests.rs"]
mod tests;
