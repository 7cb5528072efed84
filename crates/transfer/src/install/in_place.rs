//! Replacing files in place, for when there is no room for both states: old files are removed while new ones
//! arrive.
//!
//! The marker `in-place` is durable before the first removal. From then on the old datadir cannot be
//! restored, and only a finished install removes the marker. The guards ([`crate::install::guard`]) are set
//! next, so that no server starts on the incomplete datadir. The marker names their paths, because there is
//! no plan yet.
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::failure::{Failure, Kind};
use crate::install::files::Files;
use crate::install::guard::{Guards, is_guard, lift};
use crate::install::names::{IN_PLACE, RAN_FULL, own_directory};
use crate::install::plan::{OldKind, Retired, sort_leaving};
use crate::install::record::pending;

/// The marker's first line; the others are the paths of the guards.
const TITLE: &str =
    "the old datadir is no longer complete; no server starts on it while one of these is a guard:";

/// Removes the old system set. The guards are at the first file of the system tablespace and at the second engine's
/// control file, if there is such an engine.
pub fn in_place_begin(
    files: &dyn Files,
    datadir: &Path,
    managed: &[(PathBuf, OldKind)],
    first_system_file: Option<&Path>,
    second_control: Option<&Path>,
) -> Result<()> {
    if pending(files, datadir)?.is_some() {
        bail!(Failure::new(Kind::Disk, "an interrupted install must be finished before the next one"));
    }
    let own = own_directory(datadir);
    files.make_directory(&own)?;
    files.sync_directory(datadir)?;
    let guards =
        Guards { system: first_system_file.map(Path::to_owned), second: second_control.map(Path::to_owned) };
    let lines = guards.paths().map(|path| format!("{}\n", path.display()));
    let marker: String = std::iter::once(format!("{TITLE}\n")).chain(lines).collect();
    files.write_atomically(&own.join(IN_PLACE), marker.as_bytes())?;
    guards.write(files)?;
    let of_system = |(path, kind): &(PathBuf, OldKind)| match kind {
        OldKind::Data(class) if !class.is_tables() && !guards.contain(path) => {
            Some(Retired { path: path.clone(), to: None, class: *class })
        }
        _ => None,
    };
    let mut system: Vec<Retired> = managed.iter().filter_map(of_system).collect();
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

/// Whether a transfer in place was begun and not finished, so that the old datadir is incomplete.
pub fn was_begun(files: &dyn Files, datadir: &Path) -> Result<bool> {
    files.exists(&own_directory(datadir).join(IN_PLACE))
}

/// Removes the old file that a new one will replace.
pub fn in_place_make_room(files: &dyn Files, datadir: &Path, old: &Path) -> Result<()> {
    if !was_begun(files, datadir)? {
        bail!(Failure::new(
            Kind::Disk,
            format!("{} must not be removed: this transfer is not in place", old.display())
        ));
    }
    if is_guard(files, old)? { Ok(()) } else { files.remove(old) }
}

/// Sets the guards again if a transfer in place was begun and not finished.
pub fn guard_again(files: &dyn Files, datadir: &Path) -> Result<()> {
    guards_of_marker(files, datadir)?.map_or(Ok(()), |guards| guards.write(files))
}

/// Lets a server start after an unfinished transfer in place, so that its group sends it the state: the
/// server creates new system files and reports an unknown position. Returns whether there was such a
/// transfer.
pub fn let_join(files: &dyn Files, datadir: &Path) -> Result<bool> {
    let Some(guards) =
        guards_of_marker(files, datadir)?.filter(|_| pending(files, datadir).is_ok_and(|p| p.is_none()))
    else {
        return Ok(false);
    };
    guards.paths().try_for_each(|path| lift(files, path))?;
    Ok(true)
}

/// The guards that the marker names, if the marker exists.
fn guards_of_marker(files: &dyn Files, datadir: &Path) -> Result<Option<Guards>> {
    let Some(marker) = files.read(&own_directory(datadir).join(IN_PLACE))? else { return Ok(None) };
    let marker = String::from_utf8_lossy(&marker);
    let mut paths = marker.lines().skip(1).map(PathBuf::from);
    Ok(Some(Guards { system: paths.next(), second: paths.next() }))
}

/// Records that a transfer which should have fitted beside the old files filled the disk. The file is empty,
/// because there may be no room for more.
pub fn note_ran_full(files: &dyn Files, datadir: &Path) -> Result<()> {
    files.write_atomically(&own_directory(datadir).join(RAN_FULL), b"")
}

/// Returns whether the last transfer filled the disk, and clears the record: the next transfer computes the
/// room again.
pub fn take_ran_full(files: &dyn Files, datadir: &Path) -> Result<bool> {
    let note = own_directory(datadir).join(RAN_FULL);
    let ran_full = files.exists(&note)?;
    files.remove(&note)?;
    Ok(ran_full)
}
