//! A redo log that no server writes to, read once from its checkpoint to its end.
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};
use formats::Lsn;
use formats::innodb::redo::{FileEvent, Record};
use formats::innodb::redo_header::{Checkpoint, DATA_START, RedoFormat, RedoHeader};
use formats::innodb::redo_mtr::{BadMtr, Geometry, Mtr, MtrReader};

use super::page_files::{open, read_at};

/// Bytes that are read at once.
const WINDOW: u64 = 1 << 20;

/// The log file: left by a server, cleanly or not, or created by a snapshot.
pub(super) struct RedoFile {
    file: File,
    geometry: Geometry,
    /// Only types and lengths of records can be read.
    pub(super) encrypted: bool,
    checkpoint: Checkpoint,
}

/// Why a log cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLog {
    /// The file does not exist.
    #[error("there is no redo log")]
    Missing,
    /// Its head is damaged.
    #[error("the redo log's header is invalid: {0}")]
    Head(String),
    /// It was created by a server before 10.8, or by another product.
    #[error("the redo log has another format: {0:?}")]
    Format(RedoFormat),
    /// The log ends before the record of its own checkpoint. A server would not start on it.
    #[error("the redo log ends at LSN {0}, without the record of its checkpoint")]
    NoCheckpoint(Lsn),
}

/// Whether pages were changed after the last checkpoint, so that the data files alone are not the state. No
/// server may have the log open.
///
/// # Errors
/// The file exists but cannot be read.
pub fn changes_pages(path: &Path) -> Result<Result<bool, BadLog>> {
    let log = match RedoFile::open(path)? {
        Ok(log) => log,
        Err(bad) => return Ok(Err(bad)),
    };
    let mut changes = false;
    let end = log.read(|mtr| {
        changes |= has_pages(mtr);
        Ok(())
    })?;
    Ok(end.map(|_| changes))
}

/// Whether a mini-transaction has page records. After a clean end there are none.
pub(super) fn has_pages(mtr: &Mtr<'_>) -> bool {
    mtr.records().any(|record| !matches!(record, Ok(Record::File(_))))
}

impl RedoFile {
    /// Reads the header.
    pub(super) fn open(path: &Path) -> Result<Result<RedoFile, BadLog>> {
        let Some(file) = open(path)? else { return Ok(Err(BadLog::Missing)) };
        let mut head = vec![0; DATA_START as usize];
        if !read_at(&file, &mut head, 0).with_context(|| format!("cannot read {}", path.display()))? {
            return Ok(Err(BadLog::Head("it is truncated".to_owned())));
        }
        let header = match RedoHeader::parse(&head) {
            Ok(header) => header,
            Err(e) => return Ok(Err(BadLog::Head(e.to_string()))),
        };
        if !header.format.is_circular() {
            return Ok(Err(BadLog::Format(header.format)));
        }
        let checkpoint = match Checkpoint::newest(&head) {
            Ok(checkpoint) => checkpoint,
            Err(e) => return Ok(Err(BadLog::Head(e.to_string()))),
        };
        let geometry = Geometry::new(header.first_lsn, file.metadata()?.len());
        let Some(geometry) = geometry.filter(|_| checkpoint.lsn >= header.first_lsn) else {
            return Ok(Err(BadLog::Head("its size or checkpoint is impossible".to_owned())));
        };
        let encrypted = header.format != RedoFormat::Circular;
        Ok(Ok(RedoFile { file, geometry, encrypted, checkpoint }))
    }

    /// Passes every mini-transaction from the checkpoint on to `each`, and returns the end of the log. As in
    /// a server's recovery, the log ends at the first bytes that are not a mini-transaction of this lap.
    pub(super) fn read(&self, mut each: impl FnMut(&Mtr<'_>) -> Result<()>) -> Result<Result<Lsn, BadLog>> {
        let mut reader = MtrReader::new(self.geometry, self.encrypted, self.checkpoint.lsn);
        let mut window = Vec::new();
        let mut saw_checkpoint = false;
        let past = self.checkpoint.lsn.0.saturating_add(self.geometry.capacity);
        while reader.wants().0 < past {
            if self.fill(reader.wants(), past, &mut window)? == 0 {
                break;
            }
            reader.feed(&window);
            let ended = loop {
                match reader.next_mtr() {
                    Ok(Some(mtr)) => {
                        saw_checkpoint |= mtr.start == self.checkpoint.end_lsn && self.is_ours(&mtr);
                        each(&mtr)?;
                    }
                    Ok(None) => break None,
                    Err(bad) => break Some(bad),
                }
            };
            if let Some(BadMtr { .. }) = ended {
                break;
            }
        }
        let end = reader.at();
        Ok(if saw_checkpoint { Ok(end) } else { Err(BadLog::NoCheckpoint(end)) })
    }

    fn is_ours(&self, mtr: &Mtr<'_>) -> bool {
        let ours = |lsn: Option<Lsn>| lsn.is_none_or(|lsn| lsn == self.checkpoint.lsn);
        mtr.file_events().any(|event| matches!(event, FileEvent::Checkpoint { lsn } if ours(lsn)))
    }

    /// Reads the log from `lsn`, up to `past`, the end of the lap or of a window. Returns 0 at the end of the
    /// file.
    fn fill(&self, lsn: Lsn, past: u64, window: &mut Vec<u8>) -> Result<usize> {
        let offset = self.geometry.offset(lsn).context("the LSN is before the start of the log")?;
        let lap_end = DATA_START + self.geometry.capacity;
        window.resize((past - lsn.0).min(lap_end - offset).min(WINDOW) as usize, 0);
        let read = self.file.read_at(window, offset).context("cannot read the redo log")?;
        window.truncate(read);
        Ok(read)
    }
}
