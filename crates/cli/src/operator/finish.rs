//! `rejoin finish`: what the program does at its next start, done now.
use std::path::Path;

use anyhow::Result;
use node::sink::files::Disk;
use node::sink::install;

use super::say;

/// Finishes an interrupted install or rollback; says so when there is none.
pub fn run(datadir: &Path) -> Result<()> {
    let datadir = std::path::absolute(datadir)?;
    match install::finish_interrupted(&Disk, &datadir)? {
        Some(finished) => say(&format!("finished: {:?} of {}", finished.purpose, finished.position)),
        None => say("nothing to finish"),
    }
    Ok(())
}
