//! `rejoin release`: the replaced files go now.
use std::path::Path;

use anyhow::Result;
use node::sink::files::Disk;
use node::sink::tidy;

use super::say;

/// Removes them. What is not finished is left alone.
pub fn run(datadir: &Path) -> Result<()> {
    let datadir = std::path::absolute(datadir)?;
    tidy::remove_everything(&Disk, &datadir)?;
    say("no replaced files are kept");
    Ok(())
}
