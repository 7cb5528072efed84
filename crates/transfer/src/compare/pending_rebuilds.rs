//! Blocks that the joiner rebuilds from its own, kept until it confirms them. Blocks that it could not rebuild are sent
//! whole.
use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use protocol::inventory::FileId;
use protocol::limits::RANGE_BYTES;

use crate::cancel::LOOK_EVERY;

/// Maximum bytes of blocks that are kept; above it their sender waits.
const KEPT_MAX: usize = 24 << 20;

/// A block of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The file.
    pub file: FileId,
    /// Offset of its first byte in the file.
    pub offset: u64,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// Blocks that the joiner has not confirmed yet.
#[derive(Default)]
pub struct PendingRebuilds {
    state: Mutex<State>,
    changed: Condvar,
}

/// What is pending.
#[derive(Default)]
pub struct State {
    /// By file and offset of the range.
    ranges: HashMap<(FileId, u64), Vec<Block>>,
    bytes: usize,
    failed: Vec<Block>,
    /// File and offset of the blocks that a thread is just sending whole.
    sending: Vec<(FileId, u64)>,
}

impl State {
    /// True if nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.failed.is_empty() && self.sending.is_empty()
    }

    /// True if more may be kept.
    pub fn has_room(&self) -> bool {
        self.bytes < KEPT_MAX
    }

    /// True if nothing is pending of the range that contains this byte: what is sent of it now arrives after what was
    /// sent before.
    pub fn is_confirmed(&self, file: FileId, offset: u64) -> bool {
        let range = offset - offset % u64::from(RANGE_BYTES);
        let inside =
            |at: (FileId, u64)| at.0 == file && (range..range + u64::from(RANGE_BYTES)).contains(&at.1);
        let failed = self.failed.iter().map(|block| (block.file, block.offset));
        !self.ranges.contains_key(&(file, range)) && !failed.chain(self.sending.iter().copied()).any(inside)
    }

    /// A block that must be sent whole; the caller then calls [`PendingRebuilds::sent`].
    pub fn pop_failed(&mut self) -> Option<Block> {
        let block = self.failed.pop()?;
        self.sending.push((block.file, block.offset));
        Some(block)
    }
}

impl PendingRebuilds {
    /// Keeps blocks of the range that begins at `offset`.
    pub fn keep(&self, file: FileId, offset: u64, blocks: Vec<Block>) {
        let mut state = self.lock();
        state.bytes += length(&blocks);
        state.ranges.insert((file, offset), blocks);
    }

    /// The joiner has all blocks of a range, except those that begin at an offset in `failed`, counted from the range.
    /// Returns false if it was sent none there.
    pub fn rebuilt(&self, file: FileId, offset: u64, failed: &[u32]) -> bool {
        let mut state = self.lock();
        let Some(blocks) = state.ranges.remove(&(file, offset)) else { return false };
        state.bytes -= length(&blocks);
        let is_failed = |block: &Block| failed.iter().any(|start| offset + u64::from(*start) == block.offset);
        state.failed.extend(blocks.into_iter().filter(is_failed));
        self.changed.notify_all();
        true
    }

    /// A block was sent whole.
    pub fn sent(&self, file: FileId, offset: u64) {
        self.lock().sending.retain(|at| *at != (file, offset));
        self.changed.notify_all();
    }

    /// Locks the state.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the state changes, but only for a moment.
    pub fn wait(&self, state: MutexGuard<'_, State>) {
        drop(self.changed.wait_timeout(state, LOOK_EVERY));
    }
}

fn length(blocks: &[Block]) -> usize {
    blocks.iter().map(|block| block.bytes.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_sent_and_the_rest_is_forgotten() {
        let pending_rebuilds = PendingRebuilds::default();
        let (file, range) = (FileId(3), u64::from(RANGE_BYTES));
        let block = |offset| Block { file, offset, bytes: vec![1; 16384] };
        pending_rebuilds.keep(file, range, vec![block(range), block(range + 32768)]);
        assert!(
            !pending_rebuilds.lock().is_confirmed(file, range + 5)
                && pending_rebuilds.lock().is_confirmed(file, 2 * range)
        );
        assert!(!pending_rebuilds.rebuilt(file, 0, &[]), "nobody asked");
        assert!(pending_rebuilds.rebuilt(file, range, &[32768]));
        assert!(!pending_rebuilds.lock().is_confirmed(file, range) && !pending_rebuilds.lock().is_empty());
        assert_eq!(pending_rebuilds.lock().pop_failed(), Some(block(range + 32768)));
        assert!(
            !pending_rebuilds.lock().is_confirmed(file, range)
                && pending_rebuilds.lock().pop_failed().is_none()
        );
        pending_rebuilds.sent(file, range + 32768);
        assert!(pending_rebuilds.lock().is_empty() && pending_rebuilds.lock().is_confirmed(file, range));
        let much = Block { file, offset: 0, bytes: vec![0; KEPT_MAX] };
        pending_rebuilds.keep(file, 0, vec![much]);
        assert!(!pending_rebuilds.lock().has_room());
        assert!(pending_rebuilds.rebuilt(file, 0, &[7]), "it cannot name what it was not sent");
        assert!(pending_rebuilds.lock().has_room() && pending_rebuilds.lock().is_empty());
    }
}
