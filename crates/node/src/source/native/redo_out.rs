//! Writes what the tail delivers as a flat log, and remembers what it says about files.
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use formats::Lsn;
use formats::innodb::redo_flat::FlatLog;
use formats::innodb::redo_header::{Checkpoint, DATA_START};
use protocol::inventory::FileId;

use super::spool::{Event, EventKind, Spool};
use crate::source::sink::SnapshotSink;

/// The redo log's number in every snapshot.
pub const REDO: FileId = FileId(0);

/// What the log has said so far.
#[derive(Debug)]
struct Seen {
    events: Vec<Event>,
    flat: FlatLog,
    /// Recovery starts here.
    from: Checkpoint,
    /// Its record came by.
    checkpoint: bool,
    written: Lsn,
}

/// Takes chunks from the spool to the sink; [`RedoOut::run`] is its thread.
#[derive(Debug)]
pub struct RedoOut {
    spool: Arc<Spool>,
    seen: Mutex<Seen>,
}

impl RedoOut {
    /// From `checkpoint` on.
    pub fn new(spool: Arc<Spool>, checkpoint: Checkpoint) -> RedoOut {
        let seen = Seen {
            events: Vec::new(),
            flat: FlatLog::new(checkpoint),
            from: checkpoint,
            checkpoint: false,
            written: checkpoint.lsn,
        };
        RedoOut { spool, seen: Mutex::new(seen) }
    }

    /// The flat log's layout.
    pub fn flat(&self) -> FlatLog {
        self.lock().flat
    }

    /// Where recovery starts.
    pub fn from(&self) -> Checkpoint {
        self.lock().from
    }

    /// Recovery starts at this later checkpoint, whose record came by in the tail; redo below it is not written
    /// any more. Answers the range of the flat log that holds none now.
    pub fn start_at(&self, checkpoint: Checkpoint) -> Range<u64> {
        let mut seen = self.lock();
        seen.flat = seen.flat.recovered_from(checkpoint);
        seen.from = checkpoint;
        seen.checkpoint = true;
        // Only names that come under the lock count. A tablespace number that was deleted counts always.
        let counts = |e: &Event| e.lsn >= checkpoint.lsn || matches!(e.kind, EventKind::Delete(Some(_)));
        seen.events.retain(counts);
        DATA_START..seen.flat.offset(checkpoint.lsn).unwrap_or(DATA_START)
    }

    /// Writes chunks until the spool is closed and empty.
    ///
    /// # Errors
    /// From the sink or the spool.
    pub fn run(&self, sink: &dyn SnapshotSink) -> Result<()> {
        while let Some(chunk) = self.spool.pop().context("cannot read redo that waits to be sent")? {
            let (flat, from) = (self.flat(), self.from());
            let offset = flat.offset(chunk.start).context("redo from before the checkpoint")?;
            if chunk.end > from.lsn {
                sink.write(REDO, offset, &chunk.bytes)?;
            }
            let mut seen = self.lock();
            for event in chunk.events {
                match event.kind {
                    EventKind::Checkpoint(lsn) => {
                        // Behind very many names it stands further on than the checkpoint block says.
                        seen.checkpoint |= match lsn {
                            Some(lsn) => event.lsn >= from.end_lsn && lsn == from.lsn,
                            None => event.lsn == from.end_lsn,
                        };
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
        let seen = self.lock();
        seen.events.iter().filter(|e| e.lsn >= from).cloned().collect()
    }

    /// True once the record of our own checkpoint came by: without it recovery would not begin.
    pub fn saw_checkpoint(&self) -> bool {
        self.lock().checkpoint
    }

    /// LSN up to which redo was written to the sink, or need not be.
    pub fn written(&self) -> Lsn {
        self.lock().written
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
