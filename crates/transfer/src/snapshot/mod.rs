//! Where the donor's data comes from.
//!
//! | module | owns |
//! |---|---|
//! | [`online`] | the snapshot of a server that goes on working |
//! | [`blocking`] | the snapshot of a server that holds its files still |
//! | [`copy`] | reading files as they are, pages checked |
//! | [`declined`] | every reason for which a snapshot does not serve |
//! | [`binlog_state`] | the GTID state of the donor's binary log |
//! | [`sink`] | where a snapshot puts its files |
pub mod binlog_state;
pub mod blocking;
pub mod copy;
pub mod declined;
pub mod online;
pub mod sink;

use protocol::entries::Entries;
use protocol::inventory::FileId;
use protocol::message::SnapshotKind;

use crate::cancel::Cancel;
use declined::SnapshotError;
use sink::{Position, SnapshotSink};

/// One way to read a consistent state of the donor's server. The donor's role knows nothing else of it, so a snapshot that
/// another tool or a filesystem makes is one more implementation.
pub trait Snapshot: Sync {
    /// What both hosts are told that it is.
    fn kind(&self) -> SnapshotKind;

    /// The file that its redo is written to, if it has redo: it travels on a connection of its own.
    fn redo(&self) -> Option<FileId>;

    /// The server's clients cannot write until all files have been read, so reading must not wait for comparing.
    fn blocks_writes(&self) -> bool;

    /// Writes every file to `sink`. The server is as free as before when this returns, whatever it returns.
    ///
    /// # Errors
    /// This snapshot declines and another may serve, or the transfer is over.
    fn take(&self, sink: &dyn SnapshotSink, cancel: &Cancel) -> Result<Taken, SnapshotError>;
}

/// A snapshot that was taken.
#[derive(Debug)]
pub struct Taken {
    /// Every file that counts, with its final name and size.
    pub files: Entries,
    /// The position that the joiner will recover to.
    pub position: Position,
    /// GTID state of the binary log at that position, as lines of a `.state` file; `None` without a binary log.
    pub binlog_state: Option<String>,
    /// Corrupt pages that were delivered as they are.
    pub corrupt: Vec<String>,
    /// What both hosts log about how it was taken, a line each.
    pub summary: Vec<String>,
}
