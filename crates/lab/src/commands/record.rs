//! What the record of a node's last transfer says that its program read.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rejoin_lab::Node;

/// Bytes of a node's own files.
#[derive(Debug, Clone, Copy)]
pub struct Counted {
    /// Read in the transfer.
    pub read: u64,
    /// Not read, because their fingerprints were remembered.
    pub remembered: u64,
}

impl Counted {
    /// By the newest record in the node's datadir.
    pub fn on(node: &Node) -> Result<Self> {
        let record = newest(&node.datadir())?;
        let text = std::fs::read_to_string(&record).with_context(|| record.display().to_string())?;
        let record: serde_json::Value = serde_json::from_str(&text)?;
        let of = |name: &str| record["bytes"][name].as_u64().context("no count of bytes in the record");
        Ok(Self { read: of("read")?, remembered: of("remembered")? })
    }
}

fn newest(datadir: &Path) -> Result<PathBuf> {
    let is_record = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".json") && (name.starts_with("rejoin-donor-") || name.starts_with("rejoin-joiner-"))
    };
    let all = std::fs::read_dir(datadir)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let written = |path: &PathBuf| path.metadata().and_then(|meta| meta.modified()).ok();
    all.into_iter().filter(is_record).max_by_key(written).context("no record of a transfer")
}
