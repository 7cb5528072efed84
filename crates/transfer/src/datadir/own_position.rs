//! The joiner's own files: their position in the cluster's history, and whether a server has them open.
use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use formats::SpaceId;
use formats::innodb::wsrep_position::{StoredPosition, TRX_SYS_PAGE, newest, rseg_slots, stored_position};
use rustix::process::{Flock, FlockType, fcntl_getlk};

use super::layout::Layout;
use super::page_files::{PageFiles, open};
use super::recovered_position::InnodbFiles;

/// Returns the position in the rollback segment headers: that of the last checkpoint. `None` if the files
/// hold none, are encrypted or damaged, or do not exist. [`super::recovered_position`] determines what a
/// crashed server will recover to.
///
/// # Errors
/// A file exists but cannot be read.
pub fn position_in_files(layout: &Layout) -> Result<Option<StoredPosition>> {
    let files = InnodbFiles::of(layout)?;
    let Some(pages) = PageFiles::open(&files.system, &files.undo)? else { return Ok(None) };
    let Some((_, trx_sys)) = pages.page(SpaceId(0), TRX_SYS_PAGE)? else { return Ok(None) };
    let mut positions = Vec::new();
    for (space, page) in rseg_slots(&trx_sys) {
        if let Some((_, page)) = pages.page(space, page)? {
            positions.extend(stored_position(&page, pages.page_size()));
        }
    }
    Ok(newest(positions))
}

/// A server that has the datadir open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InUse {
    /// The locked file.
    pub path: PathBuf,
    /// Its process id; `None` if it is in another container.
    pub pid: Option<u32>,
}

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "a server (process {pid})"),
            None => f.write_str("a server in another container"),
        }
    }
}

/// Whether a server holds the locks that InnoDB and the second engine take on their open files.
///
/// # Errors
/// A file exists but cannot be accessed.
pub fn server_using(layout: &Layout) -> Result<Option<InUse>> {
    let control = layout.second_control();
    let paths = layout.system_files.iter().map(|file| file.path.as_path()).chain(control.as_deref());
    for path in paths {
        let Some(file) = open(path)? else { continue };
        let holder = fcntl_getlk(&file, &Flock::from(FlockType::WriteLock))
            .with_context(|| format!("cannot query the lock on {}", path.display()))?;
        if let Some(lock) = holder.filter(|lock| lock.typ != FlockType::Unlocked) {
            let pid = lock.pid.and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok());
            return Ok(Some(InUse { path: path.to_path_buf(), pid }));
        }
    }
    Ok(None)
}

#[cfg(test)]
#[path = "own_position_tests.rs"]
mod tests;
