//! What work takes on the joiner's host.
use serde::{Deserialize, Serialize};

/// What a byte takes on the joiner, and what of its host is left. The donor needs it to choose how bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinerPace {
    /// Identifies the running kernel: a donor with the same one shares its processors with the joiner.
    pub kernel: u64,
    /// Thousandths of a processor that the joiner's program uses or could use.
    pub processors: u32,
    /// Thousandths of the time for which its connections wait for bytes.
    pub waiting: u16,
    /// Picoseconds of processor time per byte, for each kind of work.
    pub work: JoinerWork,
}

/// Kinds of work of a joiner, in picoseconds per byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinerWork {
    /// Reading and fingerprinting its own file.
    pub fingerprint: u32,
    /// Fingerprinting the pieces of a block and rebuilding it.
    pub pieces: u32,
    /// Decompressing, per byte of the result.
    pub unpack: u32,
    /// Receiving and decrypting.
    pub carry: u32,
    /// Writing, and reading back.
    pub store: u32,
}
