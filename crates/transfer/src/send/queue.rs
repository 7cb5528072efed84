//! Takes the bytes of a snapshot and queues them for the joiner: without zeros, compressed if that pays, in one queue for each
//! connection.
//!
//! All bytes of one range of a file take the same connection, so that the newest version arrives last, also when a file is
//! read again. The redo log has a connection of its own, so that neither redo nor pages wait for the other. The rate limit, and
//! the rate at which files are read, are those of all connections together. A full queue makes the snapshot wait, except in a
//! consistency point: what is read under locks does not wait for the link, within limits.
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use protocol::chunk::{Chunk, digest};
use protocol::entries::Entries;
use protocol::inventory::{FileEntry, FileId};
use protocol::limits::RANGE_BYTES;

use crate::cancel::Cancel;
use crate::compare::comparison::{Compare, Found};
use crate::compare::groups::{Group, Put};
use crate::compare::pending_rebuilds::{Block, State};
use crate::send::connection_queue::{ConnectionQueue, QueuedChunk};
use crate::send::file_list::{FileList, Run};
use crate::send::packer::{Compression, Packer};
use crate::send::throttle::Throttle;
use crate::send::ways::Ways;
use crate::send::zeros::find_parts;
use crate::server::progress::Progress;

/// Bytes that may wait for one connection before the snapshot must wait.
const QUEUE_BYTES: usize = 1 << 20;
/// Bytes that may wait for all connections together during a consistency point.
const CONSISTENCY_POINT_BYTES: usize = 48 << 20;

/// The queues of one attempt.
pub struct SendQueue<'a> {
    pub(super) connections: Vec<ConnectionQueue>,
    /// The redo log; it has the last connection to itself.
    pub(super) redo: Option<FileId>,
    /// Announced files, except those whose entry the comparison keeps.
    pub(super) files: Mutex<Entries>,
    packers: Mutex<Vec<Packer>>,
    compression: Compression,
    /// How pages travel.
    ways: Ways,
    /// How redo travels, which waits for its own connection only.
    redo_ways: Ways,
    pub(super) throttle: Arc<Throttle>,
    /// What the joiner has; `None` if files are not compared.
    pub(super) compare: Option<Compare<'a>>,
    pub(super) at_consistency_point: AtomicBool,
    pub(super) waiting: AtomicUsize,
    /// Bytes of large payloads that were sent, and the microseconds that this took, summed over the connections.
    pub(super) carried: (AtomicU64, AtomicU64),
    /// Offset in the redo log up to which the joiner needs nothing.
    pub(super) redo_dropped: AtomicU64,
    pub(super) progress: &'a Progress,
    pub(super) cancel: &'a Cancel,
}

