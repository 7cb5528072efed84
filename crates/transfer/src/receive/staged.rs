//! A file that is being received.
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail};
use protocol::extents::Extents;
use protocol::inventory::FileEntry;

use crate::disk::reserve::Reserve;
use crate::failure::{Failure, Kind};
use crate::install::files::{Disk, Files};
use crate::install::patch::{self, Changes};
use crate::install::plan::{Class, Patched, Unchanged};
use crate::receive::origin::Origin;
use crate::receive::read_back::Digests;
use crate::receive::reusable::{self, Held, Old};
use crate::threads::lock;

/// A file that is being received.
#[derive(Debug)]
pub(super) struct StagedFile {
    pub path: PathBuf,
    /// Length it is made with; the final one is known at the end.
    pub size: u64,
    pub target: PathBuf,
    pub class: Class,
    pub is_link: bool,
    pub made: AtomicBool,
    pub making: Mutex<()>,
    /// Filesystems let one thread at a time write to a file, and have the others wait for it busily.
    pub writing: Mutex<()>,
    pub held: Mutex<Held>,
    /// Of what was written, and of what is taken from the old file.
    pub digests: Mutex<Digests>,
    /// Bytes that are not the old file's.
    pub differing: AtomicU64,
    /// It can share bytes with the old file: these are not copied then.
    pub sharing: bool,
    /// Room for it that was taken in advance.
    pub reserve: Option<Arc<Reserve>>,
    /// It may become a patch of the old file, unless too much differs.
    pub patchable: bool,
    /// It did.
    pub patched: Option<Box<(Patched, Unchanged)>>,
    /// Begun by an earlier transfer: what is not written anew is not zero.
    pub adopted: bool,
}

impl StagedFile {
    /// What was received under another name.
    pub fn take_over(&mut self, first: &StagedFile) -> Result<()> {
        if first.made.load(Ordering::Acquire) {
            if first.path.parent() == self.path.parent() {
                // Where it waits depends on its name: the table was renamed, or rebuilt, while it was sent.
                if first.path != self.path {
                    Disk.rename(&first.path, &self.path)?;
                }
            } else {
                // Its new place is on another filesystem.
                Disk.copy(&first.path, &self.path)?;
                Disk.remove(&first.path)?;
            }
            self.made = AtomicBool::new(true);
        }
        self.held = Mutex::new(std::mem::take(&mut lock(&first.held)));
        self.digests = Mutex::new(std::mem::take(&mut lock(&first.digests)));
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

    /// The old file is the new one, name and all: it, and the path that is not needed. Only of tables: the system's files come
    /// and go as one set.
    pub fn stays(&self, entry: &FileEntry, target: &Path) -> Option<(&Path, Unchanged)> {
        let held = lock(&self.held);
        let old = held.old.as_ref()?;
        let whole =
            old.path == target && old.look.signature.size == entry.size && held.same.is_all(entry.size);
        // Every server writes its buffer pool's at its end: that must not be what a rollback is refused for.
        let table = Class::of(&entry.role, target) == Class::Table && !target.ends_with("ib_buffer_pool");
        (table && whole).then(|| (self.path.as_path(), as_it_is(old)))
    }

    /// So many bytes are about to be written.
    pub fn needs_room(&self, bytes: u64) {
        if let Some(reserve) = &self.reserve {
            reserve.give_back(bytes);
        }
    }

    /// What of it is taken from the old file is copied while it is received: it will not stay, and be no patch.
    pub fn is_put_together(&self) -> bool {
        let differing = self.differing.load(Ordering::Acquire);
        if self.patchable { differing > self.size / patch::DIFFERS_MAX } else { differing > 0 }
    }

    /// The old file, name and all, becomes the new one by these changes, which are few.
    pub fn changes(&self, entry: &FileEntry, target: &Path) -> Option<Changes> {
        let held = lock(&self.held);
        let old = held.old.as_ref()?;
        let changes = Changes::but(&held.same, entry.size);
        let few = changes.bytes() <= entry.size / patch::DIFFERS_MAX;
        (self.patchable && few && !held.copied && old.path == target).then_some(changes)
    }

    /// Makes a patch of it. With `keep`, what the patch replaces is kept beside it.
    pub fn become_patch(&mut self, changes: &Changes, keep: bool) -> Result<()> {
        let held = lock(&self.held);
        let old = held.old.as_ref().context("a patch without an old file")?;
        patch::seal(&self.path, changes)?;
        let back = keep.then(|| self.path.with_extension("back"));
        if let Some(back) = &back {
            patch::keep(&old.path, changes, back)?;
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

/// Whether a file of this length may become a patch: tables of InnoDB only, since Aria's can be recovered by a server that starts
/// while InnoDB's old files have left already.
pub(super) fn may_be_patched(class: Class, target: &Path, size: u64) -> bool {
    let innodb = target.extension().is_some_and(|extension| extension == "ibd");
    class == Class::Table && innodb && size >= patch::TABLE_MIN
}

/// Makes a file, a hole of its first length, unless some thread has.
pub(super) fn make(staged: &StagedFile) -> Result<()> {
    if staged.made.load(Ordering::Acquire) {
        return Ok(());
    }
    let _making = lock(&staged.making);
    if staged.made.load(Ordering::Acquire) {
        return Ok(());
    }
    if staged.is_link {
        let text = format!("the donor sent data of the link {}", staged.target.display());
        bail!(Failure::new(Kind::Peer, text));
    }
    let make = || File::options().write(true).create_new(true).open(&staged.path)?.set_len(staged.size);
    make().with_context(|| format!("cannot make {}", staged.path.display()))?;
    staged.made.store(true, Ordering::Release);
    Ok(())
}

pub(super) fn make_link(path: &Path, to: &Path) -> Result<()> {
    Disk.remove(path)?;
    std::os::unix::fs::symlink(to, path).with_context(|| format!("cannot make the link {}", path.display()))
}

/// What lies beyond the end of a file that became shorter while it was sent must not stay.
pub(super) fn set_length(path: &Path, size: u64) -> Result<()> {
    let set = || {
        let file = File::options().write(true).open(path)?;
        if file.metadata()?.len() == size { Ok(()) } else { file.set_len(size) }
    };
    set().with_context(|| format!("cannot set the length of {}", path.display()))
}
