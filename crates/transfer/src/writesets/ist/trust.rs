//! Whether a joiner's own files are at a position of the group's history, so that write-sets may be applied to them.
//!
//! The provider writes zeros into `grastate.dat` when it has found the node's data inconsistent, and also before every state
//! transfer. A try of deep IST that broke off before the server got any write-set must not count as the first. So a try leaves
//! a note beside the data, which goes before the first write-set does: while it is there, and the files are where it says,
//! nothing was applied since.
use std::path::{Path, PathBuf};

use anyhow::Result;
use formats::Uuid;
use formats::galera::grastate::{self, GraState};
use formats::wsrep::state_id::StateId;

use crate::datadir::layout::Layout;
use crate::datadir::recovered_position::{InnodbFiles, Recovered, recovered_position};
use crate::disk::durable;

/// Name of the note, in the datadir.
const NOTE: &str = "rejoin-ist-try";

/// What the provider recorded about the data. Read it before the server is told where we listen, because the provider replaces
/// it then.
pub fn provider_says(datadir: &Path) -> Option<GraState> {
    GraState::parse(&std::fs::read_to_string(datadir.join(grastate::FILE_NAME)).ok()?).ok()
}

/// The position that the joiner's server will start from, when write-sets may be applied to it; else why not.
///
/// # Errors
/// A file is there and cannot be read.
pub fn position(layout: &Layout, said: Option<&GraState>) -> Result<Result<StateId, String>> {
    let found = match recovered_position(&InnodbFiles::of(layout)?)? {
        Recovered::Known(found) => found.state,
        Recovered::None => return Ok(Err("its files hold no position".to_owned())),
        Recovered::Unknown(why) => return Ok(Err(format!("its position is not known: {why}"))),
    };
    Ok(judge(found, said, noted(&layout.datadir)))
}

/// Whether files at the position `found` may be trusted, by what the provider has said of them and by what a try has noted.
///
/// # Errors
/// In words why not.
pub fn judge(found: StateId, said: Option<&GraState>, noted: Option<StateId>) -> Result<StateId, String> {
    let Some(said) = said else { return Err("its grastate.dat is missing or unreadable".to_owned()) };
    if !found.is_defined() {
        return Err("its files hold no position".to_owned());
    }
    if said.uuid == Uuid::NIL {
        return match noted {
            Some(noted) if noted == found => Ok(found),
            _ => Err("grastate.dat says that its data is not to be trusted (a broken transfer, or an inconsistency)"
                .to_owned()),
        };
    }
    if said.uuid != found.uuid {
        return Err(format!("its files are of the history {}, grastate.dat of {}", found.uuid, said.uuid));
    }
    if said.seqno.0 >= 0 && said.seqno != found.seqno {
        return Err(format!("its files are at {}, grastate.dat says {}", found.seqno, said.seqno));
    }
    Ok(found)
}

fn note(datadir: &Path) -> PathBuf {
    datadir.join(NOTE)
}

#[cfg(test)]
pub(super) fn position_noted(datadir: &Path) -> Option<StateId> {
    noted(datadir)
}

fn noted(datadir: &Path) -> Option<StateId> {
    std::fs::read_to_string(note(datadir)).ok()?.trim().parse().ok()
}

/// Whether a try has left its note: nothing was applied since.
pub fn is_noted(datadir: &Path) -> bool {
    note(datadir).exists()
}

/// Notes that a try begins at `position`.
///
/// # Errors
/// From the disk.
pub fn write_note(datadir: &Path, position: StateId) -> Result<()> {
    durable::write_atomically(&note(datadir), format!("{position}\n").as_bytes())
}

/// The data changes from here on.
///
/// # Errors
/// From the disk.
pub fn remove_note(datadir: &Path) -> Result<()> {
    let note = note(datadir);
    // Where the datadir cannot be written to, removing fails although nothing is there.
    if matches!(std::fs::symlink_metadata(&note), Err(e) if e.kind() == std::io::ErrorKind::NotFound) {
        return Ok(());
    }
    durable::remove_if_there(&note).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HISTORY: &str = "c182339a-e537-11f1-9754-af9be45ac218";

    fn said(uuid: &str, seqno: i64) -> GraState {
        GraState::parse(&format!("uuid: {uuid}\nseqno: {seqno}\n")).unwrap()
    }

    #[test]
    fn what_the_provider_says_counts() {
        let at = |seqno: i64| format!("{HISTORY}:{seqno}").parse::<StateId>().unwrap();
        let nil = "00000000-0000-0000-0000-000000000000";
        let other = "c182339a-e537-11f1-9754-af9be45ac219";
        for (said, noted, says) in [
            (Some(said(HISTORY, -1)), None, None),
            (Some(said(HISTORY, 7)), None, None),
            (Some(said(HISTORY, 8)), None, Some("grastate.dat says 8")),
            (Some(said(other, -1)), None, Some("of the history")),
            (Some(said(nil, -1)), None, Some("not to be trusted")),
            (Some(said(nil, -1)), Some(at(6)), Some("not to be trusted")),
            (Some(said(nil, -1)), Some(at(7)), None),
            (None, Some(at(7)), Some("grastate.dat is missing")),
        ] {
            match (judge(at(7), said.as_ref(), noted), says) {
                (Ok(position), None) => assert_eq!(position, at(7)),
                (Err(why), Some(says)) => assert!(why.contains(says), "{why}"),
                (judged, says) => panic!("{said:?} {noted:?}: {judged:?}, {says:?} expected"),
            }
        }
    }

    #[test]
    fn a_note_comes_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let position: StateId = format!("{HISTORY}:7").parse().unwrap();
        assert_eq!(noted(dir.path()), None);
        write_note(dir.path(), position).unwrap();
        assert_eq!(noted(dir.path()), Some(position));
        remove_note(dir.path()).unwrap();
        assert_eq!(noted(dir.path()), None);
        assert_eq!(provider_says(dir.path()), None);
    }
}
