//! The bounded queue between the tail and whoever takes the redo: first in memory, then in a file without a name.
//!
//! A slow link must not stop the tail, for the server does not wait for it. When memory and file are full it does
//! stop; the log itself is the last buffer then, and its overrun is a named error.
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use formats::{Lsn, SpaceId};
use rustix::fs::{Mode, OFlags};

/// Redo held in memory, in bytes, beside one chunk.
const MEMORY: usize = 16 << 20;
/// How often a wait looks whether the other side is gone.
const LOOK: Duration = Duration::from_millis(100);

/// Complete mini-transactions, as they stand in a flat log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// LSN of the first byte.
    pub start: Lsn,
    /// LSN after the last.
    pub end: Lsn,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What they say about files.
    pub events: Vec<Event>,
}

/// What the log says about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// LSN of its mini-transaction.
    pub lsn: Lsn,
    /// What.
    pub kind: EventKind,
}

/// A file operation; names as the server spells them, `None` in an encrypted log.
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
    /// Oldest first. Bytes that were spilled are in the file at this offset, with this length.
    queue: VecDeque<(Chunk, Option<(u64, usize)>)>,
    in_memory: usize,
    in_file: u64,
    file_end: u64,
    file: Option<File>,
    closed: bool,
}

/// The queue.
#[derive(Debug)]
pub struct Spool {
    state: Mutex<State>,
    changed: Condvar,
    directory: PathBuf,
    file_max: u64,
}

impl Spool {
    /// At most `file_max` bytes go to a file in `directory`.
    pub fn new(directory: &Path, file_max: u64) -> Spool {
        Spool { state: Mutex::default(), changed: Condvar::new(), directory: directory.to_owned(), file_max }
    }

    /// Adds a chunk; waits while everything is full. False when nobody takes any more.
    ///
    /// # Errors
    /// The file cannot be made or written.
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
            if state.file_end + len as u64 <= self.file_max {
                let at = state.file_end;
                if state.file.is_none() {
                    state.file = Some(self.make_file()?);
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
            state = self.wait(state);
        }
        self.changed.notify_all();
        Ok(true)
    }

    /// The oldest chunk; waits for one. `None` once the queue is empty and closed.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn pop(&self) -> io::Result<Option<Chunk>> {
        let mut state = self.lock();
        loop {
            if let Some((mut chunk, spilled)) = state.queue.pop_front() {
                match (spilled, &state.file) {
                    (Some((at, len)), Some(file)) => {
                        chunk.bytes = vec![0; len];
                        file.read_exact_at(&mut chunk.bytes, at)?;
                        state.in_file -= len as u64;
                    }
                    _ => state.in_memory -= chunk.bytes.len(),
                }
                if state.in_file == 0 && state.file_end > 0 {
                    // Everything spilled was taken: the space goes back to the filesystem.
                    state.file = None;
                    state.file_end = 0;
                }
                self.changed.notify_all();
                return Ok(Some(chunk));
            }
            if state.closed {
                return Ok(None);
            }
            state = self.wait(state);
        }
    }

    /// No more chunks, from either side.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// No more chunks, and those that wait are not wanted: the snapshot has failed.
    pub fn abandon(&self) {
        let mut state = self.lock();
        *state = State { closed: true, ..State::default() };
        drop(state);
        self.changed.notify_all();
    }

    fn make_file(&self) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::open(&self.directory, flags, Mode::RUSR | Mode::WUSR)?))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, LOOK).unwrap_or_else(|poisoned| poisoned.into_inner()).0
    }
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
