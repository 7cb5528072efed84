//! `rejoin fingerprint`: remembers the fingerprints of this node's files.
use anyhow::Result;
use serde_json::json;
use transfer::cancel::Cancel;
use transfer::datadir::engines::EnginePolicy;
use transfer::datadir::owner::become_owner_of;
use transfer::datadir::recognise::require_datadir;
use transfer::human::size;
use transfer::server::niceness;
use transfer::settings::Settings;
use transfer::snapshot::copy::remember::remember;

use super::alone::Common;

/// Reads what is not remembered yet, and what has changed.
pub fn run(options: &Common) -> Result<()> {
    let datadir = options.node.wanted()?.layout()?.datadir;
    become_owner_of(&datadir)?;
    require_datadir(&datadir)?;
    // Read again as the owner: root's own option files do not apply to the server.
    let wanted = options.node.wanted()?;
    let (layout, server) = (wanted.layout()?, wanted.options()?);
    if !Settings::read(&server)?.remember_fingerprints {
        let text = "remember-fingerprints=0 is set under [sst]: nothing is remembered";
        options.answer.say(text, &json!({"files": 0, "bytes": 0, "read_bytes": 0, "left_out": 0}));
        return Ok(());
    }
    niceness::be_last();
    let ran = remember(&layout, &EnginePolicy::from_options(&server), &Cancel::new())?;
    let left_out = match ran.left_out {
        0 => String::new(),
        1 => "; 1 file is left out: it changed lately, or its filesystem is not known".to_owned(),
        files => {
            format!("; {files} files are left out: they changed lately, or their filesystem is not known")
        }
    };
    let (bytes, read) = (size(ran.bytes), size(ran.read));
    options.answer.say(
        &format!("the fingerprints of {bytes} in {} files are remembered; {read} read{left_out}", ran.files),
        &json!({"files": ran.files, "bytes": ran.bytes, "read_bytes": ran.read, "left_out": ran.left_out}),
    );
    Ok(())
}
