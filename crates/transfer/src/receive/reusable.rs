//! Bytes of an old file that its new version reuses: they are copied, or shared if the filesystem can.
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use protocol::extents::Extents;
use protocol::inventory::FileId;

use crate::disk::copy::copy_range;
use crate::disk::holes::DataOf;
use crate::disk::identity::{Look, look_at};
use crate::failure::{Failure, Kind};

/// In bytes. Blocks of this size that are completely the same are shared with the old file, others are written:
/// sharing single pages costs more than writing the bytes around them, and leaves the file in many small extents.
const SHARED_BLOCK: u64 = 64 << 10;

/// An old file, as it was when it was compared.
#[derive(Clone, Debug)]
pub struct Old {
    /// Its path.
    pub path: PathBuf,
    /// Its identity and its state.
    pub look: Look,
    /// Where it has data, and not holes.
    pub data: Arc<DataOf>,
}

impl Old {
    /// An old file whose state was just read.
    pub fn new(path: PathBuf, look: Look) -> Old {
        Old { path, look, data: Arc::default() }
    }
}

/// The bytes of a file that are taken from the old file.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// The old file; `None` if nothing was compared with it.
    pub old: Option<Old>,
    /// Bytes that are still to be copied.
    pub same: Extents,
    /// Whether some were copied already.
    pub copied: bool,
}

impl Held {
    /// Takes out the bytes of a range that are to be copied. They then count as copied.
    pub fn take(&mut self, range: Range<u64>) -> Held {
        let mut part = Held { old: self.old.clone(), ..Held::default() };
        self.move_to(&mut part, range);
        part
    }

    fn move_to(&mut self, part: &mut Held, range: Range<u64>) {
        for bytes in self.same.within(range.clone()) {
            part.same.add(bytes);
            self.copied = true;
        }
        self.same.remove(range);
    }

    /// As [`Held::take`], but only from blocks that are the same in part: the others can be shared.
    pub fn take_mixed(&mut self, range: Range<u64>) -> Held {
        let mut part = Held { old: self.old.clone(), ..Held::default() };
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min((start / SHARED_BLOCK + 1) * SHARED_BLOCK);
            if !self.same.covers(start..end) {
                self.move_to(&mut part, start..end);
            }
            start = end;
        }
        part
    }

    /// As [`Held::take`], for `bytes` bytes, counted from the first one that is to be copied.
    pub fn take_first(&mut self, bytes: u64) -> Option<Held> {
        let start = self.same.iter().next()?.start;
        Some(self.take(start..start.saturating_add(bytes)))
    }

    /// Reads its bytes into `range`, which begins at offset `at`, and adds their places in it to `runs`. Holes are
    /// left out.
    pub fn read_into(&self, range: &mut [u8], at: u64, runs: &mut Extents) -> Result<()> {
        let Some(old) = self.old.as_ref().filter(|_| !self.same.is_empty()) else { return Ok(()) };
        let mut read = || -> Result<()> {
            let from = File::open(&old.path)?;
            let data = old.data.within(&from, at..at + range.len() as u64);
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

/// The failure if the donor says that bytes are the same in a file for which there is no old one.
pub(super) fn no_base(file: FileId) -> Failure {
    let text = format!(
        "the donor says that bytes of file number {} are unchanged, but the joiner has no old file for it",
        file.0
    );
    Failure::new(Kind::Peer, text)
}

/// Fails if the old file was changed since it was compared.
pub(super) fn is_as_compared(old: &Old) -> Result<()> {
    let now = File::open(&old.path).and_then(|from| look_at(&from));
    let now = now.with_context(|| format!("cannot look at {}", old.path.display()))?;
    if now.identity != old.look.identity || now.signature != old.look.signature {
        let text = format!("{} changed while it was compared", old.path.display());
        return Err(Failure::new(Kind::Disk, text)
            .hint("check whether another server runs on this datadir")
            .into());
    }
    Ok(())
}

/// Copies a part. Whether the old file was changed is checked at the end.
pub(super) fn copy_part(part: &Held, to: &Path) -> Result<()> {
    let Some(old) = part.old.as_ref().filter(|_| !part.same.is_empty()) else { return Ok(()) };
    let from = File::open(&old.path).with_context(|| format!("cannot open {}", old.path.display()))?;
    let into =
        File::options().write(true).open(to).with_context(|| format!("cannot open {}", to.display()))?;
    for range in part.same.iter() {
        copy_range(&from, &old.data, &into, range)
            .with_context(|| format!("cannot copy from {} to {}", old.path.display(), to.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_same_around_what_differs_is_taken_and_whole_blocks_are_left() {
        let block = SHARED_BLOCK;
        let mut held = Held::default();
        // There are five blocks and a page; the second and the fourth block differ in part.
        let all = 0..5 * block + 4096;
        held.same.add(all.clone());
        held.same.remove(block + 100..block + 200);
        held.same.remove(3 * block..4 * block - 4096);
        let taken = held.take_mixed(0..all.end);
        let listed = |extents: &Extents| extents.iter().collect::<Vec<_>>();
        let around = [block..block + 100, block + 200..2 * block, 4 * block - 4096..4 * block];
        assert_eq!(listed(&taken.same), around);
        assert_eq!(listed(&held.same), [0..block, 2 * block..3 * block, 4 * block..all.end]);
        assert!(held.copied);
    }
}
