//! What a source hands over, on its way to the joiner: zeros left out, packed where that pays, in one queue for each
//! connection.
//!
//! All bytes of one range of a file take the same lane, so that what was read last arrives last, also when a file is
//! read again. The redo log has a lane of its own, never behind pages and not held back by the rate limit. A full lane
//! makes the source wait, except in a settled moment: what is read under locks does not wait for the link, in bounds.
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use protocol::chunk::{Chunk, digest};
use protocol::inventory::{FileEntry, FileId, batches};
use protocol::limits::RANGE_BYTES;
use protocol::message::Message;

use super::compare::{Compare, Found};
use super::lanes::{Lane, Parcel};
use super::packer::{Compression, Packer};
use super::sink::{Manifest, SnapshotSink, write_zeros};
use super::throttle::Throttle;
use super::together::{Group, Put};
use super::unconfirmed::{Block, State};
use super::zeros::find_parts;
use crate::cancel::Cancel;
use crate::server::progress::Progress;

/// Bytes that wait in a lane before its source must wait.
const LANE_BYTES: usize = 1 << 20;
/// Bytes that may wait in all lanes together when nothing may wait for the link.
const MOMENT_BYTES: usize = 48 << 20;

/// The queues of one attempt.
pub struct Outbox<'a> {
    pub(super) lanes: Vec<Lane>,
    /// Has the last lane to itself.
    pub(super) redo: Option<FileId>,
    files: Mutex<HashMap<FileId, Arc<FileEntry>>>,
    packers: Mutex<Vec<Packer>>,
    compression: Compression,
    pub(super) throttle: Throttle,
    /// What the joiner has, when that is looked at.
    pub(super) compare: Option<Compare<'a>>,
    in_moment: AtomicBool,
    pub(super) waiting: AtomicUsize,
    /// End of the redo that the joiner needs no more.
    redo_dropped: AtomicU64,
    manifest: Mutex<Option<Manifest>>,
    pub(super) progress: &'a Progress,
    pub(super) cancel: &'a Cancel,
}

