//! Where received files wait: nothing of the datadir is touched before the install.
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use protocol::inventory::{FileEntry, FileId, FileRole};

use super::files::{Disk, Files};
use super::install::pending;
use super::names::{waiting_room, working_directory};
use super::plan::{Class, Placed};
use super::roots::{self, Roots};
use super::writer::Writer;
use crate::disk::durable;
use crate::failure::{Failure, Kind};

/// A file that is being received.
#[derive(Debug)]
pub(super) struct StagedFile {
    pub(super) path: PathBuf,
    pub(super) size: u64,
    pub(super) target: PathBuf,
    class: Class,
    link_to: Option<PathBuf>,
    made: AtomicBool,
    making: Mutex<()>,
}

/// All files of a transfer, under their staged paths. Shared by the threads that receive.
#[derive(Debug)]
pub struct Staging {
    files: BTreeMap<FileId, StagedFile>,
    roots: Roots,
}

impl Staging {
    /// Prepares staging for these files. What an earlier transfer left staged is removed.
    ///
    /// Directories outside the datadir that a target needs are made; those inside are made by the install, because
    /// an empty one would be a database of the old state.
    pub fn prepare(datadir: &Path, targets: &[(FileEntry, PathBuf)]) -> Result<Staging> {
        discard_staged(datadir)?;
        let roots = Roots::choose(&Disk, datadir, targets.iter().map(|(_, target)| target.as_path()))?;
        roots::remember(&Disk, datadir, roots.all())?;
        for (_, target) in targets {
            make_outside(datadir, target)?;
        }
        for root in roots.all() {
            make_durably(&working_directory(root, "stage"))?;
        }
        let mut files = BTreeMap::new();
        for (entry, target) in targets {
            entry.check()?;
            let root =
                roots.for_path(target).context("a target for which no staging directory was chosen")?;
            let staged = StagedFile {
                path: working_directory(root, "stage").join(entry.id.0.to_string()),
                size: entry.size,
                class: Class::of(&entry.role, target),
                target: target.clone(),
                link_to: match &entry.role {
                    FileRole::Link { target } => Some(PathBuf::from(target)),
                    _ => None,
                },
                made: AtomicBool::new(false),
                making: Mutex::new(()),
            };
            if files.insert(entry.id, staged).is_some() {
                bail!(Failure::new(Kind::Peer, format!("the donor sent file number {} twice", entry.id.0)));
            }
        }
        Ok(Staging { files, roots })
    }

    /// The roots in use.
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// Where a file is staged.
    pub fn path(&self, file: FileId) -> Result<&Path> {
        Ok(&self.file(file)?.path)
    }

    /// A writer for one thread.
    pub fn writer(&self) -> Writer<'_> {
        Writer::new(self)
    }

    /// Stages a symbolic link that points to `to`, a path of this node.
    pub fn make_link(&self, entry: &FileEntry, to: &Path) -> Result<()> {
        let staged = self.file(entry.id)?;
        if staged.link_to.is_none() {
            bail!(Failure::new(Kind::Peer, format!("{} was not announced as a link", entry.path)));
        }
        Disk.remove(&staged.path)?;
        std::os::unix::fs::symlink(to, &staged.path)
            .with_context(|| format!("cannot make the link {}", staged.path.display()))?;
        staged.made.store(true, Ordering::Release);
        Ok(())
    }

    /// Makes every file that nothing was written to, at full length, then makes everything durable.
    pub fn sync_all(&self) -> Result<()> {
        for (id, staged) in &self.files {
            match &staged.link_to {
                Some(_) if !staged.made.load(Ordering::Acquire) => {
                    bail!("the link {} (file number {}) was not staged", staged.target.display(), id.0)
                }
                Some(_) => {}
                None => self.make(*id)?,
            }
        }
        for root in self.roots.all() {
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
            |f: &StagedFile| Placed { staged: f.path.clone(), target: f.target.clone(), class: f.class };
        self.files.values().map(placed).collect()
    }

    pub(super) fn file(&self, file: FileId) -> Result<&StagedFile> {
        // Not as a context: the kind of a failure is only seen in the error itself.
        let unknown =
            || Failure::new(Kind::Peer, format!("the donor sent data of unknown file number {}", file.0));
        Ok(self.files.get(&file).ok_or_else(unknown)?)
    }

    /// Makes the file, a hole of full length, unless some thread has.
    pub(super) fn make(&self, id: FileId) -> Result<()> {
        let staged = self.file(id)?;
        if staged.made.load(Ordering::Acquire) {
            return Ok(());
        }
        let _making = staged.making.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if staged.made.load(Ordering::Acquire) {
            return Ok(());
        }
        if staged.link_to.is_some() {
            bail!(Failure::new(
                Kind::Peer,
                format!("the donor sent data of the link {}", staged.target.display())
            ));
        }
        let make = || File::options().write(true).create_new(true).open(&staged.path)?.set_len(staged.size);
        make().with_context(|| format!("cannot make {}", staged.path.display()))?;
        staged.made.store(true, Ordering::Release);
        Ok(())
    }
}

/// Removes what an earlier transfer left staged. What is kept of an install stays.
pub fn discard_staged(datadir: &Path) -> Result<()> {
    if pending(&Disk, datadir)?.is_some() {
        bail!(Failure::new(Kind::Disk, "an interrupted install must be finished before a transfer"));
    }
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
