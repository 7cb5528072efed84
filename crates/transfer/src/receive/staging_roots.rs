//! Where files are staged: on the filesystem of their targets, so that the install only renames them. A staging root is recorded before
//! anything is in it, and its properties are looked up once.
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};

use crate::disk::direct_write::DirectWrites;
use crate::disk::durable;
use crate::disk::filesystem::{FilesystemId, filesystem_of, nearest_existing, shares_bytes};
use crate::disk::reserve::Reserve;
use crate::install::files::Disk;
use crate::install::names::working_directory;
use crate::install::roots::{self, Roots};

/// The staging roots of an attempt.
#[derive(Debug)]
pub(super) struct StagingRoots {
    datadir: PathBuf,
    roots: Roots,
    reserves: BTreeMap<FilesystemId, Arc<Reserve>>,
    stages: BTreeMap<PathBuf, Stage>,
}

/// The directory of a root in which files are staged.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    pub directory: PathBuf,
    pub writes: Arc<DirectWrites>,
    /// Its filesystem can share bytes between old and new files.
    pub sharing: bool,
    /// The space that is reserved there.
    pub reserve: Option<Arc<Reserve>>,
}

impl StagingRoots {
    /// Makes the datadir's own root.
    pub fn new(datadir: &Path) -> Result<StagingRoots> {
        let roots = Roots::choose(&Disk, datadir, [])?;
        let (reserves, stages) = (BTreeMap::new(), BTreeMap::new());
        let staging = StagingRoots { datadir: datadir.to_owned(), roots, reserves, stages };
        staging.make(&[])?;
        Ok(staging)
    }

    /// All roots in use.
    pub fn all(&self) -> &Roots {
        &self.roots
    }

    /// The directory in which a file with this target is staged. Directories outside the datadir that the target needs are created.
    pub fn directory_for(&mut self, target: &Path) -> Result<PathBuf> {
        Ok(working_directory(&self.root_for(target)?, "stage"))
    }

    /// The same with its properties.
    pub fn stage_for(&mut self, target: &Path) -> Result<Stage> {
        let root = self.root_for(target)?;
        if let Some(known) = self.stages.get(&root) {
            return Ok(known.clone());
        }
        let directory = working_directory(&root, "stage");
        let reserve = self.reserves.get(&filesystem_of(&directory)?).cloned();
        let writes = Arc::new(DirectWrites::try_in(&directory));
        let stage = Stage { sharing: shares_bytes(&directory), directory, writes, reserve };
        self.stages.insert(root, stage.clone());
        Ok(stage)
    }

    /// Reserves bytes on the filesystem of a directory. Call this before anything is staged there.
    pub fn reserve(&mut self, directory: &Path, bytes: u64) -> Result<()> {
        let reserve = Reserve::take(&nearest_existing(directory)?, bytes)?;
        self.reserves.insert(filesystem_of(directory)?, Arc::new(reserve));
        Ok(())
    }

    /// Releases all space that is still reserved.
    pub fn give_reserves_back(&self) {
        self.reserves.values().for_each(|reserve| reserve.give_all_back());
    }

    fn root_for(&mut self, target: &Path) -> Result<PathBuf> {
        if self.roots.for_path(target).is_none() {
            let known = self.roots.all().to_vec();
            self.roots = self.roots.clone().extend(&Disk, [target])?;
            self.make(&known)?;
            make_outside(&self.datadir, target)?;
        }
        let root = self.roots.for_path(target);
        Ok(root.context("a target for which no staging directory was chosen")?.to_owned())
    }

    /// Records the roots before anything is in them, so that the leftovers of an interrupted transfer are found.
    fn make(&self, known: &[PathBuf]) -> Result<()> {
        if self.roots.all() != known {
            roots::remember(&Disk, &self.datadir, self.roots.all())?;
            for root in self.roots.all() {
                make_durably(&working_directory(root, "stage"))?;
            }
        }
        Ok(())
    }
}

fn make_outside(datadir: &Path, target: &Path) -> Result<()> {
    let directory = target.parent().with_context(|| format!("{} has no directory", target.display()))?;
    if directory.starts_with(datadir) || directory.is_dir() {
        return Ok(());
    }
    make_durably(directory)
}

/// Creates a directory with its parents and makes their names durable. Otherwise a power loss could undo the
/// directory, and a file renamed into it would be lost.
fn make_durably(directory: &Path) -> Result<()> {
    let missing: Vec<&Path> = directory.ancestors().take_while(|d| !d.exists()).collect();
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make directory {}", directory.display()))?;
    for made in missing {
        durable::sync_directory(made.parent().context("a directory without a parent")?)?;
    }
    Ok(())
}
