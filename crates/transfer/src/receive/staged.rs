//! A file that is being received.
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use anyhow::{Context, Result, bail};
use protocol::extents::Extents;
use protocol::fingerprint::Fingerprint;
use protocol::inventory::FileEntry;
use protocol::remembered::FileState;

use crate::disk::direct_write::DirectWrites;
use crate::disk::reserve::Reserve;
use crate::failure::{Failure, Kind};
use crate::install::files::{Disk, Files};
use crate::install::patch::{self, Changes};
use crate::install::plan::{Class, Patched, Unchanged};
use crate::receive::digests::Digests;
use crate::receive::origin::Origin;
use crate::receive::reusable::{self, Held, Old};
use crate::remembered::trust::state_of;
use crate::threads::lock;

/// Files that a thread keeps open: ranges of as many files as the donor has threads arrive by turns. There may be
/// 20,000 files.
pub const OPEN_FILES: usize = 16;

/// A file that is being received.
#[derive(Debug)]
pub(super) struct StagedFile {
    pub path: PathBuf,
    /// Length in bytes with which it is created; the final one is known at the end.
    pub size: u64,
    /// The end of what was written, if that is behind its length.
    pub end: AtomicU64,
    pub target: PathBuf,
    pub class: Class,
    pub is_link: bool,
    pub made: AtomicBool,
    pub making: Mutex<()>,
    /// Held alone to write through the page cache: filesystems let only one thread at a time do that in a file, and the others would
    /// wait busily. Held together to write past the cache.
    pub writing: RwLock<()>,
    pub held: Mutex<Held>,
    /// Digests of what was written and of what is taken from the old file.
    pub digests: Mutex<Digests>,
    /// Bytes that are not the old file's.
    pub differing: AtomicU64,
    /// Whether it is written past the page cache.
    pub writes: Arc<DirectWrites>,
    /// It can share bytes with the old file, so these are not copied.
    pub sharing: bool,
    /// The space that was reserved for it.
    pub reserve: Option<Arc<Reserve>>,
    /// It may become a patch of the old file, unless too much differs.
    pub patchable: bool,
    /// The patch that it became.
    pub patched: Option<Box<(Patched, Unchanged)>>,
    /// Begun by an earlier transfer, so bytes that are not written now are not zero.
    pub adopted: bool,
}

impl StagedFile {
    /// Takes over what was received as `first`.
    pub fn take_over(&mut self, first: &StagedFile) -> Result<()> {
        let copied = first.path.parent() != self.path.parent();
        if first.made.load(Ordering::Acquire) {
            if !copied {
                // The staged path depends on the name. The table was renamed or rebuilt while it was sent.
                if first.path != self.path {
                    Disk.rename(&first.path, &self.path)?;
                }
            } else {
                // Its new path is on another filesystem.
                Disk.copy(&first.path, &self.path)?;
                Disk.remove(&first.path)?;
            }
            self.made = AtomicBool::new(true);
        }
        self.held = Mutex::new(std::mem::take(&mut lock(&first.held)));
        let mut digests = std::mem::take(&mut *lock(&first.digests));
        if copied {
            digests.nothing_was_read_back();
        }
        self.digests = Mutex::new(digests);
        Ok(())
    }

    /// Where its bytes are once it has been settled, and which of them are staged.
    pub fn content(&self) -> (Origin, Extents) {
        let mut staged = Extents::default();
        staged.add(0..self.size);
        let received = Some((self.path.clone(), self.size));
        let mut origin = Origin { received, ..Origin::default() };
        if self.patched.is_some() {
            let held = lock(&self.held);
            held.same.iter().for_each(|range| staged.remove(range));
            origin.old = held.old.clone();
        }
        (origin, staged)
    }

    /// If the old file is the new one, name included: the staged path, which is not needed, and the old file. Only
    /// for tables, because the system's files are replaced as one set.
    pub fn stays(&self, entry: &FileEntry, target: &Path) -> Option<(&Path, Unchanged)> {
        let held = lock(&self.held);
        let old = held.old.as_ref()?;
        let whole =
            old.path == target && old.look.signature.size == entry.size && held.same.is_all(entry.size);
        // Every server writes this file when it ends, and a rollback must not be refused because of that.
        let table = self.class == Class::Table && !target.ends_with("ib_buffer_pool");
        (table && whole).then(|| (self.path.as_path(), as_it_is(old)))
    }

