//! Many data files, read by several threads in ranges, largest first.
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use formats::innodb::tablespace::PageFormat;
use formats::{Lsn, SpaceId};
use protocol::inventory::{FileEntry, FileId};
use protocol::limits::RANGE_BYTES;
use std::path::PathBuf;

use super::direct::{ALIGN, Buffer};
use super::page_file::{Damage, PageFile};
use crate::cancel::Cancel;
use crate::disk::identity::Identity;
use crate::source::sink::SnapshotSink;
use crate::threads::in_threads;

/// A data file to copy.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What it is called on the wire.
    pub entry: FileEntry,
    /// Where it is.
    pub path: PathBuf,
    /// Which file it must be.
    pub identity: Identity,
    /// Number of its first page; not 0 in further files of the system tablespace, with their format.
    pub system: Option<(PageFormat, u32)>,
}

/// What became of one.
#[derive(Clone, Debug)]
pub struct Copied {
    /// Which.
    pub id: FileId,
    /// Bytes from the start; `None` = it was gone, or another file has its name.
    pub bytes: Option<u64>,
    /// Tablespace, once it has a first page.
    pub space: Option<SpaceId>,
    /// LSN of that page.
    pub first_lsn: Option<Lsn>,
    /// As [`PageFile::head`].
    pub head: Vec<u64>,
}

/// What all threads share.
#[derive(Clone, Copy)]
pub struct Copier<'a> {
    /// Where it goes.
    pub sink: &'a dyn SnapshotSink,
    /// Threads.
    pub threads: usize,
    /// Read past the page cache.
    pub direct: bool,
    /// Damaged pages are delivered as they are; otherwise the first ones end the copy.
    pub allow_corrupt: bool,
    /// Ends the copy.
    pub cancel: &'a Cancel,
    /// Bytes read so far.
    pub bytes: &'a AtomicU64,
    /// Called before each range: waits while the redo tail needs the machine, fails when it has failed.
    pub pace: &'a (dyn Fn() -> Result<()> + Sync),
}

/// A file that is being read by several threads.
struct Open {
    file: PageFile,
    /// End of what was read, or given out to be read.
    end: AtomicU64,
    outcome: Arc<Outcome>,
}

impl Open {
    /// Bytes of the file's whole pages at the moment.
    fn whole_pages(&self) -> Result<u64> {
        let page = self.file.header.map_or(ALIGN, |(_, format)| format.physical_size) as u64;
        Ok(self.file.size()? / page * page)
    }
}

/// Kept when the file is closed.
struct Outcome {
    id: FileId,
    space: Option<SpaceId>,
    first_lsn: Option<Lsn>,
    head: Vec<u64>,
    copied: AtomicU64,
}

struct Queue<'w> {
    wanted: std::slice::Iter<'w, Wanted>,
    /// Files that are being read, and how far they were given out.
    current: Vec<(Arc<Open>, u64)>,
    done: Vec<Copied>,
    opened: Vec<Arc<Outcome>>,
    damage: Vec<Damage>,
    /// Nothing more is given out.
    over: bool,
}

/// Copies files. Answers what was copied, and pages that stay damaged.
///
/// # Errors
/// From the system, the sink, or cancelled.
pub fn copy(copier: Copier<'_>, wanted: &[Wanted]) -> Result<(Vec<Copied>, Vec<Damage>)> {
    let queue = Mutex::new(Queue {
        wanted: wanted.iter(),
        current: Vec::new(),
        done: Vec::new(),
        opened: Vec::new(),
        damage: Vec::new(),
        over: false,
    });
    let threads = copier.threads.min(wanted.len()).max(1);
    in_threads(threads, &|| work(copier, &queue))?;
    let queue = queue.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut done = queue.done;
    done.extend(queue.opened.iter().map(|open| Copied {
        id: open.id,
        bytes: Some(open.copied.load(Ordering::Acquire)),
        space: open.space,
        first_lsn: open.first_lsn,
        head: open.head.clone(),
    }));
    Ok((done, queue.damage))
}

