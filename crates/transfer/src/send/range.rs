//! One range of a file: compared with what the joiner has, packed, and queued.
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use anyhow::Result;
use protocol::chunk::{Chunk, digest};
use protocol::delta::Delta;
use protocol::inventory::{FileEntry, FileId};

use crate::compare::comparison::{Compare, Found};
use crate::cost::clock::Laps;
use crate::send::connection_queue::QueuedChunk;
use crate::send::packer::Packer;
use crate::send::queue::SendQueue;
use crate::send::ways::{self, Packed, Seen};
use crate::send::zeros::find_parts;

/// How much of a range is done.
#[derive(Clone, Copy, Debug)]
struct How {
    /// What is sent is compressed.
    zstd: bool,
    /// It shows what each way takes: blocks are compressed even if only their pieces are sent.
    trial: bool,
}

/// What had to be sent of a range.
#[derive(Clone, Copy, Debug)]
pub(super) struct Differing {
    /// Bytes in whole blocks.
    blocks: u64,
    /// Bytes that were handed to the connection, before compression.
    sent: u64,
}

impl SendQueue<'_> {
    /// Compares and packs bytes that lie within one range, and queues them.
    pub(super) fn hand_over(&self, entry: &Arc<FileEntry>, offset: u64, bytes: &[u8]) -> Result<()> {
        if self.redo == Some(entry.id) {
            return self.pack(entry, offset, bytes, &Found::default(), self.ways.packs_redo());
        }
        self.ways.range_is_read(bytes.len());
        let (way, trial) = (self.ways.choose(), self.ways.is_trial());
        let parts = way.parts || trial && self.ways.may_compare_pieces();
        let found = self.look(entry.id, offset, bytes, way.compare || trial, parts)?;
        // What the joiner does not have travels whole, however the rest does.
        let zstd = if way.compare && !found.compared { self.ways.packs_whole() } else { way.zstd };
        let how = How { zstd: zstd || trial, trial };
        let differing = self.pack_as(entry, offset, bytes, &found, how)?;
        // Nothing waits for the joiner or for the link in the consistency point.
        if !self.is_at_consistency_point() {
            self.learn(&found, &differing);
            self.weigh(&found, bytes.len() as u64);
        }
        ways::range_is_done();
        Ok(())
    }

    fn learn(&self, found: &Found, differing: &Differing) {
        self.ways.limit(self.throttle.rate());
        if let Some(pace) = self.compare.as_ref().and_then(Compare::take_pace) {
            self.ways.joiner_tells(&pace);
        }
        self.ways.learn(&Seen {
            bytes: found.same_bytes() + differing.blocks,
            differing: found.compared.then_some(differing.blocks),
            unanswered: found.unanswered,
            pieces: found.in_parts.then_some(differing.sent),
            took: found.took,
            waited: found.waited,
        });
    }

    /// Gives up comparing if it costs more than it saves.
    fn weigh(&self, found: &Found, len: u64) {
        let Some(compare) = &self.compare else { return };
        let costs = |differing| self.ways.comparing_or_not(differing);
        if let Some(reason) = compare.weigh(len, found, costs) {
            self.ways.compare_no_more();
            self.progress.tell(&reason);
            self.progress.ledger.update(|record| {
                record.plan.iter_mut().for_each(|plan| plan.words = format!("{}; {reason}", plan.words));
            });
        }
    }

    /// What the joiner has of a part of a range.
    fn look(&self, file: FileId, offset: u64, bytes: &[u8], wait: bool, parts: bool) -> Result<Found> {
        match &self.compare {
            Some(compare) => {
                let (wait, began) = (wait && !self.is_at_consistency_point(), Instant::now());
                if wait {
                    self.until(|state| state.has_room() && state.is_confirmed(file, offset))?;
                }
                let rebuilt = began.elapsed();
                let mut found = compare.look(file, offset, bytes, wait, parts)?;
                found.waited.1 += rebuilt;
                Ok(found)
            }
            None => Ok(Found::default()),
        }
    }

    /// Queues a range that the joiner has.
    pub(super) fn push_same(&self, entry: &Arc<FileEntry>, offset: u64, len: u32) -> Result<()> {
        let chunk = Chunk::same(entry.id, offset, len);
        let chunk = QueuedChunk::Chunk { entry: Arc::clone(entry), chunk, payload: Vec::new() };
        self.push(self.queue_of(entry.id, offset)?, chunk)
    }

    /// Packs and queues bytes.
    pub(super) fn pack(
        &self,
        entry: &Arc<FileEntry>,
        offset: u64,
        bytes: &[u8],
        found: &Found,
        zstd: bool,
    ) -> Result<()> {
        self.pack_as(entry, offset, bytes, found, How { zstd, trial: false }).map(drop)
    }

    fn pack_as(
        &self,
        entry: &Arc<FileEntry>,
        offset: u64,
        bytes: &[u8],
        found: &Found,
        how: How,
    ) -> Result<Differing> {
        let connection = self.queue_of(entry.id, offset)?;
        let length = bytes.len() as u32;
        if found.same == [(0, length)] {
            return self.push_same(entry, offset, length).map(|()| Differing { blocks: 0, sent: 0 });
        }
        let pool = || self.packers.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = pool().pop();
        let mut packer = taken.map_or_else(|| Packer::new(self.compression), Ok)?;
        let Found { same, deltas, literals, .. } = found;
        let mut known = same.clone();
        known.extend(deltas.iter().map(|delta| (delta.start, delta.len)));
        known.sort_unstable();
        let parts = parts_between(bytes, &known);
        let mut data = Vec::new();
        for &(start, len) in &parts {
            data.extend_from_slice(&bytes[start as usize..(start + len) as usize]);
        }
        let blocks = data.len() + deltas.iter().map(|delta| delta.len as usize).sum::<usize>();
        data.extend_from_slice(literals);
        let sent = digest(&data);
        let all_is_sent = deltas.is_empty() && data.len() == bytes.len();
        let whole = (!all_is_sent).then(|| digest(bytes)).filter(|whole| *whole != sent);
        let differing = Differing { blocks: blocks as u64, sent: data.len() as u64 };
        if how.trial && !deltas.is_empty() {
            self.try_blocks(&mut packer, bytes, deltas)?;
        }
        let (len, mut laps) = (data.len(), Laps::begin());
        let is_packed = packer.packs(len, how.zstd);
        let (packing, payload) = packer.pack(data, how.zstd)?;
        pool().push(packer);
        if is_packed {
            let what = match deltas.is_empty() {
                _ if self.redo == Some(entry.id) => Packed::Redo,
                true => Packed::Blocks,
                false => Packed::Pieces,
            };
            self.ways.packed(what, len, payload.len(), laps.lap());
        }
        let chunk = Chunk {
            file: entry.id,
            offset,
            len: length,
            parts,
            same: same.clone(),
            deltas: deltas.clone(),
            packing,
            digest: sent,
            whole,
        };
        self.push(connection, QueuedChunk::Chunk { entry: Arc::clone(entry), chunk, payload })?;
        Ok(differing)
    }

    /// Finds out what compressing whole blocks would come to where only pieces of them are sent.
    fn try_blocks(&self, packer: &mut Packer, bytes: &[u8], deltas: &[Delta]) -> Result<()> {
        let block = |delta: &Delta| bytes.get(delta.start as usize..(delta.start + delta.len) as usize);
        let blocks: Vec<u8> = deltas.iter().filter_map(block).flatten().copied().collect();
        let (len, mut laps) = (blocks.len(), Laps::begin());
        let (_, packed) = packer.pack(blocks, true)?;
        self.ways.packed(Packed::Blocks, len, packed.len(), laps.lap());
        Ok(())
    }
}

/// The parts of `bytes` that are neither known nor zero.
fn parts_between(bytes: &[u8], known: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let (mut parts, mut found) = (Vec::new(), Vec::new());
    let mut from = 0;
    for (start, end) in
        known.iter().map(|&(start, len)| (start, start + len)).chain([(bytes.len() as u32, 0)])
    {
        find_parts(bytes.get(from as usize..start as usize).unwrap_or_default(), &mut found);
        parts.extend(found.iter().map(|&(at, len)| (from + at, len)));
        from = end;
    }
    parts
}
