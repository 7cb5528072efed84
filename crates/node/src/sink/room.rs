//! Whether the new state fits beside the old one.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use protocol::inventory::FileEntry;

use super::files::Files;
use super::plan::Class;
use super::roots::Roots;
use crate::disk::filesystem::bytes_available;

/// What one filesystem must take and can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The staging root on it.
    pub root: PathBuf,
    /// Bytes the new files will allocate.
    pub needed: u64,
    /// Bytes available.
    pub available: u64,
}

/// Whether everything fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Room {
    /// On every filesystem.
    Fits,
    /// Not on this one.
    Lacks {
        /// The staging root on the filesystem that lacks most.
        filesystem: PathBuf,
        /// How many bytes it lacks, the margin included.
        missing_bytes: u64,
    },
}

/// Compares, filesystem by filesystem; `margin` bytes stay free on each.
pub fn room_needed(demands: &[Demand], margin: u64) -> Room {
    let missing = |d: &Demand| d.needed.saturating_add(margin).saturating_sub(d.available);
    match demands.iter().max_by_key(|d| missing(d)) {
        Some(worst) if missing(worst) > 0 => {
            Room::Lacks { filesystem: worst.root.clone(), missing_bytes: missing(worst) }
        }
        _ => Room::Fits,
    }
}

/// What each filesystem must take; `available` is asked once per filesystem.
pub fn demands(
    roots: &Roots,
    targets: &[(FileEntry, PathBuf)],
    available: impl Fn(&Path) -> Result<u64>,
) -> Result<Vec<Demand>> {
    let mut needed: BTreeMap<&Path, u64> = BTreeMap::new();
    for (entry, target) in targets {
        // The Aria set is placed by copies, and its old files are kept by copies.
        let copies = if Class::of(&entry.role, target).is_aria() { 3 } else { 1 };
        if let Some(root) = roots.for_path(target) {
            let sum = needed.entry(root).or_default();
            *sum = sum.saturating_add(entry.allocated.saturating_mul(copies));
        }
    }
    let demand = |(root, needed): (&Path, u64)| {
        Ok(Demand { root: root.to_path_buf(), needed, available: available(root)? })
    };
    needed.into_iter().map(demand).collect()
}

/// [`demands`] compared with what is available now.
pub fn room_for(
    files: &dyn Files,
    datadir: &Path,
    targets: &[(FileEntry, PathBuf)],
    margin: u64,
) -> Result<Room> {
    let roots = Roots::choose(files, datadir, targets.iter().map(|(_, target)| target.as_path()))?;
    Ok(room_needed(&demands(&roots, targets, bytes_available)?, margin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filesystem_that_lacks_most_is_named() {
        let demand = |root: &str, needed, available| Demand { root: root.into(), needed, available };
        let both = [demand("/a/.rejoin", 100, 110), demand("/b/.rejoin", 100, 50)];
        assert_eq!(room_needed(&both[..1], 10), Room::Fits);
        assert_eq!(room_needed(&[], 10), Room::Fits);
        assert_eq!(
            room_needed(&both, 10),
            Room::Lacks { filesystem: "/b/.rejoin".into(), missing_bytes: 60 }
        );
        assert_eq!(
            room_needed(&both[..1], 11),
            Room::Lacks { filesystem: "/a/.rejoin".into(), missing_bytes: 1 }
        );
    }
}
