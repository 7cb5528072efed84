//! A worker of the joiner: from the wire to a staged file.
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use protocol::coverage::Coverage;
use protocol::inventory::{FileEntry, FileId};
use protocol::message::{Chunk, Message, Packing};
use xxhash_rust::xxh3::xxh3_128;

use super::held::Origin;
use super::staging::Staging;
use super::writer::Writer;
use crate::failure::{Failure, Kind};
use crate::peer::link::Link;
use crate::server::progress::Progress;

/// What all workers of one attempt share.
pub struct Shared<'a> {
    /// Where ranges go.
    pub staging: &'a Staging,
    /// What has arrived.
    pub coverage: &'a Mutex<Coverage>,
    /// Counters.
    pub progress: &'a Progress,
    /// Decides where a file that is begun goes.
    pub begin: &'a (dyn Fn(&FileEntry) -> Result<()> + Sync),
    /// Where the bytes of a range are that the donor calls the same.
    pub origin: &'a (dyn Fn(FileId, u64) -> Option<Origin> + Sync),
    /// Bytes that were here already.
    pub same: &'a AtomicU64,
    /// Those of them that an earlier transfer had received.
    pub received: &'a AtomicU64,
}

/// Receives ranges over `link`, after its `first` message, until the donor says that no more come. Returns the number of chunks.
pub fn receive_ranges(link: &mut Link, first: Message, shared: &Shared<'_>) -> Result<u64> {
    let mut payload = Vec::new();
    let mut said = Some(first);
    let mut data = Vec::new();
    let mut writer = shared.staging.writer();
    let mut chunks = 0;
    loop {
        let message = said.take().map_or_else(|| link.recv_with_payload(&mut payload), Ok)?;
        match message {
            Message::Begin(entry) => {
                // Each worker begins a file before its own data of it; the first decides where it goes.
                (shared.begin)(&entry)?;
                lock(shared.coverage).begin(entry.id)?;
            }
            Message::Chunk(chunk) => {
                store(shared, &mut writer, &chunk, unpack(&chunk, &payload, &mut data)?)?;
                chunks += 1;
                shared.progress.done_bytes.fetch_add(u64::from(chunk.len), Ordering::Relaxed);
                shared.progress.wire_bytes.fetch_add(payload.len() as u64, Ordering::Relaxed);
            }
            Message::WorkerDone { chunks: sent } if sent == chunks => {
                link.send(&Message::WorkerStored)?;
                return Ok(chunks);
            }
            other => {
                let text = format!("the donor said {} after {chunks} chunks", other.name());
                return Err(Failure::new(Kind::Peer, text).into());
            }
        }
    }
}

/// Writes a chunk, and notes what of it the old file has.
fn store(shared: &Shared<'_>, writer: &mut Writer<'_>, chunk: &Chunk, data: &[u8]) -> Result<()> {
    let again = lock(shared.coverage).check(chunk.file, chunk.offset, chunk.len)?;
    let range = chunk.offset..chunk.offset + u64::from(chunk.len);
    let same: u64 = chunk.same.iter().map(|(_, len)| u64::from(*len)).sum();
    shared.same.fetch_add(same, Ordering::Relaxed);
    let origin = (shared.origin)(chunk.file, chunk.offset).filter(|_| same > 0);
    let adopted = match origin {
        Some(Origin::Received) => {
            shared.received.fetch_add(same, Ordering::Relaxed);
            shared.staging.hold(chunk.file, range, &[], None)?
        }
        Some(Origin::Old(old)) => shared.staging.hold(chunk.file, range, &chunk.same, Some(&old))?,
        None => shared.staging.hold(chunk.file, range, &chunk.same, None)?,
    };
    // A file of which nothing comes may stay what it is.
    if same < u64::from(chunk.len) {
        writer.write_range(chunk.file, chunk.offset, &chunk.parts, data)?;
        if again || adopted {
            let kept = merged(&chunk.parts, &chunk.same);
            writer.clear_gaps(chunk.file, chunk.offset, chunk.len, &kept)?;
        }
    }
    lock(shared.coverage).mark(chunk.file, chunk.offset, chunk.len)?;
    Ok(())
}

/// Parts of both kinds, ascending.
fn merged(parts: &[(u32, u32)], same: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let mut all = [parts, same].concat();
    all.sort_unstable();
    all
}

/// The chunk's bytes, unpacked and verified against its digest.
fn unpack<'a>(chunk: &Chunk, payload: &'a [u8], buffer: &'a mut Vec<u8>) -> Result<&'a [u8]> {
    let len = chunk.payload_len()? as usize;
    let data = match chunk.packing {
        Packing::Plain => payload,
        Packing::Zstd => {
            buffer.resize(len, 0);
            let unpacked = zstd::bulk::decompress_to_buffer(payload, &mut buffer[..]);
            let unpacked = unpacked.context("the donor sent bytes that zstd cannot unpack")?;
            buffer.get(..unpacked).unwrap_or_default()
        }
    };
    if data.len() != len || xxh3_128(data) != chunk.digest {
        let at = format!("file number {} at {}", chunk.file.0, chunk.offset);
        return Err(
            Failure::new(Kind::Peer, format!("what arrived for {at} is not what the donor read")).into()
        );
    }
    Ok(data)
}

fn lock(coverage: &Mutex<Coverage>) -> std::sync::MutexGuard<'_, Coverage> {
    coverage.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
