//! Receives ranges on one connection, checks them, and stores them in staged files.
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use protocol::chunk::{Chunk, Packing, digest};
use protocol::coverage::Coverage;
use protocol::inventory::{FileEntry, FileId};
use protocol::limits::RANGE_BYTES;
use protocol::message::Message;
use report::record::Table;

use crate::cost::clock::{Blocked, Laps};
use crate::cost::pace::Work;
use crate::failure::{Failure, Kind};
use crate::peer::link::Link;
use crate::receive::base::Base;
use crate::receive::origin::Fingerprinted;
use crate::receive::rebuild::Rebuilt;
use crate::receive::reusable::no_base;
use crate::receive::staging::Staging;
use crate::receive::writer::{Came, Writer};
use crate::server::progress::Progress;
use crate::threads::lock;

/// What all receiving threads of one attempt share.
pub struct Shared<'a> {
    /// The staged files.
    pub staging: &'a Staging,
    /// The ranges that have arrived.
    pub coverage: &'a Mutex<Coverage>,
    /// Counters.
    pub progress: &'a Progress,
    /// Chooses where a new file is staged.
    pub begin: &'a (dyn Fn(&FileEntry) -> Result<()> + Sync),
    /// Called when bytes of a file have arrived and are staged.
    pub stored: &'a (dyn Fn(FileId) -> Result<()> + Sync),
    /// The joiner's files, if files are compared.
    pub base: Option<&'a Base<'a>>,
    /// Bytes that the joiner already had.
    pub same: &'a AtomicU64,
    /// Those of them that an earlier transfer had received.
    pub received: &'a AtomicU64,
}

