//! `rejoin rollback`: puts back the files that the last install replaced.

use anyhow::Result;
use serde_json::json;
use transfer::clock::now_ms;
use transfer::datadir::lineage::Lineage;
use transfer::datadir::{managed, server_on};
use transfer::install::files::Disk;
use transfer::install::{record_check, rollback, tidy};

use super::alone::{Alone, Common};

/// Rolls back the last install.
pub fn run(options: &Common) -> Result<()> {
    let alone = Alone::on(&options.node, "rollback")?;
    let (datadir, layout) = (&alone.datadir, &alone.layout);
    record_check::check_undo(datadir, layout)?;
    let found = transfer::joiner::old_files(&managed::managed(layout)?);
    // Listing a large datadir takes time, and a server may have been started meanwhile.
    let in_use = |_: &std::path::Path| Ok(server_on::server_on(layout)?.map(|server| server.to_string()));
    let done = rollback::rollback(&Disk, datadir, &found, in_use, now_ms())?;
    tidy::remove_leftovers(&Disk, datadir)?;
    Lineage::forget(datadir)?;
    let text = format!("put back {} files; discarded the state at {}", done.files, done.dropped);
    options.answer.say(&text, &json!({"put_back_files": done.files, "dropped": done.dropped.to_string()}));
    Ok(())
}
