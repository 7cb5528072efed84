//! What the donor offers before it does anything.
use serde::{Deserialize, Serialize};

use crate::inventory::Place;
use crate::policy::NodeFacts;

/// The description of a transfer, before anything is stopped on the donor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// `wsrep_node_name` of the donor.
    pub node: String,
    /// The position of the donor's server when it was asked, `uuid:seqno`.
    pub position: String,
    /// The donor's server and settings.
    pub facts: NodeFacts,
    /// Number of files.
    pub files: u32,
    /// Bytes allocated in each place.
    pub bytes: Vec<(Place, u64)>,
    /// Bytes allocated in each directory outside the places (absolute path).
    pub external: Vec<(String, u64)>,
    /// Undo tablespaces of the donor.
    pub undo_tablespaces: u32,
    /// Files that will not be sent, one line each.
    pub left_out: Vec<String>,
    /// Directories of the donor's databases, as far as they fit into one message: the joiner checks the
    /// places where they will go.
    pub databases: Vec<String>,
    /// Whether the donor takes a logical snapshot.
    pub logical: Logical,
}

/// Whether a donor takes a logical snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Logical {
    /// Never.
    #[default]
    Never,
    /// If the joiner cannot use the donor's files.
    IfNeeded,
    /// In any case.
    Always,
}
