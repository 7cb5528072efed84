//! What is known of a node that is down and of the group that it would join, as a value.
use std::time::Duration;

use formats::wsrep::state_id::StateId;
use formats::{Seqno, Uuid};

use super::choice::Member;
use super::transfer::Estimate;
use crate::datadir::lineage::Lineage;

/// Everything that a prediction depends on.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `wsrep_node_name` of this node.
    pub name: String,
    /// `gmcast.segment` of this node.
    pub segment: u8,
    /// `wsrep_sst_donor` of this node.
    pub wanted: String,
    /// Where its data is.
    pub position: Position,
    /// The oldest write-set in its own gcache, where the provider will take that over: it counts among the members'.
    pub lowest_cached: Option<Seqno>,
    /// From whom its data came.
    pub lineage: Option<Lineage>,
    /// Bytes of its data files.
    pub data: u64,
    /// The group.
    pub group: Group,
}

/// Where a node's data is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// `grastate.dat` says so.
    Noted(StateId),
    /// InnoDB will recover it; the provider hears of it only when the start passes it on (`wsrep_start_position`, as
    /// `galera_recovery` does).
    Recovered(StateId),
    /// There is none, and why.
    None(String),
    /// It cannot be told, and why.
    Unknown(String),
}

impl Position {
    /// The position, however the provider learns of it.
    pub fn state(&self) -> Option<StateId> {
        match self {
            Position::Noted(state) | Position::Recovered(state) => Some(*state),
            Position::None(_) | Position::Unknown(_) => None,
        }
    }
}

/// The group as it is, or was.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its history.
    pub history: Uuid,
    /// Its last write-set.
    pub newest: Seqno,
    /// Its members in its order, this node not among them.
    pub members: Vec<Known>,
    /// How old this is; none when a member was asked just now.
    pub age: Option<Duration>,
    /// What else a running member tells.
    pub pace: Option<Pace>,
}

/// How fast the group writes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Write-sets a second: now or, where that is more, at the mean since the member's start.
    pub per_second: f64,
    /// Mean bytes of a write-set.
    pub bytes_each: f64,
}

/// A member, and where what is known of it comes from.
#[derive(Clone, Debug)]
pub struct Known {
    /// The member.
    pub member: Member,
    /// Where from.
    pub from: Origin,
    /// What rejoin would send from it; or why that is not known.
    pub sends: Result<Estimate, String>,
}

impl Known {
    /// A member that was not asked itself.
    pub(super) fn not_asked(member: Member, from: Origin) -> Known {
        Known { member, from, sends: Err("it was not asked".to_owned()) }
    }
}

/// Where facts of a member come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was asked itself.
    Asked,
    /// From the last view change, which tells no segment; and why it was not asked.
    View(String),
    /// Nothing but its name is known; and why it was not asked.
    Nothing(String),
}
