//! The end of receiving: staged files get their final lengths and names, and the bytes of their old files.
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use protocol::inventory::{FileEntry, FileId, FileRole};

use crate::receive::reusable::{self, Held};
use crate::receive::staged::{StagedFile, make, make_link, set_length};
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

/// Bytes that one thread copies at once, so that several threads work on a large table.
const PIECE: u64 = 64 << 20;

/// A file of the donor's list.
pub(super) struct Coming<'a> {
    pub entry: &'a FileEntry,
    /// As it was received; `None` if nothing has arrived.
    pub first: Option<Arc<StagedFile>>,
    /// As it will be staged in the end.
    pub last: StagedFile,
}

/// Settles all files, several at a time.
pub(super) fn settle_all(
    coming: Vec<Coming<'_>>,
    patches: Patches,
    threads: usize,
) -> Result<Vec<(FileId, StagedFile)>> {
    let settled = each_in_threads(Thread::Settling, threads, coming, &|file| file.settle(patches))?;
    let new = || settled.iter().map(|(_, staged)| staged).filter(|staged| staged.patched.is_none());
    let pieces = new().flat_map(to_be_copied).collect();
    let copy = |(part, to): (Held, PathBuf)| reusable::copy_part(&part, &to);
    each_in_threads(Thread::Settling, threads, pieces, &copy)?;
    // Also for files of which everything was copied before.
    for staged in new() {
        let held = lock(&staged.held);
        held.old.as_ref().filter(|_| held.copied).map_or(Ok(()), reusable::is_as_compared)?;
    }
    Ok(settled)
}

impl Coming<'_> {
    fn settle(mut self, patches: Patches) -> Result<(FileId, StagedFile)> {
        if let FileRole::Link { target } = &self.entry.role {
            make_link(&self.last.path, Path::new(target))?;
        } else {
            let may = self.first.as_ref().filter(|_| patches != Patches::None);
            let patch = may.and_then(|first| first.changes(self.entry, &self.last.target));
            if let Some(first) = &self.first {
                self.last.take_over(first)?;
            }
            make(&self.last)?;
            set_length(&self.last.path, self.entry.size)?;
            if let Some(changes) = patch {
                self.last.become_patch(&changes, patches == Patches::Kept)?;
            }
        }
        self.last.made = AtomicBool::new(true);
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
