//! The second engine's set in a roll-forward: its control file, its logs, and the tables that a server opens at every start.
//!
//! The set is replaced by copies. A server uses it even if InnoDB refuses to start, so a server must
//! never see a part of it as the only copy, or beside parts of another state. [`crate::install::forward`]
//! describes what a server does with it without a guard.
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::flavor::class::{Class, Set};
use crate::install::files::Files;
use crate::install::guard::{Guards, is_guard};
use crate::install::moves::{sweep, sync_coming, sync_leaving, sync_parents};
use crate::install::names::{file_name, working_directory};
use crate::install::plan::{InstallPlan, Kept, Placed, Purpose, Retired};
use crate::install::record::write_record;

/// A server that ran in the old state after the plan was made may have begun a new log, which belongs to the old
/// set.
pub(super) fn adopt_new_logs(files: &dyn Files, plan: &mut InstallPlan) -> Result<()> {
    let keeps = retired(plan).any(|old| old.to.is_some());
    if plan.purpose != Purpose::Install || !keeps || is_kept(files, plan)? {
        return Ok(());
    }
    let known: BTreeSet<PathBuf> = plan.retired.iter().map(|d| d.path.clone()).collect();
    let mut found = Vec::new();
    for sweep in plan.sweep.iter().filter(|s| s.set == Set::Second) {
        let here = files.list(&sweep.directory)?;
        found.extend(here.into_iter().filter(|p| sweep.pattern.matches(file_name(p)) && !known.contains(p)));
    }
    if found.is_empty() {
        return Ok(());
    }
    // They are in the directory of the control file, so their copies are beside its copy.
    let of_control = |d: &&Retired| d.class == Class::SecondControl;
    let beside = plan.retired.iter().find(of_control).and_then(|d| d.to.as_deref()).and_then(Path::parent);
    let Some(beside) = beside.map(Path::to_path_buf) else { return Ok(()) };
    for path in found {
        let copy = beside.join(format!("{}-{}", plan.made, file_name(&path)));
        plan.retired.push(Retired { path: path.clone(), to: Some(copy.clone()), class: Class::SecondLog });
        plan.kept.push(Kept { path, copy, class: Class::SecondLog });
    }
    crate::install::plan::sort_leaving(&mut plan.retired);
    write_record(files, plan)
}

/// The files of the old set.
pub(super) fn retired(plan: &InstallPlan) -> impl DoubleEndedIterator<Item = &Retired> {
    plan.retired.iter().filter(|old| old.class.set() == Some(Set::Second))
}

/// The files of the new set.
pub(super) fn placed(plan: &InstallPlan) -> impl DoubleEndedIterator<Item = &Placed> {
    plan.placed.iter().filter(|new| new.class.set() == Some(Set::Second))
}

/// Whether the copies of the old set are final: all exist, and no server could use the set since then.
pub(super) fn is_kept(files: &dyn Files, plan: &InstallPlan) -> Result<bool> {
    let Some(last) = retired(plan).filter_map(|d| d.to.as_deref()).next_back() else { return Ok(false) };
    let stopped = match &Guards::of(plan).second {
        Some(control) => is_guard(files, control)? || !files.exists(control)?,
        None => true,
    };
    Ok(stopped && files.exists(last)?)
}

/// Copies the old set to the previous state. A server may use the set until the guards are in place, so an
/// earlier copy is made again.
pub(super) fn keep(files: &dyn Files, plan: &InstallPlan) -> Result<()> {
    let kept: Vec<(&Path, &Path)> =
        retired(plan).filter_map(|d| Some((d.path.as_path(), d.to.as_deref()?))).collect();
    if let Some(((last, last_copy), others)) = kept.split_last()
        && !is_kept(files, plan)?
    {
        for (path, copy) in others {
            if files.exists(path)? {
                files.copy(path, copy)?;
            }
        }
        sync_parents(files, others.iter().map(|(_, copy)| *copy))?;
        if files.exists(last)? {
            copy_whole(files, last, last_copy, &part_of(last_copy))?;
        }
    }
    // An earlier try may have made the copies and died before this.
    sync_parents(files, kept.iter().map(|(_, copy)| *copy))
}

/// Removes the old set, once the guard is in place.
pub(super) fn leave(files: &dyn Files, plan: &InstallPlan, guards: &Guards) -> Result<()> {
    let leaving: Vec<&Retired> = retired(plan).filter(|old| !guards.contain(&old.path)).collect();
    leaving.iter().try_for_each(|old| files.remove(&old.path))?;
    sync_leaving(files, leaving)
}

/// Makes a copy that exists completely or not at all.
fn copy_whole(files: &dyn Files, from: &Path, to: &Path, by_way_of: &Path) -> Result<()> {
    files.copy(from, by_way_of)?;
    files.rename(by_way_of, to)
}

fn part_of(path: &Path) -> PathBuf {
    path.with_file_name(format!("{}.part", file_name(path)))
}

/// Puts copies of the new set in place, without the file that completes it. The guard stays until that file
/// follows.
pub(super) fn come(files: &dyn Files, plan: &InstallPlan, innodb_is_staged: bool) -> Result<()> {
    let new: Vec<&Placed> = placed(plan).collect();
    let Some((last, others)) = new.split_last() else {
        return if innodb_is_staged { sweep(files, plan, Set::Second) } else { Ok(()) };
    };
    if files.exists(&last.staged)? {
        sweep(files, plan, Set::Second)?;
        for new in others {
            copy_whole(files, &new.staged, &new.target, &copy_place(&new.staged)?)?;
        }
    }
    sync_coming(files, others.iter().copied())
}

/// Renames the file that completes the new set over the guard.
pub(super) fn complete(files: &dyn Files, plan: &InstallPlan) -> Result<()> {
    let Some(last) = placed(plan).next_back() else { return Ok(()) };
    if files.exists(&last.staged)? {
        files.rename(&last.staged, &last.target)?;
    }
    sync_coming(files, [last])
}

/// The directory in which a copy is made before it is renamed into place: `copy/` beside the directory of the
/// staged file.
fn copy_place(staged: &Path) -> Result<PathBuf> {
    let root = staged.parent().and_then(Path::parent);
    let root = root.context("a staged file is outside every staging root")?;
    Ok(working_directory(root, "copy").join(file_name(staged)))
}
