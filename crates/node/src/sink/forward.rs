//! Carries out a plan: a roll-forward that may be stopped before any operation and started again.
//!
//! # What may happen between two tries
//!
//! A server may have been started on the half-installed datadir: under systemd `mariadbd --wsrep-recover` runs before
//! every start. What it does was tried with 10.11.19:
//!
//! | InnoDB's system set | the start | consequence |
//! |---|---|---|
//! | all absent | exits 0; makes fresh `ibdata1`, `ib_logfile0`, `undo*`, `ibtmp1` | foreign, must be replaced |
//! | redo there, first system file absent | exits 1; touches nothing of InnoDB's | the redo log guards the set |
//! | undo only, `innodb_undo_tablespaces=0` (the default) | exits 0 and *deletes* the undo files | never be there |
//! | system tablespace without redo | exits 1; touches nothing of InnoDB's | safe |
//! | all there | recovers: writes to the set and to the tables | must be one state only |
//!
//! | Aria's set | consequence, whatever InnoDB does (also when the start exits 1) |
//! |---|---|
//! | all absent | made afresh; `mysql/plugin.MAI` and `mysql/servers.MAI`, if there, are marked by it |
//! | logs without control file | made afresh, the *logs overwritten in place* |
//! | control file without logs | the control file changed, a further log made |
//! | a file that is too short for a control file | exits 1; touches nothing of Aria's |
//! | all there | recovers: writes to the set and to Aria tables |
//!
//! # The order, and why
//!
//! Old files leave ([`Phase::Aside`]): the first system file, the other ones, undo, redo last: from the first to the last
//! the redo log guards what is not yet kept. Then Aria's set with the Aria tables of `mysql`: *copied* to where they are
//! kept, the control file's copy last, and only then removed, behind a guard: no part of it may be seen by a server as the
//! only copy, or beside parts of another life. Then tables, and what the patches of others will replace is put where it is
//! kept. Then the phase is written down: from now on what lies at an old path is not old.
//!
//! New files come ([`Phase::Placing`]): tables; patches, applied to tables that stayed (`apply_patches`); Aria's set, again
//! by copies, the control file last and by renaming; then whatever a server made of InnoDB's is swept; redo first, as the guard, then undo, the system tablespace,
//! its first file last.
//!
//! *Ours or foreign?* While a staged file is still there, whatever lies at its target is foreign: renaming
//! replaces it. Once it is gone, the target is ours, perhaps used since by a server that had every right to. For this,
//! no server may destroy a target that was renamed to: the redo log guards InnoDB's files until the set is complete, and
//! Aria's staged files stay until the control file is placed. Sweeping is allowed only while the file that makes
//! a set complete is still staged; later a file such as `aria_log.00000002` may belong to us.
//!
//! # Power loss
//!
//! A rename is atomic, but not durable before its directories are synced, and renames may become durable in another order.
//! So each class is a step that ends with the sync of all directories it can have changed, also those changed by an
//! earlier try whose process died before the sync. What each sync prevents:
//! old system set back with new tables in place (it would recover its redo into them); an old file replaced before it
//! was kept; Aria's control file in place before its logs; `ibdata1` before redo and undo; the record of a finished
//! install before the files. Directories are made and synced before anything is renamed into them.
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::files::Files;
use super::names::{
    INSTALL, Pattern, directory_of, file_name, own_directory, waiting_room, working_directory,
};
use super::plan::{Class, Displaced, InstallPlan, Keep, Kept, Patched, Phase, Placed, Purpose, Staying};

/// Stands in for Aria's control file while its logs are removed: no server starts with it, nor touches anything of Aria's. Without
/// it a server would adapt the old control file to logs that are gone, and a power loss could bring these back.
pub(super) const ARIA_GUARD: &[u8] = b"rejoin has not finished an install\n";

/// Does what is left to do of a plan that is written down in `install.json`, except removing that record.
pub(super) fn roll_forward(files: &dyn Files, plan: &mut InstallPlan) -> Result<()> {
    make_root_directories(files, plan)?;
    if plan.phase == Phase::Aside {
        adopt_new_aria_logs(files, plan)?;
        move_old_aside(files, plan)?;
        plan.phase = Phase::Placing;
        let mut there = Vec::with_capacity(plan.kept.len());
        for kept in &plan.kept {
            // A file that the finder saw may have been gone before we came: then nothing is put back.
            if files.exists(&kept.copy)? {
                there.push(kept.clone());
            }
        }
        plan.kept = there;
        let left = plan.displaced.iter().map(|d| &d.path);
        let goes: BTreeSet<&PathBuf> = left.chain(plan.patched.iter().map(|p| &p.table)).collect();
        plan.staying.retain(|s| !goes.contains(&s.path));
        write_record(files, plan)?;
    }
    place_new(files, plan)
}

