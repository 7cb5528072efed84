//! The staging directories, in which received files wait for the install. Before it, nothing of the datadir is
//! touched.
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, RwLock};

use anyhow::{Context, Result, bail};
use protocol::fingerprint::{Fingerprint, FingerprintKey};
use protocol::inventory::{FileEntry, FileId, FileRole};

use crate::cancel::Cancel;
use crate::disk::durable;
use crate::failure::{Failure, Kind};
use crate::flavor::Flavor;
use crate::install::files::{Disk, Files};
use crate::install::names::{waiting_room, working_directory};
use crate::install::plan::{Patched, Placed, Unchanged};
use crate::install::record::pending;
use crate::install::roots::{self, Roots};
use crate::receive::leftovers::{Leftovers, staged_name};
use crate::receive::moving::move_file;
use crate::receive::read_back::{Learning, read_back};
use crate::receive::rested::StagedFiles;
use crate::receive::reusable::{self, Held, Old};
pub use crate::receive::settling::Patches;
use crate::receive::staged::{StagedFile, make, may_be_patched, set_length};
use crate::receive::staging_roots::{Stage, StagingRoots};
use crate::remembered::arrived::Arrived;
use crate::server::local_work::LocalWork;
use crate::threads::lock;

/// All files of an attempt, under their staged paths. Shared by the threads that receive.
#[derive(Debug)]
pub struct Staging {
    pub(super) flavor: &'static dyn Flavor,
    pub(super) datadir: PathBuf,
    shared: Mutex<Shared>,
    /// Key of the fingerprints that are remembered.
    key: OnceLock<FingerprintKey>,
    /// Counts steps of work for which nothing travels.
    work: OnceLock<Arc<LocalWork>>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) files: StagedFiles,
    pub(super) leftovers: Leftovers,
    pub(super) roots: StagingRoots,
    /// What can be remembered, once there is something.
    arrived: Option<Arrived>,
}

impl Staging {
    /// Prepares staging. Files that an earlier transfer or attempt left staged are set aside, so that their bytes can
    /// be reused.
    pub fn new(flavor: &'static dyn Flavor, datadir: &Path) -> Result<Staging> {
        refuse_pending(datadir)?;
        roots::clear_after_programs(&Disk, datadir)?;
        let leftovers = Leftovers::set_aside(datadir)?;
        let shared = Shared {
            files: StagedFiles::default(),
            leftovers,
            roots: StagingRoots::new(datadir)?,
            arrived: None,
        };
        let (datadir, shared) = (datadir.to_owned(), Mutex::new(shared));
        Ok(Staging { flavor, datadir, shared, key: OnceLock::new(), work: OnceLock::new() })
    }

    /// From now on steps of work for which nothing travels are counted here.
    pub fn count_in(&self, work: &Arc<LocalWork>) {
        let _ = self.work.set(Arc::clone(work));
    }

    /// A step of such work is done.
    pub fn step(&self) {
        self.work.get().into_iter().for_each(|work| work.step());
    }

    /// Chooses where a file is staged: on the filesystem of its target. A file that was begun before is not changed.
    ///
    /// Directories outside the datadir that the target needs are created here; the install creates those inside,
    /// because an empty one would be a database of the old state.
    pub fn begin(&self, entry: &FileEntry, target: &Path) -> Result<()> {
        let mut shared = self.shared();
        if shared.files.contains(entry.id) {
            return Ok(());
        }
        let staged = self.choose(&mut shared, entry, target)?;
        shared.files.insert(entry.id, Arc::new(staged));
        Ok(())
    }

