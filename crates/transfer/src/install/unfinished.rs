//! The record of a transfer that has begun to receive files, until these are installed or not needed any more. A node that has
//! this record holds less than its donor did: it is not the one to bootstrap a cluster from.
use std::path::Path;

use anyhow::Result;
use formats::wsrep::state_id::StateId;
use serde::{Deserialize, Serialize};

use crate::clock::now_ms;
use crate::disk::{durable, small_file};
use crate::install::files::{Disk, Files as _};
use crate::install::names::{RECEIVING, own_directory};

/// Names and positions are short.
const BYTES_MAX: u64 = 4096;

/// A transfer that has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfinished {
    /// `wsrep_node_name` of the donor.
    pub donor: String,
    /// `uuid:seqno` of the donor when it began.
    pub position: String,
    /// When, in milliseconds since 1970.
    pub began_ms: u64,
}

impl Unfinished {
    /// Describes a transfer that begins now.
    pub fn now(donor: &str, position: &str) -> Unfinished {
        let short = |text: &str| text.chars().take(200).collect::<String>();
        Unfinished { donor: short(donor), position: short(position), began_ms: now_ms() }
    }

    /// Reads the record; `None` if there is none, or it is invalid.
    pub fn read(datadir: &Path) -> Option<Unfinished> {
        let content = small_file::read(&own_directory(datadir).join(RECEIVING), BYTES_MAX).ok().flatten()?;
        serde_json::from_slice(&content).ok()
    }

    /// Writes it.
    ///
    /// # Errors
    /// From the disk.
    pub fn write(&self, datadir: &Path) -> Result<()> {
        let own = own_directory(datadir);
        Disk.make_directory(&own)?;
        durable::write_atomically(&own.join(RECEIVING), &serde_json::to_vec(self)?)
    }

    /// Whether files at this position are older than what was to be received. A node that came back otherwise has caught up.
    pub fn is_ahead_of(&self, own: Option<StateId>) -> bool {
        let theirs: Option<StateId> = self.position.parse().ok();
        !own.zip(theirs).is_some_and(|(own, theirs)| own.uuid == theirs.uuid && own.seqno >= theirs.seqno)
    }

    /// Removes it, and our directory if nothing else is in it: the transfer is installed, or the node was Synced without it.
    ///
    /// # Errors
    /// From the disk.
    pub fn remove(datadir: &Path) -> Result<()> {
        let own = own_directory(datadir);
        if durable::remove_if_there(&own.join(RECEIVING))? {
            Disk.remove_directory(&own)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Unfinished::read(dir.path()), None);
        Unfinished::remove(dir.path()).unwrap();
        let record = Unfinished::now(&"n\u{e9}".repeat(4000), "u:30");
        record.write(dir.path()).unwrap();
        assert_eq!(Unfinished::read(dir.path()), Some(record));
        std::fs::write(own_directory(dir.path()).join(RECEIVING), "{").unwrap();
        assert_eq!(Unfinished::read(dir.path()), None);
        Unfinished::remove(dir.path()).unwrap();
    }
}
