//! The files of one transfer on their way from the donor's list to their places.
use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use protocol::coverage::Coverage;
use protocol::entries::Entries;
use protocol::inventory::{FileEntry, FileRole, Place};

use super::agree::Room;
use super::places::{Places, makes_way};
use super::receive::FileList;
use super::settled::SettledStaging;
use crate::datadir::layout::Layout;
use crate::datadir::managed::{self, Managed, ManagedFile};
use crate::failure::{Failure, Kind};
use crate::install::files::Disk;
use crate::install::in_place;
use crate::install::plan::{InstallPlan, Keep, OldKind};
use crate::install::record;
use crate::install::rollback;
use crate::job::Job;
use crate::receive::staging::{Patches, Staging};
use crate::settings::KeepPrevious;

/// One attempt to receive a state.
pub(super) struct IncomingTransfer {
    layout: Layout,
    old: Arc<[ManagedFile]>,
    staging: Staging,
    coverage: Mutex<Coverage>,
    keep: Keep,
    /// The last install, when what it keeps is kept on.
    earlier: Option<InstallPlan>,
    /// Files that are the same stay where they are.
    stays: bool,
    places: Places,
}

impl IncomingTransfer {
    /// Makes ready for an attempt; in place, this is where the old files go.
    pub fn prepare(
        job: &Job,
        layout: &Layout,
        old: &Arc<[ManagedFile]>,
        room: Room,
    ) -> Result<IncomingTransfer> {
        let (keep, earlier) = match (room, job.settings.keep_previous) {
            (Room::InPlace, _) => (Keep::InPlace, None),
            (_, KeepPrevious::Never) => (Keep::Nothing, None),
            // A transfer in place that broke off: what is left of the old state is not worth keeping.
            _ if in_place::was_begun(&Disk, &layout.datadir)? => (Keep::Nothing, None),
            _ => kept_before(&layout.datadir)?,
        };
        let staging = Staging::new(&layout.datadir)?;
        let coverage = Mutex::new(Coverage::new());
        let stays = job.settings.keep_previous != KeepPrevious::Always;
        let places = Places::new(layout, &job.options, None, old);
        let (layout, old) = (layout.clone(), Arc::clone(old));
        let incoming = IncomingTransfer { layout, old, staging, coverage, keep, earlier, stays, places };
        if keep == Keep::InPlace {
            incoming.make_room()?;
        }
        Ok(incoming)
    }

    /// The donor begins a file: decides where it is staged. Its name may still change.
    pub fn begin(&self, entry: &FileEntry) -> Result<()> {
        let target = self.layout.target_of(entry)?;
        self.places.try_for(entry)?;
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
        let (old, _) = by_kind(self.old.iter());
        let system: Vec<PathBuf> = self.layout.system_files.iter().map(|f| f.path.clone()).collect();
        let aria = self.layout.aria_log_dir.join("aria_log_control");
        in_place::in_place_begin(&Disk, &self.layout.datadir, &old, &system, &aria)?;
        old.iter().try_for_each(|(path, _)| in_place::in_place_make_room(&Disk, &self.layout.datadir, path))
    }

