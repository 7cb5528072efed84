//! Copies many data files with several threads, in ranges, largest file first.
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

use super::page_file::{Damage, PageFile};
use super::unread::{self, Unread, may_be_remembered};
use crate::cancel::Cancel;
use crate::disk::direct::{ALIGN, Buffer};
use crate::disk::identity::{Identity, now};
use crate::remembered::memory::Memory;
use crate::server::niceness;
use crate::snapshot::sink::SnapshotSink;
use crate::threads::{Running, Thread, in_threads, lock, scoped};

/// How often held files are checked again.
const HELD_LOOK: Duration = Duration::from_millis(5);
/// How often a thread without work checks whether a file that another thread opens is large enough to share.
const OPENING_LOOK: Duration = Duration::from_millis(1);

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
    fn seen(&self) -> Lsn {
        self.checkpoints.map_or(Lsn(0), Checkpoints::seen)
    }
}

/// A file that is being read by several threads.
struct Open<'w> {
    wanted: &'w Wanted,
    file: PageFile,
    /// What was handed over without reading it.
    unread: Option<Unread>,
    /// End of what was read or given to a thread.
    end: AtomicU64,
    /// Number of its first page.
    first_page: u32,
    /// LSN of the newest checkpoint that was seen before it was opened.
    seen: Lsn,
    outcome: Arc<Outcome>,
}

/// The result of opening a file.
enum Opened<'w> {
    Open(Arc<Open<'w>>),
    /// Nothing of it must be read.
    Unread(Copied),
    /// It begins with pages that are better read later.
    Held,
    /// It is gone, or its name belongs to another file, which a later listing finds.
    Gone,
}

impl Open<'_> {
    /// True if the pages at this offset are better read later.
    fn is_held(&self, copier: Copier<'_>, offset: u64) -> bool {
        let (Some(checkpoints), Some((space, format))) = (copier.checkpoints, self.file.header) else {
            return false;
        };
        let range = u64::from(RANGE_BYTES);
        // Small files are not held: they are compared in groups and wait for each other (`compare::groups`).
        if !checkpoints.is_holding() || self.file.size().unwrap_or(0) <= range {
            return false;
        }
        let page = format.physical_size as u64;
        let first = u64::from(self.first_page) + offset / page;
        let pages = first as u32..(first + (range - offset % range).div_ceil(page)) as u32;
        checkpoints.hold(space, &pages)
    }

    /// Bytes of the whole pages that the file has now.
    fn whole_pages(&self) -> Result<u64> {
        let page = self.file.header.map_or(ALIGN, |(_, format)| format.physical_size) as u64;
        Ok(self.file.size()? / page * page)
    }
}

/// What remains when the file is closed.
struct Outcome {
    id: FileId,
    space: Option<SpaceId>,
    first_lsn: Option<Lsn>,
    head: Vec<u64>,
    copied: AtomicU64,
    fresh: Mutex<Freshness>,
}

impl Outcome {
    /// Records that what is read from this offset on is read after this checkpoint was seen.
    fn is_read_after(&self, seen: Lsn, offset: u64) {
        let mut fresh = lock(&self.fresh);
        if fresh.last().is_none_or(|(last, _)| *last < seen) {
            fresh.push((seen, offset));
        }
    }
}

struct Queue<'w> {
    wanted: std::slice::Iter<'w, Wanted>,
    /// Files that begin with pages that are better read later.
    later: Vec<&'w Wanted>,
    /// Files that are being read, and the offset up to which each was given out.
    current: Vec<(Arc<Open<'w>>, u64)>,
    /// As `current`, for files whose next pages are better read later.
    held: Vec<(Arc<Open<'w>>, u64)>,
    done: Vec<Copied>,
    opened: Vec<Arc<Outcome>>,
    damage: Vec<Damage>,
    /// Files that threads are opening.
    opening: usize,
    /// Nothing more is given out.
    over: bool,
}

/// Copies files. Returns what was copied, and the pages that remain corrupt.
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
        opening: 0,
        over: false,
    });
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

