//! The queues as the sink of a snapshot.
use std::ops::Range;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use protocol::fingerprint::Fingerprint;
use protocol::inventory::{FileEntry, FileId};
use protocol::limits::RANGE_BYTES;

use crate::compare::comparison::Compare;
use crate::send::in_flight::Turn;
use crate::send::queue::SendQueue;
use crate::send::ways;
use crate::snapshot::sink::{Rate, SnapshotSink, write_zeros};

impl SnapshotSink for SendQueue<'_> {
    fn expect(&self, entries: &mut dyn Iterator<Item = &FileEntry>) {
        if let Some(compare) = &self.compare {
            compare.expect(entries);
        }
    }

    fn remember(&self, file: FileId, fingerprint: &Fingerprint) {
        if let Some(compare) = &self.compare {
            compare.together().remember(file, *fingerprint);
        }
    }

    fn compares(&self) -> bool {
        self.compare.is_some()
    }

    fn put_remembered(&self, file: FileId, offset: u64, len: u32, fingerprint: &Fingerprint) -> Result<bool> {
        let Some(compare) = self.compare.as_ref().filter(|_| self.redo != Some(file)) else {
            return Ok(false);
        };
        compare.refuse_wrong_answers()?;
        if !compare.has(file, offset, len, fingerprint, !self.is_at_consistency_point())? {
            return Ok(false);
        }
        self.push_same(&self.announced(file)?, offset, len)?;
        ways::range_is_done();
        self.progress.remembered_bytes.store(compare.unread_bytes(), Ordering::Relaxed);
        Ok(true)
    }

    fn announce(&self, entry: &FileEntry) -> Result<()> {
        let asked = self.compare.as_ref().and_then(|compare| compare.entry(entry.id));
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        // There can be very many, and the comparison keeps most of them already.
        if asked.as_ref() != Some(entry) || files.contains(entry.id) {
            files.insert(entry);
        }
        Ok(())
    }

    fn write(&self, file: FileId, offset: u64, bytes: &[u8]) -> Result<()> {
        let entry = self.announced(file)?;
        if self.redo != Some(file) {
            self.progress.read_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            self.compare.as_ref().map_or(Ok(()), Compare::refuse_wrong_answers)?;
        }
        if self.redo != Some(file) && !self.is_at_consistency_point() {
            self.throttle.read(bytes.len(), self.cancel)?;
        }
        if self.gather(file, offset, bytes)? {
            ways::range_is_done();
            return Ok(());
        }
        let (mut offset, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let room = u64::from(RANGE_BYTES) - offset % u64::from(RANGE_BYTES);
            let (now, later) = rest.split_at(rest.len().min(room as usize));
            self.hand_over(&entry, offset, now)?;
            offset += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    fn turn_to_read(&self, bytes: usize) -> Option<Turn<'_>> {
        (!self.is_at_consistency_point()).then(|| self.throttle.turn(bytes))
    }

    fn drop_redo(&self, file: FileId, range: Range<u64>) -> Result<()> {
        // What was dropped before is a hole already.
        let from = self.redo_dropped.fetch_max(range.end, Ordering::Relaxed).max(range.start);
        write_zeros(self, file, from..range.end)
    }

    fn begin_consistency_point(&self) -> Result<()> {
        self.settle()?;
        for connection in &self.connections[..self.workers()] {
            let mut queue = connection.lock();
            while queue.bytes > 0 {
                self.cancel.check()?;
                queue = connection.wait(queue);
            }
        }
        self.at_consistency_point.store(true, Ordering::Release);
        self.throttle.at_consistency_point(true);
        Ok(())
    }

    fn end_consistency_point(&self) {
        self.at_consistency_point.store(false, Ordering::Release);
        self.throttle.at_consistency_point(false);
    }

    fn holds_writes(&self) {
        self.throttle.set_yields(false);
    }

    fn phase(&self, what: &str) {
        self.progress.phase(what, "");
    }

    fn waits(&self, for_whom: Option<&str>) {
        self.progress.wait_for(for_whom);
    }

    fn paused(&self, what: &str, took: Duration) {
        self.progress.paused(took);
        self.progress.ledger.paused(what, took);
    }

    fn found_corrupt_pages(&self, pages: u64) {
        self.progress.found_corrupt_pages(pages);
    }

    fn tell(&self, text: &str) {
        self.progress.tell(text);
    }

    fn more(&self, bytes: u64) {
        self.progress.more(bytes);
    }

    fn left(&self) -> Option<u64> {
        let total = Some(self.progress.total()).filter(|total| *total > 0)?;
        Some(total.saturating_sub(self.progress.done_bytes.load(Ordering::Relaxed)))
    }

    fn expect_redo(&self, bytes: u64, exact: bool) {
        self.progress.expect_redo(bytes, exact);
    }

    fn gives_way(&self) -> bool {
        self.throttle.gives_way() && !self.is_at_consistency_point()
    }

    fn is_strained(&self) -> bool {
        self.throttle.is_strained()
    }

    fn rate(&self) -> Rate {
        let link = Some(self.ways.link.speed() as u64);
        let (limit, reading) = (self.throttle.rate(), self.throttle.reading());
        Rate { link, limit, reading, page_time: self.page_time }
    }
}
