//! A transfer after everything has arrived: verifies the staged files and plans the install.
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use formats::wsrep::state_id::StateId;
use protocol::inventory::FileRole;

use super::expected::Position;
use super::file_list::FileList;
use crate::clock::now_ms;
use crate::datadir::layout::{Layout, with_suffix};
use crate::datadir::recovered_position::{InnodbFiles, Recovered, recovered_position};
use crate::failure::{Failure, Kind};
use crate::flavor::class::Set;
use crate::flavor::pattern::Pattern;
use crate::human::size;
use crate::install::counted_disk::CountedDisk;
use crate::install::files::Disk;
use crate::install::names::file_name;
use crate::install::plan::{self, Class, Inputs, InstallPlan, Keep, OldKind, Placed, Sweep, Unchanged};
use crate::install::record_check;
use crate::install::run;
use crate::install::tidy;
use crate::job::Job;
use crate::receive::staging::Staging;
use crate::remembered::arrived::Arrived;
use crate::server::local_work::LocalWork;
use crate::threads::{Thread, scoped};

/// The staged files, once everything has arrived and has its final name.
pub(super) struct SettledStaging {
    pub layout: Layout,
    pub old: Vec<(PathBuf, OldKind)>,
    pub databases: Vec<PathBuf>,
    pub file_list: FileList,
    pub staging: Staging,
    pub unchanged: Vec<Unchanged>,
    pub keep: Keep,
    pub earlier: Option<InstallPlan>,
    /// The files were read back before another program prepared them.
    pub prepared: bool,
}

/// The staged files, once they are durable and verified, with the plan of the install.
pub(super) struct VerifiedStaging {
    layout: Layout,
    plan: InstallPlan,
    position: Position,
    bytes: u64,
    arrived: Arrived,
}

impl VerifiedStaging {
    /// Length of all files together, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The position they are at.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Carries out the plan, whose steps count as `work`. Returns what can be remembered of the installed files.
    pub fn install(self, work: &LocalWork) -> Result<Arrived> {
        let disk = CountedDisk(work);
        let (plan, datadir) = (self.plan, &self.layout.datadir);
        record_check::check_plan(&plan, &self.layout)?;
        tracing::info!(
            "installing: {} previous files removed, {} new files placed, {} patched in place",
            plan.retired.len(),
            plan.placed.len(),
            plan.patched.len()
        );
        let keep = plan.keep;
        run::install(&disk, plan)?;
        if keep != Keep::Old {
            tidy::remove_everything(&disk, datadir)?;
        }
        Ok(self.arrived)
    }
}

impl SettledStaging {
    /// Length of all files together, in bytes.
    pub fn bytes(&self) -> u64 {
        self.file_list.files.total_bytes()
    }

    /// Makes everything durable, and plans the install. Fails if the staged files are not what the donor read, if
    /// they do not recover to the donor's position, or if the plan cannot be carried out.
    pub fn verify(self, job: &Job) -> Result<VerifiedStaging> {
        let arrived = std::thread::scope(|scope| {
            let read_back = scoped(scope, Thread::ReadBack, || {
                // The files of a backup were read back before they were prepared.
                if self.prepared {
                    return Ok(Arrived::default());
                }
                let (bytes, arrived) = self.staging.read_back_and_learn(job.settings.threads, &job.cancel)?;
                log_read_back(bytes);
                Ok(arrived)
            });
            let others = self.make_durable().and_then(|()| self.check_position());
            // This error comes first: a wrong position may only follow from it.
            let arrived = read_back.join()?;
            others.map(|()| arrived)
        })?;
        let (bytes, position, layout) = (self.bytes(), self.file_list.position, self.layout.clone());
        let plan = self.plan()?;
        // Checked while the donor still listens, so that both logs say why nothing is installed.
        let warnings = run::check(&CountedDisk(&job.progress.local), &plan)?;
        warnings.iter().for_each(|line| tracing::warn!("{line}"));
        Ok(VerifiedStaging { layout, plan, position, bytes, arrived })
    }

    fn make_durable(&self) -> Result<()> {
        if let Some((staged, text)) = self.binlog_state()? {
            std::fs::write(&staged.staged, text)
                .with_context(|| format!("cannot write {}", staged.staged.display()))?;
        }
        self.staging.sync_all()
    }

