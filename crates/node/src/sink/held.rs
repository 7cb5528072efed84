//! What a new file has of the old one that it replaces: its bytes are copied from there, shared where the filesystem can.
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use protocol::extents::Extents;
use protocol::inventory::FileId;

use super::writer::clear;
use crate::disk::holes::data_in;
use crate::disk::identity::{Look, look_at};
use crate::failure::{Failure, Kind};

/// Bytes that are copied at once where the kernel does not do it.
const STEP: usize = 1 << 20;

/// An old file, as it was when it was compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Old {
    /// Where it is.
    pub path: PathBuf,
    /// Which file, in which state.
    pub look: Look,
}

/// What of a file is taken from the file that it replaces.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// That file; none when nothing was compared with it.
    pub old: Option<Old>,
    /// Bytes that are still to be copied.
    pub same: Extents,
    /// Some were.
    pub copied: bool,
}

impl Held {
    /// What is to be copied of a range; it counts as copied.
    pub fn take(&mut self, range: Range<u64>) -> Held {
        let mut part = Held { old: self.old.clone(), ..Held::default() };
        self.same.within(range.clone()).for_each(|bytes| part.same.add(bytes));
        self.same.remove(range.clone());
        self.copied |= !part.same.is_empty();
        part
    }

    /// What is to be copied of the first so many bytes from the first on that is; it counts as copied.
    pub fn take_first(&mut self, bytes: u64) -> Option<Held> {
        let start = self.same.iter().next()?.start;
        Some(self.take(start..start.saturating_add(bytes)))
    }

    /// Reads its bytes into a range that begins `at` there, and adds to `runs` where they lie. Holes are left out.
    pub fn read_into(&self, range: &mut [u8], at: u64, runs: &mut Extents) -> Result<()> {
        let Some(old) = self.old.as_ref().filter(|_| !self.same.is_empty()) else { return Ok(()) };
        let mut read = || -> Result<()> {
            let from = File::open(&old.path)?;
            let data = data_in(&from, at..at + range.len() as u64);
            for part in data.iter().flat_map(|data| self.same.within(data)) {
                let place = part.start - at..part.end - at;
                let bytes = range.get_mut(place.start as usize..place.end as usize);
                from.read_exact_at(bytes.context("it is not of this range")?, part.start)?;
                runs.add(place);
            }
            Ok(())
        };
        read().with_context(|| format!("cannot copy from {}", old.path.display()))
    }
}

/// The donor calls bytes the same of a file that has no old one.
pub(super) fn no_base(file: FileId) -> Failure {
    let text = format!("the donor takes bytes of file number {} for known, which has no base", file.0);
    Failure::new(Kind::Peer, text)
}

/// Nobody changed the old file since.
pub(super) fn is_as_compared(old: &Old) -> Result<()> {
    let now = File::open(&old.path).and_then(|from| look_at(&from));
    let now = now.with_context(|| format!("cannot look at {}", old.path.display()))?;
    if now.identity != old.look.identity || now.signature != old.look.signature {
        let text = format!("{} changed while it was compared", old.path.display());
        return Err(Failure::new(Kind::Disk, text).hint("does another server run on this datadir?").into());
    }
    Ok(())
}

/// Copies a part; whether the old file is as it should is looked at in the end.
pub(super) fn copy_part(part: &Held, to: &Path) -> Result<()> {
    let Some(old) = part.old.as_ref().filter(|_| !part.same.is_empty()) else { return Ok(()) };
    let from = File::open(&old.path).with_context(|| format!("cannot open {}", old.path.display()))?;
    let into =
        File::options().write(true).open(to).with_context(|| format!("cannot open {}", to.display()))?;
    for range in part.same.iter() {
        copy_range(&from, &into, range)
            .with_context(|| format!("cannot copy from {} to {}", old.path.display(), to.display()))?;
    }
    Ok(())
}

/// Copies bytes to the same place in another file. Holes come as holes.
pub(super) fn copy_range(from: &File, into: &File, range: Range<u64>) -> Result<()> {
    let mut at = range.start;
    for data in data_in(from, range.clone()).iter() {
        clear(into, at, data.start - at)?;
        copy_data(from, into, data.clone())?;
        at = data.end;
    }
    Ok(clear(into, at, range.end - at)?)
}

fn copy_data(from: &File, into: &File, data: Range<u64>) -> Result<()> {
    let (mut at, mut to, end) = (data.start, data.start, data.end);
    while at < end {
        let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(from, Some(&mut at), into, Some(&mut to), wanted) {
            Ok(0) => anyhow::bail!("it ends at {at}, before {end}"),
            Ok(_) => {}
            Err(_) => return copy_bytes(from, into, at, end),
        }
    }
    Ok(())
}

fn copy_bytes(from: &File, into: &File, mut at: u64, end: u64) -> Result<()> {
    let mut buffer = vec![0; STEP];
    while at < end {
        let step = (end - at).min(STEP as u64) as usize;
        from.read_exact_at(&mut buffer[..step], at)?;
        into.write_all_at(&buffer[..step], at)?;
        at += step as u64;
    }
    Ok(())
}
