//! A data file that several threads read, piece by piece.
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use formats::{Lsn, SpaceId};
use protocol::inventory::FileId;
use protocol::limits::RANGE_BYTES;

use super::page_file::PageFile;
use super::pages::{Copied, Copier, Freshness, Wanted};
use super::unread::{self, Unread, may_be_remembered};
use crate::disk::direct::ALIGN;
use crate::threads::lock;

/// A file that is being read by several threads.
pub(super) struct Open<'w> {
    pub wanted: &'w Wanted,
    pub file: PageFile,
    /// What was handed over without reading it.
    pub unread: Option<Unread>,
    /// End of what was read or given to a thread.
    pub end: AtomicU64,
    /// Number of its first page.
    pub first_page: u32,
    /// LSN of the newest checkpoint that was seen before it was opened.
    pub seen: Lsn,
    pub outcome: Arc<Outcome>,
}

/// The result of opening a file.
pub(super) enum Opened<'w> {
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
    pub fn is_held(&self, copier: Copier<'_>, offset: u64) -> bool {
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
        Ok(whole_pages(&self.file, self.file.size()?))
    }
}

/// Bytes of the whole pages of a file of this length.
fn whole_pages(file: &PageFile, size: u64) -> u64 {
    let page = file.page_size().unwrap_or(ALIGN) as u64;
    size / page * page
}

/// What remains when the file is closed.
pub(super) struct Outcome {
    pub id: FileId,
    pub space: Option<SpaceId>,
    pub first_lsn: Option<Lsn>,
    pub head: Vec<u64>,
    pub copied: AtomicU64,
    pub fresh: Mutex<Freshness>,
}

impl Outcome {
    /// Records that what is read from this offset on is read after this checkpoint was seen.
    pub fn is_read_after(&self, seen: Lsn, offset: u64) {
        let mut fresh = lock(&self.fresh);
        if fresh.last().is_none_or(|(last, _)| *last < seen) {
            fresh.push((seen, offset));
        }
    }
}

/// A part of a file, within one range.
pub(super) struct Piece<'w> {
    pub open: Arc<Open<'w>>,
    pub offset: u64,
    pub len: usize,
}

/// The next piece of a file. Pages that are added while it is read are read too. A page that is there only in part is
/// being created, which redo does on the joiner.
pub(super) fn piece<'w>(open: &Arc<Open<'w>>, given_out: u64) -> Result<Option<Piece<'w>>> {
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

/// Opens a file, after what the joiner has of it was handed over.
pub(super) fn open<'w>(copier: Copier<'_>, wanted: &'w Wanted) -> Result<Opened<'w>> {
    let (seen, quiet) = (copier.seen(), copier.quiet(wanted));
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
    // What it has grown by since is found when this was read.
    let end = AtomicU64::new(whole_pages(&file, file.look.signature.size));
    let open = Open { wanted, file, unread, end, first_page, seen, outcome };
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
        memory.learner().begin(wanted.entry.id, &wanted.path, &file.look, quiet, copier.live, front);
    }
    Ok(Opened::Open(Arc::new(open)))
}