fn work(copier: Copier<'_>, queue: &Mutex<Queue<'_>>) -> Result<()> {
    // Otherwise the others would read everything before the error is heard of.
    read_pieces(copier, queue).inspect_err(|_| lock(queue).over = true)
}

fn read_pieces(copier: Copier<'_>, queue: &Mutex<Queue<'_>>) -> Result<()> {
    let mut buffer = Buffer::new(RANGE_BYTES as usize);
    let mut damage = Vec::new();
    let mut mine = None;
    while let Some(Piece { open, offset, len }) = take(copier, queue, &mut mine)? {
        copier.cancel.check()?;
        (copier.pace)()?;
        // Direct reads are of whole blocks.
        let known_damage = damage.len();
        let read = open.file.read(&mut buffer.bytes()[..len.next_multiple_of(ALIGN)], offset, &mut damage)?;
        let (piece, read) = (&mut buffer.bytes()[..len], read.min(len));
        // If the file became shorter meanwhile, the rest is zeros, because the joiner expects every byte. If it grows
        // again, redo writes the new pages.
        piece[read..].fill(0);
        if !damage.is_empty() && !copier.allow_corrupt {
            break;
        }
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

/// A part of a file, within one range.
struct Piece<'w> {
    open: Arc<Open<'w>>,
    offset: u64,
    len: usize,
}

/// The next piece, preferably of the thread's own file: filesystems let only one thread at a time write to a file, so
/// the joiner is faster with several files. Threads that find no further file help with those that are left. `None`
/// once nothing is left.
fn take<'w>(
    copier: Copier<'_>,
    queue: &Mutex<Queue<'w>>,
    mine: &mut Option<FileId>,
) -> Result<Option<Piece<'w>>> {
    loop {
        let taken = try_take(copier, &mut lock(queue), mine)?;
        match taken {
            Taken::Piece(piece) => return Ok(Some(piece)),
            Taken::Nothing => return Ok(None),
            Taken::File(wanted) => {
                // Opening reads the first pages, so other threads must not wait for it: most files are hardly longer.
                let opened = open(copier, wanted);
                let mut queue = lock(queue);
                queue.opening -= 1;
                queue.put(wanted, opened?, mine);
            }
            Taken::Opening => copier.cancel.sleep(OPENING_LOOK)?,
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

    /// Takes over a file that was opened, as the thread's own.
    fn put(&mut self, wanted: &'w Wanted, opened: Opened<'w>, mine: &mut Option<FileId>) {
        let id = wanted.entry.id;
        match opened {
            Opened::Open(open) => {
                *mine = Some(id);
                self.opened.push(Arc::clone(&open.outcome));
                self.current.push((open, 0));
            }
            Opened::Unread(copied) => self.done.push(copied),
            Opened::Held => self.later.push(wanted),
            Opened::Gone => self.done.push(Copied::gone(id)),
        }
    }
}

/// The result of taking a piece.
enum Taken<'w> {
    Piece(Piece<'w>),
    /// The thread has to open this file.
    File(&'w Wanted),
    /// Nothing is left but files that other threads are opening.
    Opening,
    /// The rest is held.
    Later,
    Nothing,
}

fn try_take<'w>(copier: Copier<'_>, queue: &mut Queue<'w>, mine: &mut Option<FileId>) -> Result<Taken<'w>> {
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
            queue.opening += 1;
            return Ok(Taken::File(wanted));
        }
        let at = own.unwrap_or(0);
        let Some((open, given_out)) = queue.current.get_mut(at) else {
            return Ok(match queue.has_held() {
                true => Taken::Later,
                false if queue.opening > 0 => Taken::Opening,
                false => Taken::Nothing,
            });
        };
        if *given_out > 0 && open.is_held(copier, *given_out) {
            let held = queue.current.remove(at);
            queue.held.push(held);
            continue;
        }
        // Its first pages were read when it was opened, so the checkpoint seen before that counts.
        let seen = if *given_out == 0 { open.seen } else { copier.seen() };
        match piece(open, *given_out)? {
            Some(piece) => {
                // What was handed over before the file was opened lies between these parts, and is as old as that.
                if open.unread.is_none() {
                    open.outcome.is_read_after(seen, piece.offset);
                }
                *given_out = piece.offset + piece.len as u64;
                return Ok(Taken::Piece(piece));
            }
            None => drop(queue.current.remove(at)),
        }
    }
    Ok(Taken::Nothing)
}

