//! Many data files, read by several threads in ranges, largest first.
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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
use crate::snapshot::sink::SnapshotSink;
use crate::threads::{Thread, in_threads};

/// How often held files are looked at again.
const HELD_LOOK: Duration = Duration::from_millis(5);

/// What a copy knows of the server's checkpoints.
pub trait Checkpoints: Sync {
    /// LSN of the newest one that was seen: what is read from now on holds all changes below it.
    fn seen(&self) -> Lsn;

    /// The server is about to write pages to its files: better to read those a little later.
    fn is_holding(&self) -> bool;

    /// One of these is such a page.
    fn hold(&self, space: SpaceId, pages: &Range<u32>) -> bool;
}

/// From which offset on a file was read after a checkpoint had been seen: ascending in both.
pub type Freshness = Vec<(Lsn, u64)>;

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
    /// Which checkpoints had been seen when it was read.
    pub fresh: Freshness,
}

impl Copied {
    fn gone(id: FileId) -> Copied {
        Copied { id, bytes: None, space: None, first_lsn: None, head: Vec::new(), fresh: Vec::new() }
    }
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
    /// None where the server writes nothing meanwhile.
    pub checkpoints: Option<&'a dyn Checkpoints>,
}

impl Copier<'_> {
    fn seen(&self) -> Lsn {
        self.checkpoints.map_or(Lsn(0), Checkpoints::seen)
    }
}

/// A file that is being read by several threads.
struct Open {
    file: PageFile,
    /// End of what was read, or given out to be read.
    end: AtomicU64,
    /// Number of its first page.
    first_page: u32,
    /// The newest checkpoint that was seen before it was opened.
    seen: Lsn,
    outcome: Arc<Outcome>,
}

/// What became of a file that was to be opened.
enum Opened {
    Open(Arc<Open>),
    /// It begins with pages that are better read later.
    Held,
    /// It is gone or its name has become another file's: a later listing knows that one.
    Gone,
}

impl Open {
    /// What follows at an offset is better read later.
    fn is_held(&self, copier: Copier<'_>, offset: u64) -> bool {
        let (Some(checkpoints), Some((space, format))) = (copier.checkpoints, self.file.header) else {
            return false;
        };
        let range = u64::from(RANGE_BYTES);
        // Small ones wait for each other to be compared: see `together`.
        if !checkpoints.is_holding() || self.file.size().unwrap_or(0) <= range {
            return false;
        }
        let page = format.physical_size as u64;
        let first = u64::from(self.first_page) + offset / page;
        let pages = first as u32..(first + (range - offset % range).div_ceil(page)) as u32;
        checkpoints.hold(space, &pages)
    }

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
    fresh: Mutex<Freshness>,
}

impl Outcome {
    /// What is read from this offset on is read after this checkpoint was seen.
    fn is_read_after(&self, seen: Lsn, offset: u64) {
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        if fresh.last().is_none_or(|(last, _)| *last < seen) {
            fresh.push((seen, offset));
        }
    }
}

