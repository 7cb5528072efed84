//! The end of receiving: staged files get their final lengths and names, and the bytes of their old files.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Result, bail};
use protocol::inventory::{FileEntry, FileId, FileRole};

use crate::failure::{Failure, Kind};
use crate::install::files::{Disk, Files};
use crate::install::plan::Unchanged;
use crate::receive::rested::StagedFiles;
use crate::receive::reusable::{self, Held};
use crate::receive::staged::{StagedFile, make, make_link, set_length};
use crate::receive::staging::Staging;
use crate::threads::{Thread, each_in_threads, lock};

/// Whether tables that differ little become patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patches {
    /// They become patches, and the bytes that these replace are kept.
    Kept,
    /// They become patches, and nothing is kept.
    Made,
    /// All tables are written anew.
    None,
}

/// Files that are settled together: only these are in memory in both their received and their final form.
const AT_ONCE: usize = 4096;
/// Bytes that one thread copies at once, so that several threads work on a large table.
const PIECE: u64 = 64 << 20;

impl Staging {
    /// Called with the donor's list of files. Staged files get their final lengths and targets and the bytes of their
    /// old files, links and empty files are created, and files that are not in the list are removed. With `may_stay`,
    /// files of tables that are completely unchanged are not staged but returned. Large tables that differ little
    /// become `patches`. Works with up to `threads` threads.
    ///
    /// # Errors
    /// An error in `files`; a file that is named twice, or differs from what was received; an I/O error.
    pub fn settle(
        &self,
        files: impl IntoIterator<Item = Result<(FileEntry, PathBuf)>>,
        may_stay: bool,
        patches: Patches,
        threads: u16,
    ) -> Result<Vec<Unchanged>> {
        let mut shared = self.shared();
        // The copies from old files need the reserved space now.
        shared.roots.give_reserves_back();
        let mut begun = std::mem::take(&mut shared.files);
        let (mut unchanged, mut settled) = (Vec::new(), StagedFiles::default());
        let mut files = files.into_iter();
        loop {
            let some = files.by_ref().take(AT_ONCE).collect::<Result<Vec<_>>>()?;
            if some.is_empty() {
                break;
            }
            let mut coming = BTreeMap::new();
            for (entry, target) in &some {
                let first = begun.remove(entry.id);
                if may_stay
                    && let Some((needless, stays)) = first.as_ref().and_then(|f| f.stays(entry, target))
                {
                    Disk.remove(needless)?;
                    unchanged.push(stays);
                    let known = first.as_ref().filter(|_| self.key().is_some());
                    if let Some((state, ranges)) = known.and_then(|f| f.to_remember(entry.size, &[])) {
                        self.arrived(&mut shared).add(target, entry.size, state, None, &ranges);
                    }
                    continue;
                }
                let last = self.choose(&mut shared, entry, target)?;
                let twice = settled.contains(entry.id);
                if coming.insert(entry.id, Coming { entry, first, last }).is_some() || twice {
                    let text = format!("the donor named file number {} twice", entry.id.0);
                    bail!(Failure::new(Kind::Peer, text));
                }
            }
            let coming = coming.into_values().collect();
            let done = settle_all(coming, patches, usize::from(threads), &|| self.step())?.into_iter();
            for (id, staged) in done {
                settled.insert(id, Arc::new(staged));
                settled.rest(id);
            }
        }
        shared.files = settled;
        for dropped in begun.numbers() {
            begun.look(dropped).map_or(Ok(()), |dropped| Disk.remove(&dropped.path))?;
        }
        shared.leftovers.remove()?;
        Ok(unchanged)
    }

    /// As [`Staging::settle`], for a list.
    #[cfg(test)]
    pub(crate) fn settle_list(
        &self,
        files: &[(FileEntry, PathBuf)],
        may_stay: bool,
        patches: Patches,
        threads: u16,
    ) -> Result<Vec<Unchanged>> {
        self.settle(files.iter().cloned().map(Ok), may_stay, patches, threads)
    }
}

/// A file of the donor's list.
struct Coming<'a> {
    entry: &'a FileEntry,
    /// As it was received; `None` if nothing has arrived.
    first: Option<Arc<StagedFile>>,
    /// As it will be staged in the end.
    last: StagedFile,
}

/// Settles files, several at a time. Calls `step` for each, and for each piece that is copied.
fn settle_all(
    coming: Vec<Coming<'_>>,
    patches: Patches,
    threads: usize,
    step: &(dyn Fn() + Sync),
) -> Result<Vec<(FileId, StagedFile)>> {
    let settled = each_in_threads(Thread::Settling, threads, coming, &|file| file.settle(patches, step))?;
    let new = || settled.iter().map(|(_, staged)| staged).filter(|staged| staged.patched.is_none());
    let pieces = new().flat_map(to_be_copied).collect();
    let copy = |(part, to): (Held, PathBuf)| {
        reusable::copy_part(&part, &to)?;
        step();
        Ok(())
    };
    each_in_threads(Thread::Settling, threads, pieces, &copy)?;
    // Also for files of which everything was copied before.
    for staged in new() {
        let held = lock(&staged.held);
        held.old.as_ref().filter(|_| held.copied).map_or(Ok(()), reusable::is_as_compared)?;
    }
    Ok(settled)
}

impl Coming<'_> {
    fn settle(mut self, patches: Patches, step: &dyn Fn()) -> Result<(FileId, StagedFile)> {
        if let FileRole::Link { target } = &self.entry.role {
            make_link(&self.last.path, Path::new(target))?;
        } else {
            let may = self.first.as_ref().filter(|_| patches != Patches::None);
            let patch = may.and_then(|first| first.changes(self.entry, &self.last.target));
            let fits = self.first.as_ref().is_none_or(|first| first.has_length(self.entry.size));
            if let Some(first) = &self.first {
                self.last.take_over(first)?;
            }
            make(&self.last)?;
            if !fits {
                set_length(&self.last.path, self.entry.size)?;
            }
            if let Some(changes) = patch {
                self.last.become_patch(&changes, patches == Patches::Kept, step)?;
            }
        }
        self.last.made = AtomicBool::new(true);
        step();
        Ok((self.entry.id, self.last))
    }
}

/// The bytes that are left to be copied to a file, in pieces, and the file's path.
fn to_be_copied(staged: &StagedFile) -> Vec<(Held, PathBuf)> {
    let mut held = lock(&staged.held);
    // Not the bytes that were cut off since.
    held.same.remove(staged.size..u64::MAX);
    std::iter::from_fn(|| held.take_first(PIECE)).map(|part| (part, staged.path.clone())).collect()
}