/// The first of these files that is not as it was.
pub(super) fn first_changed<'s>(
    files: &dyn Files,
    staying: impl IntoIterator<Item = &'s Staying>,
) -> Result<Option<&'s Path>> {
    for was in staying {
        if !was.is_as_it_was(files.state(&was.path)?) {
            return Ok(Some(&was.path));
        }
    }
    Ok(None)
}

/// Whether anything may have left, before the phase says so. A server may have made the system's files anew since, but nothing
/// else.
pub(super) fn has_begun(files: &dyn Files, plan: &InstallPlan) -> Result<bool> {
    for old in &plan.displaced {
        let kept = old.to.as_deref().map_or(Ok(false), |kept| files.exists(kept))?;
        if kept || !files.exists(&old.path)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Writes the plan to `install.json`, durably.
pub(super) fn write_record(files: &dyn Files, plan: &InstallPlan) -> Result<()> {
    let text = serde_json::to_vec_pretty(plan).context("the plan names a path that is not text")?;
    files.write_atomically(&own_directory(&plan.datadir).join(INSTALL), &text)
}

fn make_root_directories(files: &dyn Files, plan: &InstallPlan) -> Result<()> {
    for root in &plan.roots {
        files.make_directory(root)?;
        files.make_directory(&waiting_room(root))?;
        for name in ["old", "discard", "copy"] {
            files.make_directory(&directory_of(root, name))?;
        }
        files.sync_directory(root)?;
        files.sync_directory(&waiting_room(root))?;
        sync_parents(files, [root.as_path()])?;
    }
    Ok(())
}

fn sync_parents<'p>(files: &dyn Files, paths: impl IntoIterator<Item = &'p Path>) -> Result<()> {
    let directories: BTreeSet<&Path> = paths.into_iter().filter_map(Path::parent).collect();
    directories.into_iter().try_for_each(|d| files.sync_directory(d))
}

/// A server that ran in the old state after the plan was made may have begun a new Aria log: it belongs to the old set.
pub(super) fn adopt_new_aria_logs(files: &dyn Files, plan: &mut InstallPlan) -> Result<()> {
    let keeps = plan.displaced.iter().any(|d| d.class.is_aria() && d.to.is_some());
    if plan.purpose != Purpose::Install || !keeps || aria_is_kept(files, &plan.displaced)? {
        return Ok(());
    }
    let known: BTreeSet<PathBuf> = plan.displaced.iter().map(|d| d.path.clone()).collect();
    let mut found = Vec::new();
    for sweep in plan.sweep.iter().filter(|s| s.pattern == Pattern::Aria) {
        let here = files.list(&sweep.directory)?;
        found.extend(here.into_iter().filter(|p| Pattern::Aria.matches(file_name(p)) && !known.contains(p)));
    }
    if found.is_empty() {
        return Ok(());
    }
    // They lie beside the control file, so they are kept beside its copy.
    let of_control = |d: &&Displaced| d.class == Class::AriaControl;
    let beside = plan.displaced.iter().find(of_control).and_then(|d| d.to.as_deref()).and_then(Path::parent);
    let Some(beside) = beside.map(Path::to_path_buf) else { return Ok(()) };
    for path in found {
        let copy = beside.join(format!("{}-{}", plan.made, file_name(&path)));
        plan.displaced.push(Displaced { path: path.clone(), to: Some(copy.clone()), class: Class::AriaLog });
        plan.kept.push(Kept { path, copy, class: Class::AriaLog });
    }
    super::plan::sort_leaving(&mut plan.displaced);
    write_record(files, plan)
}

fn move_old_aside(files: &dyn Files, plan: &InstallPlan) -> Result<()> {
    for step in plan.displaced.chunk_by(|a, b| a.class == b.class).filter(|s| s[0].class.is_innodb()) {
        leave(files, step)?;
    }
    let aria: Vec<&Displaced> = plan.displaced.iter().filter(|d| d.class.is_aria()).collect();
    leave_aria(files, &aria)?;
    for step in plan.displaced.chunk_by(|a, b| a.class == b.class).filter(|s| s[0].class == Class::Table) {
        leave(files, step)?;
    }
    keep_ways_back(files, plan)?;
    for directory in &plan.emptied {
        files.remove_directory(directory)?;
    }
    sync_parents(files, plan.emptied.iter().map(PathBuf::as_path))
}

fn leave(files: &dyn Files, step: &[Displaced]) -> Result<()> {
    for old in step {
        match &old.to {
            None => files.remove(&old.path)?,
            // Kept already: what is at the path was made by a server since.
            Some(kept) if files.exists(kept)? => {}
            Some(kept) if files.exists(&old.path)? => files.rename(&old.path, kept)?,
            Some(_) => {}
        }
    }
    sync_leaving(files, step)
}

/// They were made when the patches were: only their place changes.
fn keep_ways_back(files: &dyn Files, plan: &InstallPlan) -> Result<()> {
    let ways = || plan.patched.iter().filter_map(|p| Some((p.back.as_deref()?, p.kept.as_deref()?)));
    for (back, kept) in ways() {
        if !files.exists(kept)? {
            files.rename(back, kept)?;
        }
    }
    sync_parents(files, ways().map(|(_, kept)| kept))?;
    sync_parents(files, ways().map(|(back, _)| back))
}

fn sync_leaving<'d>(files: &dyn Files, step: impl IntoIterator<Item = &'d Displaced> + Clone) -> Result<()> {
    // First where they are kept: on a filesystem that tears a rename apart the file is then in both, not in neither.
    sync_parents(files, step.clone().into_iter().filter_map(|d| d.to.as_deref()))?;
    sync_parents(files, step.into_iter().map(|d| d.path.as_path()))
}