impl<'a> Outbox<'a> {
    /// For `workers` connections, and one more when the source has a redo log that goes beside them.
    pub fn new(
        workers: u16,
        redo: Option<FileId>,
        compression: Compression,
        throttle: Throttle,
        compare: Option<Compare<'a>>,
        progress: &'a Progress,
        cancel: &'a Cancel,
    ) -> Outbox<'a> {
        let lanes = usize::from(workers.max(1)) + usize::from(redo.is_some());
        Outbox {
            lanes: (0..lanes).map(|_| Lane::default()).collect(),
            redo,
            files: Mutex::default(),
            packers: Mutex::default(),
            compression,
            throttle,
            compare,
            in_moment: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            redo_dropped: AtomicU64::new(0),
            manifest: Mutex::default(),
            progress,
            cancel,
        }
    }

    /// How many connections it takes to send.
    pub fn lanes(&self) -> u16 {
        self.lanes.len() as u16
    }

    /// What the joiner has, when that is looked at: it takes two connections more.
    pub fn compare(&self) -> Option<&Compare<'a>> {
        self.compare.as_ref()
    }

    /// Nothing more comes. What waits is still sent, unless it is void.
    pub fn close(&self, void: bool) {
        if let Some(compare) = &self.compare {
            compare.close();
        }
        for lane in &self.lanes {
            let mut queue = lane.lock();
            queue.closed = true;
            if void {
                queue.parcels.clear();
            }
            lane.changed.notify_all();
        }
    }

    /// What tells the joiner of the files of the state: of those that it was asked for as they are, by number.
    pub fn list(&self, files: &[FileEntry]) -> Vec<Message> {
        let is_known = |file: &FileEntry| self.compare.as_ref().is_some_and(|compare| compare.is_known(file));
        let follows = |a: &FileEntry, b: &FileEntry| match (is_known(a), is_known(b)) {
            (true, true) => a.id.0 + 1 == b.id.0,
            (a, b) => !a && !b,
        };
        let mut list = Vec::new();
        for run in files.chunk_by(follows) {
            match run {
                [first, ..] if is_known(first) => {
                    list.push(Message::FilesKnown { first: first.id, count: run.len() as u32 });
                }
                _ => list.extend(batches(run).map(|batch| Message::Files(batch.to_vec()))),
            }
        }
        list
    }

    /// What the source said last.
    pub fn manifest(self) -> Option<Manifest> {
        self.manifest.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, lane: &Lane, parcel: Parcel) -> Result<()> {
        let mut queue = lane.lock();
        while queue.bytes >= LANE_BYTES && !self.may_pile_up() {
            self.cancel.check()?;
            queue = lane.wait(queue);
        }
        self.waiting.fetch_add(parcel.weight(), Ordering::Relaxed);
        queue.bytes += parcel.weight();
        queue.parcels.push_back(parcel);
        lane.changed.notify_all();
        Ok(())
    }

    fn may_pile_up(&self) -> bool {
        self.is_in_moment() && self.waiting.load(Ordering::Relaxed) < MOMENT_BYTES
    }

    fn lane_of(&self, file: FileId, offset: u64) -> Result<&Lane> {
        let last = self.lanes.len() - 1;
        let at = match self.redo {
            Some(redo) if redo == file => last,
            redo => {
                // Neighbouring ranges go to different connections.
                let workers = if redo.is_some() { last } else { last + 1 };
                let file = self.compare.as_ref().map_or(file, |compare| compare.together().first_of(file));
                (u64::from(file.0) + offset / u64::from(RANGE_BYTES)) as usize % workers
            }
        };
        self.lanes.get(at).context("no such lane")
    }

    /// Each file of a group is compared by itself.
    fn hand_over_apart(&self, group: &Group) -> Result<()> {
        if let Some(compare) = &self.compare {
            compare.ask_apart(group);
        }
        for entry in &group.entries {
            if let Some(bytes) = group.bytes.get(&entry.id) {
                self.hand_over(&self.announced(entry.id)?, 0, bytes)?;
            }
        }
        Ok(())
    }

    fn is_in_moment(&self) -> bool {
        self.in_moment.load(Ordering::Acquire)
    }

    /// What of a part of a range the joiner has.
    fn look(&self, file: FileId, offset: u64, bytes: &[u8]) -> Result<Found> {
        match &self.compare {
            Some(compare) if self.redo != Some(file) => {
                let wait = !self.is_in_moment();
                if wait {
                    self.until(|state| state.has_room() && state.is_confirmed(file, offset))?;
                }
                compare.look(file, offset, bytes, wait)
            }
            _ => Ok(Found::default()),
        }
    }

    /// Waits until the joiner has said enough of what it rebuilds. What it could not is sent whole.
    fn until(&self, enough: impl Fn(&State) -> bool) -> Result<()> {
        let Some(unconfirmed) = self.compare.as_ref().map(Compare::unconfirmed) else { return Ok(()) };
        loop {
            self.cancel.check()?;
            let mut state = unconfirmed.lock();
            if let Some(Block { file, offset, bytes }) = state.pop_failed() {
                drop(state);
                self.pack(&self.announced(file)?, offset, &bytes, &Found::default())?;
                unconfirmed.sent(file, offset);
            } else if enough(&state) {
                return Ok(());
            } else {
                unconfirmed.wait(state);
            }
        }
    }

    /// All that was handed over is on its way, and all that the joiner was to rebuild is there.
    pub fn settle(&self) -> Result<()> {
        let unfinished = || self.compare.as_ref().and_then(|compare| compare.together().take_unfinished());
        while let Some(group) = unfinished() {
            self.hand_over_apart(&group)?;
        }
        self.until(State::is_empty)
    }

    /// Small files that are compared as one: they wait for each other. What is not of a group is left to the caller.
    fn gather(&self, file: FileId, offset: u64, bytes: &[u8]) -> Result<bool> {
        let Some(compare) = &self.compare else { return Ok(false) };
        match compare.together().put(file, offset, bytes) {
            Put::Apart => Ok(false),
            Put::Waits => Ok(true),
            Put::Broken(group) => self.hand_over_apart(&group).map(|()| false),
            Put::Whole(group) if self.is_in_moment() || !compare.is_same_together(&group)? => {
                self.hand_over_apart(&group).map(|()| true)
            }
            Put::Whole(group) => {
                let (first, len) = (group.first(), group.total_bytes());
                self.push(self.lane_of(first, 0)?, Parcel::Together { first, len }).map(|()| true)
            }
        }
    }

    fn announced(&self, file: FileId) -> Result<Arc<FileEntry>> {
        let entry = self.files.lock().unwrap_or_else(PoisonError::into_inner).get(&file).cloned();
        entry.context("data of a file that was not announced")
    }

    /// Packs bytes that lie inside one range, and puts them into their lane.
    fn hand_over(&self, entry: &Arc<FileEntry>, offset: u64, bytes: &[u8]) -> Result<()> {
        let began = Instant::now();
        let found = self.look(entry.id, offset, bytes)?;
        let differing = self.pack(entry, offset, bytes, &found)?;
        if let Some(compare) = &self.compare {
            compare.learn(&found, differing, began.elapsed());
        }
        Ok(())
    }

    /// Answers the number of bytes that are neither the same nor zero.
    fn pack(&self, entry: &Arc<FileEntry>, offset: u64, bytes: &[u8], found: &Found) -> Result<usize> {
        let lane = self.lane_of(entry.id, offset)?;
        let length = bytes.len() as u32;
        if found.same == [(0, length)] {
            let chunk = Chunk::same(entry.id, offset, length);
            self.push(lane, Parcel::Chunk { entry: Arc::clone(entry), chunk, payload: Vec::new() })?;
            return Ok(0);
        }
        let pool = || self.packers.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = pool().pop();
        let mut packer = taken.map_or_else(|| Packer::new(self.compression), Ok)?;
        let Found { same, deltas, literals, .. } = found;
        let mut known = same.clone();
        known.extend(deltas.iter().map(|delta| (delta.start, delta.len)));
        known.sort_unstable();
        let parts = parts_between(bytes, &known);
        let mut data = Vec::new();
        for &(start, len) in &parts {
            data.extend_from_slice(&bytes[start as usize..(start + len) as usize]);
        }
        let differing = data.len() + deltas.iter().map(|delta| delta.len as usize).sum::<usize>();
        data.extend_from_slice(literals);
        let packed = packer.pack(&data)?;
        let sent = digest(&data);
        let all_is_sent = deltas.is_empty() && data.len() == bytes.len();
        let whole = (!all_is_sent).then(|| digest(bytes)).filter(|whole| *whole != sent);
        let payload = packer.take(&packed, data);
        let packing = packed.packing;
        let chunk = Chunk {
            file: entry.id,
            offset,
            len: length,
            parts,
            same: same.clone(),
            deltas: deltas.clone(),
            packing,
            digest: sent,
            whole,
        };
        self.push(lane, Parcel::Chunk { entry: Arc::clone(entry), chunk, payload })?;
        packer.sent(&packed);
        pool().push(packer);
        Ok(differing)
    }
}

