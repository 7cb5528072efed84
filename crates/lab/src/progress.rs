//! What a running rejoin tells of its progress in a status file in the datadir.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::node::Node;

/// The state of a transfer. Fields that are missing are empty: the reader takes what it finds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Status {
    /// What is going on.
    pub phase: String,
    /// Bytes done of `total_bytes`.
    pub done_bytes: u64,
    /// Bytes there are to do, 0 while unknown.
    pub total_bytes: u64,
    /// Bytes that travelled, where the program tells.
    pub wire_bytes: Option<u64>,
}

/// Where the file may be, below the datadir.
const PLACES: [&str; 2] = [".rejoin/status.json", "rejoin-status.json"];

/// Reads the status of a transfer again and again.
#[derive(Debug)]
pub struct StatusReader {
    datadir: PathBuf,
}

impl StatusReader {
    /// Of the transfer this node takes part in.
    pub fn of(node: &Node) -> Self {
        Self::at(&node.datadir())
    }

    /// Of the transfer in the datadir at `datadir`.
    pub fn at(datadir: &Path) -> Self {
        Self { datadir: datadir.to_owned() }
    }

    /// What it is now; nothing while there is no file or it is being written.
    pub fn read(&self) -> Option<Status> {
        let read = |place: &&str| serde_json::from_slice(&std::fs::read(self.datadir.join(place)).ok()?).ok();
        PLACES.iter().find_map(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_partial_and_richer_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rejoin-status.json");
        let reader = StatusReader::at(dir.path());
        assert_eq!(reader.read(), None);
        std::fs::write(&path, "{\"phase\":\"pa").unwrap();
        assert_eq!(reader.read(), None);
        std::fs::write(&path, r#"{"phase":"pages","done_bytes":3,"eta":{"s":1}}"#).unwrap();
        assert_eq!(reader.read(), Some(Status { phase: "pages".into(), done_bytes: 3, ..Status::default() }));
    }
}
