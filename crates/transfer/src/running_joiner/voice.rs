//! Passes the progress of the snapshot on to the status of the transfer. Rows do not pass through here: the joiner's server gets them
//! at once.
use std::time::Duration;

use anyhow::Result;
use protocol::inventory::{FileEntry, FileId};

use crate::failure::{Failure, Kind};
use crate::job::Job;
use crate::snapshot::sink::SnapshotSink;

/// Passes it on to the status of the transfer.
pub(super) struct Voice<'a>(pub &'a Job);

impl SnapshotSink for Voice<'_> {
    fn announce(&self, entry: &FileEntry) -> Result<()> {
        Err(no_file(&entry.path))
    }

    fn write(&self, file: FileId, _offset: u64, _bytes: &[u8]) -> Result<()> {
        Err(no_file(&file.0.to_string()))
    }

    fn phase(&self, what: &str) {
        self.0.progress.phase(what, "");
    }

    fn waits(&self, for_whom: Option<&str>) {
        self.0.progress.wait_for(for_whom);
    }

    fn paused(&self, what: &str, took: Duration) {
        self.0.progress.paused(took);
        self.0.progress.ledger.paused(what, took);
    }
}

fn no_file(name: &str) -> anyhow::Error {
    Failure::new(Kind::Internal, format!("a running joiner takes no file ({name})")).into()
}
