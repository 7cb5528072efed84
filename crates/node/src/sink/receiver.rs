//! A worker of the joiner: from the wire to a staged file.
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use protocol::coverage::Coverage;
use protocol::inventory::FileId;
use protocol::message::{Chunk, Message, Packing};
use xxhash_rust::xxh3::xxh3_128;

use super::staging::Staging;
use crate::failure::{Failure, Kind};
use crate::peer::link::Link;
use crate::server::progress::Progress;

/// What all workers of one transfer share.
pub struct Shared<'a> {
    /// Where ranges go.
    pub staging: &'a Staging,
    /// What has arrived.
    pub coverage: &'a Mutex<Coverage>,
    /// Counters.
    pub progress: &'a Progress,
    /// Called once a file, before its first range is written.
    pub before_first: &'a (dyn Fn(FileId) -> Result<()> + Sync),
}

/// Receives ranges over `link` until the donor says that no more come. Returns the number of chunks.
pub fn receive_ranges(link: &mut Link, shared: &Shared<'_>) -> Result<u64> {
    let mut payload = Vec::new();
    let mut data = Vec::new();
    let mut writer = shared.staging.writer();
    let mut chunks = 0;
    loop {
        match link.recv_with_payload(&mut payload)? {
            Message::Chunk(chunk) => {
                let first = lock(shared.coverage).begin(chunk.file, chunk.offset, chunk.len)?;
                if first {
                    (shared.before_first)(chunk.file)?;
                }
                let data = unpack(&chunk, &payload, &mut data)?;
                writer.write_range(chunk.file, chunk.offset, &chunk.parts, data)?;
                lock(shared.coverage).mark(chunk.file, chunk.offset)?;
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
