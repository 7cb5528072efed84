//! The donor's open questions about the joiner's files, and the answers that may be needed again.
use std::collections::{HashMap, VecDeque};

use protocol::fingerprint::Fingerprint;
use protocol::inventory::FileId;

/// Ranges whose block fingerprints are kept: 4 MiB of fingerprints. Older ones are computed again.
const RECENT_MAX: usize = 4096;

/// Block fingerprints of the last few thousand ranges.
#[derive(Default)]
pub(super) struct Recent {
    fingerprints: HashMap<(FileId, u32), Vec<Fingerprint>>,
    order: VecDeque<(FileId, u32)>,
}

impl Recent {
    pub fn add(&mut self, range: (FileId, u32), fingerprints: Vec<Fingerprint>) {
        if self.order.len() >= RECENT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.fingerprints.remove(&oldest);
        }
        self.order.push_back(range);
        self.fingerprints.insert(range, fingerprints);
    }

    pub fn take(&mut self, range: (FileId, u32)) -> Option<Vec<Fingerprint>> {
        self.fingerprints.remove(&range)
    }
}

/// The donor's open questions.
#[derive(Default)]
pub(super) struct Todo {
    pub pieces: VecDeque<Piece>,
    /// The donor asks no more.
    pub closed: bool,
}

/// One piece of work.
pub(super) enum Piece {
    /// The group fingerprint of files that were asked for together.
    GroupHasher { first: FileId },
    /// A file from a range on, to its end.
    From { file: FileId, range: u32 },
    /// The blocks of one range.
    Blocks { file: FileId, range: u32 },
    /// The pieces of some blocks of one range.
    Pieces { file: FileId, range: u32, blocks: Vec<u8> },
}
