//! The files of one transfer on their way from the donor's list to their places.
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use formats::wsrep::state_id::StateId;
use protocol::coverage::Coverage;
use protocol::inventory::{FileEntry, FileRole};

use super::Position;
use super::agree::Room;
use super::receive::Announced;
use crate::datadir::layout::{Layout, with_suffix};
use crate::datadir::managed::{self, Managed, ManagedFile};
use crate::datadir::recovered_position::{InnodbFiles, Recovered, recovered_position};
use crate::failure::{Failure, Kind};
use crate::job::Job;
use crate::settings::KeepOld;
use crate::sink::files::Disk;
use crate::sink::names::{Pattern, file_name, working_directory};
use crate::sink::plan::{
    self, Class, Inputs, InstallPlan, Keep, OldKind, Placed, ServerDirectories, Staying, Sweep,
};
use crate::sink::roots::Roots;
use crate::sink::staging::{Patches, Staging};
use crate::sink::{in_place, install, rollback, tidy};
use crate::threads::joined;

/// One attempt to receive a state.
pub(super) struct Arrival {
    layout: Layout,
    old: Vec<ManagedFile>,
    staging: Staging,
    coverage: Mutex<Coverage>,
    keep: Keep,
    /// The last install, when what it keeps is kept on.
    earlier: Option<InstallPlan>,
    /// Files that are the same stay where they are.
    stays: bool,
}

impl Arrival {
    /// Makes ready for an attempt; in place, this is where the old files go.
    pub fn prepare(job: &Job, layout: &Layout, old: &[ManagedFile], room: Room) -> Result<Arrival> {
        let (keep, earlier) = match (room, job.settings.keep_old) {
            (Room::InPlace, _) => (Keep::InPlace, None),
            (_, KeepOld::Never) => (Keep::Nothing, None),
            // A transfer in place that broke off: what is left of the old state is not worth keeping.
            _ if in_place::was_begun(&Disk, &layout.datadir)? => (Keep::Nothing, None),
            _ => kept_before(&layout.datadir)?,
        };
        let staging = Staging::new(&layout.datadir)?;
        let coverage = Mutex::new(Coverage::new());
        let stays = job.settings.keep_old != KeepOld::Always;
        let (layout, old) = (layout.clone(), old.to_vec());
        let arrival = Arrival { layout, old, staging, coverage, keep, earlier, stays };
        if keep == Keep::InPlace {
            arrival.make_room()?;
        }
        Ok(arrival)
    }

    /// The donor begins a file: decides where it is staged. Its name may still change.
    pub fn begin(&self, entry: &FileEntry) -> Result<()> {
        let target = self.layout.target_of(entry)?;
        self.refuse_foreign(std::slice::from_ref(entry))?;
        self.staging.begin(entry, &target)
    }

    /// Where files are staged.
    pub fn staging(&self) -> &Staging {
        &self.staging
    }

    /// The files that the install replaces.
    pub fn old(&self) -> &[ManagedFile] {
        &self.old
    }

    /// What has arrived.
    pub fn coverage(&self) -> &Mutex<Coverage> {
        &self.coverage
    }

    /// A file of somebody else's at the path of a table outside the datadir is never overwritten.
    fn refuse_foreign(&self, files: &[FileEntry]) -> Result<(), Failure> {
        match managed::foreign_files_at_targets(files, &self.old).into_iter().next() {
            Some(foreign) => Err(foreign),
            None => Ok(()),
        }
    }

    /// There is no room after all: the old files go. Nothing was received yet.
    pub fn replace_in_place(&mut self) -> Result<()> {
        (self.keep, self.earlier) = (Keep::InPlace, None);
        self.staging.drop_leftovers()?;
        self.make_room()
    }

    /// The old system set goes as a whole, then everything else.
    fn make_room(&self) -> Result<()> {
        let (old, _) = by_kind(self.old.clone());
        let system: Vec<PathBuf> = self.layout.system_files.iter().map(|f| f.path.clone()).collect();
        in_place::in_place_begin(&Disk, &self.layout.datadir, &old, &system)?;
        old.iter().try_for_each(|(path, _)| in_place::in_place_make_room(&Disk, &self.layout.datadir, path))
    }

