//! Reads again the pages of a copied data file that redo below a newer checkpoint changes: see [`super::rounds`].
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use formats::{Lsn, SpaceId};
use protocol::inventory::FileId;
use protocol::limits::RANGE_BYTES;

use super::dirty::{Again, Dirty};
use crate::disk::direct::{ALIGN, Buffer};
use crate::snapshot::copy::page_file::{Damage, PageFile};
use crate::snapshot::copy::pages::{Copier, Wanted};
use crate::threads::{Thread, in_threads};

/// Bytes of the largest page.
const PAGE_MAX: u64 = 65536;
/// Files of up to this many bytes are read by one thread: starting more costs more than it saves.
pub const ALONE: u64 = 16 << 20;

/// A data file that was copied.
#[derive(Clone, Debug)]
pub struct Copy {
    /// The file.
    pub wanted: Wanted,
    /// Its tablespace; `None` if it had no first page when it was copied.
    pub space: Option<SpaceId>,
    /// Length of the copy in bytes.
    pub bytes: u64,
    /// Bytes from its beginning in which changes may be missing.
    pub stale: u64,
}

/// The copy after it was brought up to date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fresh {
    /// Its length in bytes: that of the file after its pages had been read.
    pub bytes: u64,
    /// Tablespace, once the file has a first page.
    pub space: Option<SpaceId>,
    /// LSN of that page, if it was read again.
    pub first_lsn: Option<Lsn>,
    /// As [`PageFile::head`], if everything was read again.
    pub head: Option<Vec<u64>>,
    /// Bytes that were read.
    pub read: u64,
}

/// Reads again what redo below `below` changes; the server's checkpoint there must have been seen before. `None`: the
/// name belongs to another file, or to none. Pages that remain corrupt are added to `damage`.
///
/// # Errors
/// From the system, the sink, or cancelled.
pub fn refresh(
    copier: Copier<'_>,
    copy: &Copy,
    dirty: &Dirty,
    below: Lsn,
    damage: &mut Vec<Damage>,
) -> Result<Option<Fresh>> {
    let known = copy.space.map_or(Again::Whole, |space| dirty.again(space, below, 0, 1));
    let whole = known == Again::Whole;
    let Some(file) = PageFile::open(&copy.wanted.path, copier.direct, copy.wanted.system)? else {
        return Ok(None);
    };
    let space = file.header.map(|(space, _)| space);
    if file.identity != copy.wanted.identity
        || (copy.space.is_some() && space.is_some_and(|s| copy.space != Some(s)))
    {
        return Ok(None);
    }
    let read = Mutex::new((0, Vec::new()));
    let pages = match (copy.space, file.header) {
        (Some(space), Some((_, format))) if !whole => {
            let first_page = copy.wanted.system.map_or(0, |(_, first)| first);
            let (size, stale) = (format.physical_size as u64, copy.stale);
            Some(Pages { dirty, space, below, first_page, size, stale })
        }
        _ => None,
    };
    let id = copy.wanted.entry.id;
    let mut end = 0;
    if let Some(pages) = pages {
        end = copy.bytes;
        let next = Mutex::new(pages.first_page);
        let work = || each(copier, &file, id, &read, || pages.next(&next, file.size()?));
        if known != Again::Nothing {
            let threads = if copy.bytes > ALONE { copier.threads } else { 1 };
            in_threads(Thread::PageRereader, threads, &work)?;
        }
    }
    // Everything added since must be written: the copy may hold older bytes there, from before the file was cut. The
    // length is read after the first page, so the copy is never shorter than its own first page says.
    let mut at = end;
    let added = || -> Result<Option<Range<u64>>> {
        let size = file.size()?;
        end = size;
        if size <= at {
            return Ok(None);
        }
        // Start at the beginning of a page, whatever the page size.
        let from = at / PAGE_MAX * PAGE_MAX;
        at = size.min(from + u64::from(RANGE_BYTES));
        Ok(Some(from..at))
    };
    each(copier, &file, id, &read, added)?;
    let (read, mut found) = read.into_inner().unwrap_or_else(PoisonError::into_inner);
    damage.append(&mut found);
    let first_again = whole || matches!(known, Again::Run(run) if run.start == 0);
    let first_lsn = file.first_lsn.filter(|_| first_again);
    let head = whole.then_some(file.head);
    Ok(Some(Fresh { bytes: end, space: space.or(copy.space), first_lsn, head, read }))
}

/// Finds the pages of a file that must be read again.
struct Pages<'a> {
    dirty: &'a Dirty,
    space: SpaceId,
    below: Lsn,
    first_page: u32,
    size: u64,
    stale: u64,
}

impl Pages<'_> {
    /// The next bytes to read: neighbouring pages together, whole pages and whole blocks.
    fn next(&self, next: &Mutex<u32>, file_size: u64) -> Result<Option<Range<u64>>> {
        let longest = (u64::from(RANGE_BYTES) / self.size) as u32;
        let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
        let run = match self.dirty.again(self.space, self.below, *next, longest) {
            Again::Nothing => return Ok(None),
            Again::Run(run) => run,
            // Redo above the checkpoint has meanwhile made the tablespace count as changed whole.
            Again::Whole => *next..next.saturating_add(longest),
        };
        let offset = |page: u32| u64::from(page - self.first_page) * self.size;
        let (start, end) = (offset(run.start), offset(run.end));
        if start >= file_size.min(self.stale) {
            return Ok(None);
        }
        *next = run.end;
        let block = self.size.max(ALIGN as u64);
        Ok(Some(start / block * block..end.next_multiple_of(block)))
    }
}

/// Reads and writes ranges until there are none left.
fn each(
    copier: Copier<'_>,
    file: &PageFile,
    id: FileId,
    done: &Mutex<(u64, Vec<Damage>)>,
    mut next: impl FnMut() -> Result<Option<Range<u64>>>,
) -> Result<()> {
    let mut buffer: Option<Buffer> = None;
    let (mut bytes, mut damage) = (0, Vec::new());
    while let Some(range) = next()? {
        copier.cancel.check()?;
        (copier.pace)()?;
        // One block more at either end of a range: pages smaller than a block begin and end inside one.
        let buffer = buffer.get_or_insert_with(|| Buffer::new(RANGE_BYTES as usize + 2 * ALIGN));
        let wanted = (range.end - range.start) as usize;
        let slot = &mut buffer.bytes()[..wanted.next_multiple_of(ALIGN)];
        let turn = copier.sink.turn_to_read(slot.len());
        let read = file.read(slot, range.start, turn, &mut damage)?;
        if read > 0 {
            copier.sink.write(id, range.start, &slot[..read])?;
            bytes += read as u64;
        }
    }
    copier.bytes.fetch_add(bytes, Ordering::Relaxed);
    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
    done.0 += bytes;
    done.1.append(&mut damage);
    Ok(())
}
