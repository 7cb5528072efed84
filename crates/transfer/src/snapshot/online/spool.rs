//! The bounded queue between the tail and the thread that sends redo: first in memory, then in a file without a name.
//!
//! Redo is *held* here until the copy is complete. Redo that a newer checkpoint makes needless by then is dropped and
//! never sent. The oldest redo is sent earlier only if there is no room for more.
//!
//! A slow link must not stop the tail, because the server does not wait for it. The tail stops only when memory and
//! file are full, or the file's filesystem nearly is (it is the datadir's unless configured). Then the log itself is
//! the last buffer, and if the server overwrites it, the snapshot declines with a named error.
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use formats::{Lsn, SpaceId};
use rustix::fs::{FallocateFlags, fallocate};

use crate::disk::nameless::nameless;

/// Bytes of redo held in memory, besides one chunk.
const MEMORY: usize = 16 << 20;
/// Bytes that stay free on the file's filesystem: the server writes there too.
const KEEP_FREE: u64 = 512 << 20;
/// Bytes in the file, where the free space is not known.
const DEFAULT_MAX: u64 = 4 << 30;
/// The free space is checked again each time the file has grown by this many bytes.
const LOOK_FREE_EVERY: u64 = 16 << 20;
/// Bytes at the beginning of the file that are no longer needed are freed once there are this many.
const GIVE_BACK: u64 = 16 << 20;
/// How often a waiting thread checks whether the other side is gone.
const LOOK: Duration = Duration::from_millis(100);

/// Complete mini-transactions, as they are written to a flat log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// LSN of the first byte.
    pub start: Lsn,
    /// LSN after the last.
    pub end: Lsn,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// File operations and checkpoints among them.
    pub events: Vec<Event>,
}

/// A file operation or checkpoint in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// LSN of its mini-transaction.
    pub lsn: Lsn,
    /// What happened.
    pub kind: EventKind,
}

/// A file operation or checkpoint. Names are as the server spells them, `None` in an encrypted log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Created.
    Create(Option<String>),
    /// Deleted: this tablespace; `None` in an encrypted log.
    Delete(Option<SpaceId>),
    /// Renamed, to this name.
    Rename(Option<String>),
    /// A checkpoint, at this LSN.
    Checkpoint(Option<Lsn>),
}

#[derive(Debug, Default)]
struct State {
    /// Oldest first. The bytes of a spilled chunk are in the file at this offset, with this length.
    queue: VecDeque<(Chunk, Option<(u64, usize)>)>,
    in_memory: usize,
    in_file: u64,
    file_end: u64,
    /// Up to this offset the file is a hole.
    hole_to: u64,
    /// Up to this length of the file there was enough free space when that was checked.
    room_to: u64,
    file: Option<File>,
    /// Chunks are given out only if there is no room for more.
    held: bool,
    /// A thread is waiting for room.
    full: bool,
    closed: bool,
}

/// The queue.
#[derive(Debug)]
pub struct Spool {
    state: Mutex<State>,
    changed: Condvar,
    directory: PathBuf,
    file_max: u64,
    free: fn(&Path) -> io::Result<u64>,
}

impl Spool {
    /// At most `file_max` bytes go to a file in `directory`.
    pub fn new(directory: &Path, file_max: u64) -> Spool {
        let directory = directory.to_owned();
        Spool { state: Mutex::default(), changed: Condvar::new(), directory, file_max, free: bytes_free }
    }