fn work(copier: Copier<'_>, queue: &Mutex<Queue<'_>>) -> Result<()> {
    let mut buffer = Buffer::new(RANGE_BYTES as usize);
    let mut damage = Vec::new();
    let mut mine = None;
    while let Some(Piece { open, offset, len }) = take(copier, queue, &mut mine)? {
        copier.cancel.check()?;
        (copier.pace)()?;
        // Direct reads are of whole blocks.
        let read = open.file.read(&mut buffer.bytes()[..len.next_multiple_of(ALIGN)], offset, &mut damage)?;
        let (piece, read) = (&mut buffer.bytes()[..len], read.min(len));
        // The file became shorter meanwhile. Should it grow again, redo writes what is there; the joiner wants to have
        // heard of every byte.
        piece[read..].fill(0);
        if !damage.is_empty() && !copier.allow_corrupt {
            break;
        }
        copier.sink.write(open.outcome.id, offset, piece)?;
        open.outcome.copied.fetch_max(offset + read as u64, Ordering::AcqRel);
        copier.bytes.fetch_add(read as u64, Ordering::Relaxed);
    }
    if !damage.is_empty() {
        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.over |= !copier.allow_corrupt;
        queue.damage.append(&mut damage);
    }
    Ok(())
}

/// A part of a file, inside one range.
struct Piece {
    open: Arc<Open>,
    offset: u64,
    len: usize,
}

/// The next piece, of the thread's own file: filesystems let one thread at a time write to a file, so the joiner is quicker with
/// several. Threads that find no further file help with those that are left.
fn take(copier: Copier<'_>, queue: &Mutex<Queue<'_>>, mine: &mut Option<FileId>) -> Result<Option<Piece>> {
    let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
    while !queue.over {
        let own = queue.current.iter().position(|(open, _)| Some(open.outcome.id) == *mine);
        if own.is_none()
            && let Some(wanted) = queue.wanted.next()
        {
            let id = wanted.entry.id;
            match open(copier, wanted)? {
                Some(open) => {
                    *mine = Some(id);
                    queue.opened.push(Arc::clone(&open.outcome));
                    queue.current.push((Arc::new(open), 0));
                }
                None => {
                    let gone = Copied { id, bytes: None, space: None, first_lsn: None, head: Vec::new() };
                    queue.done.push(gone);
                }
            }
            continue;
        }
        let at = own.unwrap_or(0);
        let Some((open, given_out)) = queue.current.get_mut(at) else { return Ok(None) };
        match piece(open, *given_out)? {
            Some(piece) => {
                *given_out = piece.offset + piece.len as u64;
                return Ok(Some(piece));
            }
            None => drop(queue.current.remove(at)),
        }
    }
    Ok(None)
}

/// What follows in a file. It ends where it ends at the moment: what is added while it is read is read too. A page that is
/// there in part is about to be made: redo does that on the joiner.
fn piece(open: &Arc<Open>, given_out: u64) -> Result<Option<Piece>> {
    let mut end = open.end.load(Ordering::Acquire);
    if given_out >= end {
        end = open.whole_pages()?;
        open.end.store(end, Ordering::Release);
    }
    // Of pages smaller than a block some come twice.
    let offset = given_out / ALIGN as u64 * ALIGN as u64;
    let range = u64::from(RANGE_BYTES);
    let next = end.min((offset / range + 1) * range);
    let piece = || Piece { open: Arc::clone(open), offset, len: (next - offset) as usize };
    Ok((given_out < end).then(piece))
}

/// `None` when the file is gone or its name has become another file's: a later listing knows that one.
fn open(copier: Copier<'_>, wanted: &Wanted) -> Result<Option<Open>> {
    let Some(file) = PageFile::open(&wanted.path, copier.direct, wanted.system)? else { return Ok(None) };
    if file.identity != wanted.identity {
        return Ok(None);
    }
    copier.sink.announce(&wanted.entry).context("cannot announce a file")?;
    let space = file.header.map(|(space, _)| space);
    let outcome = Arc::new(Outcome {
        id: wanted.entry.id,
        space,
        first_lsn: file.first_lsn,
        head: file.head.clone(),
        copied: AtomicU64::new(0),
    });
    Ok(Some(Open { file, end: AtomicU64::new(0), outcome }))
}
