//! The record of a transfer: a JSON file beside its log. This is the one place that writes it.
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::progress::Progress;
use crate::threads::lock;

/// How the name of a record ends.
pub(super) const RECORD: &str = ".json";
/// How the name ends while the record is being written.
pub(super) const RECORD_IN_THE_MAKING: &str = ".json.tmp";

/// Writes the record of a transfer, again and again while it runs: what a killed program leaves is what it knew.
#[derive(Clone)]
pub struct Recorder {
    progress: Arc<Progress>,
    /// `None` if there is no log file.
    path: Option<PathBuf>,
    /// The log has said that the record cannot be written. Held while it is written.
    complained: Arc<Mutex<bool>>,
}

impl Recorder {
    /// Of a transfer whose log file is `log`.
    pub fn beside(log: Option<&Path>, progress: &Arc<Progress>) -> Recorder {
        let path = log.map(|log| log.with_extension(&RECORD[1..]));
        Recorder { progress: Arc::clone(progress), path, complained: Arc::default() }
    }

    /// Writes the record as it is now. If that is not possible, the log says so, once.
    pub fn write(&self) {
        let Some(file) = self.path.as_deref() else { return };
        let mut complained = lock(&self.complained);
        if let Err(error) = write_whole(file, &self.progress.record().to_text())
            && !std::mem::replace(&mut *complained, true)
        {
            tracing::warn!("cannot write the record of this transfer, {}: {error}", file.display());
        }
    }

    /// Writes the record of a transfer that has ended. Its first outcome counts.
    pub fn end(&self, outcome: &str) {
        if !self.progress.has_ended() {
            self.progress.end(outcome);
        }
        self.write();
    }
}

/// Readers get the old or the new record. Its permissions are those of the log.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let temporary = path.with_extension(&RECORD_IN_THE_MAKING[1..]);
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o640)
        .open(&temporary)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&temporary, path));
    written.inspect_err(|_| drop(fs::remove_file(&temporary)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use report::Record;
    use report::record::OK;

    use super::*;

    #[test]
    fn a_record_is_written_as_a_whole_and_says_how_it_ended() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("rejoin-joiner-20260101-000000-7.log");
        let progress = Progress::new("joiner");
        let recorder = Recorder::beside(Some(&log), &progress);
        let read = || {
            let path = dir.path().join("rejoin-joiner-20260101-000000-7.json");
            assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o640);
            Record::parse(&fs::read_to_string(path).expect("read")).expect("a record")
        };
        recorder.write();
        assert_eq!((read().outcome, read().ended_ms), (None, None));
        recorder.end("the disk is full");
        recorder.end(OK);
        assert_eq!(read().failure(), Some("the disk is full"));
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1, "nothing else is left");
        // The directory has gone: a transfer does not end for that.
        let recorder = Recorder::beside(Some(&dir.path().join("none/x.log")), &progress);
        recorder.write();
        Recorder::beside(None, &progress).write();
    }
}
