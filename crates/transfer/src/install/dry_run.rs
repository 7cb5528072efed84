//! Checks a plan without changing anything. Can every directory in it be created and written? Can every file
//! in it be renamed, replaced, patched or removed, and is it of the kind that the plan expects?
//! [`crate::install::run`] and [`crate::install::rollback`] run this before they write their record, and the
//! joiner runs it before it confirms a transfer. [`directories`] is the part that needs no plan.
//!
//! A problem that would stop an install is a refusal with its remedy. A problem that only leaves something
//! behind is a warning.
use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::disk::probe::{Entry, Kind as What, Probe, Rights};
use crate::flavor::class::Set;
use crate::install::files::Files;
use crate::install::findings::Findings;
use crate::install::names::{directory_of, file_name, waiting_room};
use crate::install::plan::InstallPlan;
use crate::install::probed::{Probed, State, user};

/// Checks a plan.
///
/// # Errors
/// The disk cannot be read. Refusals are part of the result.
pub fn dry_run(files: &dyn Files, plan: &InstallPlan) -> Result<Findings> {
    let mut pass = Pass::new(files, plan);
    pass.roots();
    pass.leaving();
    pass.emptied()?;
    pass.new_directories();
    pass.targets();
    pass.patches();
    pass.sweeps()?;
    Ok(pass.probed.findings)
}

/// Checks directories: existing ones must be writable, and links to them must lead to a directory. Absent
/// ones can be created if their nearest existing parent is writable.
pub fn directories<'p>(probe: &dyn Probe, wanted: impl IntoIterator<Item = &'p Path>) -> Findings {
    let mut probed = Probed::new(probe);
    for directory in wanted {
        let there = directory.ancestors().find(|at| {
            // The check of its parent names a directory that cannot be examined.
            probe.entry(at).is_ok_and(|entry| entry.is_some())
        });
        probed.usable(there.unwrap_or(directory));
    }
    probed.findings
}

/// One dry run.
struct Pass<'a> {
    files: &'a dyn Files,
    plan: &'a InstallPlan,
    probed: Probed<'a>,
    /// Old files that are gone when new ones are installed.
    gone: HashSet<&'a Path>,
    /// Directories that are removed before new files are installed.
    emptied: HashSet<&'a Path>,
    /// Directories that the install creates.
    fresh: HashSet<&'a Path>,
    /// The paths of new files. A directory among them is a link that is installed before the files behind it.
    targets: HashSet<&'a Path>,
}

