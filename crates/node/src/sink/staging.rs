//! Where received files wait: nothing of the datadir is touched before the install.
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use protocol::inventory::{FileEntry, FileId, FileRole};

use super::files::{Disk, Files};
use super::held::{self, Held, Old};
use super::install::pending;
use super::leftovers::{Leftovers, staged_name};
use super::names::{waiting_room, working_directory};
use super::plan::{Class, Placed, Staying};
use super::roots::{self, Roots};
use super::writer::Writer;
use crate::disk::durable;
use crate::failure::{Failure, Kind};

/// A file that is being received.
#[derive(Debug)]
pub(super) struct StagedFile {
    pub(super) path: PathBuf,
    /// Length it is made with; the final one is known at the end.
    size: u64,
    target: PathBuf,
    class: Class,
    is_link: bool,
    made: AtomicBool,
    making: Mutex<()>,
    held: Mutex<Held>,
    /// It is not the old file: what it has of that need not wait for the end.
    differs: AtomicBool,
    /// Begun by an earlier transfer: what is not written anew is not zero.
    adopted: bool,
}

impl StagedFile {
    /// What was received under another name.
    fn take_over(&mut self, first: &StagedFile) -> Result<()> {
        if first.made.load(Ordering::Acquire) {
            // Renamed to another filesystem while it was sent.
            if first.path != self.path {
                Disk.copy(&first.path, &self.path)?;
                Disk.remove(&first.path)?;
            }
            self.made = AtomicBool::new(true);
        }
        self.held = Mutex::new(std::mem::take(&mut lock(&first.held)));
        Ok(())
    }

    /// The old file is the new one, name and all. Only of tables: the system's files come and go as one set.
    fn stays(&self, entry: &FileEntry, target: &Path) -> Option<Staying> {
        let held = lock(&self.held);
        let old = held.old.as_ref()?;
        let whole =
            old.path == target && old.look.signature.size == entry.size && held.same.is_all(entry.size);
        let table = Class::of(&entry.role, target) == Class::Table;
        (table && whole).then(|| Staying {
            path: target.to_owned(),
            size: entry.size,
            changed: old.look.signature.changed(),
        })
    }
}

fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All files of an attempt, under their staged paths. Shared by the threads that receive.
#[derive(Debug)]
pub struct Staging {
    datadir: PathBuf,
    shared: Mutex<Shared>,
}

#[derive(Debug)]
struct Shared {
    files: BTreeMap<FileId, Arc<StagedFile>>,
    leftovers: Leftovers,
    roots: Roots,
}

impl Staging {
    /// Makes ready to stage. What an earlier transfer or attempt left staged is set aside, to be taken over.
    pub fn new(datadir: &Path) -> Result<Staging> {
        refuse_pending(datadir)?;
        let leftovers = Leftovers::set_aside(datadir)?;
        let roots = Roots::choose(&Disk, datadir, [])?;
        let staging = Staging {
            datadir: datadir.to_owned(),
            shared: Mutex::new(Shared { files: BTreeMap::new(), leftovers, roots }),
        };
        staging.make_roots(&staging.shared().roots, &[])?;
        Ok(staging)
    }

    /// Chooses where a file is staged: on the filesystem of its target. A file that was begun before is left as it is.
    ///
    /// Directories outside the datadir that the target needs are made; those inside are made by the install, because
    /// an empty one would be a database of the old state.
    pub fn begin(&self, entry: &FileEntry, target: &Path) -> Result<()> {
        let mut shared = self.shared();
        if shared.files.contains_key(&entry.id) {
            return Ok(());
        }
        let staged = self.choose(&mut shared, entry, target)?;
        shared.files.insert(entry.id, Arc::new(staged));
        Ok(())
    }

    /// Goes on with what an earlier transfer had received of a file that was not begun yet: where it is staged now, and
    /// how long it is.
    pub fn adopt(&self, entry: &FileEntry, target: &Path) -> Result<Option<(PathBuf, u64)>> {
        let mut shared = self.shared();
        if shared.files.contains_key(&entry.id) {
            return Ok(None);
        }
        let staged = self.choose(&mut shared, entry, target)?;
        let stage = staged.path.parent().context("a staged file without a directory")?;
        let Some(left) = shared.leftovers.take(stage, entry) else { return Ok(None) };
        Disk.rename(&left, &staged.path)?;
        let (path, made) = (staged.path.clone(), AtomicBool::new(true));
        let size = Disk.state(&path)?.map_or(0, |(size, _)| size);
        shared.files.insert(entry.id, Arc::new(StagedFile { made, adopted: true, ..staged }));
        Ok(Some((path, size)))
    }