impl<'a> SendQueue<'a> {
    /// For `workers` connections, and one more if the snapshot has a redo log.
    pub fn new(
        workers: u16,
        redo: Option<FileId>,
        compression: Compression,
        throttle: Arc<Throttle>,
        compare: Option<Compare<'a>>,
        progress: &'a Progress,
        cancel: &'a Cancel,
    ) -> SendQueue<'a> {
        let connections = usize::from(workers.max(1)) + usize::from(redo.is_some());
        SendQueue {
            connections: (0..connections).map(|_| ConnectionQueue::default()).collect(),
            redo,
            files: Mutex::default(),
            packers: Mutex::default(),
            compression,
            ways: Ways::new(compare.as_ref().map(Compare::parts), compression),
            redo_ways: Ways::new(None, compression),
            throttle,
            compare,
            at_consistency_point: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            carried: Default::default(),
            redo_dropped: AtomicU64::new(0),
            progress,
            cancel,
        }
    }

    /// Number of connections on which it sends.
    pub fn connections(&self) -> u16 {
        self.connections.len() as u16
    }

    /// What the joiner has, if files are compared; this takes two more connections.
    pub fn compare(&self) -> Option<&Compare<'a>> {
        self.compare.as_ref()
    }

    /// Nothing more follows. What is queued is still sent, unless it is `void`.
    pub fn close(&self, void: bool) {
        if let Some(compare) = &self.compare {
            compare.close();
        }
        for connection in &self.connections {
            let mut queue = connection.lock();
            queue.closed = true;
            if void {
                queue.chunks.clear();
            }
            connection.changed.notify_all();
        }
    }

    /// The list of the state's files for the joiner. Files that it was asked about with the same entry are listed by
    /// number.
    pub fn list(&self, files: Entries) -> FileList {
        let mut runs: Vec<Run> = Vec::new();
        for file in files.iter() {
            let known = self.compare.as_ref().is_some_and(|compare| compare.is_known(&file));
            match runs.last_mut() {
                Some(Run::Known { first, count }) if known && first.0 + *count == file.id.0 => *count += 1,
                Some(Run::Named { count }) if !known => *count += 1,
                _ if known => runs.push(Run::Known { first: file.id, count: 1 }),
                _ => runs.push(Run::Named { count: 1 }),
            }
        }
        FileList { files, runs }
    }

    fn push(&self, connection: &ConnectionQueue, chunk: QueuedChunk) -> Result<()> {
        let mut queue = connection.lock();
        while queue.bytes >= QUEUE_BYTES && !self.may_pile_up() {
            self.cancel.check()?;
            queue = connection.wait(queue);
        }
        self.waiting.fetch_add(chunk.weight(), Ordering::Relaxed);
        queue.bytes += chunk.weight();
        queue.chunks.push_back(chunk);
        connection.changed.notify_all();
        Ok(())
    }

    fn may_pile_up(&self) -> bool {
        self.is_at_consistency_point() && self.waiting.load(Ordering::Relaxed) < CONSISTENCY_POINT_BYTES
    }

    fn queue_of(&self, file: FileId, offset: u64) -> Result<&ConnectionQueue> {
        let last = self.connections.len() - 1;
        let at = match self.redo {
            Some(redo) if redo == file => last,
            redo => {
                // Neighbouring ranges go to different connections.
                let workers = if redo.is_some() { last } else { last + 1 };
                let file = self.compare.as_ref().map_or(file, |compare| compare.together().first_of(file));
                (u64::from(file.0) + offset / u64::from(RANGE_BYTES)) as usize % workers
            }
        };
        self.connections.get(at).context("no such connection")
    }

    /// Compares and queues each file of a group by itself.
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

    pub(super) fn is_at_consistency_point(&self) -> bool {
        self.at_consistency_point.load(Ordering::Acquire)
    }

    /// What the joiner has of a part of a range.
    fn look(&self, file: FileId, offset: u64, bytes: &[u8], parts: bool) -> Result<Found> {
        match &self.compare {
            Some(compare) if self.redo != Some(file) => {
                let wait = !self.is_at_consistency_point();
                if wait {
                    self.until(|state| state.has_room() && state.is_confirmed(file, offset))?;
                }
                compare.look(file, offset, bytes, wait, parts)
            }
            _ => Ok(Found::default()),
        }
    }

    /// Waits until `enough` of the pending rebuilds are confirmed. Blocks that the joiner could not rebuild are sent
    /// whole.
    pub(super) fn until(&self, enough: impl Fn(&State) -> bool) -> Result<()> {
        let Some(pending_rebuilds) = self.compare.as_ref().map(Compare::pending_rebuilds) else {
            return Ok(());
        };
        loop {
            self.cancel.check()?;
            let mut state = pending_rebuilds.lock();
            if let Some(Block { file, offset, bytes }) = state.pop_failed() {
                drop(state);
                let zstd = self.ways.choose().1.zstd;
                self.pack(&self.announced(file)?, offset, &bytes, &Found::default(), zstd)?;
                pending_rebuilds.sent(file, offset);
            } else if enough(&state) {
                return Ok(());
            } else {
                pending_rebuilds.wait(state);
            }
        }
    }

    /// Waits until all that was handed over is queued, and the joiner has rebuilt all pending blocks.
    pub fn settle(&self) -> Result<()> {
        let unfinished = || self.compare.as_ref().and_then(|compare| compare.together().take_unfinished());
        while let Some(leaving) = unfinished() {
            self.hand_over_apart(&leaving.group)?;
        }
        self.until(State::is_empty)
    }

    /// Collects small files that are compared in groups. Returns false if the file is in no group; it is left to the
    /// caller.
    pub(super) fn gather(&self, file: FileId, offset: u64, bytes: &[u8]) -> Result<bool> {
        let Some(compare) = &self.compare else { return Ok(false) };
        match compare.together().put(file, offset, bytes, self.cancel)? {
            Put::Apart => Ok(false),
            Put::Waits => Ok(true),
            Put::Broken(leaving) => self.hand_over_apart(&leaving.group).map(|()| false),
            Put::Whole(leaving)
                if self.is_at_consistency_point() || !compare.is_same_group(&leaving.group)? =>
            {
                self.hand_over_apart(&leaving.group).map(|()| true)
            }
            Put::Whole(leaving) => {
                self.count_reused(&leaving.group);
                let (first, len) = (leaving.group.first(), leaving.group.total_bytes());
                self.push(self.queue_of(first, 0)?, QueuedChunk::Groups { first, len }).map(|()| true)
            }
        }
    }

    pub(super) fn announced(&self, file: FileId) -> Result<Arc<FileEntry>> {
        let own = self.files.lock().unwrap_or_else(PoisonError::into_inner).get(file);
        let entry = own.or_else(|| self.compare.as_ref()?.entry(file));
        entry.map(Arc::new).context("data of a file that was not announced")
    }

    /// Compares and packs bytes that lie within one range, and queues them.
    pub(super) fn hand_over(&self, entry: &Arc<FileEntry>, offset: u64, bytes: &[u8]) -> Result<()> {
        let began = Instant::now();
        let ways = if self.redo == Some(entry.id) { &self.redo_ways } else { &self.ways };
        let (choice, way) = ways.choose();
        let found = self.look(entry.id, offset, bytes, way.parts)?;
        let differing = self.pack(entry, offset, bytes, &found, way.zstd)?;
        let took = began.elapsed();
        // Nothing waits for the joiner or for the link in the consistency point.
        if !self.is_at_consistency_point() {
            ways.learn(choice, differing as u64, took);
        }
        if let Some(compare) = &self.compare {
            compare.learn(&found, bytes.len(), took);
            self.progress.reused_bytes.store(compare.same_bytes(), Ordering::Relaxed);
            self.progress.rebuilt_bytes.store(compare.rebuilt_bytes(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Queues a range that the joiner has.
    pub(super) fn push_same(&self, entry: &Arc<FileEntry>, offset: u64, len: u32) -> Result<()> {
        let chunk = Chunk::same(entry.id, offset, len);
        let chunk = QueuedChunk::Chunk { entry: Arc::clone(entry), chunk, payload: Vec::new() };
        self.push(self.queue_of(entry.id, offset)?, chunk)
    }

    /// Packs and queues bytes. Returns the number of bytes that are neither the same nor zero.
    fn pack(
        &self,
        entry: &Arc<FileEntry>,
        offset: u64,
        bytes: &[u8],
        found: &Found,
        zstd: bool,
    ) -> Result<usize> {
        let connection = self.queue_of(entry.id, offset)?;
        let length = bytes.len() as u32;
        if found.same == [(0, length)] {
            return self.push_same(entry, offset, length).map(|()| 0);
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
        let sent = digest(&data);
        let all_is_sent = deltas.is_empty() && data.len() == bytes.len();
        let whole = (!all_is_sent).then(|| digest(bytes)).filter(|whole| *whole != sent);
        let (packing, payload) = packer.pack(data, zstd)?;
        pool().push(packer);
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
        self.push(connection, QueuedChunk::Chunk { entry: Arc::clone(entry), chunk, payload })?;
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

#[cfg(test)]
mod tests {
    use protocol::inventory::{FileRole, Place};

    use super::*;
    use crate::snapshot::sink::SnapshotSink as _;

    /// A snapshot that begins without locks may hold them later.
    #[test]
    fn nothing_is_slowed_while_commits_wait() {
        let (progress, cancel) = (Progress::new("donor"), Cancel::new());
        let throttle = Arc::new(Throttle::new(None));
        throttle.set_adaptive(true);
        throttle.set_yields(true);
        let queue =
            SendQueue::new(1, None, Compression::Never, Arc::clone(&throttle), None, &progress, &cancel);
        assert!(queue.gives_way() && throttle.gives_way());
        queue.holds_writes();
        assert!(!queue.gives_way() && !throttle.gives_way());
    }

    /// Zeros have no payload, so the number of their chunks must be bounded.
    #[test]
    fn what_carries_nothing_does_not_pile_up_behind_a_slow_link() {
        let (progress, cancel) = (Progress::new("donor"), Cancel::new());
        let send_queue = SendQueue::new(
            1,
            None,
            Compression::Never,
            Arc::new(Throttle::new(None)),
            None,
            &progress,
            &cancel,
        );
        let (path, role) = ("d/t.ibd".to_owned(), FileRole::Table);
        let entry = FileEntry { id: FileId(1), place: Place::Datadir, path, size: 1, allocated: 1, role };
        send_queue.announce(&entry).unwrap();
        let queued = || send_queue.connections[0].lock().chunks.len();
        std::thread::scope(|scope| {
            let writes = scope
                .spawn(|| (0..100_000).try_for_each(|n| send_queue.write(entry.id, n * 4096, &[0; 4096])));
            // Until it waits for the link, which takes nothing here, or has finished.
            let mut before = usize::MAX;
            while !writes.is_finished() && before != queued() {
                before = queued();
                std::thread::sleep(std::time::Duration::from_millis(300));
            }
            cancel.cancel(crate::failure::Kind::Stopped, "enough");
            writes.join().unwrap().unwrap_err();
        });
        let most = QUEUE_BYTES / 256 + 1;
        assert!((1000..=most).contains(&queued()), "{} chunks wait", queued());
    }
}