    /// Fails if the files do not recover to the position that the donor recorded. It is computed from the files and the
    /// redo that arrived, applied in memory to the few pages that contain the position. If it cannot be computed
    /// (encrypted files, for example), that is logged and is no error.
    fn check_position(&self) -> Result<()> {
        let paths = |wanted: &dyn Fn(&FileRole) -> Option<u16>| -> Result<Vec<PathBuf>> {
            let mut found = Vec::new();
            for file in self.file_list.files.iter() {
                if let Some(order) = wanted(&file.role) {
                    found.push((order, self.staging.path(file.id)?));
                }
            }
            found.sort();
            Ok(found.into_iter().map(|(_, path)| path).collect())
        };
        let redo = paths(&|role| (*role == FileRole::Redo).then_some(0))?;
        let files = InnodbFiles {
            system: paths(&|role| match role {
                FileRole::SystemTablespace { index } => Some(*index),
                _ => None,
            })?,
            undo: paths(&|role| (*role == FileRole::Undo).then_some(0))?,
            redo: redo.into_iter().next().context("the donor sent no redo log")?,
            binlog: self.layout.binlog.is_some(),
        };
        let noted = self.file_list.position.0;
        match recovered_position(&files)? {
            Recovered::Known(found) if found.state == noted => {
                tracing::info!(
                    "the files that arrived recover to {noted}, the position that the donor recorded"
                );
                Ok(())
            }
            // A build with this feature is wrong on purpose: tests must notice that in the installed data, not here.
            Recovered::Known(_) if cfg!(feature = "unpaused") => Ok(()),
            Recovered::Known(found) => Err(wrong_position(&found.state.to_string(), noted).into()),
            Recovered::None => Err(wrong_position("no position", noted).into()),
            Recovered::Unknown(why) => {
                tracing::info!(
                    "the donor recorded position {noted}; the position to which the files recover cannot be \
                     computed beforehand: {why}"
                );
                Ok(())
            }
        }
    }

    /// Plans the install as a value, and frees what it is made from.
    fn plan(mut self) -> Result<InstallPlan> {
        let mut staged = self.staging.staged();
        staged.extend(self.binlog_state()?.map(|(placed, _)| placed));
        let old = self.old.iter().map(|(path, _)| path.as_path());
        let paths = old.chain(staged.iter().map(|p| p.target.as_path()));
        // Keep the roots that staging chose: the end of the install removes their directories.
        let roots = self.staging.roots().extend(&Disk, paths)?;
        tracing::debug!("staging directories: {:?}", roots.all());
        let made = now_ms();
        let position = self.file_list.position.0.to_string();
        let patched = self.staging.patched();
        let unchanged = std::mem::take(&mut self.unchanged);
        let stay =
            unchanged.iter().map(|stays| &stays.path).chain(patched.iter().map(|(patch, _)| &patch.table));
        let mut used = BTreeSet::new();
        for directory in stay.filter_map(|path| path.parent()) {
            if !used.contains(directory) {
                used.insert(directory.to_owned());
            }
        }
        // Free the staged files and the list, which can be very long.
        let (layout, old, databases, earlier, keep) =
            (self.layout, self.old, self.databases, self.earlier, self.keep);
        drop((self.staging, self.file_list));
        let mut plan = plan::plan(Inputs {
            datadir: &layout.datadir,
            managed: &old,
            staged,
            unchanged,
            patched: &patched,
            roots: &roots,
            keep,
            earlier: earlier.as_ref(),
            sweep: &made_at_start(&layout),
            position: &position,
            made,
        })?;
        // A database without a file has nothing to retire, but its directory must be removed anyway.
        let empty =
            |d: &PathBuf| !plan.directories.contains(d) && !plan.emptied.contains(d) && !used.contains(d);
        let empty: Vec<PathBuf> = databases.into_iter().filter(empty).collect();
        plan.emptied.extend(empty);
        Ok(plan)
    }

    /// The GTID state for this node's binary log: its staged path and target, and its text.
    fn binlog_state(&self) -> Result<Option<(Placed, &str)>> {
        let (Some(text), Some(base)) = (&self.file_list.binlog_state, &self.layout.binlog) else {
            return Ok(None);
        };
        let target = with_suffix(base, ".state");
        let directory = base.parent().context("a binary log without a directory")?;
        if !directory.starts_with(&self.layout.datadir) {
            // The server makes no directory for its logs, and the install makes none outside the datadir.
            std::fs::create_dir_all(directory)
                .with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let stage = self.staging.stage_for(&target)?;
        Ok(Some((Placed { staged: stage.join("binlog.state"), target, class: Class::Table }, text)))
    }
}

/// Reads back every staged piece that has a digest. Fails if one is not what the donor read.
pub(super) fn read_back(staging: &Staging, job: &Job) -> Result<()> {
    let bytes = staging.read_back(job.settings.threads, &job.cancel)?;
    log_read_back(bytes);
    Ok(())
}

fn log_read_back(bytes: u64) {
    tracing::info!("read back: {} of the staged files, all as the donor read them", size(bytes));
}

fn wrong_position(found: &str, noted: StateId) -> Failure {
    let text = format!(
        "the files that arrived recover to {found}, but the donor recorded {noted}: nothing is installed"
    );
    Failure::new(Kind::Peer, text)
        .hint("try again, from another donor or with snapshot=blocking under [sst] on this one")
}

/// Files that a server makes if it starts during the install.
fn made_at_start(layout: &Layout) -> Vec<Sweep> {
    let made = layout.flavor.made_at_start().into_iter();
    let mut sweeps: Vec<Sweep> = made
        .filter_map(|(place, set, pattern)| {
            Some(Sweep { directory: layout.directory(place)?.to_owned(), set, pattern })
        })
        .collect();
    let mut add = |path: &Path, pattern| {
        sweeps.extend(path.parent().map(|directory| Sweep {
            directory: directory.to_owned(),
            set: Set::Innodb,
            pattern,
        }));
    };
    layout.binlog.iter().for_each(|base| add(base, Pattern::Binlog(file_name(base).to_owned())));
    layout.binlog_index.iter().for_each(|index| add(index, Pattern::name(file_name(index))));
    sweeps
}
