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
use std::sync::atomic::{AtomicBool, Ordering};
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
use crate::threads::{Thread, in_threads, lock};

/// Pieces that a thread takes at once.
const AT_ONCE: usize = 64;

/// No more fingerprints are computed: more cannot be remembered.
const FINGERPRINTS_MAX: usize = REMEMBERED_BYTES_MAX / RANGE_RECORD_BYTES;

/// What was read back.
#[derive(Debug, Default)]
pub(super) struct ReadBack {
    /// Bytes that were correct.
    pub bytes: u64,
    /// Fingerprints of whole ranges, by file, in no order.
    pub fingerprints: HashMap<FileId, Vec<(u32, Fingerprint)>>,
}

/// Pieces of one file that one thread reads.
struct Part {
    id: FileId,
    file: Arc<StagedFile>,
    origin: Arc<Origin>,
    /// The bytes that are staged; the others are in the old file.
    staged: Arc<Extents>,
    pieces: Vec<(u64, Piece)>,
}

/// Reads staged files with up to `threads` threads. With `key`, also fingerprints what it reads.
///
/// # Errors
/// Some bytes are wrong; a file cannot be read; cancelled.
pub(super) fn read_back(
    files: impl Iterator<Item = (FileId, Arc<StagedFile>)> + Send,
    key: Option<&FingerprintKey>,
    threads: u16,
    cancel: &Cancel,
) -> Result<ReadBack> {
    let (parts, all) = (Mutex::new(files.flat_map(parts_of)), Mutex::new((ReadBack::default(), 0)));
    // The others do not read to the end before the error is heard of.
    let failed = AtomicBool::new(false);
    let next = || if failed.load(Ordering::Relaxed) { None } else { lock(&parts).next() };
    let read = || -> Result<()> {
        let mut buffer = Buffer::default();
        while let Some(part) = next() {
            cancel.check()?;
            let mut found = Vec::new();
            let bytes = part.read(&mut buffer, key, &mut found);
            let bytes = bytes.inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
            let mut all = lock(&all);
            all.0.bytes += bytes;
            all.1 += found.len();
            if all.1 <= FINGERPRINTS_MAX && !found.is_empty() {
                all.0.fingerprints.entry(part.id).or_default().append(&mut found);
            }
        }
        Ok(())
    };
    in_threads(Thread::BlockReader, usize::from(threads), &read)?;
    Ok(all.into_inner().unwrap_or_else(PoisonError::into_inner).0)
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
    let part = |pieces: &[(u64, Piece)]| Part {
        id,
        file: Arc::clone(&file),
        origin: Arc::clone(&origin),
        staged: Arc::clone(&staged),
        pieces: pieces.to_vec(),
    };
    pieces.chunks(AT_ONCE).map(part).collect()
}

impl Part {
    fn read(
        &self,
        buffer: &mut Buffer,
        key: Option<&FingerprintKey>,
        found: &mut Vec<(u32, Fingerprint)>,
    ) -> Result<u64> {
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
                    found.push(fingerprinted(key, *at, zeros));
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
            found.extend(key.map(|key| fingerprinted(key, *at, bytes)));
        }
        Ok(sum)
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
