//! Writes the redo as a flat log, and remembers its file events.
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use formats::Lsn;
use formats::innodb::redo_flat::FlatLog;
use formats::innodb::redo_header::{Checkpoint, DATA_START};
use protocol::inventory::FileId;

use super::spool::{Chunk, Event, EventKind, Spool};
use crate::snapshot::sink::SnapshotSink;

/// The redo log's number in every snapshot.
pub const REDO: FileId = FileId(0);

/// What was read from the log so far.
#[derive(Debug)]
struct Seen {
    events: Vec<Event>,
    flat: FlatLog,
    /// The checkpoint at which recovery starts.
    from: Checkpoint,
    /// Its record was seen.
    checkpoint: bool,
    written: Lsn,
    /// LSN at which the log that is sent begins.
    began: Lsn,
    /// Some of it was given to the sink.
    sent: bool,
    /// The copy does not need redo below this LSN: the pages that it changes were read again.
    fresh: Lsn,
    /// The start of recovery is no longer moved for lack of room.
    fixed: bool,
}

/// Moves chunks from the spool to the sink; [`RedoOut::run`] is its thread.
#[derive(Debug)]
pub struct RedoOut {
    spool: Arc<Spool>,
    seen: Mutex<Seen>,
}

impl RedoOut {
    /// Recovery starts at `checkpoint`, until it is moved.
    pub fn new(spool: Arc<Spool>, checkpoint: Checkpoint) -> RedoOut {
        let seen = Seen {
            events: Vec::new(),
            flat: FlatLog::new(checkpoint),
            from: checkpoint,
            checkpoint: false,
            written: checkpoint.lsn,
            began: checkpoint.lsn,
            sent: false,
            fresh: checkpoint.lsn,
            fixed: false,
        };
        RedoOut { spool, seen: Mutex::new(seen) }
    }

    /// Layout of the flat log.
    pub fn flat(&self) -> FlatLog {
        self.lock().flat
    }

    /// The checkpoint at which recovery starts.
    pub fn from(&self) -> Checkpoint {
        self.lock().from
    }

    /// LSN at which the log that is sent begins: at `from`, or below it if some redo was sent before recovery was
    /// moved.
    pub fn began(&self) -> Lsn {
        self.lock().began
    }

    /// LSN at which recovery starts, if pages that redo below it changes must still be read again.
    pub fn owed(&self) -> Option<Lsn> {
        let seen = self.lock();
        (seen.from.lsn > seen.fresh).then_some(seen.from.lsn)
    }

    /// Records that all pages changed by redo below `lsn` were read again.
    pub fn is_fresh(&self, lsn: Lsn) {
        let mut seen = self.lock();
        seen.fresh = seen.fresh.max(lsn);
    }

    /// `true`: the copy is about to end, and [`RedoOut::make_room`] no longer moves the start of recovery.
    pub fn fix(&self, fixed: bool) {
        self.lock().fixed = fixed;
    }

    /// True if the copy is about to end: see [`RedoOut::fix`].
    pub fn is_fixed(&self) -> bool {
        self.lock().fixed
    }

    /// As [`RedoOut::start_at`], unless the copy is about to end.
    pub fn make_room(&self, checkpoint: Checkpoint) -> Option<Range<u64>> {
        let seen = self.lock();
        if seen.fixed { None } else { self.start(seen, checkpoint) }
    }

    /// Moves recovery to this later checkpoint, whose record the tail has read. Redo below it is no longer written.
    /// Returns the range of the log that is empty now, if some of the redo was already written.
    pub fn start_at(&self, checkpoint: Checkpoint) -> Option<Range<u64>> {
        self.start(self.lock(), checkpoint)
    }

    fn start(&self, mut seen: MutexGuard<'_, Seen>, checkpoint: Checkpoint) -> Option<Range<u64>> {
        if checkpoint.lsn <= seen.from.lsn {
            return None;
        }
        seen.from = checkpoint;
        seen.checkpoint = true;
        if seen.sent {
            seen.flat = seen.flat.recovered_from(checkpoint);
        } else {
            seen.flat = FlatLog::new(checkpoint);
            seen.began = checkpoint.lsn;
        }
        seen.written = seen.written.max(checkpoint.lsn);
        let dropped = self.spool.drop_below(checkpoint.lsn);
        seen.events.extend(dropped);
        // Events about names matter only if they happen under the lock. The deletion of a tablespace always matters.
        let counts = |e: &Event| e.lsn >= checkpoint.lsn || matches!(e.kind, EventKind::Delete(Some(_)));
        seen.events.retain(counts);
        let hole = DATA_START..seen.flat.offset(checkpoint.lsn).unwrap_or(DATA_START);
        seen.sent.then_some(hole)
    }

    /// From now on the waiting redo is sent.
    pub fn release(&self) {
        self.spool.release();
    }

    /// True while a thread is waiting for room in the spool.
    pub fn is_full(&self) -> bool {
        self.spool.is_full()
    }

    /// Writes chunks until the spool is closed and empty.
    ///
    /// # Errors
    /// From the sink or the spool.
    pub fn run(&self, sink: &dyn SnapshotSink) -> Result<()> {
        while let Some(chunk) = self.spool.pop().context("cannot read redo that waits to be sent")? {
            if let Some((offset, skip)) = self.place(&chunk)? {
                sink.write(REDO, offset, chunk.bytes.get(skip..).unwrap_or_default())?;
            }
            let mut seen = self.lock();
            for event in chunk.events {
                match event.kind {
                    EventKind::Checkpoint(lsn) => {
                        // If very many file names precede it, the record comes later than the checkpoint block says.
                        seen.checkpoint |= match lsn {
                            Some(lsn) => event.lsn >= seen.from.end_lsn && lsn == seen.from.lsn,
                            None => event.lsn == seen.from.end_lsn,
                        };
                    }
                    _ => seen.events.push(event),
                }
            }
            seen.written = seen.written.max(chunk.end);
        }
        Ok(())
    }

    /// Offset at which a chunk is written, and how many of its first bytes are skipped; `None` if recovery starts above
    /// it.
    fn place(&self, chunk: &Chunk) -> Result<Option<(u64, usize)>> {
        let mut seen = self.lock();
        if chunk.end <= seen.from.lsn {
            return Ok(None);
        }
        seen.sent = true;
        let start = chunk.start.max(seen.began);
        let offset = seen.flat.offset(start).context("redo from before the checkpoint")?;
        Ok(Some((offset, (start.0 - chunk.start.0) as usize)))
    }

    /// File events from an LSN on, among the redo written so far.
    pub fn events_since(&self, from: Lsn) -> Vec<Event> {
        let seen = self.lock();
        seen.events.iter().filter(|e| e.lsn >= from).cloned().collect()
    }

    /// True once the record of our own checkpoint was seen: recovery does not begin without it.
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

#[cfg(test)]
#[path = "redo_out_tests.rs"]
mod tests;
