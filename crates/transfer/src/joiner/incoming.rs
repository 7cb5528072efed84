//! The files of one attempt, from the first byte until all have arrived and have their final names.
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::Result;
use protocol::coverage::Coverage;
use protocol::entries::Entries;
use protocol::inventory::{FileEntry, FileRole, Place};
use protocol::message::SnapshotKind;

use super::agree::Room;
use super::file_list::FileList;
use super::places::{Places, makes_way};
use super::prepare;
use super::settled::{SettledStaging, read_back};
use crate::datadir::accept::{accept_in, accept_to_install};
use crate::datadir::layout::{Layout, follow};
use crate::datadir::managed::{self, Managed, ManagedFile, ManagedFiles};
use crate::failure::{Failure, Kind};
use crate::install::files::Disk;
use crate::install::in_place;
use crate::install::plan::{InstallPlan, Keep, OldKind};
use crate::install::record;
use crate::install::rollback;
use crate::job::Job;
use crate::loading::parts::Parts;
use crate::receive::staging::{Patches, Staging};
use crate::settings::KeepPrevious;
use crate::threads::lock;

/// One attempt to receive a state.
pub(super) struct IncomingTransfer {
    layout: Layout,
    old: Arc<ManagedFiles>,
    staging: Staging,
    coverage: Mutex<Coverage>,
    keep: Keep,
    /// The last install, if the previous state that it keeps must be kept longer.
    earlier: Option<InstallPlan>,
    /// Whether unchanged files stay where they are.
    stays: bool,
    places: Places,
    /// The snapshot that the donor sends.
    kind: SnapshotKind,
}

impl IncomingTransfer {
    /// Prepares an attempt. For a transfer in place, this removes the old files.
    pub fn prepare(
        job: &Job,
        layout: &Layout,
        old: &Arc<ManagedFiles>,
        room: Room,
        kind: SnapshotKind,
    ) -> Result<IncomingTransfer> {
        let (keep, earlier) = match (room, job.settings.keep_previous) {
            (Room::InPlace, _) => (Keep::InPlace, None),
            (_, KeepPrevious::Never) => (Keep::Nothing, None),
            // After an interrupted transfer in place, what is left of the old state is not worth keeping.
            _ if in_place::was_begun(&Disk, &layout.datadir)? => (Keep::Nothing, None),
            _ => kept_before(&layout.datadir)?,
        };
        let staging = Staging::new(layout.flavor, &layout.datadir)?;
        staging.count_in(&job.progress.local);
        let coverage = Mutex::new(Coverage::new());
        let stays = job.settings.keep_previous != KeepPrevious::Always;
        let places = Places::new(layout, &job.options, None, old);
        let (layout, old) = (layout.clone(), Arc::clone(old));
        let incoming =
            IncomingTransfer { layout, old, staging, coverage, keep, earlier, stays, places, kind };
        if keep == Keep::InPlace {
            incoming.make_room()?;
        }
        Ok(incoming)
    }

    /// Called when the donor begins a file: checks its target and chooses where it is staged. Its name may still
    /// change.
    pub fn begin(&self, entry: &FileEntry) -> Result<()> {
        accept_in(self.kind, entry)?;
        let target = self.layout.target_of(entry)?;
        self.places.try_for(entry)?;
        self.refuse_foreign(std::slice::from_ref(entry))?;
        self.staging.begin(entry, &target)
    }

    /// Where files are staged.
    pub fn staging(&self) -> &Staging {
        &self.staging
    }

    /// Whether all bytes of a file have arrived.
    pub fn has_all_of(&self, file: &FileEntry) -> bool {
        lock(&self.coverage).missing(file).is_none()
    }

    /// What has arrived.
    pub fn coverage(&self) -> &Mutex<Coverage> {
        &self.coverage
    }

    /// Fails if a foreign file is at the path of a table outside the datadir: it is never overwritten.
    fn refuse_foreign(&self, files: &[FileEntry]) -> Result<(), Failure> {
        match managed::foreign_files_at_targets(files, &self.old).into_iter().next() {
            Some(foreign) => Err(foreign),
            None => Ok(()),
        }
    }

    /// Removes the old files, because there is no room for both after all. Nothing may have been received yet.
    pub fn replace_in_place(&mut self) -> Result<()> {
        (self.keep, self.earlier) = (Keep::InPlace, None);
        self.staging.drop_leftovers()?;
        self.make_room()
    }

    /// Removes the old files: first the system set as a whole, then everything else.
    fn make_room(&self) -> Result<()> {
        let (old, _) = by_kind(self.old.iter());
        // The files behind links of the operator: the links stay.
        let first = self.layout.system_files.first().map(|file| follow(&file.path));
        let second = self.layout.second_control().map(|control| follow(&control));
        in_place::in_place_begin(&Disk, &self.layout.datadir, &old, first.as_deref(), second.as_deref())?;
        old.iter().try_for_each(|(path, _)| {
            in_place::in_place_make_room(&Disk, &self.layout.datadir, path)?;
            self.staging.step();
            Ok(())
        })
    }

