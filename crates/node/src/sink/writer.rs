//! Positioned writes into staged files, from several threads at once.
use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};
use protocol::inventory::FileId;
use rustix::fs::FallocateFlags;

use super::staged;
use super::staging::Staging;
use crate::failure::{Failure, Kind};

/// Open files a thread holds at once. Ranges come file by file, so few suffice; there may be 20,000 files.
pub const OPEN_FILES: usize = 16;

/// One thread's way to write.
#[derive(Debug)]
pub struct Writer<'a> {
    staging: &'a Staging,
    open: VecDeque<(FileId, File)>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(staging: &'a Staging) -> Writer<'a> {
        Writer { staging, open: VecDeque::with_capacity(OPEN_FILES) }
    }

    /// Writes the parts of a range: (start within the range, length), their bytes one after the other in `data`.
    /// What is between them is not written: it is a hole in a file that was never written there. Where something was
    /// written before, call [`Writer::clear_gaps`] too.
    pub fn write_range(
        &mut self,
        file: FileId,
        offset: u64,
        parts: &[(u32, u32)],
        data: &[u8],
    ) -> Result<()> {
        check(offset, parts, data).with_context(|| format!("file number {}, range at {offset}", file.0))?;
        let open = self.open(file)?;
        let mut rest = data;
        for &(start, length) in parts {
            let Some((part, after)) = rest.split_at_checked(length as usize) else { break };
            open.write_all_at(part, offset + u64::from(start))
                .with_context(|| format!("cannot write staged file number {}", file.0))?;
            rest = after;
        }
        write_behind(open, offset, parts);
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
        let open = self.open(file)?;
        clear(open, offset, length).with_context(|| format!("cannot clear staged file number {}", file.0))
    }

    fn open(&mut self, file: FileId) -> Result<&File> {
        if let Some(index) = self.open.iter().position(|(id, _)| *id == file) {
            self.open.swap(0, index);
        } else {
            let file_of = self.staging.file(file)?;
            staged::make(&file_of)?;
            let opened = File::options()
                .write(true)
                .open(&file_of.path)
                .with_context(|| format!("cannot open {}", file_of.path.display()))?;
            self.open.truncate(OPEN_FILES - 1);
            self.open.push_front((file, opened));
        }
        self.open.front().map(|(_, open)| open).context("no open file")
    }
}

/// Has the kernel begin to write what was just written, so that not everything is left for the sync at the end, and the
/// page cache of a host that may have other servers is not filled with it. Only advice: what it does not do is done then.
fn write_behind(file: &File, offset: u64, parts: &[(u32, u32)]) {
    let end = parts.last().map_or(0, |(start, length)| start + length);
    if let Some(length) = std::num::NonZeroU64::new(u64::from(end)) {
        let _ = rustix::fs::fadvise(file, offset, Some(length), rustix::fs::Advice::DontNeed);
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

/// Makes bytes of a file zero, as a hole where the filesystem can. The file does not grow by it.
pub(super) fn clear(file: &File, offset: u64, length: u64) -> std::io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(file, punch, offset, length) {
        Err(rustix::io::Errno::OPNOTSUPP) => write_zeros(file, offset, length),
        done => done.map_err(std::io::Error::from),
    }
}

fn write_zeros(file: &File, offset: u64, length: u64) -> std::io::Result<()> {
    let zeros = [0; 64 << 10];
    let mut done = 0;
    while done < length {
        let step = (length - done).min(zeros.len() as u64) as usize;
        file.write_all_at(&zeros[..step], offset + done)?;
        done += step as u64;
    }
    Ok(())
}
