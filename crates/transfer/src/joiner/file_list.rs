//! The donor's description of the state that it has sent.
use protocol::entries::Entries;

use super::expected::Position;

/// The donor's description of the state that it has sent.
pub(super) struct FileList {
    /// All files, their numbers ascending.
    pub files: Entries,
    /// The position they are at.
    pub position: Position,
    /// GTID state of the donor's binary log.
    pub binlog_state: Option<String>,
}