    /// Called with the donor's list of the parts of a logical snapshot. Returns where they are staged; each is what the donor
    /// sent.
    pub fn parts(&self, job: &Job, list: &FileList) -> Result<Parts> {
        self.check_arrived(&list.files)?;
        list.files.iter().try_for_each(|entry| accept_in(SnapshotKind::Logical, &entry))?;
        let threads = job.settings.threads;
        self.staging.settle(targets(&self.layout, &list.files), false, Patches::None, threads)?;
        self.staging.read_back(threads, &job.cancel)?;
        let path = |entry: FileEntry| Ok((entry.path, self.staging.path(entry.id)?));
        let parts = list.files.iter().map(path).collect::<Result<Vec<_>>>()?;
        let (sent, parts) = (parts.len(), Parts::new(parts));
        match parts.len() == sent {
            true => Ok(parts),
            false => Err(Failure::new(Kind::Peer, "the donor sent two parts of one name").into()),
        }
    }

    /// Stages a file that was made on this node, by moving it.
    pub fn take_over(&self, entry: &FileEntry, made: &Path) -> Result<()> {
        let target = self.layout.target_of(entry)?;
        self.places.try_for(entry)?;
        lock(&self.coverage).made(entry)?;
        self.staging.take_over(entry, &target, made)
    }

    /// Fails if a byte of these files has not arrived.
    fn check_arrived(&self, files: &Entries) -> Result<(), Failure> {
        let coverage = lock(&self.coverage);
        let has_data = |f: &FileEntry| !matches!(f.role, FileRole::Link { .. });
        for file in files.iter().filter(has_data) {
            if let Some(gap) = coverage.missing(&file) {
                let text = format!("bytes {} to {} of {} never arrived", gap.start, gap.end, file.path);
                return Err(Failure::new(Kind::Peer, text));
            }
        }
        Ok(())
    }

    /// Called with the list of files. Fails if a byte of them has not arrived; otherwise each file gets its
    /// final name. The files of a backup are prepared before that.
    pub fn settle(self, file_list: FileList, job: &Job) -> Result<SettledStaging> {
        self.check_arrived(&file_list.files)?;
        // Of a logical snapshot these are files that were made here.
        if self.kind != SnapshotKind::Logical {
            file_list.files.iter().try_for_each(|entry| accept_in(self.kind, &entry))?;
        }
        // There can be very many files, so free what only the transfer needed.
        *lock(&self.coverage) = Coverage::new();
        if self.layout.binlog.is_some() && file_list.binlog_state.is_none() {
            tracing::warn!(
                "the donor sent no GTID state (it writes no binary log, or an encrypted one): this node's \
                 GTID state starts empty"
            );
        }
        let outside = file_list.files.iter().filter(|entry| entry.place == Place::External);
        self.refuse_foreign(&outside.collect::<Vec<_>>())?;
        let prepared = self.kind == SnapshotKind::Mariabackup;
        // Every file of a backup is staged whole, because mariadb-backup changes it.
        let stays = self.stays && !prepared;
        // With keep-previous=always the old files are kept whole.
        let patches = match self.keep {
            // The previous state that an earlier install keeps needs the files as they are.
            _ if !stays || self.earlier.is_some() => Patches::None,
            Keep::Old => Patches::Kept,
            Keep::Nothing | Keep::InPlace => Patches::Made,
        };
        let threads = job.settings.threads;
        let unchanged =
            self.staging.settle(targets(&self.layout, &file_list.files), stays, patches, threads)?;
        let file_list = if prepared { self.finish_backup(job, file_list)? } else { file_list };
        file_list.files.iter().try_for_each(|entry| accept_to_install(&entry))?;
        let targets = || targets(&self.layout, &file_list.files);
        let patched = self.staging.patched();
        if patched.len() + unchanged.len() > 0 {
            let (stay, all) = (unchanged.len(), file_list.files.len());
            tracing::info!("files: {stay} of {all} unchanged, {} patched in place", patched.len());
        }
        let there = in_the_way(targets(), &self.old)?;
        let markers = markers_in_the_way(targets(), &self.layout)?;
        // Files that stay, or are patched in place, are not retired.
        let stay =
            unchanged.iter().map(|stays| &stays.path).chain(patched.iter().map(|(patch, _)| &patch.table));
        let stay: HashSet<&Path> = stay.map(PathBuf::as_path).collect();
        let leaving = self.old.iter().filter(|file| !stay.contains(file.path.as_path()));
        let (mut old, databases) = by_kind(leaving);
        old.extend(
            there
                .into_iter()
                .filter(|path| !stay.contains(path.as_path()))
                .map(|path| (self.layout.flavor.class(&FileRole::Table, &path), path))
                .map(|(class, path)| (path, OldKind::Data(class))),
        );
        old.extend(markers.into_iter().map(|path| (path, OldKind::RemoveOnly)));
        let (layout, staging, keep, earlier) = (self.layout, self.staging, self.keep, self.earlier);
        Ok(SettledStaging { layout, old, databases, file_list, staging, unchanged, keep, earlier, prepared })
    }

