//! Whether a joiner can get write-sets instead of files.
use serde::{Deserialize, Serialize};

use crate::limits::{REPLAY_BYTES_MAX, REPLAY_WRITE_SETS_MAX};

/// Whether write-sets can bring a joiner back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CanIst {
    /// They can.
    Yes {
        /// The position that the joiner's server will start from, `uuid:seqno`.
        position: String,
        /// The first seqno that the donor's provider sends by itself.
        first: i64,
        /// The first seqno that the joiner has not from an earlier try.
        next: i64,
        /// Bytes of write-sets that the joiner has room for.
        room: u64,
        /// How fast the joiner's server applied them last, if that is known.
        rate: Option<ReplayRate>,
    },
    /// They cannot.
    No {
        /// Why.
        why: String,
    },
}

/// How fast a server applies write-sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayRate {
    /// Write-sets in a second.
    pub write_sets: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl ReplayRate {
    /// Whether a server can be that fast, or that slow.
    pub fn is_possible(&self) -> bool {
        (1..=REPLAY_WRITE_SETS_MAX).contains(&self.write_sets) && (1..=REPLAY_BYTES_MAX).contains(&self.bytes)
    }
}
