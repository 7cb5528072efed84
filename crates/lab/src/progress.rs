//! What rejoin tells of a transfer: while it runs in a status file in the datadir, at its end in the error log.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
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
    /// Left by a transfer before: says nothing of the one that is looked at.
    stale: Option<Status>,
}

impl StatusReader {
    /// Of the transfer this node takes part in.
    pub fn of(node: &Node) -> Self {
        Self::at(&node.datadir())
    }

    /// Of the transfer that begins next.
    pub fn of_next(node: &Node) -> Self {
        let stale = Self::of(node).read();
        Self { stale, ..Self::of(node) }
    }

    /// Of the transfer in the datadir at `datadir`.
    pub fn at(datadir: &Path) -> Self {
        Self { datadir: datadir.to_owned(), stale: None }
    }

    /// What it is now; nothing while there is no file or it is being written.
    pub fn read(&self) -> Option<Status> {
        let read = |place: &&str| serde_json::from_slice(&std::fs::read(self.datadir.join(place)).ok()?).ok();
        PLACES.iter().find_map(read).filter(|status| Some(status) != self.stale.as_ref())
    }
}

/// What a joiner's program says of a transfer that ended.
#[derive(Debug)]
pub struct Sent {
    /// Bytes of the files.
    pub all: u64,
    /// Bytes on the network.
    pub wire: u64,
    /// Bytes that the joiner had.
    pub same: u64,
    /// Those of them that a broken transfer had brought.
    pub received: u64,
}

/// From the joiner's error log since its start.
pub fn sent(joiner: &Node) -> Result<Sent> {
    let log = joiner.log_since_start();
    let line = |with: &str| log.lines().find(|line| line.contains(with)).map(str::to_owned);
    let received = line("on the network;").context("no line about what was received")?;
    let all = bytes_before(&received, " as ").context("no number of bytes")?;
    let wire = bytes_before(&received, " on the network").context("no number of bytes")?;
    let reused = line(" were already here");
    let of_reused = |before| reused.as_deref().and_then(|line| bytes_before(line, before)).unwrap_or(0);
    let (same, received) = (of_reused(" were already here"), of_reused(" of them from"));
    Ok(Sent { all, wire, same, received })
}

/// The size that precedes a text, in bytes: `97.0 MiB` before ` as `.
fn bytes_before(line: &str, text: &str) -> Option<u64> {
    let mut words = line.split_once(text)?.0.rsplit(' ');
    let unit = words.next()?;
    bytes(words.next()?, unit)
}

/// A size as the program says it: `97.0` and `MiB`.
pub fn bytes(number: &str, unit: &str) -> Option<u64> {
    let unit = match unit {
        "B" | "bytes" => 1.0,
        "KiB" => f64::from(1 << 10),
        "MiB" => f64::from(1 << 20),
        "GiB" => f64::from(1 << 30),
        _ => return None,
    };
    Some((number.parse::<f64>().ok()? * unit) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_in_log_lines_are_read() {
        let line = "[INFO] received 97.5 MiB as 512 B on the network; 5.4 s since the start";
        assert_eq!(bytes_before(line, " as "), Some(195 << 19));
        assert_eq!(bytes_before(line, " on the network"), Some(512));
        assert_eq!(bytes_before("97.5 files as", " as"), None);
    }

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