    /// Reuses what an earlier transfer had received of a file that was not begun yet. Returns its staged path and its
    /// length in bytes, or `None` if there is nothing.
    pub fn adopt(&self, entry: &FileEntry, target: &Path) -> Result<Option<(PathBuf, u64)>> {
        let mut shared = self.shared();
        if shared.files.contains(entry.id) {
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

    /// Stages a file that was made on this node, by moving it.
    pub fn take_over(&self, entry: &FileEntry, target: &Path, made: &Path) -> Result<()> {
        let mut shared = self.shared();
        let staged = self.choose(&mut shared, entry, target)?;
        move_file(made, &staged.path)?;
        // It may have another length than its entry says.
        let (made, end) = (AtomicBool::new(true), AtomicU64::new(u64::MAX));
        shared.files.insert(entry.id, Arc::new(StagedFile { made, end, ..staged }));
        Ok(())
    }

    /// Reserves bytes on the filesystem of a directory. Call this before anything is staged there.
    ///
    /// # Errors
    /// As [`Reserve::take`](crate::disk::reserve::Reserve::take).
    pub fn reserve(&self, directory: &Path, bytes: u64) -> Result<()> {
        self.shared().roots.reserve(directory, bytes)
    }

    /// Whether an earlier transfer left received files.
    pub fn has_leftovers(&self) -> bool {
        !self.shared().leftovers.is_empty()
    }

    /// Removes what an earlier transfer had received: without a comparison it is useless.
    pub fn drop_leftovers(&self) -> Result<()> {
        self.shared().leftovers.remove()
    }

    pub(super) fn choose(&self, shared: &mut Shared, entry: &FileEntry, target: &Path) -> Result<StagedFile> {
        entry.check()?;
        let Stage { directory, writes, sharing, reserve } = shared.roots.stage_for(target)?;
        let class = self.flavor.class(&entry.role, Path::new(&entry.path));
        Ok(StagedFile {
            path: directory.join(staged_name(entry)),
            size: entry.size,
            end: AtomicU64::new(0),
            class,
            target: target.to_owned(),
            is_link: matches!(entry.role, FileRole::Link { .. }),
            made: AtomicBool::new(false),
            making: Mutex::new(()),
            writing: RwLock::new(()),
            held: Mutex::default(),
            digests: Mutex::default(),
            differing: AtomicU64::new(0),
            writes,
            sharing,
            reserve,
            patchable: !sharing && may_be_patched(class, target, entry.size),
            patched: None,
            adopted: false,
        })
    }

    /// The directory for a file that the donor does not send: on the filesystem of its target, recorded and made
    /// durable with everything else.
    pub fn stage_for(&self, target: &Path) -> Result<PathBuf> {
        self.shared().roots.directory_for(target)
    }

    /// The roots in use.
    pub fn roots(&self) -> Roots {
        self.shared().roots.all().clone()
    }

    /// Where a file is staged.
    pub fn path(&self, file: FileId) -> Result<PathBuf> {
        Ok(self.file(file)?.path.clone())
    }

    /// Records which bytes of a range are taken from the `old` file, as (start in the range, length); all others no
    /// longer are. Returns true if bytes that are neither taken nor written must be cleared.
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
            bail!(reusable::no_base(file))
        }
        for &(start, len) in same {
            let start = range.start + u64::from(start);
            held.same.add(start..start + u64::from(len));
        }
        Ok(staged.adopted)
    }

    /// The bytes of a range that come from the old file, once it is known that the file is written anew; else `None`.
    /// The caller writes them with the bytes that arrived, and they count as written. If bytes can be shared, only
    /// those close to the differing ones are returned. `differing` is the number of bytes of this range that are not
    /// the old file's.
    pub(super) fn take_same(&self, file: FileId, range: Range<u64>, differing: u64) -> Result<Option<Held>> {
        let staged = self.file(file)?;
        staged.differing.fetch_add(differing, Ordering::AcqRel);
        staged.reaches(range.end);
        let take = || {
            let mut held = lock(&staged.held);
            if staged.sharing { held.take_mixed(range) } else { held.take(range) }
        };
        Ok(staged.is_put_together().then(take))
    }

    /// Records the digest that a piece of a file must have at the end, or that the donor gave none, and the fingerprint of a
    /// range that is the joiner's own.
    pub fn expect(
        &self,
        file: FileId,
        offset: u64,
        len: u32,
        digest: Option<u64>,
        fingerprint: Option<Fingerprint>,
    ) -> Result<()> {
        lock(&self.file(file)?.digests).note(offset, len, digest, fingerprint);
        Ok(())
    }

    /// Called when all bytes of a file have arrived and none of them are an old file's: gives it its final length and reads it back.
    /// Returns where it is.
    ///
    /// # Errors
    /// It is not what the donor read, an I/O error, or cancelled.
    pub fn complete(&self, file: FileId, cancel: &Cancel) -> Result<PathBuf> {
        let staged = self.file(file)?;
        make(&staged)?;
        // Of a longer one that an interrupted transfer left.
        set_length(&staged.path, staged.size)?;
        read_back(std::iter::once((file, Arc::clone(&staged))), None, 1, (cancel, &|| self.step()))?;
        lock(&staged.digests).all_were_read_back();
        Ok(staged.path.clone())
    }

    /// Sets aside all files with smaller numbers than `first`, as if an earlier transfer had left them. All of them must be
    /// complete: nobody writes to them any more.
    ///
    /// # Errors
    /// From the disk.
    pub fn set_aside_before(&self, first: FileId) -> Result<()> {
        let shared = &mut *self.shared();
        for void in shared.files.numbers().into_iter().take_while(|file| *file < first) {
            if let Some(void) = shared.files.remove(void) {
                shared.leftovers.add(&void.path)?;
            }
        }
        Ok(())
    }

    /// Whether there is a file with this number, which was not set aside.
    pub(super) fn contains(&self, file: FileId) -> bool {
        self.shared().files.contains(file)
    }

