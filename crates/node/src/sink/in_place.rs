//! The way when the old and the new state do not both fit: old files are removed as the new ones come.
//!
//! The marker `.rejoin/in-place` is durable before the first removal; from then on there is no old datadir to go back
//! to, and only a finished install removes it. The system set goes first and as a whole, so that no server can run
//! on what is left: a start in between makes a fresh one, which the next attempt replaces.
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::files::Files;
use super::install::pending;
use super::names::{IN_PLACE, RAN_FULL, own_directory};
use super::plan::{Class, Displaced, OldKind, sort_leaving, system_numbers};
use crate::failure::{Failure, Kind};

/// Removes the old system set. `system_files` are this node's paths of `innodb_data_file_path`, in order.
pub fn in_place_begin(
    files: &dyn Files,
    datadir: &Path,
    managed: &[(PathBuf, OldKind)],
    system_files: &[PathBuf],
) -> Result<()> {
    if pending(files, datadir)?.is_some() {
        bail!(Failure::new(Kind::Disk, "an interrupted install must be finished before the next one"));
    }
    let own = own_directory(datadir);
    files.make_directory(&own)?;
    files.sync_directory(datadir)?;
    files.write_atomically(&own.join(IN_PLACE), b"the old datadir is no longer complete\n")?;
    let known = system_files.iter().zip(0..).map(|(path, number)| (path.as_path(), Class::System(number)));
    let numbers = system_numbers(known);
    let mut system: Vec<Displaced> = managed
        .iter()
        .filter(|(_, kind)| *kind == OldKind::System)
        .map(|(path, kind)| Displaced {
            path: path.clone(),
            to: None,
            class: Class::of_old(path, *kind, &numbers),
        })
        .collect();
    sort_leaving(&mut system);
    for step in system.chunk_by(|a, b| a.class == b.class) {
        for old in step {
            files.remove(&old.path)?;
        }
        for directory in step.iter().filter_map(|d| d.path.parent()) {
            files.sync_directory(directory)?;
        }
    }
    Ok(())
}

/// Whether a transfer in place has begun and was not finished: the old datadir is not complete.
pub fn was_begun(files: &dyn Files, datadir: &Path) -> Result<bool> {
    files.exists(&own_directory(datadir).join(IN_PLACE))
}

/// Removes the old file that a new one is about to replace.
pub fn in_place_make_room(files: &dyn Files, datadir: &Path, old: &Path) -> Result<()> {
    if !was_begun(files, datadir)? {
        bail!(Failure::new(
            Kind::Disk,
            format!("{} must not be removed: nothing is in place", old.display())
        ));
    }
    files.remove(old)
}

/// A transfer that was to fit beside the old files filled the disk. An empty file: there may be no room for more.
pub fn note_ran_full(files: &dyn Files, datadir: &Path) -> Result<()> {
    files.write_atomically(&own_directory(datadir).join(RAN_FULL), b"")
}

/// Whether the last transfer did. Said once: the next one looks anew.
pub fn take_ran_full(files: &dyn Files, datadir: &Path) -> Result<bool> {
    let note = own_directory(datadir).join(RAN_FULL);
    let ran_full = files.exists(&note)?;
    files.remove(&note)?;
    Ok(ran_full)
}