/// The next piece of a file. Pages that are added while it is read are read too. A page that is there only in part is
/// being created, which redo does on the joiner.
fn piece<'w>(open: &Arc<Open<'w>>, given_out: u64) -> Result<Option<Piece<'w>>> {
    let given_out = open.unread.as_ref().map_or(given_out, |unread| unread.first_from(given_out));
    let mut end = open.end.load(Ordering::Acquire);
    if given_out >= end {
        end = open.whole_pages()?;
        open.end.store(end, Ordering::Release);
    }
    // Some pages are read twice if pages are smaller than a block.
    let offset = given_out / ALIGN as u64 * ALIGN as u64;
    let range = u64::from(RANGE_BYTES);
    let next = end.min((offset / range + 1) * range);
    let piece = || Piece { open: Arc::clone(open), offset, len: (next - offset) as usize };
    Ok((given_out < end).then(piece))
}

fn open<'w>(copier: Copier<'_>, wanted: &'w Wanted) -> Result<Opened<'w>> {
    let (seen, began) = (copier.seen(), now());
    let unread = unread::hand_over(copier, wanted, false)?;
    if let Some(copied) = unread.as_ref().and_then(|unread| unread.copied(copier, wanted.entry.id, seen)) {
        return Ok(Opened::Unread(copied));
    }
    let Some(file) = PageFile::open(&wanted.path, copier.direct, wanted.system)? else {
        return Ok(Opened::Gone);
    };
    if file.identity != wanted.identity {
        return Ok(Opened::Gone);
    }
    // What was handed over counts, even if the file was changed since.
    let handed = unread.as_ref().filter(|unread| unread.done.covers(0..1));
    let handed = handed.and_then(|unread| unread.beginning(copier.memory?));
    let (space, first_lsn, head) = match handed {
        Some(beginning) => (Some(beginning.space), Some(beginning.lsn), beginning.pages),
        None => (file.header.map(|(space, _)| space), file.first_lsn, file.head.clone()),
    };
    let outcome = Arc::new(Outcome {
        id: wanted.entry.id,
        space,
        first_lsn,
        head,
        copied: AtomicU64::new(0),
        fresh: Mutex::default(),
    });
    let first_page = wanted.system.map_or(0, |(_, first)| first);
    let open = Open { wanted, file, unread, end: AtomicU64::new(0), first_page, seen, outcome };
    match &open.unread {
        Some(unread) => {
            open.outcome.is_read_after(seen, 0);
            let last = unread.done.iter().last().map_or(0, |range| range.end);
            open.outcome.copied.store(last, Ordering::Release);
        }
        None if open.is_held(copier, 0) => return Ok(Opened::Held),
        None => {}
    }
    copier.sink.announce(&wanted.entry).context("cannot announce a file")?;
    if let Some(memory) = copier.memory.filter(|_| open.unread.is_none() && may_be_remembered(&wanted.entry))
    {
        let (file, front) = (&open.file, open.file.front());
        memory.learner().begin(wanted.entry.id, &wanted.path, &file.look, began, copier.live, front);
    }
    Ok(Opened::Open(Arc::new(open)))
}

#[cfg(test)]
#[path = "pages_tests.rs"]
pub(super) mod tests;
