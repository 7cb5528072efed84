//! Copies many data files with several threads, in ranges, largest file first.
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use formats::innodb::tablespace::PageFormat;
use formats::{Lsn, SpaceId};
use protocol::inventory::{FileEntry, FileId};
use protocol::limits::RANGE_BYTES;
use std::path::PathBuf;

use super::opened::Piece;
use super::page_file::Damage;
use super::page_queue::{PageQueue, take};
use super::unread;
use crate::cancel::Cancel;
use crate::disk::direct::{ALIGN, Buffer};
use crate::disk::identity::Identity;
use crate::remembered::in_flight;
use crate::remembered::memory::Memory;
use crate::server::niceness;
use crate::snapshot::sink::SnapshotSink;
use crate::threads::{Running, Thread, in_threads, lock, scoped};

/// What a copy knows of the server's checkpoints.
pub trait Checkpoints: Sync {
    /// LSN of the newest checkpoint that was seen: what is read from now on contains all changes below it.
    fn seen(&self) -> Lsn;

    /// True while the server is about to write pages to its files: it is better to read those a little later.
    fn is_holding(&self) -> bool;

    /// True if one of these is such a page.
    fn hold(&self, space: SpaceId, pages: &Range<u32>) -> bool;
}

/// From which offset on a file was read after a checkpoint had been seen; ascending in LSN and offset.
pub type Freshness = Vec<(Lsn, u64)>;

/// A data file to copy.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Its entry for the peer.
    pub entry: FileEntry,
    /// Its path.
    pub path: PathBuf,
    /// The identity that the file must have.
    pub identity: Identity,
    /// For further files of the system tablespace: their format, and the number of their first page.
    pub system: Option<(PageFormat, u32)>,
}

/// The result for one file.
#[derive(Clone, Debug)]
pub struct Copied {
    /// Number of the file.
    pub id: FileId,
    /// Bytes copied, from the start; `None` if it was gone or its name belongs to another file.
    pub bytes: Option<u64>,
    /// Tablespace, once the file has a first page.
    pub space: Option<SpaceId>,
    /// LSN of that page.
    pub first_lsn: Option<Lsn>,
    /// As [`super::page_file::PageFile::head`].
    pub head: Vec<u64>,
    /// Which checkpoints had been seen when it was read.
    pub fresh: Freshness,
}

impl Copied {
    pub(super) fn gone(id: FileId) -> Copied {
        Copied { id, bytes: None, space: None, first_lsn: None, head: Vec::new(), fresh: Vec::new() }
    }
}

/// What all threads share.
#[derive(Clone, Copy)]
pub struct Copier<'a> {
    /// Receives the bytes.
    pub sink: &'a dyn SnapshotSink,
    /// Number of threads.
    pub threads: usize,
    /// Read past the page cache.
    pub direct: bool,
    /// Corrupt pages are sent as they are; otherwise the first ones end the copy.
    pub allow_corrupt: bool,
    /// Ends the copy.
    pub cancel: &'a Cancel,
    /// Bytes read so far.
    pub bytes: &'a AtomicU64,
    /// Called before each range: waits while the redo tail needs the machine, fails if the tail has failed.
    pub pace: &'a (dyn Fn() -> Result<()> + Sync),
    /// `None` if the server writes nothing meanwhile.
    pub checkpoints: Option<&'a dyn Checkpoints>,
    /// What this node remembers of its files.
    pub memory: Option<&'a Memory>,
    /// A server may be writing to the files.
    pub live: bool,
}

impl Copier<'_> {
    pub(super) fn seen(&self) -> Lsn {
        self.checkpoints.map_or(Lsn(0), Checkpoints::seen)
    }

    /// When no write to the disk of a file was in flight last, before the file is read. Looked for only if something may be remembered.
    pub(super) fn quiet(&self, wanted: &Wanted) -> Option<i128> {
        self.memory.and_then(|_| in_flight::quiet(wanted.identity.device()))
    }
}

/// Copies files. Returns what was copied, and the pages that remain corrupt.
///
/// # Errors
/// From the system, the sink, or cancelled.
pub fn copy(copier: Copier<'_>, wanted: &[Wanted]) -> Result<(Vec<Copied>, Vec<Damage>)> {
    let queue = Mutex::new(PageQueue::new(wanted));
    let threads = copier.threads.min(wanted.len()).max(1);
    read_in_threads(copier, threads, &|| work(copier, &queue))?;
    let queue = queue.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut done = queue.done;
    done.extend(queue.opened.iter().map(|open| Copied {
        id: open.id,
        bytes: Some(open.copied.load(Ordering::Acquire)),
        space: open.space,
        first_lsn: open.first_lsn,
        head: open.head.clone(),
        fresh: lock(&open.fresh).clone(),
    }));
    Ok((done, queue.damage))
}

/// Does the work in threads of lower priority if the sink gives way: that cannot be taken back, so the calling thread does none
/// of it then.
fn read_in_threads(copier: Copier<'_>, threads: usize, work: &(dyn Fn() -> Result<()> + Sync)) -> Result<()> {
    if !copier.sink.gives_way() {
        return in_threads(Thread::PageReader, threads, work);
    }
    let give_way = &|| {
        niceness::give_way();
        work()
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..threads).map(|_| scoped(scope, Thread::PageReader, give_way)).collect();
        let done: Vec<_> = readers.into_iter().map(Running::join).collect();
        done.into_iter().collect()
    })
}

fn work(copier: Copier<'_>, queue: &Mutex<PageQueue<'_>>) -> Result<()> {
    // Stop the other threads: the error is reported only after all of them have ended.
    read_pieces(copier, queue).inspect_err(|_| lock(queue).over = true)
}

fn read_pieces(copier: Copier<'_>, queue: &Mutex<PageQueue<'_>>) -> Result<()> {
    let mut buffer = Buffer::new(RANGE_BYTES as usize);
    let mut damage = Vec::new();
    let mut mine = None;
    while let Some(Piece { open, offset, len }) = take(copier, queue, &mut mine)? {
        copier.cancel.check()?;
        (copier.pace)()?;
        // Direct reads are of whole blocks.
        let known_damage = damage.len();
        let slot = &mut buffer.bytes()[..len.next_multiple_of(ALIGN)];
        let turn = copier.sink.turn_to_read(slot.len());
        let read = open.file.read(slot, offset, turn, &mut damage)?;
        let (piece, read) = (&mut buffer.bytes()[..len], read.min(len));
        // If the file became shorter meanwhile, the rest is zeros, because the joiner expects every byte. If it grows
        // again, redo writes the new pages.
        piece[read..].fill(0);
        // Corrupt pages are found again at every reading.
        let whole = read == len && damage.len() == known_damage;
        unread::learn(
            copier,
            open.wanted,
            open.unread.as_ref(),
            offset,
            piece,
            whole && !open.file.is_altered(),
        )?;
        if !damage.is_empty() && !copier.allow_corrupt {
            break;
        }
        copier.sink.write(open.outcome.id, offset, piece)?;
        open.outcome.copied.fetch_max(offset + read as u64, Ordering::AcqRel);
        copier.bytes.fetch_add(read as u64, Ordering::Relaxed);
    }
    if !damage.is_empty() {
        let mut queue = lock(queue);
        queue.over |= !copier.allow_corrupt;
        queue.damage.append(&mut damage);
    }
    Ok(())
}

#[cfg(test)]
#[path = "pages_tests.rs"]
pub(super) mod tests;
