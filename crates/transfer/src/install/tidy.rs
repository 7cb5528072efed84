//! Removing `.rejoin/`: a server shows every directory of its datadir as a database, so ours is removed as soon as
//! possible.
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::disk::durable;
use crate::install::files::{Files, What};
use crate::install::kept::{self, Status};
use crate::install::names::{
    GRASTATE, OF_PROGRAMS, RAN_FULL, ROOTS, directory_of, file_name, own_directory, waiting_room,
    working_directory,
};
use crate::install::record::installed;
use crate::install::roots::{clear, clear_of_programs, remembered};

/// Removes the previous state and then all our directories. Call it once the node has been Synced.
pub fn remove_everything(files: &dyn Files, datadir: &Path) -> Result<()> {
    kept::release_old(files, datadir)?;
    remove_leftovers(files, datadir)
}

/// What an operator's release removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Files.
    pub files: usize,
    /// Bytes that they occupied.
    pub bytes: u64,
}

/// Like [`remove_everything`], but counts what it removes.
pub fn release(files: &dyn Files, datadir: &Path) -> Result<Removed> {
    let before = all_of_transfers(files, datadir)?;
    remove_everything(files, datadir)?;
    let mut removed = Removed::default();
    for (path, bytes) in before {
        if files.what(&path)?.is_none() {
            removed = Removed { files: removed.files + 1, bytes: removed.bytes + bytes };
        }
    }
    Ok(removed)
}

/// Staged files and those of the previous state, with the bytes that they occupy.
fn all_of_transfers(files: &dyn Files, datadir: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut roots = remembered(files, datadir)?;
    roots.extend(installed(files, datadir)?.map(|plan| plan.roots).unwrap_or_default());
    let names = ["old", "discard", "copy", "stage"];
    let directories = roots.iter().flat_map(|root| {
        names
            .map(|name| directory_of(root, name))
            .into_iter()
            .chain(names.map(|name| working_directory(root, name)))
    });
    let directories: BTreeSet<PathBuf> = directories.collect();
    let mut found = Vec::new();
    for directory in directories {
        add(files, &directory, false, &mut found)?;
    }
    let of_programs = |root: &PathBuf| OF_PROGRAMS.map(|name| working_directory(root, name));
    for directory in roots.iter().flat_map(of_programs).collect::<BTreeSet<PathBuf>>() {
        add(files, &directory, true, &mut found)?;
    }
    Ok(found)
}

/// Adds the files in a directory, and with `deep` those in its directories.
fn add(files: &dyn Files, directory: &Path, deep: bool, found: &mut Vec<(PathBuf, u64)>) -> Result<()> {
    for path in files.list(directory)? {
        if deep && files.what(&path)? == Some(What::Directory) {
            add(files, &path, true, found)?;
            continue;
        }
        let bytes = kept::allocated(&path)?;
        found.push((path, bytes));
    }
    Ok(())
}

/// Removes the leftovers of an unfinished transfer, and our directories if they are then empty. The previous state and
/// an interrupted install are left alone.
pub fn remove_leftovers(files: &dyn Files, datadir: &Path) -> Result<()> {
    let status = kept::status(files, datadir, |_| Ok(0))?;
    if !matches!(status, Status::Nothing | Status::Staging { .. }) {
        return Ok(());
    }
    let own = own_directory(datadir);
    if files.what(&own)? != Some(What::Directory) {
        return Ok(());
    }
    for root in remembered(files, datadir)? {
        clear(files, &working_directory(&root, "stage"))?;
        clear(files, &working_directory(&root, "copy"))?;
        clear_of_programs(files, &root)?;
        if waiting_room(&root) != root {
            files.remove_directory(&waiting_room(&root))?;
        }
        if root != own && files.what(&root)? == Some(What::Directory) {
            files.remove_directory(&root)?;
        }
    }
    for name in [GRASTATE, RAN_FULL, ROOTS] {
        files.remove(&own.join(name))?;
    }
    for path in files.list(&own)?.iter().filter(|path| durable::is_temporary(file_name(path))) {
        files.remove(path)?;
    }
    files.remove_directory(&own)?;
    files.sync_directory(datadir)
}
