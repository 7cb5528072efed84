//! Where the donor's data comes from.
//!
//! | module | owns |
//! |---|---|
//! | [`online`] | the snapshot of a server that keeps working |
//! | [`logical`] | definitions and rows, for a joiner that cannot open the donor's files |
//! | [`blocking`] | the snapshot of a server that blocks writes until all files have been read |
//! | [`mariabackup`] | the snapshot that mariadb-backup takes |
//! | [`copy`] | reading files and checking their pages, for both |
//! | [`declined`] | the reasons why a snapshot is not possible |
//! | [`binlog_state`] | the GTID state of the donor's binary log |
//! | [`sink`] | the interface through which a snapshot hands over its files |
pub mod binlog_state;
pub mod blocking;
pub mod copy;
pub mod declined;
pub mod logical;
pub mod mariabackup;
pub mod online;
pub mod sink;

use protocol::entries::Entries;
use protocol::inventory::FileId;
use protocol::message::SnapshotKind;

use crate::cancel::Cancel;
use declined::SnapshotError;
use sink::{Position, SnapshotSink};

/// One way to read a consistent state of the donor's server. The donor's role uses only this trait, so a snapshot that
/// another tool or a filesystem takes is one more implementation.
pub trait Snapshot: Sync {
    /// The kind that both hosts log.
    fn kind(&self) -> SnapshotKind;

    /// The file that the redo is written to, if there is redo. It gets a connection of its own.
    fn redo(&self) -> Option<FileId>;

    /// True if clients cannot write until all files have been read. Reading must not wait for the comparison then.
    fn blocks_writes(&self) -> bool;

    /// Writes every file to `sink`. On return, whatever the result, nothing on the server is locked or blocked for us.
    ///
    /// # Errors
    /// This snapshot is not possible and another one may be, or the transfer is over.
    fn take(&self, sink: &dyn SnapshotSink, cancel: &Cancel) -> Result<Taken, SnapshotError>;
}

/// A finished snapshot.
#[derive(Debug)]
pub struct Taken {
    /// All files of the state, with final names and sizes.
    pub files: Entries,
    /// The position that the joiner will recover to.
    pub position: Position,
    /// GTID state of the binary log at that position, as the lines of a `.state` file; `None` without a binary log.
    pub binlog_state: Option<String>,
    /// Corrupt pages that were sent as they are.
    pub corrupt: Vec<String>,
    /// Newer checkpoints to which recovery was moved; `None` if there is no redo to move it in.
    pub redo_rounds: Option<u64>,
    /// Lines that both hosts log about how the snapshot was taken.
    pub summary: Vec<String>,
}
