//! The point of no return.
//!
//! Before `install.json` is durable the old datadir is untouched, and the transfer can be discarded. From
//! then on the install can only go forward (or be undone by [`crate::install::rollback`]):
//! [`finish_interrupted`] completes it at the next start of the program. The record is renamed to
//! `installed.json` when every file is durably in place, so its name tells the two states apart.
//! [`crate::install::forward`] explains why each step may be repeated, whatever ran in between.
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::disk::filesystem::FilesystemId;
use crate::failure::{Failure, Kind};
pub use crate::install::carry_out::Finished;
use crate::install::carry_out::carry_out;
use crate::install::dry_run;
use crate::install::files::Files;
use crate::install::forward::first_changed;
use crate::install::guard::Guards;
use crate::install::kept;
use crate::install::names::{IN_PLACE, INSTALL, INSTALLED, RELEASED, file_name, own_directory};
use crate::install::plan::{InstallPlan, Keep, Phase, Purpose};
use crate::install::record::{pending, write_record};

/// Puts the staged files in place. Call when everything is verified and synced ([`crate::receive::staging::Staging::sync_all`]).
pub fn install(files: &dyn Files, plan: impl Into<InstallPlan>) -> Result<Finished> {
    let mut plan = plan.into();
    if pending(files, &plan.datadir)?.is_some() {
        bail!(Failure::new(Kind::Disk, "an interrupted install must be finished before the next one"));
    }
    if files.exists(&own_directory(&plan.datadir).join(RELEASED))? {
        bail!(Failure::new(Kind::Disk, "an earlier install's files are still being deleted"));
    }
    check(files, &plan)?;
    // The point of no return.
    write_record(files, &plan)?;
    carry_out(files, &mut plan)
}

/// Finishes what an earlier run of the program began: an install, a rollback, or the deletion of the previous
/// state. Call it at every start, before anything else reads the datadir. `datadir` must be the same text in
/// all calls (canonical): a record made for another datadir is refused.
pub fn finish_interrupted(files: &dyn Files, datadir: &Path) -> Result<Option<Finished>> {
    kept::finish_release(files, datadir)?;
    let Some(mut plan) = pending(files, datadir)? else { return Ok(None) };
    if plan.phase == Phase::Aside && !still_holds(files, &plan)? {
        return Ok(None);
    }
    carry_out(files, &mut plan).map(Some)
}

/// Until the guards are in place, a plan does not keep a server from running on the old files. If a server
/// wrote to a file that should stay or be patched, the plan is abandoned.
fn still_holds(files: &dyn Files, plan: &InstallPlan) -> Result<bool> {
    let guards = Guards::of(plan);
    let begun = guards.stand(files, plan)?;
    let left: HashSet<&Path> = plan.retired.iter().filter(|_| begun).map(|d| d.path.as_path()).collect();
    let there = plan.unchanged.iter().filter(|was| !left.contains(was.path.as_path()));
    let Some(changed) = first_changed(files, there)? else { return Ok(true) };
    let own = own_directory(&plan.datadir);
    // A rollback can be abandoned as long as the install that it would undo is on record.
    let gives_up = plan.purpose == Purpose::Install || files.exists(&own.join(INSTALLED))?;
    if !gives_up || (begun && !guards.take_back(files, plan)?) {
        let text = format!("{} was written to after the {} began", changed.display(), plan.purpose);
        let hint = "`rejoin rollback` restores the previous state if it was kept";
        bail!(Failure::new(Kind::Disk, text).hint(hint));
    }
    tracing::warn!(
        "a server wrote to {} before anything was moved: the {} is abandoned, and the files stay",
        changed.display(),
        plan.purpose
    );
    // Second names and copies of files that are still in place.
    for kept in plan.retired.iter().filter_map(|d| d.to.as_deref()) {
        files.remove(kept)?;
    }
    guards.clear_parts(files)?;
    files.remove(&own.join(INSTALL))?;
    files.sync_directory(&own)?;
    Ok(false)
}