    /// Creates every file to which nothing was written, then makes everything durable.
    pub fn sync_all(&self) -> Result<()> {
        for (id, staged) in self.each() {
            if staged.is_link && !staged.made.load(Ordering::Acquire) {
                bail!("the link {} (file number {}) was not staged", staged.target.display(), id.0)
            }
            make(&staged)?;
        }
        // Not under the lock: it takes long, and the staged files are read back meanwhile.
        for root in self.roots().all() {
            durable::sync_filesystem(root)?;
            for directory in [working_directory(root, "stage"), waiting_room(root), root.clone()] {
                durable::sync_directory(&directory)?;
            }
            durable::sync_directory(root.parent().context("a staging root without a directory")?)?;
        }
        Ok(())
    }

    /// From now on what can be remembered of the tables is collected, with fingerprints under this key: of those that stay while they
    /// settle, of the others when they are read back. Only the first key counts.
    pub fn remember_with(&self, key: FingerprintKey) {
        let _ = self.key.set(key);
    }

    /// The key of the fingerprints that are remembered; `None` if nothing is to be remembered.
    pub(super) fn key(&self) -> Option<&FingerprintKey> {
        self.key.get()
    }

    /// What can be remembered. It waits in a file without a name, which is made for the first table.
    pub(super) fn arrived<'s>(&self, shared: &'s mut Shared) -> &'s mut Arrived {
        shared.arrived.get_or_insert_with(|| Arrived::waiting_in(&self.datadir))
    }

    /// Reads the settled files back. Returns how many bytes are known to be what the donor read.
    ///
    /// # Errors
    /// Some bytes are not.
    pub fn read_back(&self, threads: u16, cancel: &Cancel) -> Result<u64> {
        read_back(self.data_files(), None, threads, (cancel, &|| self.step()))
    }

    /// As [`Staging::read_back`]. Also returns what can be remembered of the tables, if that is collected
    /// ([`Staging::remember_with`]): of those that stay, and of those that were read back now.
    ///
    /// # Errors
    /// As [`Staging::read_back`].
    pub fn read_back_and_learn(&self, threads: u16, cancel: &Cancel) -> Result<(u64, Arrived)> {
        let Some(key) = self.key() else { return Ok((self.read_back(threads, cancel)?, Arrived::default())) };
        let learning = Learning::new(key, std::mem::take(self.arrived(&mut self.shared())));
        let bytes = read_back(self.data_files(), Some(&learning), threads, (cancel, &|| self.step()))?;
        Ok((bytes, learning.arrived()))
    }

    fn data_files(&self) -> impl Iterator<Item = (FileId, Arc<StagedFile>)> + Send + '_ {
        self.each().filter(|(_, file)| !file.is_link)
    }

    /// The staged files, for [`crate::install::plan::plan`].
    pub fn staged(&self) -> Vec<Placed> {
        let placed =
            |f: Arc<StagedFile>| Placed { staged: f.path.clone(), target: f.target.clone(), class: f.class };
        let whole = self.each().map(|(_, file)| file).filter(|f| f.patched.is_none());
        whole.map(placed).collect()
    }

    /// The patches, for the same plan, with the tables as they were compared.
    pub fn patched(&self) -> Vec<(Patched, Unchanged)> {
        self.shared().files.open().filter_map(|f| f.patched.as_deref().cloned()).collect()
    }

    pub(super) fn file(&self, file: FileId) -> Result<Arc<StagedFile>> {
        // Not as a context: `kind_of` reads the kind from the error itself.
        let unknown =
            || Failure::new(Kind::Peer, format!("the donor sent data of unknown file number {}", file.0));
        Ok(self.shared().files.get(file).ok_or_else(unknown)?)
    }

    /// Called when a part of a file has arrived. If the file is small, that was probably all.
    pub fn may_rest(&self, file: FileId) {
        self.shared().files.may_rest(file);
    }

    /// All files in the order of their numbers, for reading only.
    fn each(&self) -> impl Iterator<Item = (FileId, Arc<StagedFile>)> + Send + '_ {
        let numbers = self.shared().files.numbers().into_iter();
        numbers.filter_map(|file| Some((file, self.shared().files.look(file)?)))
    }

    pub(super) fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn refuse_pending(datadir: &Path) -> Result<()> {
    if pending(&Disk, datadir)?.is_some() {
        bail!(Failure::new(Kind::Disk, "an interrupted install must be finished before a transfer"));
    }
    Ok(())
}

/// Removes what an earlier transfer left staged, but not what an install keeps.
pub fn discard_staged(datadir: &Path) -> Result<()> {
    refuse_pending(datadir)?;
    for root in roots::remembered(&Disk, datadir)? {
        roots::clear_of_programs(&Disk, &root)?;
        roots::clear(&Disk, &working_directory(&root, "stage"))?;
        roots::clear(&Disk, &working_directory(&root, "copy"))?;
    }
    Ok(())
}