    /// What can be remembered of it, if this is its final length, and the state of its old file if that is compared with it.
    pub fn to_remember(
        &self,
        size: u64,
        read_back: &[(u32, Fingerprint)],
    ) -> Option<(Option<FileState>, Vec<u8>)> {
        let ranges = lock(&self.digests).to_remember(size, read_back)?;
        Some((lock(&self.held).old.as_ref().map(|old| state_of(&old.look)), ranges))
    }

    /// Called before bytes are written that end there.
    pub fn reaches(&self, end: u64) {
        self.end.fetch_max(end, Ordering::AcqRel);
    }

    /// Whether it is known to be this long, once it is made, without a look at the file.
    pub fn has_length(&self, size: u64) -> bool {
        !self.adopted && self.size == size && self.end.load(Ordering::Acquire) <= size
    }

    /// Called before `bytes` bytes are written: gives their reserved space back.
    pub fn needs_room(&self, bytes: u64) {
        if let Some(reserve) = &self.reserve {
            reserve.give_back(bytes);
        }
    }

    /// Whether bytes of the old file are copied while it is received, because it differs too much to stay or to
    /// become a patch.
    pub fn is_put_together(&self) -> bool {
        let differing = self.differing.load(Ordering::Acquire);
        if self.patchable { differing > self.size / patch::DIFFERS_MAX } else { differing > 0 }
    }

    /// The changes that make the old file the new one, if the name is the same and the changes are few.
    pub fn changes(&self, entry: &FileEntry, target: &Path) -> Option<Changes> {
        let held = lock(&self.held);
        let old = held.old.as_ref()?;
        let changes = Changes::but(&held.same, entry.size);
        let few = changes.bytes() <= entry.size / patch::DIFFERS_MAX;
        (self.patchable && few && !held.copied && old.path == target).then_some(changes)
    }

    /// Turns it into a patch. With `keep`, the bytes that the patch replaces are kept beside it. Calls `step` now and then.
    pub fn become_patch(&mut self, changes: &Changes, keep: bool, step: &dyn Fn()) -> Result<()> {
        let held = lock(&self.held);
        let old = held.old.as_ref().context("a patch without an old file")?;
        patch::seal(&self.path, changes)?;
        let back = keep.then(|| self.path.with_extension("back"));
        if let Some(back) = &back {
            patch::keep(&old.path, changes, back, step)?;
        }
        reusable::is_as_compared(old)?;
        let (table, patch) = (old.path.clone(), self.path.clone());
        self.patched = Some(Box::new((Patched { table, patch, back, kept: None }, as_it_is(old))));
        Ok(())
    }
}

fn as_it_is(old: &Old) -> Unchanged {
    let signature = old.look.signature;
    Unchanged { path: old.path.clone(), size: signature.size, changed: signature.changed() }
}

/// Whether a file of this length in bytes may become a patch. Only tables of InnoDB: another engine's can be recovered by a
/// server that starts when InnoDB's old files have left already.
pub(super) fn may_be_patched(class: Class, target: &Path, size: u64) -> bool {
    let innodb = target.extension().is_some_and(|extension| extension == "ibd");
    class == Class::Table && innodb && size >= patch::TABLE_MIN
}

/// Creates the file as a hole of its initial length, unless that was done already. Returns it, open for writing, if it is new.
pub(super) fn make(staged: &StagedFile) -> Result<Option<File>> {
    if staged.made.load(Ordering::Acquire) {
        return Ok(None);
    }
    let _making = lock(&staged.making);
    if staged.made.load(Ordering::Acquire) {
        return Ok(None);
    }
    if staged.is_link {
        let text = format!("the donor sent data of the link {}", staged.target.display());
        bail!(Failure::new(Kind::Peer, text));
    }
    let make = || {
        let file = File::options().write(true).create_new(true).open(&staged.path)?;
        file.set_len(staged.size).map(|()| file)
    };
    let file = make().with_context(|| format!("cannot make {}", staged.path.display()))?;
    staged.made.store(true, Ordering::Release);
    Ok(Some(file))
}

pub(super) fn make_link(path: &Path, to: &Path) -> Result<()> {
    Disk.remove(path)?;
    std::os::unix::fs::symlink(to, path).with_context(|| format!("cannot make the link {}", path.display()))
}

/// Sets the length of a file. If the file became shorter while it was sent, what is beyond its end must not stay.
pub(super) fn set_length(path: &Path, size: u64) -> Result<()> {
    let set = || {
        let file = File::options().write(true).open(path)?;
        if file.metadata()?.len() == size { Ok(()) } else { file.set_len(size) }
    };
    set().with_context(|| format!("cannot set the length of {}", path.display()))
}
