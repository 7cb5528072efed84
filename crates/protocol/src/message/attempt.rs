//! One try of the donor, and the kind of snapshot that it sends.
use serde::{Deserialize, Serialize};

use crate::fingerprint::FingerprintKey;

/// One try of the donor to send a state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The kind of snapshot that the files come from.
    pub snapshot: SnapshotKind,
    /// Why the preferred kind of snapshot is not used; empty if it is.
    pub reason: String,
    /// The key for the joiner's fingerprints; none if files are not compared.
    pub fingerprints: Option<FingerprintKey>,
    /// The key of fingerprints that are remembered after the transfer; none if nothing is to be remembered. If it is the
    /// same as the other one, what was remembered before may be used in this attempt.
    pub remember: Option<FingerprintKey>,
    /// Bytes of the files that this snapshot contains, including those that the joiner already has. For the
    /// progress.
    pub bytes: u64,
}

/// The kind of snapshot that a donor's files come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotKind {
    /// A snapshot of a working server: files may grow and be renamed while they are sent, and the redo log
    /// brings them to one consistent position.
    Online,
    /// A snapshot of a server that blocks writes to its files.
    Blocking,
    /// Definitions and rows as the server shows them, from which the joiner's server makes files of its own.
    Logical,
    /// A backup that mariadb-backup takes of a working server: the joiner has mariadb-backup prepare the files once all of them
    /// have arrived.
    Mariabackup,
}

impl SnapshotKind {
    /// Its name, as in `[sst] snapshot=`.
    pub fn name(self) -> &'static str {
        match self {
            SnapshotKind::Online => "online",
            SnapshotKind::Blocking => "blocking",
            SnapshotKind::Logical => "logical",
            SnapshotKind::Mariabackup => "mariabackup",
        }
    }
}

/// The line in both hosts' logs that names the kind of snapshot.
pub fn snapshot_line(kind: SnapshotKind, reason: &str) -> String {
    match reason {
        "" => format!("snapshot: {}", kind.name()),
        why => format!("snapshot: {} ({why})", kind.name()),
    }
}