/// The parts of `bytes` that are neither known nor zero.
fn parts_between(bytes: &[u8], known: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let (mut parts, mut found) = (Vec::new(), Vec::new());
    let mut from = 0;
    for (start, end) in
        known.iter().map(|&(start, len)| (start, start + len)).chain([(bytes.len() as u32, 0)])
    {
        find_parts(bytes.get(from as usize..start as usize).unwrap_or_default(), &mut found);
        parts.extend(found.iter().map(|&(at, len)| (from + at, len)));
        from = end;
    }
    parts
}

impl SnapshotSink for Outbox<'_> {
    fn expect(&self, entries: &mut dyn Iterator<Item = &FileEntry>) {
        if let Some(compare) = &self.compare {
            compare.expect(entries);
        }
    }

    fn announce(&self, entry: &FileEntry) -> Result<()> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.insert(entry.id, Arc::new(entry.clone()));
        Ok(())
    }

    fn write(&self, file: FileId, offset: u64, bytes: &[u8]) -> Result<()> {
        let entry = self.announced(file)?;
        if self.gather(file, offset, bytes)? {
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

    fn drop_redo(&self, file: FileId, range: Range<u64>) -> Result<()> {
        // What was dropped before is a hole already.
        let from = self.redo_dropped.fetch_max(range.end, Ordering::Relaxed).max(range.start);
        write_zeros(self, file, from..range.end)
    }

    fn begin_moment(&self) -> Result<()> {
        self.settle()?;
        for lane in &self.lanes[..self.lanes.len() - usize::from(self.redo.is_some())] {
            let mut queue = lane.lock();
            while queue.bytes > 0 {
                self.cancel.check()?;
                queue = lane.wait(queue);
            }
        }
        self.in_moment.store(true, Ordering::Release);
        Ok(())
    }

    fn end_moment(&self) {
        self.in_moment.store(false, Ordering::Release);
    }

    fn finish(&self, manifest: &Manifest) -> Result<()> {
        *self.manifest.lock().unwrap_or_else(PoisonError::into_inner) = Some(manifest.clone());
        Ok(())
    }
}
