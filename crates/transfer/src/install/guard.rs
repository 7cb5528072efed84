//! Guards, which make a server refuse to start on an incomplete datadir.
//!
//! A guard is a short text in place of the first file of the system tablespace, and of the second engine's control
//! file.
//! Before anything else, InnoDB compares the length of the former with `innodb_data_file_path`, even with
//! `innodb_force_recovery=6`, and refuses; Aria, MariaDB's second engine, refuses a file
//! without the header of a control file. Both
//! guards are needed, because a server starts it and then InnoDB, whatever the result of the former. With both
//! guards a start exits with 1 and writes nothing (tested with 10.11.19 and 11.8.9: see
//! `docs/server-contract.md`).
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::flavor::class::Class;
use crate::install::files::Files;
use crate::install::plan::InstallPlan;

/// The content of a guard, for a person who reads it. It is shorter than any control file of Aria (52 bytes),
/// and has no header of one.
pub(super) const GUARD: &[u8] = b"not complete: run 'rejoin finish', then start\n";

/// Whether there is a guard at this path.
pub(super) fn is_guard(files: &dyn Files, path: &Path) -> Result<bool> {
    // Otherwise the file may be a system tablespace, which is not read.
    let short = files.state(path)?.is_some_and(|(size, _)| size == GUARD.len() as u64);
    Ok(short && files.read(path)?.is_some_and(|content| content == GUARD))
}

/// Durably removes the guard at this path, if there is one.
pub(super) fn lift(files: &dyn Files, path: &Path) -> Result<()> {
    if !is_guard(files, path)? {
        return Ok(());
    }
    files.remove(path)?;
    path.parent().map_or(Ok(()), |directory| files.sync_directory(directory))
}

/// The paths of both guards. A set that the plan does not touch has no guard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Guards {
    /// The first file of the system tablespace.
    pub system: Option<PathBuf>,
    /// The second engine's control file.
    pub second: Option<PathBuf>,
}

impl Guards {
    /// The guards of a plan: at the files that complete its new sets, otherwise at those that completed the
    /// old ones.
    pub fn of(plan: &InstallPlan) -> Guards {
        let placed = plan.placed.iter().map(|p| (p.class, &p.target));
        let both: Vec<_> = placed.chain(plan.retired.iter().map(|d| (d.class, &d.path))).collect();
        let first = |wanted| both.iter().find(|(class, _)| *class == wanted).map(|(_, path)| (*path).clone());
        Guards { system: first(Class::System(0)), second: first(Class::SecondControl) }
    }

    /// Both paths, InnoDB's first.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.system.iter().chain(&self.second)
    }

    /// Whether there should be a guard at this path.
    pub fn contain(&self, path: &Path) -> bool {
        self.paths().any(|guard| guard == path)
    }

    /// Durably puts both guards in place. The old file at the first path stays in the previous state.
    ///
    /// InnoDB's guard comes first. Between the two, a server recovers its second engine, as at any start, and then
    /// refuses.
    pub fn set(&self, files: &dyn Files, plan: &InstallPlan) -> Result<()> {
        let above = |directory: &&PathBuf| self.paths().any(|guard| guard.starts_with(directory));
        for directory in plan.directories.iter().filter(above) {
            files.make_directory(directory)?;
            directory.parent().map_or(Ok(()), |parent| files.sync_directory(parent))?;
        }
        if let Some(path) = &self.system
            && let Some(kept) = self.kept(plan)
            && !is_guard(files, path)?
        {
            keep_name(files, path, kept)?;
        }
        self.write(files)
    }

    /// Durably puts both guards in place; the replaced files are lost.
    pub fn write(&self, files: &dyn Files) -> Result<()> {
        for path in self.paths() {
            if !is_guard(files, path)? {
                files.write_atomically(path, GUARD)?;
            }
        }
        Ok(())
    }

    /// Removes the temporary files that a crash may have left from writing the guards.
    pub fn clear_parts(&self, files: &dyn Files) -> Result<()> {
        self.paths().try_for_each(|path| files.remove_temporaries(path))
    }

    /// Whether the old state is no longer complete: a guard has replaced one of its files.
    pub fn stand(&self, files: &dyn Files, plan: &InstallPlan) -> Result<bool> {
        for path in self.paths() {
            if is_guard(files, path)? {
                return Ok(true);
            }
        }
        // The file was renamed, because the filesystem has no hard links.
        match (&self.system, self.kept(plan)) {
            (Some(path), Some(kept)) => Ok(!files.exists(path)? && files.exists(kept)?),
            _ => Ok(false),
        }
    }

    /// Undoes the first step: while only InnoDB's guard is in place, the old state lacks only the file in the
    /// previous state. Returns whether that was possible.
    pub fn take_back(&self, files: &dyn Files, plan: &InstallPlan) -> Result<bool> {
        let (Some(path), Some(kept)) = (&self.system, self.kept(plan)) else { return Ok(false) };
        let both = self.second.as_deref().is_none_or(|control| is_guard(files, control).unwrap_or(true));
        if both || !files.exists(kept)? {
            return Ok(false);
        }
        files.rename(kept, path)?;
        [path.parent(), kept.parent()].into_iter().flatten().try_for_each(|d| files.sync_directory(d))?;
        Ok(true)
    }

    fn kept<'p>(&self, plan: &'p InstallPlan) -> Option<&'p Path> {
        let old = plan.retired.iter().find(|d| Some(&d.path) == self.system.as_ref())?;
        old.to.as_deref()
    }
}

/// Gives the file a second name, so that it stays at its path until the guard replaces it.
fn keep_name(files: &dyn Files, path: &Path, kept: &Path) -> Result<()> {
    if files.exists(path)? && !files.exists(kept)? && !files.link(path, kept)? {
        files.rename(path, kept)?;
    }
    kept.parent().map_or(Ok(()), |directory| files.sync_directory(directory))
}
