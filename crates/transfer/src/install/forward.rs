//! Carries out a plan by a roll-forward that can be stopped before any operation and started again.
//!
//! # What may happen between two tries
//!
//! A server may be started on the half-installed datadir: under systemd `mariadbd --wsrep-recover` runs
//! before every start. The guards ([`crate::install::guard`]) make it refuse. Without them the server would
//! do the following (tested with 10.11.19 and 11.8.9):
//!
//! | InnoDB's system set | the start | consequence |
//! |---|---|---|
//! | all absent | exits 0; creates new `ibdata1`, `ib_logfile0`, `undo*`, `ibtmp1` | a database whose tables do not exist in the engine |
//! | redo present, first system file absent | exits 1; touches no InnoDB file | |
//! | undo only, `innodb_undo_tablespaces=0` (the default) | exits 0 and *deletes* the undo files | |
//! | system tablespace without redo | exits 1; touches no InnoDB file | |
//! | all present | recovers: writes to the set and to the tables | must all be of one state |
//!
//! | the second engine's set (Aria's) | consequence, whatever InnoDB does (also when the start exits 1) |
//! |---|---|
//! | all absent | created anew; `mysql/plugin.MAI` and `mysql/servers.MAI`, if present, are marked by it |
//! | logs without control file | created anew, the *logs overwritten in place* |
//! | control file without logs | the control file changed, another log created |
//! | all present | recovers: writes to the set and to that engine's tables |
//!
//! # The order, and why
//!
//! Old files are retired ([`Phase::Aside`]). The second engine's set is *copied* to the previous state, with the
//! tables that a server opens at every start. Then both guards are set, one right after the other: the old `ibdata1` first gets its
//! second name in `old/`, and is then replaced by the guard in one rename. Until the first guard is in place,
//! the old state is complete and a server may use it. Then everything else is retired: undo, redo, the
//! second engine's set, tables; and the bytes that patches will replace are saved to the previous state. Then the phase is
//! recorded: from now on a file at an old path is not an old file.
//!
//! New files are installed ([`Phase::Placing`]): tables; patches to tables that stayed (`apply_patches`);
//! copies of the second engine's set. InnoDB files that a server created are removed. Then follow redo, undo and the
//! further files of the system tablespace. Finally the guards are replaced by the files that complete the new
//! state, one right after the other: the second engine's control file, then the first file of the system tablespace.
//!
//! Two renames are two instants. After the first of them a server's start exits with 1, but the second engine
//! recovers before that, as at any start, on its own set, which is complete at both instants. If there was none (an
//! empty datadir), the server creates one, which is removed later.
//!
//! *Ours or foreign?* While a staged file still exists, the file at its target is foreign, and renaming
//! replaces it. Once the staged file is gone, the target is ours, possibly already used by a server that was
//! entitled to use it. This requires that no server destroys an installed target: the guards ensure it, and
//! the second engine's staged files stay until the control file is installed. Foreign files may be removed only while the
//! file that completes a set is still staged; later a file such as `aria_log.00000002` may belong to the new
//! state.
//!
//! # Power loss
//!
//! A rename is atomic, but not durable before its directories are synced, and renames may become durable in
//! another order. So each class is a step that ends with the sync of all directories that it can have
//! changed, including those changed by an earlier try whose process died before the sync. The syncs prevent:
//! the old system set being back beside new tables (it would recover its redo into them); an old file being
//! replaced before it was saved; the second engine's control file being in place before its logs; `ibdata1` before redo
//! and undo; the record of a finished install before the files. Directories are created and synced before
//! files are renamed into them.
use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::flavor::class::Set;
use crate::install::files::Files;
use crate::install::guard::{Guards, lift};
use crate::install::moves::{sweep, sync_coming, sync_leaving, sync_parents};
use crate::install::names::{directory_of, own_directory, waiting_room, working_directory};
use crate::install::plan::{Class, InstallPlan, Keep, Patched, Phase, Placed, Purpose, Retired, Unchanged};
use crate::install::record::write_record;
use crate::install::second_engine;

/// Carries out the rest of a plan that is recorded in `install.json`, without removing that record.
pub(super) fn roll_forward(files: &dyn Files, plan: &mut InstallPlan) -> Result<()> {
    make_root_directories(files, plan)?;
    if plan.phase == Phase::Aside {
        second_engine::adopt_new_logs(files, plan)?;
        move_old_aside(files, plan)?;
        plan.phase = Phase::Placing;
        let mut there = Vec::new();
        for kept in std::mem::take(&mut plan.kept) {
            // A file that the finder saw may have been gone before we came: then nothing is put back.
            if files.exists(&kept.copy)? {
                there.push(kept);
            }
        }
        plan.kept = there;
        let left = plan.retired.iter().map(|d| &d.path);
        let goes: HashSet<&PathBuf> = left.chain(plan.patched.iter().map(|p| &p.table)).collect();
        plan.unchanged.retain(|s| !goes.contains(&s.path));
        write_record(files, plan)?;
    }
    place_new(files, plan)
}

