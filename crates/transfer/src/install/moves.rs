//! What the steps of a roll-forward share: syncing the directories of moved files, and removing files that a server created.
use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;

use crate::flavor::class::Set;
use crate::install::files::{Files, What};
use crate::install::guard::Guards;
use crate::install::names::file_name;
use crate::install::plan::{InstallPlan, Placed, Retired};

pub(super) fn sync_parents<'p>(files: &dyn Files, paths: impl IntoIterator<Item = &'p Path>) -> Result<()> {
    let directories: BTreeSet<&Path> = paths.into_iter().filter_map(Path::parent).collect();
    directories.into_iter().try_for_each(|d| files.sync_directory(d))
}

pub(super) fn sync_leaving<'d>(
    files: &dyn Files,
    step: impl IntoIterator<Item = &'d Retired> + Clone,
) -> Result<()> {
    // The destination directories are synced first. On a filesystem that splits a rename, the file is then in
    // both directories rather than in neither.
    sync_parents(files, step.clone().into_iter().filter_map(|d| d.to.as_deref()))?;
    sync_parents(files, step.into_iter().map(|d| d.path.as_path()))
}

pub(super) fn sync_coming<'p>(
    files: &dyn Files,
    step: impl IntoIterator<Item = &'p Placed> + Clone,
) -> Result<()> {
    sync_parents(files, step.clone().into_iter().map(|p| p.target.as_path()))?;
    sync_parents(files, step.into_iter().map(|p| p.staged.as_path()))
}

/// Removes what a server has created of this set, except what is ours.
pub(super) fn sweep(files: &dyn Files, plan: &InstallPlan, set: Set) -> Result<()> {
    let guards = Guards::of(plan);
    let sweeps = || plan.sweep.iter().filter(|s| s.set == set);
    for directory in sweeps().map(|s| s.directory.as_path()).collect::<BTreeSet<_>>() {
        for path in files.list(directory)? {
            let of_server = sweeps().any(|s| s.directory == directory && s.pattern.matches(file_name(&path)));
            // A directory is a database, whatever its name: a server may have one called `undo001`.
            let of_server = of_server && files.what(&path)? != Some(What::Directory);
            if of_server && !guards.contain(&path) && !is_ours(files, plan, &path)? {
                files.remove(&path)?;
            }
        }
        files.sync_directory(directory)?;
    }
    Ok(())
}

fn is_ours(files: &dyn Files, plan: &InstallPlan, path: &Path) -> Result<bool> {
    if plan.untouched.iter().any(|p| p == path) {
        return Ok(true);
    }
    match plan.placed.iter().find(|p| p.target == path) {
        None => Ok(false),
        Some(placed) => Ok(!files.exists(&placed.staged)?),
    }
}
