//! The point of no return.
//!
//! Before `install.json` is durable nothing of the old datadir was touched, and the transfer can be thrown away. From
//! then on the only way is forward (or [`super::rollback`]): [`finish_interrupted`] at the next start of the program
//! does what is left. The record is renamed to `installed.json` when every file is durably in place, so its name says
//! which of the two it is. Why each step may be repeated, whatever ran in between: [`super::forward`].
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::files::Files;
use super::forward::{clean_up, first_changed, has_begun, roll_forward, write_record};
use super::kept;
use super::names::{IN_PLACE, INSTALL, INSTALLED, RELEASED, file_name, own_directory};
use super::plan::{InstallPlan, Keep, Phase, Purpose, VERSION};
use super::rollback;
use crate::disk::filesystem::FilesystemId;
use crate::failure::{Failure, Kind};

/// What a finished roll-forward brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The new state, or the old one back.
    pub purpose: Purpose,
    /// `uuid:seqno` of the new state; of a rollback: of the state that was dropped.
    pub position: String,
}

/// Puts the staged files in place. Call when everything is verified and synced ([`super::staging::Staging::sync_all`]).
pub fn install(files: &dyn Files, plan: &InstallPlan) -> Result<Finished> {
    if pending(files, &plan.datadir)?.is_some() {
        bail!(Failure::new(Kind::Disk, "an interrupted install must be finished before the next one"));
    }
    if files.exists(&own_directory(&plan.datadir).join(RELEASED))? {
        bail!(Failure::new(Kind::Disk, "an earlier install's files are still being deleted"));
    }
    check(files, plan)?;
    let mut plan = plan.clone();
    // The point of no return.
    write_record(files, &plan)?;
    roll_forward(files, &mut plan)?;
    finish(files, &plan)
}

/// Finishes what an earlier run of the program began: an install, a rollback, or the deletion of what was kept.
/// Call at every start, before anything looks at the datadir. `datadir` is the same text in all calls (canonical):
/// a record made for another one is refused.
pub fn finish_interrupted(files: &dyn Files, datadir: &Path) -> Result<Option<Finished>> {
    kept::finish_release(files, datadir)?;
    let Some(mut plan) = pending(files, datadir)? else { return Ok(None) };
    if plan.phase == Phase::Aside && !still_holds(files, &plan)? {
        return Ok(None);
    }
    roll_forward(files, &mut plan)?;
    finish(files, &plan).map(Some)
}

/// Before its first file leaves, a plan does not keep a server from running on what is there. When one wrote to a file that
/// should stay, or that is patched, the plan is given up.
fn still_holds(files: &dyn Files, plan: &InstallPlan) -> Result<bool> {
    let begun = has_begun(files, plan)?;
    let left: BTreeSet<&Path> = plan.displaced.iter().filter(|_| begun).map(|d| d.path.as_path()).collect();
    let there = plan.staying.iter().filter(|was| !left.contains(was.path.as_path()));
    let Some(changed) = first_changed(files, there)? else { return Ok(true) };
    let own = own_directory(&plan.datadir);
    // A rollback can be given up as long as what it would undo is on record.
    let gives_up = plan.purpose == Purpose::Install || files.exists(&own.join(INSTALLED))?;
    if begun || !gives_up {
        let text = format!("{} was written to since {:?} began", changed.display(), plan.purpose);
        let hint = "`rejoin rollback` brings the old state back where it was kept";
        bail!(Failure::new(Kind::Disk, text).hint(hint));
    }
    tracing::warn!(
        "a server wrote to {} since {:?} began, before anything was moved: what is there stays",
        changed.display(),
        plan.purpose
    );
    files.remove(&own.join(INSTALL))?;
    files.sync_directory(&own)?;
    Ok(false)
}

/// The plan that was begun and is not finished.
pub fn pending(files: &dyn Files, datadir: &Path) -> Result<Option<InstallPlan>> {
    read_record(files, datadir, INSTALL)
}