/// Receives ranges over `link`, after its `first` message, until the donor says that it is done. Returns the number
/// of chunks.
pub fn receive_ranges(link: &mut Link, first: Message, shared: &Shared<'_>) -> Result<u64> {
    let mut payload = Vec::new();
    let mut said = Some(first);
    let mut unpacker = Unpacker::new()?;
    let mut writer = shared.staging.writer();
    let mut chunks = 0;
    let blocked = Blocked::of_this_thread();
    let mut began = blocked.now();
    loop {
        let message = said.take().map_or_else(|| link.recv_with_payload(&mut payload), Ok)?;
        let carried = blocked.since(began);
        match message {
            // Each connection begins a file before it carries data of it; the first one decides where the file is
            // staged.
            Message::Begin(entry) => begin(shared, &entry)?,
            Message::BeginKnown { file } => begin(shared, &compared(shared)?.entry(file)?)?,
            Message::Chunk(chunk) => {
                let mut laps = Laps::begin();
                let (parts, literals) = unpacker.unpack(&chunk, &payload)?;
                let unpacking = laps.lap();
                store(shared, &mut writer, &chunk, parts, literals)?;
                let took = Took { carrying: carried.1, unpacking, storing: laps.lap() };
                measure(shared, &chunk, payload.len(), parts.len() + literals.len(), &took);
                if let Some(base) = shared.base {
                    base.work.waited(carried.0, began.at.elapsed());
                }
                began = blocked.now();
                chunks += 1;
                shared.progress.done_bytes.fetch_add(u64::from(chunk.len), Ordering::Relaxed);
            }
            Message::Same { file, offset, len } => {
                keep(shared, &mut writer, file, offset, len)?;
                chunks += 1;
            }
            Message::SameGroup { first } => {
                keep_together(shared, &mut writer, first)?;
                chunks += 1;
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

/// What the work on a chunk took, in processor time.
struct Took {
    carrying: Duration,
    unpacking: Duration,
    storing: Duration,
}

/// Counts the work on a chunk, so that the donor can be told. Blocks are rebuilt while they are stored, so what that takes
/// is that of as many bytes which are only stored, and the rest.
fn measure(shared: &Shared<'_>, chunk: &Chunk, payload: usize, unpacked: usize, took: &Took) {
    let Some(work) = shared.base.map(|base| &base.work) else { return };
    work.add(Work::Carry, payload as u64, took.carrying);
    if chunk.packing == Packing::Zstd {
        work.add(Work::Pack, unpacked as u64, took.unpacking);
    }
    let rebuilt: u64 = chunk.deltas.iter().map(|delta| u64::from(delta.len)).sum();
    let stored = sum(&chunk.parts) + rebuilt;
    if rebuilt == 0 && stored > 0 {
        work.add(Work::Store, stored, took.storing);
    }
}

fn begin(shared: &Shared<'_>, entry: &FileEntry) -> Result<()> {
    (shared.begin)(entry)?;
    shared.progress.ledger.begin_file(entry);
    lock(shared.coverage).begin(entry.id)?;
    Ok(())
}

fn compared<'a>(shared: &Shared<'a>) -> Result<&'a Base<'a>, Failure> {
    let text = "the donor refers to the joiner's files, but no files were compared";
    shared.base.ok_or_else(|| Failure::new(Kind::Peer, text))
}

/// Records that a range is the same as in the old file.
fn keep(shared: &Shared<'_>, writer: &mut Writer<'_>, file: FileId, offset: u64, len: u32) -> Result<()> {
    let chunk = Chunk::same(file, offset, len);
    chunk.payload_len()?;
    store(shared, writer, &chunk, &[], &[])?;
    shared.progress.done_bytes.fetch_add(u64::from(len), Ordering::Relaxed);
    Ok(())
}

/// Records that the files of a group are the same as the old ones.
fn keep_together(shared: &Shared<'_>, writer: &mut Writer<'_>, first: FileId) -> Result<()> {
    let base = compared(shared)?;
    for file in base.together(first)?.iter() {
        let entry = base.entry(*file)?;
        begin(shared, &entry)?;
        match u32::try_from(entry.size) {
            Ok(len) if len <= RANGE_BYTES => keep(shared, writer, *file, 0, len)?,
            _ => {
                let text = format!("the donor counts {} among small files", entry.path);
                return Err(Failure::new(Kind::Peer, text).into());
            }
        }
    }
    base.used_up(first);
    Ok(())
}

/// Writes a chunk, and records which of its bytes the old file has and which digest the whole must have.
fn store(
    shared: &Shared<'_>,
    writer: &mut Writer<'_>,
    chunk: &Chunk,
    data: &[u8],
    literals: &[u8],
) -> Result<()> {
    let again = lock(shared.coverage).check(chunk.file, chunk.offset, chunk.len)?;
    let range = chunk.offset..chunk.offset + u64::from(chunk.len);
    let uses = !chunk.same.is_empty() || !chunk.deltas.is_empty();
    let base = shared.base.filter(|_| uses);
    let fingerprinted = base.map(|base| base.fingerprinted(chunk.file, chunk.offset)).unwrap_or_default();
    if !chunk.same.is_empty() && fingerprinted.origin.size().is_none() {
        return Err(no_base(chunk.file).into());
    }
    let rebuilt = rebuild(shared, chunk, &fingerprinted, literals)?;
    let in_old = fingerprinted.in_old(&chunk.same, chunk.offset);
    let same = sum(&chunk.same) + sum(&rebuilt.parts) - literals.len().min(rebuilt.data.len()) as u64;
    shared.same.fetch_add(same, Ordering::Relaxed);
    shared.progress.ledger.count(chunk.file, &bytes_of(chunk, &rebuilt, literals));
    shared.received.fetch_add(sum(&chunk.same) - sum(&in_old), Ordering::Relaxed);
    let adopted =
        shared.staging.hold(chunk.file, range.clone(), &in_old, fingerprinted.origin.old.clone())?;
    let differs = sum(&chunk.same) < u64::from(chunk.len);
    let differing = u64::from(chunk.len) - sum(&in_old);
    let came: [Came<'_>; 2] = [(&chunk.parts, data), (&rebuilt.parts, &rebuilt.data)];
    let past_cache = writer.write(chunk.file, range, &came, differing)?;
    if differs && (again || adopted) {
        let kept = merged(&[&chunk.parts, &chunk.same, &rebuilt.parts, &rebuilt.failed]);
        writer.clear_gaps(chunk.file, chunk.offset, chunk.len, &kept)?;
    }
    // The donor sends no digest of an unchanged range: the joiner computed it with the fingerprint.
    let known = if chunk.is_same() { fingerprinted.whole(chunk.offset, chunk.len) } else { None };
    let whole = if chunk.is_same() { known.map(|whole| whole.digest) } else { Some(chunk.whole()) };
    let fingerprint = known.map(|whole| whole.fingerprint);
    shared.staging.expect(chunk.file, chunk.offset, chunk.len, whole, fingerprint)?;
    let complete = past_cache && rebuilt.failed.is_empty();
    // Zeros are a hole, which needs no reading.
    if whole.is_some_and(|digest| complete && digest != 0) {
        writer.read_behind(chunk.file, chunk.offset)?;
    }
    arrived(shared, chunk, &rebuilt.failed)?;
    shared.staging.may_rest(chunk.file);
    if let Some(base) = base.filter(|_| !chunk.deltas.is_empty()) {
        let failed = rebuilt.failed.iter().map(|(start, _)| *start).collect();
        base.rebuilt(chunk.file, chunk.offset, failed);
    }
    (shared.stored)(chunk.file)
}

/// Where the bytes of a chunk come from.
fn bytes_of(chunk: &Chunk, rebuilt: &Rebuilt, literals: &[u8]) -> Table {
    let (parts, reused, blocks) = (sum(&chunk.parts), sum(&chunk.same), sum(&rebuilt.parts));
    let pieces = literals.len() as u64;
    let zero = u64::from(chunk.len).saturating_sub(parts + reused + blocks + sum(&rebuilt.failed));
    Table { sent: parts + pieces, reused, rebuilt: blocks.saturating_sub(pieces), zero, ..Table::default() }
}

/// Rebuilds the blocks of which only pieces were sent.
fn rebuild(
    shared: &Shared<'_>,
    chunk: &Chunk,
    fingerprinted: &Fingerprinted,
    literals: &[u8],
) -> Result<Rebuilt> {
    if chunk.deltas.is_empty() {
        return Ok(Rebuilt::default());
    }
    Ok(Rebuilt::of(chunk, fingerprinted, &compared(shared)?.key, literals))
}

/// Records that a chunk has arrived, except for the blocks that will be sent again.
fn arrived(shared: &Shared<'_>, chunk: &Chunk, failed: &[(u32, u32)]) -> Result<()> {
    let mut coverage = lock(shared.coverage);
    let mut from = 0;
    for &(start, len) in failed.iter().chain([&(chunk.len, 0)]) {
        if start > from || failed.is_empty() {
            coverage.record(chunk.file, chunk.offset + u64::from(from), start - from)?;
        }
        from = start + len;
    }
    Ok(())
}

fn sum(parts: &[(u32, u32)]) -> u64 {
    parts.iter().map(|(_, len)| u64::from(*len)).sum()
}

/// Parts of all kinds, in ascending order.
fn merged(kinds: &[&[(u32, u32)]]) -> Vec<(u32, u32)> {
    let mut all = kinds.concat();
    all.sort_unstable();
    all
}

/// Unpacks chunks. Its working memory is kept, because most chunks of small files are smaller than it.
struct Unpacker {
    zstd: zstd::bulk::Decompressor<'static>,
    buffer: Vec<u8>,
}

impl Unpacker {
    fn new() -> Result<Unpacker> {
        Ok(Unpacker { zstd: zstd::bulk::Decompressor::new()?, buffer: Vec::new() })
    }

    /// The chunk's bytes, unpacked and verified against its digest: those of its parts, and those of its deltas.
    fn unpack<'a>(&'a mut self, chunk: &Chunk, payload: &'a [u8]) -> Result<(&'a [u8], &'a [u8])> {
        let (parts, literals) = chunk.payload_len()?;
        let len = (parts + literals) as usize;
        let data = match chunk.packing {
            Packing::Plain => payload,
            Packing::Zstd => {
                self.buffer.resize(len, 0);
                let unpacked = self.zstd.decompress_to_buffer(payload, &mut self.buffer[..]);
                let unpacked = unpacked.context("the donor sent bytes that zstd cannot unpack")?;
                self.buffer.get(..unpacked).unwrap_or_default()
            }
        };
        if data.len() != len || digest(data) != chunk.digest {
            let at = format!("file number {} at {}", chunk.file.0, chunk.offset);
            return Err(Failure::new(
                Kind::Peer,
                format!("the bytes received for {at} differ from what the donor read"),
            )
            .into());
        }
        Ok(data.split_at(parts as usize))
    }
}
