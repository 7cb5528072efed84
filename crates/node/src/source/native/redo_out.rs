//! Writes what the tail delivers as a flat log, and remembers what it says about files.
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use formats::Lsn;
use formats::innodb::redo_flat::FlatLog;
use formats::innodb::redo_header::Checkpoint;
use protocol::inventory::FileId;

use super::sink::SnapshotSink;
use super::spool::{Event, EventKind, Spool};

/// The redo log's number in every snapshot.
pub const REDO: FileId = FileId(0);

/// What the log has said so far.
#[derive(Debug, Default)]
struct Seen {
    events: Vec<Event>,
    checkpoint: bool,
    written: Lsn,
}

/// Takes chunks from the spool to the sink; [`RedoOut::run`] is its thread.
#[derive(Debug)]
pub struct RedoOut {
    spool: Arc<Spool>,
    flat: FlatLog,
    checkpoint: Checkpoint,
    seen: Mutex<Seen>,
}

impl RedoOut {
    /// From `checkpoint` on.
    pub fn new(spool: Arc<Spool>, checkpoint: Checkpoint) -> RedoOut {
        let seen = Mutex::new(Seen { written: checkpoint.lsn, ..Seen::default() });
        RedoOut { spool, flat: FlatLog::new(checkpoint), checkpoint, seen }
    }

    /// The flat log's layout.
    pub fn flat(&self) -> &FlatLog {
        &self.flat
    }

    /// Writes chunks until the spool is closed and empty.
    ///
    /// # Errors
    /// From the sink or the spool.
    pub fn run(&self, sink: &dyn SnapshotSink) -> Result<()> {
        while let Some(chunk) = self.spool.pop().context("cannot read redo that waits to be sent")? {
            let offset = self.flat.offset(chunk.start).context("redo from before the checkpoint")?;
            sink.write(REDO, offset, &chunk.bytes)?;
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            for event in chunk.events {
                match event.kind {
                    EventKind::Checkpoint(lsn) => {
                        seen.checkpoint |= event.lsn == self.checkpoint.end_lsn
                            && lsn.is_none_or(|lsn| lsn == self.checkpoint.lsn);
                    }
                    _ => seen.events.push(event),
                }
            }
            seen.written = chunk.end;
        }
        Ok(())
    }

    /// File events from an LSN on that were written so far.
    pub fn events_since(&self, from: Lsn) -> Vec<Event> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.events.iter().filter(|e| e.lsn >= from).cloned().collect()
    }

    /// True once the record of our own checkpoint came by: without it recovery would not begin.
    pub fn saw_checkpoint(&self) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).checkpoint
    }

    /// LSN up to which redo was written to the sink.
    pub fn written(&self) -> Lsn {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).written
    }
}