/// The last finished install, as long as its record is there.
pub fn installed(files: &dyn Files, datadir: &Path) -> Result<Option<InstallPlan>> {
    read_record(files, datadir, INSTALLED)
}

pub(super) fn read_record(files: &dyn Files, datadir: &Path, name: &str) -> Result<Option<InstallPlan>> {
    let path = own_directory(datadir).join(name);
    let Some(text) = files.read(&path)? else { return Ok(None) };
    let plan: InstallPlan =
        serde_json::from_slice(&text).with_context(|| format!("{} is not readable", path.display()))?;
    let refuse = |why: String| Err(Failure::new(Kind::Disk, why).into());
    if plan.version != VERSION {
        return refuse(format!("{} has version {}, this program {VERSION}", path.display(), plan.version));
    }
    if plan.datadir != datadir {
        let text = format!("{} was made for {}", path.display(), plan.datadir.display());
        let hint = "if this datadir is a copy or was moved, remove its .rejoin directory";
        return Err(Failure::new(Kind::Disk, text).hint(hint).into());
    }
    Ok(Some(plan))
}

pub(super) fn finish(files: &dyn Files, plan: &InstallPlan) -> Result<Finished> {
    match plan.purpose {
        Purpose::Install => finish_install(files, plan)?,
        Purpose::Rollback => rollback::finish_rollback(files, plan)?,
    }
    Ok(Finished { purpose: plan.purpose, position: plan.position.clone() })
}

fn finish_install(files: &dyn Files, plan: &InstallPlan) -> Result<()> {
    let own = own_directory(&plan.datadir);
    clean_up(files, plan)?;
    // Before the rename: while install.json is there, the marker adds nothing; after it, it would be wrong.
    files.remove(&own.join(IN_PLACE))?;
    files.sync_directory(&own)?;
    files.rename(&own.join(INSTALL), &own.join(INSTALLED))?;
    files.sync_directory(&own)
}

/// Everything that could make a rename fail half-way is looked at while nothing was touched.
fn check(files: &dyn Files, plan: &InstallPlan) -> Result<()> {
    if plan.purpose != Purpose::Install || plan.phase != Phase::Aside {
        bail!(Failure::new(Kind::Disk, "this plan was begun already"));
    }
    let marker = files.exists(&own_directory(&plan.datadir).join(IN_PLACE))?;
    if marker && plan.displaced.iter().any(|d| d.to.is_some()) {
        bail!(Failure::new(Kind::Disk, "the old files were replaced in place and cannot be kept"));
    }
    if plan.keep == Keep::InPlace && !marker {
        bail!(Failure::new(Kind::Disk, "the plan is in place, but the transfer was not"));
    }
    if let Some(changed) = first_changed(files, &plan.staying)? {
        let text = format!("{} changed since it was compared", changed.display());
        bail!(Failure::new(Kind::Disk, text).hint("does another server run on this datadir?"));
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
    let mut filesystems = Filesystems { files, of: BTreeMap::new() };
    let leaving: BTreeSet<&Path> = plan.displaced.iter().map(|d| d.path.as_path()).collect();
    for placed in &plan.placed {
        if !files.exists(&placed.staged)? {
            bail!(Failure::new(Kind::Disk, format!("{} is not staged", placed.target.display())));
        }
        filesystems.check(&placed.staged, &placed.target)?;
        if files.exists(&placed.target)?
            && !leaving.contains(placed.target.as_path())
            && !sweeps(plan, &placed.target)
        {
            let text = format!("{} exists and is not this table's earlier copy", placed.target.display());
            bail!(Failure::new(Kind::Refused, text).hint("move it away, then start this node again"));
        }
    }
    for old in &plan.displaced {
        if let Some(to) = &old.to {
            filesystems.check(&old.path, to)?;
        }
    }
    Ok(())
}

fn sweeps(plan: &InstallPlan, path: &Path) -> bool {
    plan.sweep.iter().any(|s| path.parent() == Some(&s.directory) && s.pattern.matches(file_name(path)))
}

/// Filesystems of directories, each looked at once.
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