    /// The donor has said what the state is: everything of it must have arrived, and gets its place.
    pub fn settle(self, file_list: FileList, threads: u16) -> Result<SettledStaging> {
        let coverage = self.coverage.lock().unwrap_or_else(PoisonError::into_inner);
        let has_data = |f: &FileEntry| !matches!(f.role, FileRole::Link { .. });
        for file in file_list.files.iter().filter(has_data) {
            if let Some(gap) = coverage.missing(&file) {
                let text = format!("bytes {} to {} of {} never arrived", gap.start, gap.end, file.path);
                return Err(Failure::new(Kind::Peer, text).into());
            }
        }
        drop(coverage);
        // There can be very many files: what only the transfer needed goes as soon as it can.
        *self.coverage.lock().unwrap_or_else(PoisonError::into_inner) = Coverage::new();
        if self.layout.binlog.is_some() && file_list.binlog_state.is_none() {
            tracing::warn!(
                "the donor sent no GTID state (it writes no binary log, or an encrypted one): this node's begins anew"
            );
        }
        let outside = file_list.files.iter().filter(|entry| entry.place == Place::External);
        self.refuse_foreign(&outside.collect::<Vec<_>>())?;
        let targets = || targets(&self.layout, &file_list.files);
        // Whole copies are kept where the operator wants them for good.
        let patches = match self.keep {
            // What an earlier install keeps needs the files as they are.
            _ if !self.stays || self.earlier.is_some() => Patches::None,
            Keep::Old => Patches::Kept,
            Keep::Nothing | Keep::InPlace => Patches::Made,
        };
        let unchanged = self.staging.settle(targets(), self.stays, patches, threads)?;
        let patched = self.staging.patched();
        if patched.len() + unchanged.len() > 0 {
            let (stay, all) = (unchanged.len(), file_list.files.len());
            tracing::info!("files: {stay} of {all} unchanged, {} patched in place", patched.len());
        }
        let there = in_the_way(targets(), &self.old)?;
        let markers = markers_in_the_way(targets(), &self.layout.datadir)?;
        // What stays where it is, or is patched there, is known already.
        let stay =
            unchanged.iter().map(|stays| &stays.path).chain(patched.iter().map(|(patch, _)| &patch.table));
        let stay: HashSet<&Path> = stay.map(PathBuf::as_path).collect();
        let leaving = self.old.iter().filter(|file| !stay.contains(file.path.as_path()));
        let (mut old, databases) = by_kind(leaving);
        old.extend(
            there
                .into_iter()
                .filter(|path| !stay.contains(path.as_path()))
                .map(|path| (path, OldKind::Table)),
        );
        old.extend(markers.into_iter().map(|path| (path, OldKind::RemoveOnly)));
        let (layout, staging, keep, earlier) = (self.layout, self.staging, self.keep, self.earlier);
        Ok(SettledStaging { layout, old, databases, file_list, staging, unchanged, keep, earlier })
    }
}

/// The old files are kept. Where an earlier install keeps what it replaced, because the node was never Synced since, that is kept
/// on instead; where it cannot be put back any more, it goes with the next install.
fn kept_before(datadir: &Path) -> Result<(Keep, Option<InstallPlan>)> {
    let earlier = record::installed(&Disk, datadir)?.filter(|earlier| !earlier.kept.is_empty());
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

/// All files with the paths they get here.
fn targets<'a>(
    layout: &'a Layout,
    files: &'a Entries,
) -> impl Iterator<Item = Result<(FileEntry, PathBuf)>> + 'a {
    files.iter().map(|entry| {
        let target = layout.target_of(&entry)?;
        Ok((entry, target))
    })
}

/// What stands at a target and would have stayed otherwise (a table that `cpat` keeps): the donor's file wins.
fn in_the_way(
    targets: impl Iterator<Item = Result<(FileEntry, PathBuf)>>,
    old: &[ManagedFile],
) -> Result<Vec<PathBuf>> {
    let leaves = |file: &&ManagedFile| file.what != Managed::DatabaseDirectory;
    let leaving: HashSet<&Path> = old.iter().filter(leaves).map(|file| file.path.as_path()).collect();
    let mut there = Vec::new();
    for target in targets {
        let (_, target) = target?;
        if !leaving.contains(target.as_path()) && target.symlink_metadata().is_ok() {
            there.push(target);
        }
    }
    Ok(there)
}

/// Fingerprints of this transfer in whose place a database's directory comes.
fn markers_in_the_way(
    targets: impl Iterator<Item = Result<(FileEntry, PathBuf)>>,
    datadir: &Path,
) -> Result<BTreeSet<PathBuf>> {
    let mut databases = BTreeSet::new();
    for target in targets {
        let (_, target) = target?;
        let Ok(below) = target.strip_prefix(datadir) else { continue };
        if let Some(name) = below.iter().next().filter(|_| below.components().count() > 1)
            && !databases.contains(Path::new(name))
        {
            databases.insert(PathBuf::from(name));
        }
    }
    Ok(databases.into_iter().map(|name| datadir.join(name)).filter(|path| makes_way(path)).collect())
}

/// What an install replaces, as the plan and the rollback know it.
pub fn old_files(managed: Vec<ManagedFile>) -> Vec<(PathBuf, OldKind)> {
    by_kind(&managed).0
}

/// Splits off the databases' directories; the install removes those that become empty.
fn by_kind<'a>(old: impl IntoIterator<Item = &'a ManagedFile>) -> (Vec<(PathBuf, OldKind)>, Vec<PathBuf>) {
    let (mut files, mut databases) = (Vec::new(), Vec::new());
    for file in old {
        match file.what {
            Managed::DatabaseDirectory => databases.push(file.path.clone()),
            Managed::SystemSet => files.push((file.path.clone(), OldKind::System)),
            // What has no counterpart on the donor (binary logs, replication state) is still part of the old state
            // that a rollback brings back.
            _ => files.push((file.path.clone(), OldKind::Table)),
        }
    }
    (files, databases)
}