    /// Has mariadb-backup prepare the files, once they are known to be what the donor sent. They are other files then.
    fn finish_backup(&self, job: &Job, list: FileList) -> Result<FileList> {
        read_back(&self.staging, job)?;
        job.progress.phase("preparing the backup", "");
        let run = |directory: &Path| prepare::prepare(job, directory, list.position);
        let files = self.staging.prepare(&list.files, run, |entry| self.layout.target_of(entry))?;
        let outside = files.iter().filter(|entry| entry.place == Place::External);
        self.refuse_foreign(&outside.collect::<Vec<_>>())?;
        Ok(FileList { files, ..list })
    }
}

/// What the install will keep: the old files, as a rule. If an earlier install still keeps what it replaced, because
/// the node was not Synced since, that is kept instead. If it cannot be put back any more, this install keeps nothing
/// and removes it.
fn kept_before(datadir: &Path) -> Result<(Keep, Option<InstallPlan>)> {
    let earlier = record::installed(&Disk, datadir)?.filter(|earlier| !earlier.kept.is_empty());
    if earlier.is_some()
        && let Err(why) = rollback::possible(&Disk, datadir)?
    {
        tracing::warn!(
            "the previous state that the last install kept cannot be restored any more, and this \
             install removes it: {}",
            why.text
        );
        return Ok((Keep::Nothing, None));
    }
    Ok((Keep::Old, earlier))
}

/// All files with their target paths on this node.
fn targets<'a>(
    layout: &'a Layout,
    files: &'a Entries,
) -> impl Iterator<Item = Result<(FileEntry, PathBuf)>> + 'a {
    files.iter().map(|entry| {
        let target = layout.target_of(&entry)?;
        Ok((entry, target))
    })
}

/// Files at a target that would otherwise stay (a table that `cpat` keeps): the donor's files replace them.
fn in_the_way(
    targets: impl Iterator<Item = Result<(FileEntry, PathBuf)>>,
    old: &ManagedFiles,
) -> Result<Vec<PathBuf>> {
    let leaves = |file: &ManagedFile| file.what != Managed::DatabaseDirectory;
    let leaving: HashSet<PathBuf> = old.iter().filter(leaves).map(|file| file.path).collect();
    let (mut there, mut directories) = (Vec::new(), HashMap::new());
    for target in targets {
        let (_, target) = target?;
        if !leaving.contains(&target)
            && is_directory(&mut directories, target.parent())
            && target.symlink_metadata().is_ok()
        {
            there.push(target);
        }
    }
    Ok(there)
}

/// Whether a directory is there; each is looked at once.
fn is_directory(known: &mut HashMap<PathBuf, bool>, directory: Option<&Path>) -> bool {
    let Some(directory) = directory else { return false };
    if let Some(known) = known.get(directory) {
        return *known;
    }
    let there = directory.is_dir();
    known.insert(directory.to_owned(), there);
    there
}

/// Markers of this transfer that are where a database's directory must be.
fn markers_in_the_way(
    targets: impl Iterator<Item = Result<(FileEntry, PathBuf)>>,
    layout: &Layout,
) -> Result<BTreeSet<PathBuf>> {
    let (datadir, mut databases) = (&layout.datadir, BTreeSet::new());
    for target in targets {
        let (_, target) = target?;
        let Ok(below) = target.strip_prefix(datadir) else { continue };
        if let Some(name) = below.iter().next().filter(|_| below.components().count() > 1)
            && !databases.contains(Path::new(name))
        {
            databases.insert(PathBuf::from(name));
        }
    }
    Ok(databases
        .into_iter()
        .map(|name| datadir.join(name))
        .filter(|path| makes_way(layout.flavor, path))
        .collect())
}

/// What an install replaces, as the plan and the rollback know it.
pub fn old_files(managed: &ManagedFiles) -> Vec<(PathBuf, OldKind)> {
    by_kind(managed.iter()).0
}

/// Splits off the databases' directories; the install removes those that become empty.
fn by_kind(old: impl Iterator<Item = ManagedFile>) -> (Vec<(PathBuf, OldKind)>, Vec<PathBuf>) {
    let (mut files, mut databases) = (Vec::new(), Vec::new());
    for file in old {
        match file.what {
            Managed::DatabaseDirectory => databases.push(file.path),
            // Files without a counterpart on the donor (binary logs, replication state) are still part of the old
            // state that a rollback brings back.
            _ => files.push((file.path, OldKind::Data(file.class))),
        }
    }
    (files, databases)
}
