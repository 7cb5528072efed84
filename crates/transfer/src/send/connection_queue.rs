//! The queue of one connection.
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::chunk::Chunk;
use protocol::inventory::{FileEntry, FileId};

use crate::cancel::LOOK_EVERY;

/// Approximate memory of a chunk besides its payload. Without it, chunks that have no payload would pile up without
/// bound.
const OVERHEAD_BYTES: usize = 256;

/// The queue of one connection.
#[derive(Default)]
pub(super) struct ConnectionQueue {
    queue: Mutex<Queue>,
    pub changed: Condvar,
}

/// What is sent, in order.
#[derive(Default)]
pub(super) struct Queue {
    pub chunks: VecDeque<QueuedChunk>,
    /// Bytes that are queued or being sent.
    pub bytes: usize,
    pub closed: bool,
}

/// One thing to send.
pub(super) enum QueuedChunk {
    /// A part of a range.
    Chunk { entry: Arc<FileEntry>, chunk: Chunk, payload: Vec<u8> },
    /// A group of files that the joiner has as they are: its first file, and the bytes of all.
    Groups { first: FileId, len: u64 },
}

impl QueuedChunk {
    /// Bytes of memory that it takes while it is queued.
    pub fn weight(&self) -> usize {
        OVERHEAD_BYTES
            + match self {
                QueuedChunk::Chunk { chunk, payload, .. } => {
                    let (part, deltas) = (size_of::<(u32, u32)>(), &chunk.deltas);
                    let deltas = deltas.iter().map(|delta| size_of_val(delta) + delta.sent.len());
                    payload.len() + (chunk.parts.len() + chunk.same.len()) * part + deltas.sum::<usize>()
                }
                QueuedChunk::Groups { .. } => 0,
            }
    }

    /// Bytes that count towards the rate limit.
    pub fn paid(&self) -> usize {
        match self {
            QueuedChunk::Chunk { payload, .. } => payload.len(),
            QueuedChunk::Groups { .. } => 0,
        }
    }

    /// Bytes of files that it stands for.
    pub fn len(&self) -> u64 {
        match self {
            QueuedChunk::Chunk { chunk, .. } => u64::from(chunk.len),
            QueuedChunk::Groups { len, .. } => *len,
        }
    }
}

impl ConnectionQueue {
    pub fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn wait<'q>(&self, queue: MutexGuard<'q, Queue>) -> MutexGuard<'q, Queue> {
        self.wait_for(queue, LOOK_EVERY)
    }

    pub fn wait_for<'q>(&self, queue: MutexGuard<'q, Queue>, at_most: Duration) -> MutexGuard<'q, Queue> {
        self.changed.wait_timeout(queue, at_most).unwrap_or_else(PoisonError::into_inner).0
    }
}