    /// The donor has said what the state is: everything of it must have arrived, and gets its place.
    pub fn settle(self, announced: Announced, threads: u16) -> Result<Settled> {
        let coverage = self.coverage.lock().unwrap_or_else(PoisonError::into_inner);
        let has_data = |f: &&FileEntry| !matches!(f.role, FileRole::Link { .. });
        for file in announced.files.iter().filter(has_data) {
            if let Some(gap) = coverage.missing(file) {
                let text = format!("bytes {} to {} of {} never arrived", gap.start, gap.end, file.path);
                return Err(Failure::new(Kind::Peer, text).into());
            }
        }
        drop(coverage);
        if self.layout.binlog.is_some() && announced.binlog_state.is_none() {
            tracing::warn!(
                "the donor sent no GTID state (it writes no binary log, or an encrypted one): this node's begins anew"
            );
        }
        self.refuse_foreign(&announced.files)?;
        let targets = targets(&self.layout, &announced.files)?;
        // Whole copies are kept where the operator wants them for good.
        let patches = match self.keep {
            // What an earlier install keeps needs the files as they are.
            _ if !self.stays || self.earlier.is_some() => Patches::None,
            Keep::Old => Patches::Kept,
            Keep::Nothing | Keep::InPlace => Patches::Made,
        };
        let staying = self.staging.settle(&targets, self.stays, patches, threads)?;
        let patched = self.staging.patched().len();
        if patched + staying.len() > 0 {
            let (stay, all) = (staying.len(), targets.len());
            tracing::info!("{stay} of {all} files stay as they are, {patched} are changed where they lie");
        }
        let (mut old, databases) = by_kind(self.old);
        old.extend(in_the_way(&targets, &old).into_iter().map(|path| (path, OldKind::Table)));
        let (layout, staging, keep, earlier) = (self.layout, self.staging, self.keep, self.earlier);
        Ok(Settled { layout, old, databases, announced, staging, staying, keep, earlier })
    }
}

/// Everything has arrived and has its final name.
pub(super) struct Settled {
    layout: Layout,
    old: Vec<(PathBuf, OldKind)>,
    databases: Vec<PathBuf>,
    announced: Announced,
    staging: Staging,
    staying: Vec<Staying>,
    keep: Keep,
    earlier: Option<InstallPlan>,
}

impl Settled {
    /// Length of all files together.
    pub fn bytes(&self) -> u64 {
        self.announced.files.iter().map(|f| f.size).sum()
    }

    /// The position they are at.
    pub fn position(&self) -> Position {
        self.announced.position
    }

    /// Everything received is on stable storage once this returns, it is what the donor read, and it recovers to the donor's
    /// position.
    pub fn verify(&self, job: &Job) -> Result<()> {
        std::thread::scope(|scope| {
            let read_back = scope.spawn(|| self.read_back(job));
            let others = self.make_durable().and_then(|()| self.check_position());
            // First: the position may be another one because of it.
            joined(read_back.join())?;
            others
        })
    }

    fn make_durable(&self) -> Result<()> {
        if let Some((staged, text)) = self.binlog_state()? {
            std::fs::write(&staged.staged, text)
                .with_context(|| format!("cannot write {}", staged.staged.display()))?;
        }
        self.staging.sync_all()
    }

    /// Every byte that was staged, and has a digest that counts, is what the donor read.
    fn read_back(&self, job: &Job) -> Result<()> {
        let bytes = self.staging.read_back(job.settings.threads, &job.cancel)?;
        tracing::info!("read back: {bytes} bytes of what was staged are what the donor read");
        Ok(())
    }