impl<'a> Pass<'a> {
    fn new(files: &'a dyn Files, plan: &'a InstallPlan) -> Pass<'a> {
        Pass {
            files,
            plan,
            probed: Probed::new(files),
            gone: plan.retired.iter().map(|d| d.path.as_path()).collect(),
            emptied: HashSet::new(),
            fresh: HashSet::new(),
            targets: plan.placed.iter().map(|p| p.target.as_path()).collect(),
        }
    }

    /// The staging directories and those of the previous state.
    fn roots(&mut self) {
        for root in &self.plan.roots {
            let within = ["old", "discard", "copy", "stage"].map(|name| directory_of(root, name));
            for directory in [root.clone(), waiting_room(root)].into_iter().chain(within) {
                if self.probed.usable(&directory) == State::Absent
                    && let Some(parent) = directory.parent()
                {
                    self.probed.usable(parent);
                }
            }
        }
    }

    /// Old files that are retired.
    fn leaving(&mut self) {
        for old in &self.plan.retired {
            let Some(directory) = old.path.parent() else { continue };
            let Some(state) = self.probed.usable_if_there(directory) else { continue };
            let Some(entry) = self.probed.entry(&old.path) else { continue };
            self.probed.movable(&old.path, &entry, state);
            let at = old.path.display();
            if entry.kind == What::Directory {
                let text = format!("{at} is a directory where a file was expected");
                self.probed.refuse(text, "move it away, then start this node again".to_owned());
            } else if old.class.set() == Some(Set::Second)
                && old.to.is_some()
                && !self.probed.probe.may_open(&old.path, false)
            {
                let (user, text) =
                    (user(), format!("{at} cannot be read, so it cannot be copied to the previous state"));
                let hint = format!("chown {user}: {at} && chmod u+rw {at}");
                self.probed.refuse(text, hint);
            }
        }
    }

    /// Directories that the new files need, parents first.
    fn new_directories(&mut self) {
        for directory in &self.plan.directories {
            let parent_is_fresh = directory.parent().is_some_and(|parent| self.fresh.contains(parent));
            let leaves = self.gone.contains(directory.as_path());
            let there =
                !parent_is_fresh && !leaves && !matches!(self.probed.probe.entry(directory), Ok(None));
            if there {
                self.probed.usable(directory);
                continue;
            }
            self.fresh.insert(directory);
            if !parent_is_fresh && let Some(parent) = directory.parent() {
                self.probed.usable(parent);
            }
        }
    }

    /// New files.
    fn targets(&mut self) {
        for new in &self.plan.placed {
            if !self.staged(&new.staged, new.class.set() == Some(Set::Second)) {
                self.probed.findings.missing.get_or_insert_with(|| new.target.clone());
            }
            let Some(directory) = new.target.parent() else { continue };
            if self.fresh.contains(directory) || self.targets.contains(directory) {
                continue;
            }
            let state = self.probed.usable(directory);
            if state == State::Absent {
                let text = format!(
                    "{} does not exist, but {} must be installed there",
                    directory.display(),
                    new.target.display()
                );
                self.probed.is_refused(directory);
                self.probed.refuse(text, "mount or create it".to_owned());
            }
            if !matches!(state, State::Usable { .. }) {
                continue;
            }
            let Some(entry) = self.probed.entry(&new.target) else { continue };
            if entry.kind == What::Directory {
                if !self.emptied.contains(new.target.as_path()) {
                    let text =
                        format!("{} is a directory where the new data has a file", new.target.display());
                    self.probed.refuse(text, "move it away, then start this node again".to_owned());
                }
            } else if !self.gone.contains(new.target.as_path()) {
                self.probed.movable(&new.target, &entry, state);
            }
        }
    }

    /// One of our own files that is renamed or removed, and read before that if `read`. Returns whether it is there.
    fn staged(&mut self, path: &Path, read: bool) -> bool {
        let Some(entry) = self.probed.entry(path) else { return false };
        self.probed.movable(path, &entry, State::Usable { own_entries_only: false });
        if read && !self.probed.probe.may_open(path, false) {
            let at = path.display();
            let hint = format!("chown {}: {at} && chmod u+rw {at}", user());
            self.probed.refuse(format!("{at} cannot be read"), hint);
        }
        true
    }

    /// Tables that are patched in place.
    fn patches(&mut self) {
        // A rollback puts whole files back first.
        for patched in &self.plan.patched {
            if self.targets.contains(patched.table.as_path()) {
                continue;
            }
            self.staged(&patched.patch, true);
            if let Some(back) = &patched.back {
                self.staged(back, false);
            }
            let at = patched.table.display();
            let Some(entry) = self.probed.entry(&patched.table) else {
                self.probed.refuse(
                    format!("{at} is gone, but the plan patches it"),
                    "start this node again: the next transfer sends it".to_owned(),
                );
                continue;
            };
            if entry.locked {
                let text = format!("{at} has the immutable or append-only attribute and cannot be changed");
                self.probed.refuse(text, format!("chattr -i -a {at}"));
            } else if !matches!(entry.kind, What::File | What::Link(_)) {
                let hint = "move it away, then start this node again".to_owned();
                self.probed.refuse(format!("{at} is no longer a file"), hint);
            } else if !self.probed.probe.may_open(&patched.table, true) {
                let user = user();
                let hint = format!("chown {user}: {at} && chmod u+rw {at}");
                self.probed.refuse(format!("{at} is not writable for the server's user"), hint);
            }
        }
    }

    /// Files that a server would create if it started in between: existing ones must be removable.
    fn sweeps(&mut self) -> Result<()> {
        let directories: BTreeSet<&Path> = self.plan.sweep.iter().map(|s| s.directory.as_path()).collect();
        for directory in directories {
            let Some(state) = self.probed.usable_if_there(directory) else { continue };
            let patterns: Vec<_> = self.plan.sweep.iter().filter(|s| s.directory == directory).collect();
            for path in self.files.list(directory)? {
                let swept = patterns.iter().any(|s| s.pattern.matches(file_name(&path)));
                let seen = self.gone.contains(path.as_path()) || self.targets.contains(path.as_path());
                if !swept || seen || self.plan.untouched.contains(&path) {
                    continue;
                }
                // Directories are databases, whatever their names, so they are not removed.
                if let Some(entry) = self.probed.entry(&path).filter(|entry| entry.kind != What::Directory) {
                    self.probed.movable(&path, &entry, state);
                }
            }
        }
        Ok(())
    }

    /// Directories that the new state does not have. One that cannot be removed does not stop the install.
    fn emptied(&mut self) -> Result<()> {
        for directory in &self.plan.emptied {
            // A link to a directory belongs to the operator and stays.
            let is_directory = |entry: &Entry| entry.kind == What::Directory;
            let Some(entry) = self.probed.probe.entry(directory).ok().flatten().filter(is_directory) else {
                continue;
            };
            let parent = directory.parent().unwrap_or(directory);
            let why = match self.probed.probe.rights(parent) {
                _ if entry.mounted => "it is a mount point".to_owned(),
                Ok(Rights::All | Rights::OwnEntries) if entry.locked => {
                    "it has the immutable attribute".to_owned()
                }
                Ok(Rights::All | Rights::OwnEntries) => match self.what_stays_in(directory)? {
                    Some(other) => {
                        format!("it also holds {}, which is not a table's file", file_name(&other))
                    }
                    None => {
                        self.emptied.insert(directory);
                        continue;
                    }
                },
                _ => format!("{} is not writable", parent.display()),
            };
            let at = directory.display();
            self.probed.findings.warnings.push(format!(
                "{at} stays although the new data has no such database ({why}): the server shows an empty database, and a \
                 CREATE DATABASE of this name fails on this node alone; once the server is down, remove {at}"
            ));
        }
        Ok(())
    }

    fn what_stays_in(&self, directory: &Path) -> Result<Option<PathBuf>> {
        if !matches!(self.probed.probe.rights(directory), Ok(Rights::All | Rights::OwnEntries)) {
            return Ok(None);
        }
        let there = self.files.list(directory)?.into_iter();
        let mut others = there
            .filter(|path| !self.gone.contains(path.as_path()) && !self.emptied.contains(path.as_path()));
        Ok(others.next())
    }
}