/// Whether the old Aria set is kept as a whole: its last file's copy is there.
pub(super) fn aria_is_kept(files: &dyn Files, displaced: &[Displaced]) -> Result<bool> {
    let last = displaced.iter().filter(|d| d.class.is_aria()).filter_map(|d| d.to.as_deref()).next_back();
    last.map_or(Ok(false), |copy| files.exists(copy))
}

fn leave_aria(files: &dyn Files, aria: &[&Displaced]) -> Result<()> {
    let kept: Vec<(&Path, &Path)> =
        aria.iter().filter_map(|d| Some((d.path.as_path(), d.to.as_deref()?))).collect();
    if let Some(((last, last_copy), others)) = kept.split_last()
        && !files.exists(last_copy)?
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
    // Also when an earlier try made the copies and died before this.
    sync_parents(files, kept.iter().map(|(_, copy)| *copy))?;
    let (control, others): (Vec<&Displaced>, Vec<&Displaced>) =
        aria.iter().partition(|d| d.class == Class::AriaControl);
    for old in &control {
        if files.exists(&old.path)? {
            files.write_atomically(&old.path, ARIA_GUARD)?;
        }
    }
    for step in [others, control] {
        step.iter().try_for_each(|old| files.remove(&old.path))?;
        sync_leaving(files, step)?;
    }
    Ok(())
}

/// A copy that is there whole or not at all.
fn copy_whole(files: &dyn Files, from: &Path, to: &Path, by_way_of: &Path) -> Result<()> {
    files.copy(from, by_way_of)?;
    files.rename(by_way_of, to)
}

fn part_of(path: &Path) -> PathBuf {
    path.with_file_name(format!("{}.part", file_name(path)))
}

fn place_new(files: &dyn Files, plan: &mut InstallPlan) -> Result<()> {
    for directory in &plan.directories {
        files.make_directory(directory)?;
    }
    sync_parents(files, plan.directories.iter().map(PathBuf::as_path))?;
    for step in plan.placed.chunk_by(|a, b| a.class == b.class).filter(|s| s[0].class == Class::Table) {
        come(files, step)?;
    }
    apply_patches(files, plan)?;
    let plan = &*plan;
    let steps = || plan.placed.chunk_by(|a, b| a.class == b.class);
    let innodb_is_staged = innodb_is_staged(files, plan)?;
    come_aria(files, plan, innodb_is_staged)?;
    if innodb_is_staged {
        sweep(files, plan, |pattern| *pattern != Pattern::Aria)?;
    }
    for step in steps().filter(|s| s[0].class.is_innodb()) {
        come(files, step)?;
    }
    Ok(())
}

