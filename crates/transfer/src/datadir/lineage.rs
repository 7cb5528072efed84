//! The origin of a datadir: a small file beside the data, written when a transfer is installed.
//!
//! It is only a hint for people and for `rejoin plan`, because the shared bytes of two nodes are found by
//! comparing content. Another method that fills the datadir later leaves the file unchanged.
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::clock::now_ms;
use crate::disk::durable;

/// Name of the file, in the datadir.
pub const FILE: &str = "rejoin-lineage.json";

/// The last transfer that was installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// `wsrep_node_name` of the donor.
    pub donor: String,
    /// `uuid:seqno` of the state that it sent.
    pub position: String,
    /// When, in seconds since 1970.
    pub installed: u64,
}

impl Lineage {
    /// Describes a transfer that was installed just now.
    pub fn now(donor: &str, position: &str) -> Lineage {
        let installed = now_ms() / 1000;
        Lineage { donor: donor.to_owned(), position: position.to_owned(), installed }
    }

    /// Reads it; `None` if it is missing or invalid.
    pub fn read(datadir: &Path) -> Option<Lineage> {
        serde_json::from_slice(&std::fs::read(datadir.join(FILE)).ok()?).ok()
    }

    /// Removes it, because the data has another origin.
    ///
    /// # Errors
    /// From the disk.
    pub fn forget(datadir: &Path) -> Result<()> {
        durable::remove_if_there(&datadir.join(FILE)).map(drop)
    }

    /// Writes it.
    ///
    /// # Errors
    /// From the disk.
    pub fn write(&self, datadir: &Path) -> Result<()> {
        durable::write_atomically(&datadir.join(FILE), &serde_json::to_vec_pretty(self)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_damage_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Lineage::read(dir.path()), None);
        let lineage = Lineage::now("n1", "u:1");
        lineage.write(dir.path()).unwrap();
        assert_eq!(Lineage::read(dir.path()), Some(lineage));
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert_eq!(Lineage::read(dir.path()), None);
        Lineage::forget(dir.path()).unwrap();
        assert!(!dir.path().join(FILE).exists());
    }
}