struct Queue<'w> {
    wanted: std::slice::Iter<'w, Wanted>,
    /// Files that begin with pages that are better read later.
    later: Vec<&'w Wanted>,
    /// Files that are being read, and how far they were given out.
    current: Vec<(Arc<Open>, u64)>,
    /// As `current`, of which pages come that are better read later.
    held: Vec<(Arc<Open>, u64)>,
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
        later: Vec::new(),
        current: Vec::new(),
        held: Vec::new(),
        done: Vec::new(),
        opened: Vec::new(),
        damage: Vec::new(),
        over: false,
    });
    let threads = copier.threads.min(wanted.len()).max(1);
    in_threads(Thread::PageReader, threads, &|| work(copier, &queue))?;
    let queue = queue.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut done = queue.done;
    done.extend(queue.opened.iter().map(|open| Copied {
        id: open.id,
        bytes: Some(open.copied.load(Ordering::Acquire)),
        space: open.space,
        first_lsn: open.first_lsn,
        head: open.head.clone(),
        fresh: open.fresh.lock().unwrap_or_else(PoisonError::into_inner).clone(),
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
/// several. Threads that find no further file help with those that are left. `None` once there is nothing more.
fn take(copier: Copier<'_>, queue: &Mutex<Queue<'_>>, mine: &mut Option<FileId>) -> Result<Option<Piece>> {
    loop {
        match try_take(copier, &mut queue.lock().unwrap_or_else(PoisonError::into_inner), mine)? {
            Taken::Piece(piece) => return Ok(Some(piece)),
            Taken::Nothing => return Ok(None),
            Taken::Later => {
                copier.cancel.sleep(HELD_LOOK)?;
                (copier.pace)()?;
            }
        }
    }
}

impl<'w> Queue<'w> {
    fn next_file(&mut self, holding: bool) -> Option<&'w Wanted> {
        let later = if holding { None } else { self.later.pop() };
        later.or_else(|| self.wanted.next())
    }

    fn has_held(&self) -> bool {
        !self.held.is_empty() || !self.later.is_empty()
    }
}

/// What was there to take.
enum Taken {
    Piece(Piece),
    /// What is left is held.
    Later,
    Nothing,
}

fn try_take(copier: Copier<'_>, queue: &mut Queue<'_>, mine: &mut Option<FileId>) -> Result<Taken> {
    while !queue.over {
        let holding = copier.checkpoints.is_some_and(Checkpoints::is_holding);
        let own = queue.current.iter().position(|(open, _)| Some(open.outcome.id) == *mine);
        if own.is_none()
            && !holding
            && let Some(held) = queue.held.pop()
        {
            *mine = Some(held.0.outcome.id);
            queue.current.push(held);
            continue;
        }
        if own.is_none()
            && let Some(wanted) = queue.next_file(holding)
        {
            let id = wanted.entry.id;
            match open(copier, wanted)? {
                Opened::Open(open) => {
                    *mine = Some(id);
                    queue.opened.push(Arc::clone(&open.outcome));
                    queue.current.push((open, 0));
                }
                Opened::Held => queue.later.push(wanted),
                Opened::Gone => queue.done.push(Copied::gone(id)),
            }
            continue;
        }
        let at = own.unwrap_or(0);
        let Some((open, given_out)) = queue.current.get_mut(at) else {
            return Ok(if queue.has_held() { Taken::Later } else { Taken::Nothing });
        };
        if *given_out > 0 && open.is_held(copier, *given_out) {
            let held = queue.current.remove(at);
            queue.held.push(held);
            continue;
        }
        // What is known of its first pages was read when it was opened.
        let seen = if *given_out == 0 { open.seen } else { copier.seen() };
        match piece(open, *given_out)? {
            Some(piece) => {
                open.outcome.is_read_after(seen, piece.offset);
                *given_out = piece.offset + piece.len as u64;
                return Ok(Taken::Piece(piece));
            }
            None => drop(queue.current.remove(at)),
        }
    }
    Ok(Taken::Nothing)
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

fn open(copier: Copier<'_>, wanted: &Wanted) -> Result<Opened> {
    let seen = copier.seen();
    let Some(file) = PageFile::open(&wanted.path, copier.direct, wanted.system)? else {
        return Ok(Opened::Gone);
    };
    if file.identity != wanted.identity {
        return Ok(Opened::Gone);
    }
    let outcome = Arc::new(Outcome {
        id: wanted.entry.id,
        space: file.header.map(|(space, _)| space),
        first_lsn: file.first_lsn,
        head: file.head.clone(),
        copied: AtomicU64::new(0),
        fresh: Mutex::default(),
    });
    let first_page = wanted.system.map_or(0, |(_, first)| first);
    let open = Open { file, end: AtomicU64::new(0), first_page, seen, outcome };
    if open.is_held(copier, 0) {
        return Ok(Opened::Held);
    }
    copier.sink.announce(&wanted.entry).context("cannot announce a file")?;
    Ok(Opened::Open(Arc::new(open)))
}

#[cfg(test)]
#[path = "pages_tests.rs"]
mod tests;
