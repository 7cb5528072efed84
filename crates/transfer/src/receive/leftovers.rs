//! What a broken transfer had received: the next one takes of it what the donor still has.
//!
//! Nothing is taken on trust. A file is found by what it was going to be, and its bytes count when their fingerprints are the
//! donor's, as with the old files.
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use protocol::inventory::FileEntry;
use xxhash_rust::xxh3::xxh3_64;

use crate::install::files::{Disk, Files, What};
use crate::install::names::{file_name, working_directory};
use crate::install::roots;
use crate::receive::rested;

/// Begins the names of files that wait to be taken over.
const LEFT: &str = "left-";

/// Files that wait, by their directory and what they were going to be.
#[derive(Debug, Default)]
pub(super) struct Leftovers(HashMap<(PathBuf, String), PathBuf>);

/// What a file is staged as: its number in this attempt and what it is going to be.
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
    /// Sets aside what is staged anywhere. What has no name to be found by is removed.
    pub fn set_aside(datadir: &Path) -> Result<Leftovers> {
        let mut found = Leftovers::default();
        for root in roots::remembered(&Disk, datadir)? {
            let stage = working_directory(&root, "stage");
            // What was set aside before comes first, so that newer files of a name take its place.
            let mut paths = Disk.list(&stage)?;
            paths.sort_by_key(|path| !file_name(path).starts_with(LEFT));
            for path in paths {
                let wanted = file_name(&path).rsplit_once('-').map(|(_, fingerprint)| fingerprint.to_owned());
                let Some(fingerprint) = wanted.filter(|_| matches!(Disk.what(&path), Ok(Some(What::File))))
                else {
                    Disk.remove(&path)?;
                    continue;
                };
                let aside = stage.join(format!("{LEFT}{fingerprint}"));
                if aside != path {
                    Disk.rename(&path, &aside)?;
                }
                found.0.insert((stage.clone(), fingerprint), aside);
            }
        }
        Ok(found)
    }

    /// Gives up the file that was going to be this one, when there is one in the directory in which it is staged now.
    pub fn take(&mut self, stage: &Path, entry: &FileEntry) -> Option<PathBuf> {
        self.0.remove(&(stage.to_owned(), fingerprint(entry)))
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Nobody wants the rest.
    pub fn remove(&mut self) -> Result<()> {
        self.0.drain().try_for_each(|(_, path)| Disk.remove(&path))
    }
}

/// Bytes that staged files take on each filesystem: they are taken over or removed.
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
