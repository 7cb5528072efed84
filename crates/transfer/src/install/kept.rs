//! The previous state: its size and age, and its removal once the node has been Synced.
//!
//! If the node has never been Synced since an install, the previous state of that install is the last state
//! that was Synced. A further install leaves it unchanged and deletes the files of the unsynced state
//! ([`crate::install::plan::plan`]); the saved `grastate.dat` stays with it ([`save_grastate`]).
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::failure::{Failure, Kind};
use crate::install::files::{Files, What};
use crate::install::names::{
    GRASTATE, IN_PLACE, INSTALLED, RELEASED, ROOTS, directory_of, own_directory, waiting_room,
    working_directory,
};
use crate::install::plan::{Keep, Purpose};
use crate::install::record::{installed, pending, read_record};
use crate::install::roots::{clear, clear_of_programs, remembered};

/// The state of a datadir according to the records in `#sql-rejoin/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// There is no record.
    Nothing,
    /// An unfinished transfer left files; the datadir was not touched.
    Staging {
        /// Staged files.
        files: usize,
    },
    /// A roll-forward must be finished; the next start of the program does that.
    InstallInterrupted {
        /// The install, or its rollback.
        purpose: Purpose,
        /// `uuid:seqno` of the install.
        position: String,
    },
    /// An install is finished.
    InstalledKept {
        /// Bytes that the previous state occupies.
        bytes: u64,
        /// When it was made, in milliseconds since 1970.
        since: u64,
        /// `uuid:seqno` of the install.
        position: String,
    },
    /// A transfer in place did not finish, so the datadir is incomplete.
    InPlaceBroken,
}

/// Reads the records in `#sql-rejoin/`. `bytes_of` returns the bytes allocated by a file, [`allocated`] on a
/// real disk.
pub fn status(files: &dyn Files, datadir: &Path, bytes_of: impl Fn(&Path) -> Result<u64>) -> Result<Status> {
    if let Some(plan) = pending(files, datadir)? {
        return Ok(Status::InstallInterrupted { purpose: plan.purpose, position: plan.position });
    }
    if files.exists(&own_directory(datadir).join(IN_PLACE))? {
        return Ok(Status::InPlaceBroken);
    }
    if let Some(plan) = installed(files, datadir)? {
        let files = plan.kept.iter().map(|k| &k.copy);
        let mut kept = files.chain(plan.kept_patches.iter().map(|k| &k.patch));
        let bytes = kept.try_fold(0, |sum: u64, path| Ok::<_, anyhow::Error>(sum + bytes_of(path)?))?;
        return Ok(Status::InstalledKept { bytes, since: plan.made, position: plan.position });
    }
    let mut staged = 0;
    for root in remembered(files, datadir)? {
        staged += files.list(&working_directory(&root, "stage"))?.len();
    }
    Ok(if staged == 0 { Status::Nothing } else { Status::Staging { files: staged } })
}

/// Bytes allocated by a file; 0 if it is absent.
pub fn allocated(path: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    match std::fs::symlink_metadata(path) {
        Ok(m) => Ok(m.blocks() * 512),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(e.into()),
    }
}

/// Saves `grastate.dat` as it is at the joiner's start, unless a saved one belongs to the previous state.
pub fn save_grastate(files: &dyn Files, datadir: &Path) -> Result<()> {
    let kept = installed(files, datadir)?.is_some_and(|plan| plan.keep == Keep::Old);
    if kept || pending(files, datadir)?.is_some() {
        return Ok(());
    }
    let own = own_directory(datadir);
    files.make_directory(&own)?;
    files.sync_directory(datadir)?;
    match files.read(&datadir.join(GRASTATE))? {
        Some(content) => files.write_atomically(&own.join(GRASTATE), &content),
        // A copy saved for an earlier state must not be restored.
        None => files.remove(&own.join(GRASTATE)),
    }
}

/// Deletes the previous state, and the staging roots on other filesystems. Call it once the node has been
/// Synced after the install.
///
/// The record is renamed first, so that a rollback does not restore a partly deleted state.
pub fn release_old(files: &dyn Files, datadir: &Path) -> Result<()> {
    if pending(files, datadir)?.is_some() {
        bail!(Failure::new(Kind::Disk, "an install is not finished: its previous state cannot be released"));
    }
    let own = own_directory(datadir);
    if files.exists(&own.join(INSTALLED))? {
        files.rename(&own.join(INSTALLED), &own.join(RELEASED))?;
        files.sync_directory(&own)?;
    }
    finish_release(files, datadir)
}

/// Finishes a release that was begun.
pub(super) fn finish_release(files: &dyn Files, datadir: &Path) -> Result<()> {
    let own = own_directory(datadir);
    let Some(plan) = read_record(files, datadir, RELEASED)? else { return Ok(()) };
    // Its process may have died before the rename was durable.
    files.sync_directory(&own)?;
    let mut roots: Vec<PathBuf> = plan.roots;
    roots.extend(remembered(files, datadir)?);
    for root in &roots {
        for name in ["old", "discard", "copy", "stage"] {
            clear(files, &directory_of(root, name))?;
        }
        clear_of_programs(files, root)?;
        if waiting_room(root) != *root {
            files.remove_directory(&waiting_room(root))?;
        }
        if *root != own && files.what(root)? == Some(What::Directory) {
            files.remove_directory(root)?;
        }
    }
    files.remove(&own.join(ROOTS))?;
    files.remove(&own.join(RELEASED))?;
    files.sync_directory(&own)
}