    /// Adds a chunk; waits while everything is full. Returns false if no chunk is accepted any more.
    ///
    /// # Errors
    /// The file cannot be created or written.
    pub fn push(&self, mut chunk: Chunk) -> io::Result<bool> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return Ok(false);
            }
            if state.in_file == 0 && state.in_memory < MEMORY {
                state.in_memory += chunk.bytes.len();
                state.queue.push_back((chunk, None));
                break;
            }
            let len = chunk.bytes.len();
            if state.file_end - state.hole_to + len as u64 <= self.file_max
                && self.has_room(&mut state, len as u64)?
            {
                let at = state.file_end;
                if state.file.is_none() {
                    state.file = Some(nameless(&self.directory)?);
                }
                if let Some(file) = &state.file {
                    file.write_all_at(&chunk.bytes, at)?;
                }
                chunk.bytes = Vec::new();
                state.file_end += len as u64;
                state.in_file += len as u64;
                state.queue.push_back((chunk, Some((at, len))));
                break;
            }
            state.full = true;
            self.changed.notify_all();
            state = self.wait(state);
        }
        state.full = false;
        self.changed.notify_all();
        Ok(true)
    }

    /// From now on no chunk is given out, unless there is no room for more.
    pub fn hold(&self) {
        self.lock().held = true;
    }

    /// From now on every chunk is given out.
    pub fn release(&self) {
        self.lock().held = false;
        self.changed.notify_all();
    }

    /// Bytes in the queue.
    pub fn waiting(&self) -> u64 {
        let state = self.lock();
        state.in_file + state.in_memory as u64
    }

    /// A thread is waiting for room.
    pub fn is_full(&self) -> bool {
        self.lock().full
    }

    /// True if there is little room for more.
    pub fn is_nearly_full(&self) -> bool {
        let state = self.lock();
        state.full || state.file_end - state.hole_to > self.file_max / 4 * 3
    }

    /// Drops the chunks that lie entirely below `lsn`. Returns their events.
    pub fn drop_below(&self, lsn: Lsn) -> Vec<Event> {
        let mut state = self.lock();
        let mut events = Vec::new();
        while state.queue.front().is_some_and(|(chunk, _)| chunk.end <= lsn) {
            if let Some((chunk, spilled)) = state.queue.pop_front() {
                state.taken(chunk.bytes.len(), spilled);
                events.extend(chunk.events);
            }
        }
        self.changed.notify_all();
        events
    }

    /// The oldest chunk; waits for one. `None` once the queue is empty and closed.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn pop(&self) -> io::Result<Option<Chunk>> {
        let mut state = self.lock();
        loop {
            let may = !state.held || state.full || state.closed;
            if may && let Some((mut chunk, spilled)) = state.queue.pop_front() {
                let in_memory = chunk.bytes.len();
                if let (Some((at, len)), Some(file)) = (spilled, &state.file) {
                    chunk.bytes = vec![0; len];
                    file.read_exact_at(&mut chunk.bytes, at)?;
                }
                state.taken(in_memory, spilled);
                self.changed.notify_all();
                return Ok(Some(chunk));
            }
            if state.closed {
                return Ok(None);
            }
            state = self.wait(state);
        }
    }

    /// No more chunks are accepted; those in the queue are still given out.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Drops all chunks and accepts no more: the snapshot has failed.
    pub fn abandon(&self) {
        let mut state = self.lock();
        *state = State { closed: true, ..State::default() };
        drop(state);
        self.changed.notify_all();
    }

    /// Whether the file may grow by `bytes` and still leave enough space free.
    fn has_room(&self, state: &mut State, bytes: u64) -> io::Result<bool> {
        let end = state.file_end + bytes;
        if end > state.room_to {
            let step = bytes.max(LOOK_FREE_EVERY);
            if (self.free)(&self.directory)? < KEEP_FREE + step {
                return Ok(false);
            }
            state.room_to = state.file_end + step;
        }
        Ok(true)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, LOOK).unwrap_or_else(|poisoned| poisoned.into_inner()).0
    }
}

impl State {
    /// A chunk left the queue: frees its memory and its part of the file.
    fn taken(&mut self, in_memory: usize, spilled: Option<(u64, usize)>) {
        self.in_memory -= in_memory;
        let Some((at, len)) = spilled else { return };
        self.in_file -= len as u64;
        if self.in_file == 0 {
            // Nothing in the file is needed any more: closing it frees its space.
            self.file = None;
            (self.file_end, self.hole_to, self.room_to) = (0, 0, 0);
            return;
        }
        let end = at + len as u64;
        if let Some(file) = &self.file
            && end - self.hole_to >= GIVE_BACK
        {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            // Without holes, the file is only freed as a whole, once all of it was taken.
            if fallocate(file, flags, self.hole_to, end - self.hole_to).is_ok() {
                self.hole_to = end;
            }
        }
    }
}

/// The limit of the file where the operator sets none: half of what is free. A log is as large as its operator made it, and a donor
/// that may not keep what a checkpoint is about to make needless would send it.
pub fn default_max(directory: &Path) -> u64 {
    bytes_free(directory).map_or(DEFAULT_MAX, |free| free / 2)
}