    /// What recovery will show must be what the donor noted: from the files and the redo that arrived, played in memory on
    /// the few pages that hold the position. Where that cannot be told (ciphertext, say), it is said and no error.
    fn check_position(&self) -> Result<()> {
        let paths = |wanted: &dyn Fn(&FileRole) -> Option<u16>| -> Result<Vec<PathBuf>> {
            let mut found = Vec::new();
            for file in &self.announced.files {
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
        let noted = self.announced.position.0;
        match recovered_position(&files)? {
            Recovered::Known(found) if found.state == noted => {
                tracing::info!("the files that arrived recover to {noted}, as the donor noted");
                Ok(())
            }
            // A build that is wrong on purpose must be found out by what it makes, not by this.
            Recovered::Known(_) if cfg!(feature = "unpaused") => Ok(()),
            Recovered::Known(found) => Err(wrong_position(&found.state.to_string(), noted).into()),
            Recovered::None => Err(wrong_position("no position", noted).into()),
            Recovered::Unknown(why) => {
                tracing::info!(
                    "the donor noted {noted}; what the files recover to is not known before: {why}"
                );
                Ok(())
            }
        }
    }

    /// Plans the install as a value, then carries it out.
    pub fn install(self) -> Result<()> {
        let plan = self.plan()?;
        tracing::info!(
            "installing: {} old files leave, {} new files come, {} are changed where they lie",
            plan.displaced.len(),
            plan.placed.len(),
            plan.patched.len()
        );
        install::install(&Disk, &plan)?;
        if plan.keep != Keep::Old {
            tidy::remove_everything(&Disk, &self.layout.datadir)?;
        }
        Ok(())
    }

    fn plan(&self) -> Result<InstallPlan> {
        let mut staged = self.staging.staged();
        staged.extend(self.binlog_state()?.map(|(placed, _)| placed));
        let old = self.old.iter().map(|(path, _)| path.as_path());
        let paths = old.chain(staged.iter().map(|p| p.target.as_path()));
        // What staging chose stays: its directories are among those that the end of the install removes.
        let roots = self.staging.roots().extend(&Disk, paths)?;
        tracing::debug!("staging directories: {:?}", roots.all());
        let made = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let position: &StateId = &self.announced.position.0;
        let mut plan = plan::plan(&Inputs {
            directories: &directories(&self.layout),
            managed: &self.old,
            staged: &staged,
            staying: &self.staying,
            patched: &self.staging.patched(),
            roots: &roots,
            keep: self.keep,
            earlier: self.earlier.as_ref(),
            sweep: &binlog_sweep(&self.layout),
            position: &position.to_string(),
            made,
        })?;
        // A database without any file has nothing that leaves; its directory must go all the same.
        let empty = |d: &&PathBuf| !plan.directories.contains(d) && !plan.emptied.contains(d);
        let empty: Vec<PathBuf> = self.databases.iter().filter(empty).cloned().collect();
        plan.emptied.extend(empty);
        Ok(plan)
    }

    /// The GTID state for this node's binary log: where it is staged and goes, and its text.
    fn binlog_state(&self) -> Result<Option<(Placed, &str)>> {
        let (Some(text), Some(base)) = (&self.announced.binlog_state, &self.layout.binlog) else {
            return Ok(None);
        };
        let target = with_suffix(base, ".state");
        let directory = base.parent().context("a binary log without a directory")?;
        if !directory.starts_with(&self.layout.datadir) {
            // The server makes no directory for its logs, and the install none outside the datadir.
            std::fs::create_dir_all(directory)
                .with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let roots = Roots::choose(&Disk, &self.layout.datadir, [target.as_path()])?;
        let root = roots.for_path(&target).context("no staging directory for the binary log's state")?;
        let stage = working_directory(root, "stage");
        std::fs::create_dir_all(&stage).with_context(|| format!("cannot make {}", stage.display()))?;
        Ok(Some((Placed { staged: stage.join("binlog.state"), target, class: Class::Table }, text)))
    }
}

/// The old files are kept. Where an earlier install keeps what it replaced, because the node was never Synced since, that is kept
/// on instead; where it cannot be put back any more, it goes with the next install.
fn kept_before(datadir: &Path) -> Result<(Keep, Option<InstallPlan>)> {
    let earlier = install::installed(&Disk, datadir)?.filter(|earlier| !earlier.kept.is_empty());
    if earlier.is_some()
        && let Err(why) = rollback::possible(&Disk, datadir)?
    {
        tracing::warn!(
            "what the last install kept is of no use any more and goes with this one: {}",
            why.text
        );
        return Ok((Keep::Nothing, None));
    }
    Ok((Keep::Old, earlier))
}

fn wrong_position(found: &str, noted: StateId) -> Failure {
    let text = format!(
        "the files that arrived recover to {found}, but the donor noted {noted}: nothing is installed"
    );
    Failure::new(Kind::Peer, text)
        .hint("try again, from another donor or with source=frozen under [sst] on this one")
}

fn targets(layout: &Layout, files: &[FileEntry]) -> Result<Vec<(FileEntry, PathBuf)>> {
    files.iter().map(|entry| Ok((entry.clone(), layout.target_of(entry)?))).collect()
}

/// What stands at a target and would have stayed otherwise (a table that `cpat` keeps): the donor's file wins.
fn in_the_way(targets: &[(FileEntry, PathBuf)], old: &[(PathBuf, OldKind)]) -> Vec<PathBuf> {
    let leaving: HashSet<&Path> = old.iter().map(|(path, _)| path.as_path()).collect();
    let there = targets.iter().map(|(_, target)| target).filter(|t| !leaving.contains(t.as_path()));
    there.filter(|target| target.symlink_metadata().is_ok()).cloned().collect()
}

/// What an install replaces, as the plan and the rollback know it.
pub fn old_files(managed: Vec<ManagedFile>) -> Vec<(PathBuf, OldKind)> {
    by_kind(managed).0
}

/// Splits off the databases' directories; the install removes those that become empty.
fn by_kind(old: Vec<ManagedFile>) -> (Vec<(PathBuf, OldKind)>, Vec<PathBuf>) {
    let (mut files, mut databases) = (Vec::new(), Vec::new());
    for file in old {
        match file.what {
            Managed::DatabaseDirectory => databases.push(file.path),
            Managed::SystemSet => files.push((file.path, OldKind::System)),
            // What has no counterpart on the donor (binary logs, replication state) is still part of the old state
            // that a rollback brings back.
            _ => files.push((file.path, OldKind::Table)),
        }
    }
    (files, databases)
}

fn directories(layout: &Layout) -> ServerDirectories {
    ServerDirectories {
        datadir: layout.datadir.clone(),
        data_home: layout.data_home.clone(),
        log_home: layout.log_home.clone(),
        undo: layout.undo_dir.clone(),
        aria_log: layout.aria_log_dir.clone(),
    }
}

/// Binary logs that a server started in between may begin.
fn binlog_sweep(layout: &Layout) -> Vec<Sweep> {
    let mut sweeps = Vec::new();
    if let Some((base, directory)) = layout.binlog.as_ref().and_then(|b| Some((b, b.parent()?))) {
        let pattern = Pattern::Binlog(file_name(base).to_owned());
        sweeps.push(Sweep { directory: directory.to_owned(), pattern });
    }
    if let Some((index, directory)) = layout.binlog_index.as_ref().and_then(|i| Some((i, i.parent()?))) {
        sweeps.push(Sweep {
            directory: directory.to_owned(),
            pattern: Pattern::Name(file_name(index).to_owned()),
        });
    }
    sweeps
}
