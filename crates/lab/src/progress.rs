//! What a joining rejoin tells of its progress in `<datadir>/.rejoin/status.json`.

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

/// Reads the status of a joiner again and again.
#[derive(Debug)]
pub struct StatusReader {
    path: PathBuf,
}

impl StatusReader {
    /// Of the transfer into this node's datadir.
    pub fn of(node: &Node) -> Self {
        Self::at(&node.datadir().join(".rejoin/status.json"))
    }

    /// Of the file at `path`.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// What it is now; nothing while there is no file or it is being written.
    pub fn read(&self) -> Option<Status> {
        serde_json::from_slice(&std::fs::read(&self.path).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_partial_and_richer_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("status.json");
        let reader = StatusReader::at(&path);
        assert_eq!(reader.read(), None);
        std::fs::write(&path, "{\"phase\":\"pa").unwrap();
        assert_eq!(reader.read(), None);
        std::fs::write(&path, r#"{"phase":"pages","done_bytes":3,"eta":{"s":1}}"#).unwrap();
        assert_eq!(reader.read(), Some(Status { phase: "pages".into(), done_bytes: 3, ..Status::default() }));
    }
}
