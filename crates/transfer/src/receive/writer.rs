//! Positioned writes into staged files, from several threads at once.
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use anyhow::{Context, Result};
use protocol::extents::Extents;
use protocol::inventory::FileId;

use crate::disk::copy::clear;
use crate::disk::direct::{ALIGN, Buffer};
use crate::disk::direct_write::Output;
use crate::disk::durable::write_behind;
use crate::failure::{Failure, Kind};
use crate::receive::digests::Piece;
use crate::receive::read_back;
use crate::receive::reusable::{self, Held};
use crate::receive::staged::{self, OPEN_FILES, StagedFile};
use crate::receive::staging::Staging;
use crate::threads::lock;

/// Bytes of a file's earlier ranges that are copied from the old file with each range that arrives: enough to be
/// finished at the end, few enough that the donor does not wait.
const CATCH_UP: u64 = 2 << 20;

/// Pieces that one thread writes before it reads the first of them back. What the donor sends again soon is then read once only.
/// Fewer than [`OPEN_FILES`], so that its file is still open.
const BEHIND: usize = OPEN_FILES / 2;

/// What arrived of a range: parts (start within the range, length), and their bytes one after the other.
pub type Came<'a> = (&'a [(u32, u32)], &'a [u8]);

/// Writes staged files, for one thread.
#[derive(Debug)]
pub struct Writer<'a> {
    staging: &'a Staging,
    /// Buffer for a range of received and old bytes, or for received ones at an address that direct writes accept.
    whole: Buffer,
    open: VecDeque<(FileId, Arc<StagedFile>, Output)>,
    /// Pieces that were written past the page cache and are not read back yet: their files and offsets.
    behind: VecDeque<(FileId, u64)>,
}

impl Staging {
    /// A writer for one thread.
    pub fn writer(&self) -> Writer<'_> {
        Writer::new(self)
    }
}

