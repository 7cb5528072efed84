//! `rejoin release`: removes the previous state now.
use anyhow::Result;
use serde_json::json;
use transfer::human::size;
use transfer::install::files::Disk;
use transfer::install::tidy;

use super::alone::{Alone, Common};

/// Removes it. An unfinished install is left alone.
pub fn run(options: &Common) -> Result<()> {
    let alone = Alone::or_synced(&options.node, "release")?;
    let removed = tidy::release(&Disk, &alone.datadir)?;
    let at = alone.datadir.display();
    let text = match removed.files {
        0 => format!("nothing to remove in {at}"),
        1 => format!("removed 1 file, {}, from {at}", size(removed.bytes)),
        files => format!("removed {files} files, {}, from {at}", size(removed.bytes)),
    };
    options.answer.say(&text, &json!({"removed_files": removed.files, "removed_bytes": removed.bytes}));
    Ok(())
}
