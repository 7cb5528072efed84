//! Takes the bytes of a snapshot and queues them for the joiner: without zeros, compressed if that pays, in one queue for each
//! connection.
//!
//! All bytes of one range of a file take the same connection, so that the newest version arrives last, also when a file is
//! read again. The redo log has a connection of its own, so that neither redo nor pages wait for the other. The rate limit, and
//! the rate at which files are read, are those of all connections together. A full queue makes the snapshot wait, except in a
//! consistency point: what is read under locks does not wait for the link, within limits.
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
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
    pub(super) packers: Mutex<Vec<Packer>>,
    pub(super) compression: Compression,
    /// How bytes travel.
    pub(super) ways: Ways,
    pub(super) throttle: Arc<Throttle>,
    /// What the joiner has; `None` if files are not compared.
    pub(super) compare: Option<Compare<'a>>,
    pub(super) at_consistency_point: AtomicBool,
    pub(super) waiting: AtomicUsize,
    /// How long the joiner's disk takes to read a page, if it has measured that.
    pub(super) page_time: Option<Duration>,
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
            ways: Ways::new(
                compare.as_ref().map(Compare::parts),
                compression,
                compare.as_ref().is_some_and(Compare::is_held_still),
            ),
            throttle,
            compare,
            at_consistency_point: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            page_time: None,
            redo_dropped: AtomicU64::new(0),
            progress,
            cancel,
        }
    }

    /// With what the joiner has measured of its disk.
    pub fn with_page_time(self, page_time: Option<Duration>) -> SendQueue<'a> {
        SendQueue { page_time, ..self }
    }

    /// With the share of the bytes that differ, as the joiner's sample shows.
    pub fn expecting(self, differing: Option<f64>) -> SendQueue<'a> {
        differing.into_iter().for_each(|differing| self.ways.expect(differing));
        self
    }

    /// Number of connections on which it sends.
    pub fn connections(&self) -> u16 {
        self.connections.len() as u16
    }

    /// Number of the connections, the first ones, that carry everything but the redo log.
    pub(super) fn workers(&self) -> usize {
        self.connections.len() - usize::from(self.redo.is_some())
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

    pub(super) fn push(&self, connection: &ConnectionQueue, chunk: QueuedChunk) -> Result<()> {
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

    pub(super) fn queue_of(&self, file: FileId, offset: u64) -> Result<&ConnectionQueue> {
        let workers = self.workers();
        let at = match self.redo {
            Some(redo) if redo == file => workers,
            _ => {
                let file = self.compare.as_ref().map_or(file, |compare| compare.together().first_of(file));
                worker_of(file, offset, workers)
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
                let zstd = self.ways.choose().zstd;
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
}

/// Neighbouring ranges go to different connections. The first one of a file is chosen by a hash (Fibonacci hashing) and not by
/// the file's number itself: a listing names `t.frm` before `t.ibd`, so all tablespaces have odd numbers, or all have even ones, and
/// with an even number of connections half of these would carry nothing while tablespaces are copied.
fn worker_of(file: FileId, offset: u64, workers: usize) -> usize {
    let scattered = u64::from(file.0).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    (scattered + offset / u64::from(RANGE_BYTES)) as usize % workers
}

#[cfg(test)]
mod tests {
    use protocol::inventory::{FileRole, Place};

    use super::*;
    use crate::snapshot::sink::SnapshotSink as _;

    /// Two files of each table, one kind after the other.
    #[test]
    fn files_of_one_kind_are_spread_over_all_connections() {
        for workers in 2..=16 {
            let mut carried = vec![0_u32; workers];
            (0..4000).for_each(|table| carried[worker_of(FileId(2 * table + 1), 0, workers)] += 1);
            let mean = 4000 / workers as u32;
            assert!(carried.iter().all(|files| (mean * 4 / 5..=mean * 6 / 5).contains(files)), "{carried:?}");
            let range = |number: u64| worker_of(FileId(7), number * u64::from(RANGE_BYTES), workers);
            assert!((0..100).all(|number| (range(number) + 1) % workers == range(number + 1)));
        }
    }

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