/// Checks everything that could stop an install in the middle, while nothing has been touched.
///
/// Returns warnings about what will be left behind.
///
/// # Errors
/// The plan is refused, or does not match the staged files.
pub fn check(files: &dyn Files, plan: &InstallPlan) -> Result<Vec<String>> {
    if plan.purpose != Purpose::Install || plan.phase != Phase::Aside {
        bail!(Failure::new(Kind::Disk, "this install has already begun"));
    }
    let marker = files.exists(&own_directory(&plan.datadir).join(IN_PLACE))?;
    if marker && plan.retired.iter().any(|d| d.to.is_some()) {
        bail!(Failure::new(
            Kind::Disk,
            "the old files were replaced in place, so the previous state cannot be kept"
        ));
    }
    if plan.keep == Keep::InPlace && !marker {
        bail!(Failure::new(
            Kind::Disk,
            "the plan is for a transfer in place, but this transfer was not in place"
        ));
    }
    let tried = dry_run::dry_run(files, plan)?;
    tried.refused(plan.purpose)?;
    if let Some(changed) = first_changed(files, &plan.unchanged)? {
        let text = format!("{} changed since it was compared", changed.display());
        bail!(Failure::new(Kind::Disk, text).hint("check whether another server runs on this datadir"));
    }
    for patched in &plan.patched {
        for staged in [Some(&patched.patch), patched.back.as_ref()].into_iter().flatten() {
            if !files.exists(staged)? {
                let text =
                    format!("the patch {} of {} is not staged", staged.display(), patched.table.display());
                bail!(Failure::new(Kind::Disk, text));
            }
        }
    }
    if let Some(missing) = tried.missing {
        bail!(Failure::new(Kind::Disk, format!("{} is not staged", missing.display())));
    }
    let mut filesystems = Filesystems { files, of: BTreeMap::new() };
    let leaving: HashSet<&Path> = plan.retired.iter().map(|d| d.path.as_path()).collect();
    let mut absent = BTreeSet::new();
    for directory in &plan.directories {
        if !files.exists(directory)? {
            absent.insert(directory.as_path());
        }
    }
    for placed in &plan.placed {
        filesystems.check(&placed.staged, &placed.target)?;
        // There can be very many, so only those are looked at that can be there.
        let is_absent = placed.target.parent().is_some_and(|directory| absent.contains(directory));
        if !is_absent
            && !leaving.contains(placed.target.as_path())
            && files.exists(&placed.target)?
            && !sweeps(plan, &placed.target)
        {
            let text = format!("{} exists and is not this table's earlier copy", placed.target.display());
            bail!(Failure::new(Kind::Refused, text).hint("move it away, then start this node again"));
        }
    }
    for old in &plan.retired {
        if let Some(to) = &old.to {
            filesystems.check(&old.path, to)?;
        }
    }
    Ok(tried.warnings)
}

fn sweeps(plan: &InstallPlan, path: &Path) -> bool {
    plan.sweep.iter().any(|s| path.parent() == Some(&s.directory) && s.pattern.matches(file_name(path)))
}

/// Filesystems of directories; each is looked up once.
struct Filesystems<'a> {
    files: &'a dyn Files,
    of: BTreeMap<PathBuf, FilesystemId>,
}

impl Filesystems<'_> {
    fn check(&mut self, from: &Path, to: &Path) -> Result<()> {
        if self.of(from)? == self.of(to)? {
            return Ok(());
        }
        let text = format!("{} and {} are not on one filesystem", from.display(), to.display());
        bail!(Failure::new(Kind::Disk, text))
    }

    fn of(&mut self, path: &Path) -> Result<FilesystemId> {
        let directory = path.parent().with_context(|| format!("{} has no directory", path.display()))?;
        if let Some(known) = self.of.get(directory) {
            return Ok(*known);
        }
        let found = self.files.filesystem(directory)?;
        self.of.insert(directory.to_path_buf(), found);
        Ok(found)
    }
}