fn bytes_free(directory: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(directory)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(n: u64, len: usize) -> Chunk {
        Chunk { start: Lsn(n), end: Lsn(n + 1), bytes: vec![n as u8; len], events: Vec::new() }
    }

    #[test]
    fn order_is_kept_through_memory_and_file() {
        let spool = Spool::new(&std::env::temp_dir(), 64 << 20);
        for n in 0..40 {
            assert!(spool.push(chunk(n, 1 << 20)).unwrap());
        }
        assert!(spool.lock().in_file > 0);
        for n in 0..40 {
            assert_eq!(spool.pop().unwrap(), Some(chunk(n, 1 << 20)));
        }
        assert!(spool.lock().file.is_none() && spool.lock().in_memory == 0);
        spool.close();
        assert_eq!(spool.pop().unwrap(), None);
        assert!(!spool.push(chunk(1, 1)).unwrap());
    }

    /// The server's own files are on the same filesystem, so the spool must not take the last free space.
    #[test]
    fn a_disk_that_is_nearly_full_is_left_alone() {
        let nearly_full = |_: &Path| Ok(KEEP_FREE + LOOK_FREE_EVERY - 1);
        let spool = Spool { free: nearly_full, ..Spool::new(&std::env::temp_dir(), 64 << 20) };
        std::thread::scope(|scope| {
            let pushes = scope.spawn(|| (0..40).try_for_each(|n| spool.push(chunk(n, 1 << 20)).map(drop)));
            while spool.lock().queue.len() < MEMORY >> 20 {
                std::thread::yield_now();
            }
            std::thread::sleep(3 * LOOK);
            let state = spool.lock();
            assert_eq!((state.in_file, state.queue.len()), (0, MEMORY >> 20), "it waits for memory");
            drop(state);
            for n in 0..40 {
                assert_eq!(spool.pop().unwrap().map(|c| c.start), Some(Lsn(n)));
            }
            pushes.join().unwrap().unwrap();
        });
    }

    #[test]
    fn what_is_held_is_dropped_without_being_taken() {
        let spool = Spool::new(&std::env::temp_dir(), 64 << 20);
        spool.hold();
        let event = Event { lsn: Lsn(3), kind: EventKind::Delete(Some(SpaceId(9))) };
        for n in 0..60 {
            let events = if n == 3 { vec![event.clone()] } else { Vec::new() };
            assert!(spool.push(Chunk { events, ..chunk(n, 1 << 20) }).unwrap());
        }
        assert!(spool.lock().in_file > 40 << 20);
        assert_eq!(spool.drop_below(Lsn(50)), [event]);
        let state = spool.lock();
        assert_eq!((state.in_memory, state.in_file), (0, 10 << 20));
        assert!(state.file_end - state.hole_to < (10 << 20) + GIVE_BACK, "the dropped part is a hole");
        drop(state);
        spool.release();
        for n in 50..60 {
            assert_eq!(spool.pop().unwrap(), Some(chunk(n, 1 << 20)));
        }
    }

    #[test]
    fn what_is_held_is_taken_once_there_is_no_room() {
        let spool = &Spool::new(&std::env::temp_dir(), 0);
        spool.hold();
        std::thread::scope(|scope| {
            let most = MEMORY as u64 >> 20;
            let pushes = scope.spawn(move || (0..=most).for_each(|n| drop(spool.push(chunk(n, 1 << 20)))));
            assert_eq!(spool.pop().unwrap().map(|c| c.start), Some(Lsn(0)));
            pushes.join().unwrap();
            assert_eq!(spool.waiting(), MEMORY as u64);
        });
    }

    #[test]
    fn a_full_spool_waits() {
        let spool = Spool::new(&std::env::temp_dir(), 1 << 20);
        std::thread::scope(|scope| {
            scope.spawn(|| (0..60).for_each(|n| assert!(spool.push(chunk(n, 1 << 20)).unwrap())));
            for n in 0..60 {
                std::thread::sleep(Duration::from_millis(1));
                assert_eq!(spool.pop().unwrap().map(|c| c.start), Some(Lsn(n)));
            }
        });
    }
}