    /// An earlier transfer had received something.
    pub fn has_leftovers(&self) -> bool {
        !self.shared().leftovers.is_empty()
    }

    /// What an earlier transfer had received is not compared: it goes.
    pub fn drop_leftovers(&self) -> Result<()> {
        self.shared().leftovers.remove()
    }

    fn choose(&self, shared: &mut Shared, entry: &FileEntry, target: &Path) -> Result<StagedFile> {
        entry.check()?;
        let root = self.root_for(&mut shared.roots, target)?;
        Ok(StagedFile {
            path: working_directory(&root, "stage").join(staged_name(entry)),
            size: entry.size,
            class: Class::of(&entry.role, target),
            target: target.to_owned(),
            is_link: matches!(entry.role, FileRole::Link { .. }),
            made: AtomicBool::new(false),
            making: Mutex::new(()),
            held: Mutex::default(),
            differs: AtomicBool::new(false),
            adopted: false,
        })
    }

    fn root_for(&self, roots: &mut Roots, target: &Path) -> Result<PathBuf> {
        if roots.for_path(target).is_none() {
            let known = roots.all().to_vec();
            *roots = roots.clone().extend(&Disk, [target])?;
            self.make_roots(roots, &known)?;
            make_outside(&self.datadir, target)?;
        }
        let root = roots.for_path(target).context("a target for which no staging directory was chosen")?;
        Ok(root.to_owned())
    }

    /// Roots are written down before anything is in them, so that what a broken transfer leaves is found.
    fn make_roots(&self, roots: &Roots, known: &[PathBuf]) -> Result<()> {
        if roots.all() != known {
            roots::remember(&Disk, &self.datadir, roots.all())?;
            for root in roots.all() {
                make_durably(&working_directory(root, "stage"))?;
            }
        }
        Ok(())
    }

    /// The roots in use.
    pub fn roots(&self) -> Roots {
        self.shared().roots.clone()
    }

    /// Where a file is staged.
    pub fn path(&self, file: FileId) -> Result<PathBuf> {
        Ok(self.file(file)?.path.clone())
    }

