//! The end of `.rejoin/`: a server shows every directory of its datadir as a database, so ours goes as soon as it can.
use std::path::Path;

use anyhow::Result;

use super::files::{Files, What};
use super::kept::{self, Status};
use super::names::{GRASTATE, RAN_FULL, ROOTS, own_directory, waiting_room, working_directory};
use super::roots::{clear, remembered};

/// Removes what is kept and then every directory of ours. Call once the node was Synced.
pub fn remove_everything(files: &dyn Files, datadir: &Path) -> Result<()> {
    kept::release_old(files, datadir)?;
    remove_leftovers(files, datadir)
}

/// Removes what a transfer that did not finish left, and our directories when nothing else is in them. What an
/// install keeps, or an interrupted one, is left alone.
pub fn remove_leftovers(files: &dyn Files, datadir: &Path) -> Result<()> {
    let status = kept::status(files, datadir, |_| Ok(0))?;
    if !matches!(status, Status::Nothing | Status::Staging { .. }) {
        return Ok(());
    }
    let own = own_directory(datadir);
    if files.what(&own)? != Some(What::Directory) {
        return Ok(());
    }
    for root in remembered(files, datadir)? {
        clear(files, &working_directory(&root, "stage"))?;
        clear(files, &working_directory(&root, "copy"))?;
        if waiting_room(&root) != root {
            files.remove_directory(&waiting_room(&root))?;
        }
        if root != own && files.what(&root)? == Some(What::Directory) {
            files.remove_directory(&root)?;
        }
    }
    for name in [GRASTATE, RAN_FULL, ROOTS] {
        files.remove(&own.join(name))?;
    }
    files.remove_directory(&own)?;
    files.sync_directory(datadir)
}
