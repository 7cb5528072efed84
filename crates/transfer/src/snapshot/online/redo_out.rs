//! Writes what the tail delivers as a flat log, and remembers what it says about files.
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
    /// LSN at which the log that is sent begins.
    began: Lsn,
    /// Some of it was handed over.
    sent: bool,
    /// What is below this LSN was read again since the checkpoint there was seen, or is not below `from`.
    fresh: Lsn,
    /// No newer start is taken for want of room any more.
    fixed: bool,
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
            began: checkpoint.lsn,
            sent: false,
            fresh: checkpoint.lsn,
            fixed: false,
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

    /// LSN at which the log that is sent begins: at `from`, or below it when some was sent before.
    pub fn began(&self) -> Lsn {
        self.lock().began
    }

    /// A start was taken of which not all pages were read again: its LSN.
    pub fn owed(&self) -> Option<Lsn> {
        let seen = self.lock();
        (seen.from.lsn > seen.fresh).then_some(seen.from.lsn)
    }

    /// All pages that redo below `lsn` changed were read again.
    pub fn is_fresh(&self, lsn: Lsn) {
        let mut seen = self.lock();
        seen.fresh = seen.fresh.max(lsn);
    }

    /// The copy is about to end: no newer start is taken for want of room ([`RedoOut::make_room`]) any more.
    pub fn fix(&self, fixed: bool) {
        self.lock().fixed = fixed;
    }

    /// The copy is about to end: see [`RedoOut::fix`].
    pub fn is_fixed(&self) -> bool {
        self.lock().fixed
    }

    /// As [`RedoOut::start_at`], unless the copy is about to end.
    pub fn make_room(&self, checkpoint: Checkpoint) -> Option<Range<u64>> {
        let seen = self.lock();
        if seen.fixed { None } else { self.start(seen, checkpoint) }
    }

    /// Recovery starts at this later checkpoint, whose record came by in the tail; redo below it is not written
    /// any more. Answers the range of the log that holds none now, when some of it was written.
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
        // Only names that come under the lock count. A tablespace number that was deleted counts always.
        let counts = |e: &Event| e.lsn >= checkpoint.lsn || matches!(e.kind, EventKind::Delete(Some(_)));
        seen.events.retain(counts);
        let hole = DATA_START..seen.flat.offset(checkpoint.lsn).unwrap_or(DATA_START);
        seen.sent.then_some(hole)
    }

    /// What waits is sent from now on.
    pub fn release(&self) {
        self.spool.release();
    }

    /// Somebody waits for room in the spool.
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
                        // Behind very many names it stands further on than the checkpoint block says.
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

    /// Where a chunk goes, and from which of its bytes on; nowhere when recovery starts above it.
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
