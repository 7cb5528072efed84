//! One range of a file: compared with what the joiner has, packed, and queued.
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use protocol::chunk::{Chunk, digest};
use protocol::inventory::{FileEntry, FileId};

use crate::compare::comparison::Found;
use crate::send::connection_queue::QueuedChunk;
use crate::send::packer::Packer;
use crate::send::queue::SendQueue;
use crate::send::ways;
use crate::send::zeros::find_parts;

impl SendQueue<'_> {
    /// Compares and packs bytes that lie within one range, and queues them.
    pub(super) fn hand_over(&self, entry: &Arc<FileEntry>, offset: u64, bytes: &[u8]) -> Result<()> {
        let began = Instant::now();
        // Redo is waited for, and that is no cost.
        let (ways, cycle) = match self.redo == Some(entry.id) {
            true => (&self.redo_ways, began),
            false => (&self.ways, ways::range_began()),
        };
        let (choice, way) = ways.choose();
        let found = self.look(entry.id, offset, bytes, way.parts)?;
        let looked = began.elapsed();
        let differing = self.pack(entry, offset, bytes, &found, way.zstd)?;
        let took = began.elapsed();
        // Nothing waits for the joiner or for the link in the consistency point.
        if !self.is_at_consistency_point() {
            // Reading costs the same whatever differs, so only that share of it counts.
            let reading = cycle.elapsed().saturating_sub(took);
            let share = differing as f64 / bytes.len().max(1) as f64;
            ways.learn(choice, way, differing as u64, took + reading.mul_f64(share));
            if self.redo != Some(entry.id) {
                self.weigh(&found, (bytes.len(), differing), (looked, took.saturating_sub(looked)));
            }
        }
        ways::range_is_done();
        if let Some(compare) = &self.compare {
            compare.learn(&found, bytes.len(), took);
        }
        Ok(())
    }

    /// Gives up comparing if it costs more than it saves. `bytes` of a range, and of those that differ; `took`: comparing it, and
    /// packing and queuing it.
    fn weigh(&self, found: &Found, bytes: (usize, usize), took: (Duration, Duration)) {
        let Some(compare) = &self.compare else { return };
        let hidden = self.ways.connections_are_the_limit();
        if let Some(reason) = compare.weigh(found, bytes, took, hidden) {
            self.ways.drop_parts();
            self.progress.tell(&reason);
            self.progress.ledger.update(|record| {
                record.plan.iter_mut().for_each(|plan| plan.words = format!("{}; {reason}", plan.words));
            });
        }
    }

    /// What the joiner has of a part of a range.
    fn look(&self, file: FileId, offset: u64, bytes: &[u8], parts: bool) -> Result<Found> {
        match &self.compare {
            Some(compare) if self.redo != Some(file) => {
                let (wait, began) = (!self.is_at_consistency_point(), Instant::now());
                if wait {
                    self.until(|state| state.has_room() && state.is_confirmed(file, offset))?;
                }
                let rebuilt = began.elapsed();
                let mut found = compare.look(file, offset, bytes, wait, parts)?;
                found.waited(rebuilt);
                Ok(found)
            }
            _ => Ok(Found::default()),
        }
    }

    /// Queues a range that the joiner has.
    pub(super) fn push_same(&self, entry: &Arc<FileEntry>, offset: u64, len: u32) -> Result<()> {
        let chunk = Chunk::same(entry.id, offset, len);
        let chunk = QueuedChunk::Chunk { entry: Arc::clone(entry), chunk, payload: Vec::new() };
        self.push(self.queue_of(entry.id, offset)?, chunk)
    }

    /// Packs and queues bytes. Returns the number of bytes that are neither the same nor zero.
    pub(super) fn pack(
        &self,
        entry: &Arc<FileEntry>,
        offset: u64,
        bytes: &[u8],
        found: &Found,
        zstd: bool,
    ) -> Result<usize> {
        let connection = self.queue_of(entry.id, offset)?;
        let length = bytes.len() as u32;
        if found.same == [(0, length)] {
            return self.push_same(entry, offset, length).map(|()| 0);
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
        let differing = data.len() + deltas.iter().map(|delta| delta.len as usize).sum::<usize>();
        data.extend_from_slice(literals);
        let sent = digest(&data);
        let all_is_sent = deltas.is_empty() && data.len() == bytes.len();
        let whole = (!all_is_sent).then(|| digest(bytes)).filter(|whole| *whole != sent);
        let (packing, payload) = packer.pack(data, zstd)?;
        pool().push(packer);
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
