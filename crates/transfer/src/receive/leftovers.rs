//! What an interrupted transfer had received, or this one of a snapshot that is void. The bytes that the donor still has are reused.
//!
//! Nothing is trusted. A file is found by the path that it was going to have, and its bytes are reused only if their
//! fingerprints are the donor's, as with the old files.
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use protocol::inventory::FileEntry;
use xxhash_rust::xxh3::xxh3_64;

use crate::install::files::{Disk, Files, What};
use crate::install::names::{file_name, working_directory};
use crate::install::roots;
use crate::receive::rested;

/// Prefix of the names of files that are set aside.
const LEFT: &str = "left-";

/// Files that are set aside, by their directory and the fingerprint of the path that they were going to have.
#[derive(Debug, Default)]
pub(super) struct Leftovers(HashMap<(PathBuf, String), PathBuf>);

/// The name of a staged file: its number in this attempt and a fingerprint of the path that it is going to have.
pub(super) fn staged_name(entry: &FileEntry) -> String {
    rested::staged_name(entry.id, fingerprint_of(entry))
}

fn fingerprint_of(entry: &FileEntry) -> u64 {
    xxh3_64(format!("{:?}/{}", entry.place, entry.path).as_bytes())
}

fn fingerprint(entry: &FileEntry) -> String {
    format!("{:016x}", fingerprint_of(entry))
}

impl Leftovers {
    /// Sets aside what is staged in any root.
    pub fn set_aside(datadir: &Path) -> Result<Leftovers> {
        let mut found = Leftovers::default();
        for root in roots::remembered(&Disk, datadir)? {
            let stage = working_directory(&root, "stage");
            // Files that were set aside before come first, so that newer ones of the same name replace them.
            let mut paths = Disk.list(&stage)?;
            paths.sort_by_key(|path| !file_name(path).starts_with(LEFT));
            paths.iter().try_for_each(|path| found.add(path))?;
        }
        Ok(found)
    }

    /// Sets a staged file aside, in place of an earlier one that was going to be the same. One without a fingerprint in its name is
    /// removed.
    pub fn add(&mut self, path: &Path) -> Result<()> {
        let wanted = file_name(path).rsplit_once('-').map(|(_, fingerprint)| fingerprint.to_owned());
        let wanted = wanted.filter(|_| matches!(Disk.what(path), Ok(Some(What::File))));
        let Some((stage, fingerprint)) = path.parent().zip(wanted) else { return Disk.remove(path) };
        let aside = stage.join(format!("{LEFT}{fingerprint}"));
        if aside != path {
            Disk.rename(path, &aside)?;
        }
        self.0.insert((stage.to_owned(), fingerprint), aside);
        Ok(())
    }

    /// Takes out the file that was going to be this one, if it is in the directory in which the file is staged now.
    pub fn take(&mut self, stage: &Path, entry: &FileEntry) -> Option<PathBuf> {
        self.0.remove(&(stage.to_owned(), fingerprint(entry)))
    }

    /// Whether nothing is set aside.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes the files that were not taken out.
    pub fn remove(&mut self) -> Result<()> {
        self.0.drain().try_for_each(|(_, path)| Disk.remove(&path))
    }
}

/// Staged files and the bytes that each takes on disk. They will be reused or removed.
pub fn allocated(datadir: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut all = Vec::new();
    for root in roots::remembered(&Disk, datadir)? {
        for path in Disk.list(&working_directory(&root, "stage"))? {
            let bytes = crate::install::kept::allocated(&path)?;
            all.push((path, bytes));
        }
    }
    Ok(all)
}
