//! Positioned writes into staged files, from several threads at once.
use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use anyhow::{Context, Result};
use protocol::extents::Extents;
use protocol::inventory::FileId;

use crate::disk::copy::clear;
use crate::failure::{Failure, Kind};
use crate::receive::reusable::{self, Held};
use crate::receive::staged::{self, StagedFile};
use crate::receive::staging::Staging;
use crate::threads::lock;

/// Open files a thread holds at once: ranges come of as many files by turns as the donor has threads. There may be 20,000 files.
pub const OPEN_FILES: usize = 16;

/// Bytes of a file's earlier ranges that are taken from the old file with each range that comes: enough to be through with
/// them at the end, few enough for the donor not to wait.
const CATCH_UP: u64 = 2 << 20;

/// What came of a range: parts (start within the range, length), and their bytes one after the other.
pub type Came<'a> = (&'a [(u32, u32)], &'a [u8]);

/// One thread's way to write.
#[derive(Debug)]
pub struct Writer<'a> {
    staging: &'a Staging,
    /// A range that is put together.
    whole: Vec<u8>,
    open: VecDeque<(FileId, Arc<StagedFile>, File)>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(staging: &'a Staging) -> Writer<'a> {
        Writer { staging, whole: Vec::new(), open: VecDeque::with_capacity(OPEN_FILES) }
    }

    /// Writes the parts of a range. What is between them is not written: it is a hole in a file that was never written there.
    /// Where something was written before, call [`Writer::clear_gaps`] too.
    pub fn write_range(
        &mut self,
        file: FileId,
        offset: u64,
        parts: &[(u32, u32)],
        data: &[u8],
    ) -> Result<()> {
        check(offset, parts, data).with_context(|| format!("file number {}, range at {offset}", file.0))?;
        let (staged, open) = self.open(file)?;
        staged.needs_room(data.len() as u64);
        let turn = lock(&staged.writing);
        pieces((parts, data))
            .try_for_each(|(start, part)| open.write_all_at(part, offset + u64::from(start)))
            .with_context(|| format!("cannot write staged file number {}", file.0))?;
        drop(turn);
        let end = parts.last().map_or(0, |(start, length)| start + length);
        write_behind(open, offset..offset + u64::from(end));
        Ok(())
    }

    /// Writes what came of a range, of which so many bytes are not the old file's. Once the file is known to be written anew, what
    /// the range has of the old one is written with it: while others are received, not all at the end. A file of which
    /// nothing came is not touched: it may stay what it is.
    pub fn write(
        &mut self,
        file: FileId,
        range: Range<u64>,
        came: &[Came<'_>],
        differing: u64,
    ) -> Result<()> {
        match self.staging.take_same(file, range.clone(), differing)? {
            Some(same) if !same.same.is_empty() => self.write_together(file, range, came, &same),
            _ if differing == 0 => Ok(()),
            _ => came.iter().try_for_each(|(parts, data)| self.write_range(file, range.start, parts, data)),
        }
    }

    /// One piece mostly. Catches up with some of what came before it was known that the file is put together; what is shared
    /// comes in the end, as long pieces that nobody writes to any more.
    fn write_together(
        &mut self,
        file: FileId,
        range: Range<u64>,
        came: &[Came<'_>],
        same: &Held,
    ) -> Result<()> {
        came.iter()
            .try_for_each(|(parts, data)| check(range.start, parts, data))
            .with_context(|| format!("file number {}, range at {}", file.0, range.start))?;
        let mut whole = std::mem::take(&mut self.whole);
        let (staged, open) = self.open(file)?;
        let mut runs = Extents::default();
        whole.resize((range.end - range.start) as usize, 0);
        same.read_into(&mut whole, range.start, &mut runs)?;
        for (start, part) in came.iter().flat_map(|came| pieces(*came)) {
            let place = start as usize..start as usize + part.len();
            whole.get_mut(place).context("a part beyond its range")?.copy_from_slice(part);
            runs.add(u64::from(start)..u64::from(start) + part.len() as u64);
        }
        staged.needs_room(range.end - range.start);
        let turn = lock(&staged.writing);
        runs.iter()
            .try_for_each(|run| {
                open.write_all_at(&whole[run.start as usize..run.end as usize], range.start + run.start)
            })
            .with_context(|| format!("cannot write staged file number {}", file.0))?;
        if !staged.sharing {
            catch_up(staged, open)?;
        }
        drop(turn);
        write_behind(open, range);
        self.whole = whole;
        Ok(())
    }

    /// Makes what lies between the parts of a range of `len` bytes zero again.
    pub fn clear_gaps(&mut self, file: FileId, offset: u64, len: u32, parts: &[(u32, u32)]) -> Result<()> {
        let mut from = 0;
        for (start, end) in parts.iter().map(|&(start, length)| (start, start + length)).chain([(len, len)]) {
            self.clear_range(file, offset + u64::from(from), u64::from(start.saturating_sub(from)))?;
            from = end;
        }
        Ok(())
    }

    /// Makes bytes zero again, as a hole where the filesystem can.
    pub fn clear_range(&mut self, file: FileId, offset: u64, length: u64) -> Result<()> {
        let (staged, open) = self.open(file)?;
        let _turn = lock(&staged.writing);
        clear(open, offset, length).with_context(|| format!("cannot clear staged file number {}", file.0))
    }

    fn open(&mut self, file: FileId) -> Result<(&StagedFile, &File)> {
        if let Some(index) = self.open.iter().position(|(id, ..)| *id == file) {
            self.open.swap(0, index);
        } else {
            let file_of = self.staging.file(file)?;
            staged::make(&file_of)?;
            let opened = File::options()
                .write(true)
                .open(&file_of.path)
                .with_context(|| format!("cannot open {}", file_of.path.display()))?;
            self.open.truncate(OPEN_FILES - 1);
            self.open.push_front((file, file_of, opened));
        }
        self.open.front().map(|(_, staged, open)| (&**staged, open)).context("no open file")
    }
}

/// Under the lock, so that no word about what is copied comes in between.
fn catch_up(staged: &StagedFile, open: &File) -> Result<()> {
    let Ok(mut held) = staged.held.try_lock() else { return Ok(()) };
    let Some(earlier) = held.take_first(CATCH_UP) else { return Ok(()) };
    staged.needs_room(earlier.same.iter().map(|range| range.end - range.start).sum());
    reusable::copy_part(&earlier, &staged.path)?;
    if let (Some(first), Some(last)) = (earlier.same.iter().next(), earlier.same.iter().last()) {
        write_behind(open, first.start..last.end);
    }
    Ok(())
}

/// Parts with their bytes.
fn pieces<'a>((parts, data): Came<'a>) -> impl Iterator<Item = (u32, &'a [u8])> {
    let mut rest = data;
    parts.iter().map_while(move |&(start, length)| {
        let (part, after) = rest.split_at_checked(length as usize)?;
        rest = after;
        Some((start, part))
    })
}

/// Has the kernel begin to write what was just written, so that not everything is left for the sync at the end, and the
/// page cache of a host that may have other servers is not filled with it. Only advice: what it does not do is done then.
fn write_behind(file: &File, range: Range<u64>) {
    if let Some(length) = std::num::NonZeroU64::new(range.end - range.start) {
        let _ = rustix::fs::fadvise(file, range.start, Some(length), rustix::fs::Advice::DontNeed);
    }
}

fn check(offset: u64, parts: &[(u32, u32)], data: &[u8]) -> Result<(), Failure> {
    let bad = |text: &str| Err(Failure::new(Kind::Peer, text));
    let mut end = 0u64;
    let mut sum = 0u64;
    for &(start, length) in parts {
        if u64::from(start) < end {
            return bad("the donor sent parts of a range that overlap");
        }
        end = u64::from(start) + u64::from(length);
        sum += u64::from(length);
    }
    if sum != data.len() as u64 {
        return bad("the donor sent parts of a range whose length is not that of the data");
    }
    if offset.checked_add(end).is_none_or(|end| end > i64::MAX as u64) {
        return bad("the donor sent data past the end of any file");
    }
    Ok(())
}
