//! The threads that send what is queued: one for each connection.
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use protocol::chunk::Chunk;
use protocol::inventory::FileEntry;
use protocol::message::Message;
use report::record::Table;

use crate::cancel::Cancel;
use crate::compare::groups::Group;
use crate::cost::clock::Blocked;
use crate::failure::{Failure, Kind};
use crate::peer::link::{Link, PING_EVERY};
use crate::send::connection_queue::{ConnectionQueue, QueuedChunk};
use crate::send::queue::SendQueue;
use crate::send::throttle::Throttle;

/// How long small messages wait to be sent together with others.
const SOON: Duration = Duration::from_millis(20);

impl SendQueue<'_> {
    /// The thread of a connection: sends what is put into its queue until that is closed, and waits until the joiner
    /// confirms that everything is written. Returns the number of chunks.
    pub fn send(&self, number: u16, link: &mut Link) -> Result<u64> {
        let connection = self.connections.get(usize::from(number)).context("no such connection")?;
        let (mut begun, blocked) = (HashSet::new(), Blocked::of_this_thread());
        let mut chunks = 0;
        while let Some(chunk) = self.next(connection, link)? {
            let (weight, len) = (chunk.weight(), chunk.len());
            hold_back(link, &self.throttle, chunk.paid(), self.cancel)?;
            let paid = chunk.paid();
            match chunk {
                QueuedChunk::Groups { first, .. } => link.gather(&Message::SameGroup { first })?,
                QueuedChunk::Chunk { entry, chunk, payload } => {
                    if begun.insert(entry.id) {
                        self.progress.ledger.begin_file(&entry);
                        link.gather(&self.begin(entry))?;
                    }
                    self.progress.ledger.count(chunk.file, &bytes_of(&chunk));
                    if chunk.is_same() {
                        let Chunk { file, offset, len, .. } = chunk;
                        link.gather(&Message::Same { file, offset, len })?;
                    } else {
                        let began = blocked.now();
                        link.send_chunk(&chunk, &payload)?;
                        let (blocked, ran) = blocked.since(began);
                        self.ways.sent(paid, blocked, ran);
                    }
                }
            }
            chunks += 1;
            self.progress.done_bytes.fetch_add(len, Ordering::Relaxed);
            self.sent(connection, weight);
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

    /// A file that the joiner was asked about is announced by its number only.
    fn begin(&self, entry: Arc<FileEntry>) -> Message {
        match &self.compare {
            Some(compare) if compare.is_known(&entry) => Message::BeginKnown { file: entry.id },
            _ => Message::Begin(FileEntry::clone(&entry)),
        }
    }

    fn next(&self, connection: &ConnectionQueue, link: &mut Link) -> Result<Option<QueuedChunk>> {
        let mut pinged = Instant::now();
        loop {
            self.cancel.check()?;
            let mut queue = connection.lock();
            if queue.chunks.is_empty() && !queue.closed {
                // Messages that follow soon are sent together with the gathered ones.
                queue = connection.wait_for(queue, SOON);
            }
            if queue.chunks.is_empty() && !queue.closed {
                drop(queue);
                link.flush()?;
                queue = connection.lock();
            }
            if queue.chunks.is_empty() && !queue.closed {
                queue = connection.wait(queue);
            }
            if let Some(chunk) = queue.chunks.pop_front() {
                return Ok(Some(chunk));
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

    /// Counts the files of a group that the joiner has as they are.
    pub(super) fn count_reused(&self, group: &Group) {
        for entry in &group.entries {
            self.progress.ledger.begin_file(entry);
            let bytes = group.bytes.get(&entry.id).map_or(0, |bytes| bytes.len() as u64);
            self.progress.ledger.count(entry.id, &Table { reused: bytes, ..Table::default() });
        }
    }

    fn sent(&self, connection: &ConnectionQueue, bytes: usize) {
        let mut queue = connection.lock();
        queue.bytes -= bytes;
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        connection.changed.notify_all();
    }
}

/// Where the bytes of a chunk come from.
fn bytes_of(chunk: &Chunk) -> Table {
    let sum = |parts: &[(u32, u32)]| parts.iter().map(|(_, len)| u64::from(*len)).sum::<u64>();
    let pieces: u64 = chunk.deltas.iter().map(|delta| u64::from(delta.literal_len().unwrap_or(0))).sum();
    let blocks: u64 = chunk.deltas.iter().map(|delta| u64::from(delta.len)).sum();
    let (parts, reused) = (sum(&chunk.parts), sum(&chunk.same));
    let zero = u64::from(chunk.len).saturating_sub(parts + reused + blocks);
    Table { sent: parts + pieces, reused, rebuilt: blocks.saturating_sub(pieces), zero, ..Table::default() }
}

/// Waits for the rate limit, and pings: with a low limit and many workers, the wait exceeds the time after which the joiner takes
/// us for dead.
///
/// # Errors
/// Cancelled, or the joiner is gone.
pub fn hold_back(link: &mut Link, throttle: &Throttle, bytes: usize, cancel: &Cancel) -> Result<()> {
    let mut pinged = Instant::now();
    throttle.hold_back(bytes, cancel, || {
        if pinged.elapsed() >= PING_EVERY {
            link.ping("held back by rlimit")?;
            pinged = Instant::now();
        }
        Ok(())
    })
}
