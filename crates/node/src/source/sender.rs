//! A worker of the donor: takes ranges, reads, packs and sends them until none is left.
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use protocol::message::{Chunk, Message};
use xxhash_rust::xxh3::xxh3_128;

use super::packer::{Compression, Packer};
use super::ranges::RangeQueue;
use super::reader::RangeReader;
use super::throttle::Throttle;
use crate::cancel::Cancel;
use crate::failure::{Failure, Kind};
use crate::peer::link::{Link, PING_EVERY};
use crate::server::progress::Progress;

/// What all workers of one transfer share.
pub struct Shared<'a> {
    /// The ranges.
    pub queue: &'a RangeQueue,
    /// The rate limit.
    pub throttle: &'a Throttle,
    /// Counters.
    pub progress: &'a Progress,
    /// Called once, when the last range has been read.
    pub all_read: &'a (dyn Fn() + Sync),
    /// Ends the transfer.
    pub cancel: &'a Cancel,
}

/// Sends ranges over `link` until the queue is empty, and waits for the joiner's word that they are written.
/// Returns the number of chunks.
pub fn send_ranges(link: &mut Link, compression: Compression, shared: &Shared<'_>) -> Result<u64> {
    let mut reader = RangeReader::new();
    let mut packer = Packer::new(compression)?;
    let mut data = Vec::new();
    let mut chunks = 0;
    while let Some(range) = shared.queue.take() {
        shared.cancel.check()?;
        reader.read(&range)?;
        if shared.queue.was_read() {
            (shared.all_read)();
        }
        reader.data_into(&mut data);
        let packed = packer.pack(&data)?;
        let payload = packer.bytes(&packed, &data);
        let chunk = Chunk {
            file: range.file,
            offset: range.offset,
            len: range.len,
            parts: std::mem::take(&mut reader.parts),
            packing: packed.packing,
            digest: xxh3_128(&data),
        };
        hold_back(link, shared.throttle.pay(payload.len()), shared.cancel)?;
        let bytes = payload.len() as u64;
        link.send_chunk(&chunk, payload)?;
        packer.sent(&packed);
        chunks += 1;
        shared.progress.done_bytes.fetch_add(u64::from(range.len), Ordering::Relaxed);
        shared.progress.wire_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
    link.send(&Message::WorkerDone { chunks })?;
    match link.recv()? {
        Message::WorkerStored => Ok(chunks),
        other => {
            Err(Failure::new(Kind::Peer, format!("the joiner answered {} to WorkerDone", other.name()))
                .into())
        }
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