/// Returns the first of these files that has changed.
pub(super) fn first_changed<'s>(
    files: &dyn Files,
    unchanged: impl IntoIterator<Item = &'s Unchanged>,
) -> Result<Option<&'s Path>> {
    for was in unchanged {
        if !was.is_as_it_was(files.state(&was.path)?) {
            return Ok(Some(&was.path));
        }
    }
    Ok(None)
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

fn move_old_aside(files: &dyn Files, plan: &InstallPlan) -> Result<()> {
    let guards = Guards::of(plan);
    second_engine::keep(files, plan)?;
    guards.set(files, plan)?;
    let of_classes = |wanted: fn(Class) -> bool| {
        let steps = plan.retired.chunk_by(|a, b| a.class == b.class);
        steps.filter(move |step| wanted(step[0].class))
    };
    for step in of_classes(|class| class.set() == Some(Set::Innodb)) {
        leave(files, step, &guards)?;
    }
    second_engine::leave(files, plan, &guards)?;
    for step in of_classes(|class| class == Class::Table) {
        leave(files, step, &guards)?;
    }
    keep_ways_back(files, plan)?;
    for directory in &plan.emptied {
        files.remove_directory(directory)?;
    }
    sync_parents(files, plan.emptied.iter().map(PathBuf::as_path))
}

fn leave(files: &dyn Files, step: &[Retired], guards: &Guards) -> Result<()> {
    for old in step.iter().filter(|old| !guards.contain(&old.path)) {
        match &old.to {
            None => files.remove(&old.path)?,
            // It is already saved: a server has since created the file at the path.
            Some(kept) if files.exists(kept)? => {}
            Some(kept) => files.rename_if_there(&old.path, kept)?,
        }
    }
    sync_leaving(files, step)
}

/// The undo patches were made together with the patches, so they only have to be moved.
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
    let guards = Guards::of(plan);
    let innodb_is_staged = innodb_is_staged(files, plan)?;
    second_engine::come(files, plan, innodb_is_staged)?;
    if innodb_is_staged {
        sweep(files, plan, Set::Innodb)?;
    }
    let steps =
        plan.placed.chunk_by(|a, b| a.class == b.class).filter(|s| s[0].class.set() == Some(Set::Innodb));
    let (last, others): (Vec<_>, Vec<_>) = steps.partition(|s| s[0].class == Class::System(0));
    others.into_iter().try_for_each(|step| come(files, step))?;
    // The guards are replaced one right after the other: the set behind them is complete.
    second_engine::complete(files, plan)?;
    guards.second.iter().try_for_each(|path| lift(files, path))?;
    last.into_iter().try_for_each(|step| come(files, step))?;
    guards.system.iter().try_for_each(|path| lift(files, path))
}

/// Patches tables in place. No server can use them before InnoDB's set is installed, so a patch that still
/// exists can be applied again. The result of a patch is recorded before it is applied, so that a rollback
/// can detect later writes of a server.
fn apply_patches(files: &dyn Files, plan: &mut InstallPlan) -> Result<()> {
    let installs = plan.purpose == Purpose::Install;
    let noted: HashSet<&Path> = plan.unchanged.iter().map(|s| s.path.as_path()).collect();
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
            plan.unchanged.push(Unchanged { path, size, changed });
        }
        write_record(files, plan)?;
    }
    plan.patched.iter().try_for_each(|p| files.remove(&p.patch))?;
    sync_parents(files, plan.patched.iter().map(|p| p.patch.as_path()))
}

/// Whether the file that completes InnoDB's set is not yet in place. Until then no server can have used the
/// new set.
fn innodb_is_staged(files: &dyn Files, plan: &InstallPlan) -> Result<bool> {
    let last = plan.placed.iter().rfind(|p| p.class.set() == Some(Set::Innodb));
    last.map_or(Ok(false), |last| files.exists(&last.staged))
}

fn come(files: &dyn Files, step: &[Placed]) -> Result<()> {
    for new in step {
        files.rename_if_there(&new.staged, &new.target)?;
    }
    sync_coming(files, step)
}

/// Removes the staged files that were installed by copying, and the working directories.
pub(super) fn clean_up(files: &dyn Files, plan: &InstallPlan) -> Result<()> {
    for placed in second_engine::placed(plan) {
        files.remove(&placed.staged)?;
    }
    Guards::of(plan).clear_parts(files)?;
    for root in &plan.roots {
        crate::install::roots::clear(files, &working_directory(root, "copy"))?;
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
