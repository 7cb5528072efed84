//! The status file of a transfer.
use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::disk::small_file;

/// Name of the status file in the datadir; `rejoin status` reads it.
pub const STATUS_FILE: &str = "rejoin-status.json";

/// More than any status has.
pub const STATUS_BYTES_MAX: u64 = 1 << 20;

/// The outcome of a transfer without a failure.
pub use report::record::OK;

/// What the status file holds; `rejoin status` shows it. A file of an older version has fewer fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// `joiner` or `donor`.
    pub role: String,
    /// The current phase.
    pub phase: String,
    /// What the other host is doing, as it said last. Empty while it has said nothing.
    pub peer_phase: String,
    /// How many percent of the bytes the other host says it has done. Absent if it does not say.
    pub peer_percent: Option<u8>,
    /// Bytes of files that are complete.
    pub done_bytes: u64,
    /// Bytes of all files; 0 while unknown.
    pub total_bytes: u64,
    /// Bytes sent and received over the network, with the overhead of encryption.
    pub wire_bytes: u64,
    /// Bytes of this host's files that were read, to be sent or compared.
    pub read_bytes: u64,
    /// Bytes of this host's files that were not read, because their fingerprints were remembered.
    pub remembered_bytes: u64,
    /// How often the donor has begun to send files: more than once when a snapshot was given up.
    pub attempts: u64,
    /// Microseconds for which the donor paused replication.
    pub paused_us: u64,
    /// Corrupt pages that this host found in its files in this attempt.
    pub corrupt_pages: u64,
    /// When the transfer began, in milliseconds since 1970.
    pub began_ms: u64,
    /// Milliseconds since the transfer began.
    pub elapsed_ms: u64,
    /// Milliseconds since the phase, a count of bytes, or local work last changed.
    pub idle_ms: u64,
    /// The phases so far, in the order in which they began, and how many milliseconds each took.
    pub phases: Vec<(String, u64)>,
    /// Process id of the program.
    pub pid: u32,
    /// `ok` or the reason of the failure, once the transfer has ended.
    pub outcome: Option<String>,
    /// The other side. Only a joiner names it.
    pub peer: Option<String>,
    /// Bytes per second that the donor may send (`rlimit`), as it is now. Only the donor knows it.
    pub rlimit: Option<u64>,
    /// `adaptive-throttle`, as it is now. Only the donor knows it.
    pub adaptive_throttle: Option<bool>,
    /// Options that `rejoin set` cannot change in this transfer, because it does not have them.
    pub fixed_options: Vec<String>,
    /// Bytes of files per second that the donor reads for now, for its server's sake (`adaptive-throttle`).
    pub reading_limit: Option<u64>,
    /// Why it reads no more.
    pub slowed_by: Option<String>,
    /// When the last successful transfer of each role ended, in milliseconds since 1970.
    pub last_success_ms: BTreeMap<String, u64>,
    /// How many transfers of each role have failed since then.
    pub failures: BTreeMap<String, u64>,
    /// What the transfers of each role came to, this one included.
    pub totals: BTreeMap<String, Totals>,
}

/// What all transfers of a role on this node came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Bytes of files, redo and write-sets that were sent, before compression.
    pub sent_bytes: u64,
    /// Bytes that the joiner had.
    pub reused_bytes: u64,
    /// Bytes that the joiner took from its own version of a block.
    pub rebuilt_bytes: u64,
    /// Bytes sent and received over the network, with the overhead of encryption.
    pub network_bytes: u64,
    /// Transfers that succeeded.
    pub succeeded: u64,
    /// Transfers that failed, or whose program was killed.
    pub failed: u64,
}

impl Totals {
    pub(super) fn add(&mut self, other: Totals) {
        for (sum, more) in [
            (&mut self.sent_bytes, other.sent_bytes),
            (&mut self.reused_bytes, other.reused_bytes),
            (&mut self.rebuilt_bytes, other.rebuilt_bytes),
            (&mut self.network_bytes, other.network_bytes),
            (&mut self.succeeded, other.succeeded),
            (&mut self.failed, other.failed),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}

impl Status {
    /// Reads a status file. `None` if there is none, or it is not one.
    pub fn read(path: &Path) -> Option<Status> {
        serde_json::from_slice(&small_file::read(path, STATUS_BYTES_MAX).ok()??).ok()
    }
}

/// Readers get the old or the new file. It need not survive a power loss.
pub(super) fn write_status(path: &Path, status: &Status) {
    let temporary = path.with_extension("json.tmp");
    let Ok(text) = serde_json::to_string(status) else { return };
    if std::fs::write(&temporary, text).is_ok() {
        let _ = std::fs::rename(&temporary, path);
    }
}