impl<'a> Writer<'a> {
    pub(super) fn new(staging: &'a Staging) -> Writer<'a> {
        let (open, behind) = (VecDeque::with_capacity(OPEN_FILES), VecDeque::with_capacity(BEHIND + 1));
        Writer { staging, whole: Buffer::default(), open, behind }
    }

    /// Writes the parts of a range, and returns whether all went past the page cache. The gaps between them are not written,
    /// and are holes if nothing was written there before. If something was, call [`Writer::clear_gaps`] too.
    pub fn write_range(
        &mut self,
        file: FileId,
        offset: u64,
        parts: &[(u32, u32)],
        data: &[u8],
    ) -> Result<bool> {
        check(offset, parts, data).with_context(|| format!("file number {}, range at {offset}", file.0))?;
        let mut spare = std::mem::take(&mut self.whole);
        let (staged, open) = self.open(file)?;
        staged.needs_room(data.len() as u64);
        let end = offset + parts.last().map_or(0, |(start, len)| u64::from(*start) + u64::from(*len));
        staged.reaches(end);
        let runs = pieces((parts, data)).map(move |(start, part)| (offset + u64::from(start), part));
        let cached = write_runs(staged, open, runs, &mut spare)
            .with_context(|| format!("cannot write staged file number {}", file.0))?;
        if cached {
            write_behind(open.file(), offset..end);
        }
        self.whole = spare;
        Ok(!cached)
    }

    /// Writes what arrived of a range, of which `differing` bytes are not the old file's. Once it is known that the
    /// file is written anew, the range's bytes of the old file are written too, so that they need not all be copied
    /// at the end. A file of which nothing has arrived is not touched, because it may stay as it is. Returns whether something was
    /// written and all of it past the page cache: once the range's digest is recorded, [`Writer::read_behind`] may be called.
    pub fn write(
        &mut self,
        file: FileId,
        range: Range<u64>,
        came: &[Came<'_>],
        differing: u64,
    ) -> Result<bool> {
        match self.staging.take_same(file, range.clone(), differing)? {
            Some(same) if !same.same.is_empty() => self.write_together(file, range, came, &same),
            _ if differing == 0 => Ok(false),
            _ => {
                let mut written = came.iter().filter(|(parts, _)| !parts.is_empty()).peekable();
                let any = written.peek().is_some();
                written.try_fold(any, |all, (parts, data)| {
                    Ok(self.write_range(file, range.start, parts, data)? && all)
                })
            }
        }
    }

    /// Writes the received and the old bytes of a range, mostly as one piece. Also copies some of the ranges that
    /// arrived before it was known that the file is written anew. Bytes that can be shared follow at the end, in long
    /// pieces to which nobody writes any more.
    fn write_together(
        &mut self,
        file: FileId,
        range: Range<u64>,
        came: &[Came<'_>],
        same: &Held,
    ) -> Result<bool> {
        came.iter()
            .try_for_each(|(parts, data)| check(range.start, parts, data))
            .with_context(|| format!("file number {}, range at {}", file.0, range.start))?;
        let mut whole = std::mem::take(&mut self.whole);
        let (staged, open) = self.open(file)?;
        let mut runs = Extents::default();
        // A block of the file is at the border of one in memory, so that direct writes need no copy.
        let (shift, len) = ((range.start % ALIGN as u64) as usize, (range.end - range.start) as usize);
        let bytes = &mut whole.first(shift + len)[shift..];
        same.read_into(bytes, range.start, &mut runs)?;
        for (start, part) in came.iter().flat_map(|came| pieces(*came)) {
            let place = start as usize..start as usize + part.len();
            bytes.get_mut(place).context("a part beyond its range")?.copy_from_slice(part);
            runs.add(u64::from(start)..u64::from(start) + part.len() as u64);
        }
        staged.needs_room(range.end - range.start);
        let bytes = &*bytes;
        let runs =
            runs.iter().map(|run| (range.start + run.start, &bytes[run.start as usize..run.end as usize]));
        let cached = write_runs(staged, open, runs, &mut Buffer::default())
            .with_context(|| format!("cannot write staged file number {}", file.0))?;
        if cached {
            write_behind(open.file(), range);
        }
        if !staged.sharing {
            catch_up(staged, open.file())?;
        }
        self.whole = whole;
        Ok(!cached)
    }

    /// Called when all of a piece was written past the page cache and its digest is recorded: reads back the one that was
    /// written some pieces before. At the end only those are left that were written last, or through the cache.
    ///
    /// # Errors
    /// That one is not what the donor read.
    pub fn read_behind(&mut self, file: FileId, offset: u64) -> Result<()> {
        lock(&self.staging.file(file)?.digests).change(offset, |piece| piece.on_disk = true);
        self.behind.push_back((file, offset));
        if self.behind.len() <= BEHIND {
            return Ok(());
        }
        let Some((file, at)) = self.behind.pop_front() else { return Ok(()) };
        let read = self.read_back(file, at);
        // One that was set aside meanwhile was read back before, and may be another file's now.
        if self.staging.contains(file) { read } else { Ok(()) }
    }

    fn read_back(&mut self, file: FileId, at: u64) -> Result<()> {
        let (mut buffer, staging) = (std::mem::take(&mut self.whole), self.staging);
        let (staged, open) = self.open(file)?;
        // Not if some of it came again since, or was read back already.
        let is_due = |piece: &Piece| piece.on_disk && !piece.read_back;
        let piece = lock(&staged.digests).piece(at).filter(is_due);
        // Not if bytes of the old file are still to be copied into it.
        let is_complete = |piece: &Piece| !lock(&staged.held).same.overlaps(at..at + u64::from(piece.len));
        if let Some(piece) = piece.filter(is_complete) {
            let len = piece.len as usize;
            let read = open.read_from_disk(&mut buffer, len, at);
            if read.with_context(|| format!("cannot read back {} at {at}", staged.target.display()))? {
                let bytes = &*buffer.first(len);
                read_back::check(staged, at, piece, bytes)?;
                let key = staging.key().filter(|_| read_back::is_range(staged, at, piece));
                let fingerprint = key.map(|key| read_back::fingerprinted(key, at, bytes).1);
                lock(&staged.digests).change(at, |now| {
                    // Not if it came again meanwhile.
                    if now.on_disk && now.digest == piece.digest {
                        now.read_back = true;
                        now.fingerprint = fingerprint.or(now.fingerprint);
                    }
                });
            }
        }
        self.whole = buffer;
        Ok(())
    }

    /// Sets the gaps between the parts of a range of `len` bytes to zero again.
    pub fn clear_gaps(&mut self, file: FileId, offset: u64, len: u32, parts: &[(u32, u32)]) -> Result<()> {
        let mut from = 0;
        for (start, end) in parts.iter().map(|&(start, length)| (start, start + length)).chain([(len, len)]) {
            self.clear_range(file, offset + u64::from(from), u64::from(start.saturating_sub(from)))?;
            from = end;
        }
        Ok(())
    }

    /// Sets bytes to zero again, as a hole if the filesystem can.
    pub fn clear_range(&mut self, file: FileId, offset: u64, length: u64) -> Result<()> {
        let (staged, open) = self.open(file)?;
        if length == 0 {
            return Ok(());
        }
        let _turn = alone(&staged.writing);
        clear(open.file(), offset, length)
            .with_context(|| format!("cannot clear staged file number {}", file.0))
    }

    fn open(&mut self, file: FileId) -> Result<(&StagedFile, &Output)> {
        if let Some(index) = self.open.iter().position(|(id, ..)| *id == file) {
            self.open.swap(0, index);
        } else {
            let file_of = self.staging.file(file)?;
            let opened = match staged::make(&file_of)? {
                Some(new) => Output::of(new, &file_of.path, &file_of.writes),
                None => Output::open(&file_of.path, &file_of.writes)
                    .with_context(|| format!("cannot open {}", file_of.path.display()))?,
            };
            self.open.truncate(OPEN_FILES - 1);
            self.open.push_front((file, file_of, opened));
        }
        self.open.front().map(|(_, staged, open)| (&**staged, open)).context("no open file")
    }
}

/// Writes runs of a file: their offsets and bytes. Answers whether some of them went through the page cache. `spare` is memory for
/// those that are at an address that direct writes do not accept.
fn write_runs<'b>(
    staged: &StagedFile,
    open: &Output,
    runs: impl Iterator<Item = (u64, &'b [u8])> + Clone,
    spare: &mut Buffer,
) -> io::Result<bool> {
    let mut blocks = runs.clone().filter(|(at, run)| open.has_blocks(run, *at)).peekable();
    if blocks.peek().is_some() {
        let _turn = together(&staged.writing);
        blocks.try_for_each(|(at, run)| open.write_blocks(run, at, spare))?;
    }
    // After the blocks: of a page of the cache that holds both, nothing has to be written first.
    let mut rest = runs.filter(|(at, run)| open.has_rest(run, *at)).peekable();
    if rest.peek().is_none() {
        return Ok(false);
    }
    let _turn = alone(&staged.writing);
    rest.try_for_each(|(at, run)| open.write_rest(run, at))?;
    Ok(true)
}

/// Waits until nobody writes to the file through the page cache.
fn together(writing: &RwLock<()>) -> RwLockReadGuard<'_, ()> {
    writing.read().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until nobody writes to the file.
fn alone(writing: &RwLock<()>) -> RwLockWriteGuard<'_, ()> {
    writing.write().unwrap_or_else(PoisonError::into_inner)
}

/// Copies some of the file's earlier ranges. Under the lock, so that the list of what is copied does not change
/// meanwhile.
fn catch_up(staged: &StagedFile, open: &File) -> Result<()> {
    let Ok(mut held) = staged.held.try_lock() else { return Ok(()) };
    let Some(earlier) = held.take_first(CATCH_UP) else { return Ok(()) };
    staged.needs_room(earlier.same.iter().map(|range| range.end - range.start).sum());
    let _turn = alone(&staged.writing);
    reusable::copy_part(&earlier, &staged.path)?;
    if let (Some(first), Some(last)) = (earlier.same.iter().next(), earlier.same.iter().last()) {
        write_behind(open, first.start..last.end);
    }
    Ok(())
}

/// Parts with their bytes.
fn pieces<'a>((parts, data): Came<'a>) -> impl Iterator<Item = (u32, &'a [u8])> + Clone {
    let mut rest = data;
    parts.iter().map_while(move |&(start, length)| {
        let (part, after) = rest.split_at_checked(length as usize)?;
        rest = after;
        Some((start, part))
    })
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

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
