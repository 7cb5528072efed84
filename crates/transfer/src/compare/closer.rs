//! What of a range differs: its blocks, and the pieces of these.
use std::time::Instant;

use anyhow::Result;
use protocol::chunk::is_zero;
use protocol::delta;
use protocol::fingerprint::{BLOCK_BYTES, Fingerprint};
use protocol::inventory::FileId;
use protocol::limits::RANGE_BYTES;
use protocol::message::Message;

use crate::compare::comparison::{Compare, Found};
use crate::compare::pending_rebuilds::Block;
use crate::threads::lock;

/// Maximum number of ranges whose blocks are asked for ahead, in a file with differences.
const CLOSER_AHEAD: u32 = 8;

impl Compare<'_> {
    /// Finds the differing pieces of blocks that the joiner has in another version.
    pub(super) fn compare_pieces(
        &self,
        file: FileId,
        range: u32,
        bytes: &[u8],
        ours: &[Fingerprint],
        held: u32,
        found: &mut Found,
    ) -> Result<()> {
        let block_bytes = BLOCK_BYTES as usize;
        let is_same = |start: usize| {
            found.same.iter().any(|(from, len)| (*from..*from + *len).contains(&(start as u32)))
        };
        let differs = |(number, block): &(usize, &[u8])| {
            let start = number * block_bytes;
            // False at the end of a file that is longer on one side.
            let their_end = (held as usize).min(start + block_bytes);
            start + block.len() == their_end && !is_same(start) && !is_zero(block)
        };
        let blocks: Vec<(usize, &[u8])> = bytes.chunks(block_bytes).enumerate().filter(differs).collect();
        if blocks.is_empty() {
            return Ok(());
        }
        let numbers = blocks.iter().map(|(number, _)| *number as u8).collect();
        self.ask(Message::ComparePieces { file, range, blocks: numbers });
        let began = Instant::now();
        let fingerprints =
            self.wait_for(file, true, |theirs| theirs.close().pieces.remove(&range))?.unwrap_or_default();
        found.waited.1 = began.elapsed();
        found.in_parts = true;
        let offset = u64::from(range) * u64::from(RANGE_BYTES);
        let mut kept = Vec::new();
        for ((number, block), fingerprints) in blocks.into_iter().zip(fingerprints) {
            let (start, whole) = (number * block_bytes, ours[number]);
            let made = delta::diff(&self.key, start as u32, block, whole, &fingerprints, &mut found.literals);
            if let Some(delta) = made {
                found.deltas.push(delta);
                kept.push(Block { file, offset: offset + start as u64, bytes: block.to_vec() });
            }
        }
        if !kept.is_empty() && !self.worth.unless_stopped(|| self.pending_rebuilds.keep(file, offset, kept)) {
            // The joiner no longer says whether it could rebuild them.
            found.deltas.clear();
            found.literals.clear();
        }
        Ok(())
    }

    /// Asks for the blocks of a range that differs. The following ranges probably differ too, so their blocks are asked
    /// for as well: more of them, the more ranges have differed.
    pub(super) fn compare_blocks(&self, file: FileId, range: u32) {
        let mut files = lock(&self.files);
        let Some(theirs) = files.get_mut(file) else { return };
        let asked = theirs.ranges_asked();
        let close = theirs.close();
        let end = asked.min(range.saturating_add(1 + close.ahead));
        close.ahead = (close.ahead * 2).clamp(1, CLOSER_AHEAD);
        let wanted: Vec<u32> = (range..end).filter(|range| close.asked.insert(*range)).collect();
        drop(files);
        for range in wanted {
            self.ask(Message::CompareBlocks { file, range });
        }
    }

    /// A range was the same: fewer ranges are asked for ahead.
    pub(super) fn look_less_far(&self, file: FileId) {
        if let Some(close) = lock(&self.files).get_mut(file).and_then(|theirs| theirs.close.as_mut()) {
            close.ahead /= 2;
        }
    }
}