/// Changes tables where they lie. No server can use them before InnoDB's set comes, so that a patch that is still there can be
/// applied again; and what an install makes of a table is noted first, so that a rollback knows whether a server wrote to it.
fn apply_patches(files: &dyn Files, plan: &mut InstallPlan) -> Result<()> {
    let installs = plan.purpose == Purpose::Install;
    let noted: BTreeSet<&Path> = plan.staying.iter().map(|s| s.path.as_path()).collect();
    let is_noted = |patched: &&Patched| installs && noted.contains(patched.table.as_path());
    let todo: Vec<Patched> = plan.patched.iter().filter(|p| !is_noted(p)).cloned().collect();
    for patched in &todo {
        if files.exists(&patched.patch)? {
            files.apply_patch(&patched.patch, &patched.table)?;
        }
    }
    if installs && !todo.is_empty() {
        for Patched { table: path, .. } in todo {
            let (size, changed) =
                files.state(&path)?.with_context(|| format!("{} is gone", path.display()))?;
            plan.staying.push(Staying { path, size, changed });
        }
        write_record(files, plan)?;
    }
    plan.patched.iter().try_for_each(|p| files.remove(&p.patch))?;
    sync_parents(files, plan.patched.iter().map(|p| p.patch.as_path()))
}

/// Whether the file that completes InnoDB's set is not yet in place. Until then no server can have used the new set.
fn innodb_is_staged(files: &dyn Files, plan: &InstallPlan) -> Result<bool> {
    let last = plan.placed.iter().rfind(|p| p.class.is_innodb());
    last.map_or(Ok(false), |last| files.exists(&last.staged))
}

fn come(files: &dyn Files, step: &[Placed]) -> Result<()> {
    for new in step {
        if files.exists(&new.staged)? {
            files.rename(&new.staged, &new.target)?;
        }
    }
    sync_coming(files, step)
}

fn sync_coming<'p>(files: &dyn Files, step: impl IntoIterator<Item = &'p Placed> + Clone) -> Result<()> {
    sync_parents(files, step.clone().into_iter().map(|p| p.target.as_path()))?;
    sync_parents(files, step.into_iter().map(|p| p.staged.as_path()))
}

fn come_aria(files: &dyn Files, plan: &InstallPlan, innodb_is_staged: bool) -> Result<()> {
    let aria: Vec<&Placed> = plan.placed.iter().filter(|p| p.class.is_aria()).collect();
    let Some((last, others)) = aria.split_last() else {
        return if innodb_is_staged { sweep(files, plan, |p| *p == Pattern::Aria) } else { Ok(()) };
    };
    if files.exists(&last.staged)? {
        sweep(files, plan, |pattern| *pattern == Pattern::Aria)?;
        for new in others {
            copy_whole(files, &new.staged, &new.target, &copy_place(&new.staged)?)?;
        }
        sync_coming(files, others.iter().copied())?;
        files.rename(&last.staged, &last.target)?;
    }
    sync_coming(files, aria.iter().copied())
}

/// Where a copy is made before it is renamed into place: `copy/` beside the directory of the staged file.
fn copy_place(staged: &Path) -> Result<PathBuf> {
    let root = staged.parent().and_then(Path::parent);
    let root = root.context("a staged file outside a staging root")?;
    Ok(working_directory(root, "copy").join(file_name(staged)))
}

fn sweep(files: &dyn Files, plan: &InstallPlan, wanted: impl Fn(&Pattern) -> bool) -> Result<()> {
    let sweeps = || plan.sweep.iter().filter(|s| wanted(&s.pattern));
    for directory in sweeps().map(|s| s.directory.as_path()).collect::<BTreeSet<_>>() {
        for path in files.list(directory)? {
            let of_server = sweeps().any(|s| s.directory == directory && s.pattern.matches(file_name(&path)));
            if of_server && !is_ours(files, plan, &path)? {
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

/// Removes the staged files that were placed by copies, and the working directories.
pub(super) fn clean_up(files: &dyn Files, plan: &InstallPlan) -> Result<()> {
    for placed in plan.placed.iter().filter(|p| p.class.is_aria()) {
        files.remove(&placed.staged)?;
    }
    for root in &plan.roots {
        super::roots::clear(files, &working_directory(root, "copy"))?;
        for name in ["discard", "stage", "old"] {
            files.remove_directory(&directory_of(root, name))?;
        }
        if waiting_room(root) != *root {
            files.remove_directory(&waiting_room(root))?;
        }
        if plan.keep != Keep::Old && *root != own_directory(&plan.datadir) {
            files.remove_directory(root)?;
        }
    }
    Ok(())
}
