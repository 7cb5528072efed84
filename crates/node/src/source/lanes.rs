//! The queues of an outbox, and the threads that empty them: one for each connection.
use std::collections::{HashSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use protocol::chunk::Chunk;
use protocol::inventory::{FileEntry, FileId};
use protocol::message::Message;

use super::outbox::Outbox;
use crate::cancel::{Cancel, LOOK_EVERY};
use crate::failure::{Failure, Kind};
use crate::peer::link::{Link, PING_EVERY};

/// How long small messages wait for more to go with.
const SOON: Duration = Duration::from_millis(20);

/// What waits for one connection.
#[derive(Default)]
pub(super) struct Lane {
    queue: Mutex<Queue>,
    pub changed: Condvar,
}

/// In the order in which it is sent.
#[derive(Default)]
pub(super) struct Queue {
    pub parcels: VecDeque<Parcel>,
    /// Bytes in it and on their way.
    pub bytes: usize,
    pub closed: bool,
}

/// What is sent.
pub(super) enum Parcel {
    /// A part of a range.
    Chunk { entry: Arc<FileEntry>, chunk: Chunk, payload: Vec<u8> },
    /// Files that the joiner has as they are, and their length.
    Together { first: FileId, len: u64 },
}

impl Parcel {
    /// Bytes of it that wait in a lane.
    pub fn weight(&self) -> usize {
        match self {
            Parcel::Chunk { payload, .. } => payload.len(),
            Parcel::Together { .. } => 0,
        }
    }

    /// Bytes of files in it.
    fn len(&self) -> u64 {
        match self {
            Parcel::Chunk { chunk, .. } => u64::from(chunk.len),
            Parcel::Together { len, .. } => *len,
        }
    }
}

impl Lane {
    pub fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn wait<'q>(&self, queue: MutexGuard<'q, Queue>) -> MutexGuard<'q, Queue> {
        self.wait_for(queue, LOOK_EVERY)
    }

    fn wait_for<'q>(&self, queue: MutexGuard<'q, Queue>, at_most: Duration) -> MutexGuard<'q, Queue> {
        self.changed.wait_timeout(queue, at_most).unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Outbox<'_> {
    /// A connection's thread: sends what comes in its lane, until it is closed, and waits for the joiner's word that
    /// everything is written. Returns the number of chunks.
    pub fn send(&self, number: u16, link: &mut Link) -> Result<u64> {
        let lane = self.lanes.get(usize::from(number)).context("no such lane")?;
        let held_back = self.redo.is_none() || usize::from(number) + 1 < self.lanes.len();
        let mut begun = HashSet::new();
        let mut chunks = 0;
        while let Some(parcel) = self.next(lane, link)? {
            let (weight, len) = (parcel.weight(), parcel.len());
            let wait = self.throttle.pay(weight);
            hold_back(link, if held_back { wait } else { Duration::ZERO }, self.cancel)?;
            match parcel {
                Parcel::Together { first, .. } => link.gather(&Message::SameTogether { first })?,
                Parcel::Chunk { entry, chunk, payload } => {
                    if begun.insert(entry.id) {
                        link.gather(&self.begin(entry))?;
                    }
                    if chunk.is_same() {
                        let Chunk { file, offset, len, .. } = chunk;
                        link.gather(&Message::Same { file, offset, len })?;
                    } else {
                        link.send_chunk(&chunk, &payload)?;
                    }
                }
            }
            chunks += 1;
            self.progress.done_bytes.fetch_add(len, Ordering::Relaxed);
            self.sent(lane, weight);
        }
        link.send(&Message::WorkerDone { chunks })?;
        match link.recv()? {
            Message::WorkerStored => Ok(chunks),
            other => {
                let text = format!("the joiner answered {} to WorkerDone", other.name());
                Err(Failure::new(Kind::Peer, text).into())
            }
        }
    }

    /// A file that the joiner was asked for is known to it by its number.
    fn begin(&self, entry: Arc<FileEntry>) -> Message {
        match &self.compare {
            Some(compare) if compare.is_known(&entry) => Message::BeginKnown { file: entry.id },
            _ => Message::Begin(FileEntry::clone(&entry)),
        }
    }

    fn next(&self, lane: &Lane, link: &mut Link) -> Result<Option<Parcel>> {
        let mut pinged = Instant::now();
        loop {
            self.cancel.check()?;
            let mut queue = lane.lock();
            if queue.parcels.is_empty() && !queue.closed {
                // What follows soon goes with what was gathered.
                queue = lane.wait_for(queue, SOON);
            }
            if queue.parcels.is_empty() && !queue.closed {
                drop(queue);
                link.flush()?;
                queue = lane.lock();
            }
            if queue.parcels.is_empty() && !queue.closed {
                queue = lane.wait(queue);
            }
            if let Some(parcel) = queue.parcels.pop_front() {
                return Ok(Some(parcel));
            }
            if queue.closed {
                return Ok(None);
            }
            drop(queue);
            if pinged.elapsed() >= PING_EVERY {
                link.ping("nothing to send on this connection yet")?;
                pinged = Instant::now();
            }
        }
    }

    fn sent(&self, lane: &Lane, bytes: usize) {
        let mut queue = lane.lock();
        queue.bytes -= bytes;
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        lane.changed.notify_all();
    }
}

/// Waits for the rate limit. With a low one and many workers that takes longer than a joiner waits for one that is dead.
fn hold_back(link: &mut Link, mut wait: Duration, cancel: &Cancel) -> Result<()> {
    while wait > PING_EVERY {
        cancel.sleep(PING_EVERY)?;
        link.ping("held back by rlimit")?;
        wait -= PING_EVERY;
    }
    Ok(cancel.sleep(wait)?)
}