    /// A writer for one thread.
    pub fn writer(&self) -> Writer<'_> {
        Writer::new(self)
    }

    /// Notes which bytes of a range are those of the `old` file, and that the others are not (any more). True when what is
    /// neither there nor written anew must be made zero.
    pub fn hold(
        &self,
        file: FileId,
        range: Range<u64>,
        same: &[(u32, u32)],
        old: Option<Old>,
    ) -> Result<bool> {
        let staged = self.file(file)?;
        let mut held = lock(&staged.held);
        held.same.remove(range.clone());
        if let Some(old) = old.filter(|_| !same.is_empty()) {
            held.old.get_or_insert(old);
        }
        if held.old.is_none() && !same.is_empty() {
            bail!(held::no_base(file))
        }
        for &(start, len) in same {
            let start = range.start + u64::from(start);
            held.same.add(start..start + u64::from(len));
        }
        Ok(staged.adopted)
    }

    /// Copies from the old file what a range of a file has of it, once the file is known to be another one: while others
    /// are received, not all at the end. `differs`: this range is.
    pub fn fill(&self, file: FileId, range: Range<u64>, differs: bool) -> Result<()> {
        let staged = self.file(file)?;
        if differs {
            staged.differs.store(true, Ordering::Release);
        }
        if !staged.differs.load(Ordering::Acquire) {
            return Ok(());
        }
        let part = lock(&staged.held).take(range);
        held::copy_part(&part, &staged.path)
    }

    /// The donor has said what the state consists of: staged files get their final lengths and targets and what they have
    /// of their old ones, links and empty files are made, and what does not count is removed. With `may_stay`, files of
    /// tables that are wholly the same as before are not staged: they are answered.
    pub fn settle(&self, files: &[(FileEntry, PathBuf)], may_stay: bool) -> Result<Vec<Staying>> {
        let mut shared = self.shared();
        let mut begun = std::mem::take(&mut shared.files);
        let mut staying = Vec::new();
        for (entry, target) in files {
            if may_stay && let Some(stays) = begun.get(&entry.id).and_then(|f| f.stays(entry, target)) {
                if let Some(needless) = begun.remove(&entry.id) {
                    Disk.remove(&needless.path)?;
                }
                staying.push(stays);
                continue;
            }
            if shared.files.contains_key(&entry.id) {
                bail!(Failure::new(Kind::Peer, format!("the donor named file number {} twice", entry.id.0)));
            }
            let mut last = self.choose(&mut shared, entry, target)?;
            let first = begun.remove(&entry.id);
            if let FileRole::Link { target } = &entry.role {
                make_link(&last.path, Path::new(target))?;
            } else {
                if let Some(first) = first {
                    last.take_over(&first)?;
                }
                make(&last)?;
                set_length(&last.path, entry.size)?;
                held::copy(&lock(&last.held), &last.path, entry.size)?;
            }
            last.made = AtomicBool::new(true);
            shared.files.insert(entry.id, Arc::new(last));
        }
        begun.values().try_for_each(|dropped| Disk.remove(&dropped.path))?;
        shared.leftovers.remove()?;
        Ok(staying)
    }

    /// Makes every file that nothing was written to, then makes everything durable.
    pub fn sync_all(&self) -> Result<()> {
        let shared = self.shared();
        for (id, staged) in &shared.files {
            if staged.is_link && !staged.made.load(Ordering::Acquire) {
                bail!("the link {} (file number {}) was not staged", staged.target.display(), id.0)
            }
            make(staged)?;
        }
        for root in shared.roots.all() {
            durable::sync_filesystem(root)?;
            for directory in [working_directory(root, "stage"), waiting_room(root), root.clone()] {
                durable::sync_directory(&directory)?;
            }
            durable::sync_directory(root.parent().context("a staging root without a directory")?)?;
        }
        Ok(())
    }

    /// The staged files, for [`super::plan::plan`].
    pub fn staged(&self) -> Vec<Placed> {
        let placed =
            |f: &Arc<StagedFile>| Placed { staged: f.path.clone(), target: f.target.clone(), class: f.class };
        self.shared().files.values().map(placed).collect()
    }

    pub(super) fn file(&self, file: FileId) -> Result<Arc<StagedFile>> {
        // Not as a context: the kind of a failure is only seen in the error itself.
        let unknown =
            || Failure::new(Kind::Peer, format!("the donor sent data of unknown file number {}", file.0));
        Ok(self.shared().files.get(&file).cloned().ok_or_else(unknown)?)
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Makes a file, a hole of its first length, unless some thread has.
pub(super) fn make(staged: &StagedFile) -> Result<()> {
    if staged.made.load(Ordering::Acquire) {
        return Ok(());
    }
    let _making = staged.making.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
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

fn make_link(path: &Path, to: &Path) -> Result<()> {
    Disk.remove(path)?;
    std::os::unix::fs::symlink(to, path).with_context(|| format!("cannot make the link {}", path.display()))
}

/// What lies beyond the end of a file that became shorter while it was sent must not stay.
fn set_length(path: &Path, size: u64) -> Result<()> {
    let set = || {
        let file = File::options().write(true).open(path)?;
        if file.metadata()?.len() == size { Ok(()) } else { file.set_len(size) }
    };
    set().with_context(|| format!("cannot set the length of {}", path.display()))
}

fn refuse_pending(datadir: &Path) -> Result<()> {
    if pending(&Disk, datadir)?.is_some() {
        bail!(Failure::new(Kind::Disk, "an interrupted install must be finished before a transfer"));
    }
    Ok(())
}

/// Removes what an earlier transfer left staged. What is kept of an install stays.
pub fn discard_staged(datadir: &Path) -> Result<()> {
    refuse_pending(datadir)?;
    for root in roots::remembered(&Disk, datadir)? {
        roots::clear(&Disk, &working_directory(&root, "stage"))?;
        roots::clear(&Disk, &working_directory(&root, "copy"))?;
    }
    Ok(())
}

fn make_outside(datadir: &Path, target: &Path) -> Result<()> {
    let directory = target.parent().with_context(|| format!("{} has no directory", target.display()))?;
    if directory.starts_with(datadir) || directory.is_dir() {
        return Ok(());
    }
    make_durably(directory)
}

/// Makes a directory with its parents, and makes their names durable: a file renamed into a directory that a power loss
/// undoes would be lost.
fn make_durably(directory: &Path) -> Result<()> {
    let missing: Vec<&Path> = directory.ancestors().take_while(|d| !d.exists()).collect();
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make directory {}", directory.display()))?;
    for made in missing {
        durable::sync_directory(made.parent().context("a directory without a parent")?)?;
    }
    Ok(())
}
