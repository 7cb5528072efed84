//! The facts about a stopped node and the group that it would join, as a value.
use std::path::PathBuf;
use std::time::Duration;

use formats::wsrep::state_id::StateId;
use formats::{Seqno, Uuid};
use protocol::message::ReplayRate;

use super::archives::ArchiveReach;
use super::choice::Member;
use super::costs::Base;
use super::kind::TransferKind;
use super::transfer::Estimate;
use crate::datadir::lineage::Lineage;
use crate::snapshot::logical::locked::Hold;

/// Everything that a prediction depends on.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `wsrep_node_name` of this node.
    pub name: String,
    /// `gmcast.segment` of this node.
    pub segment: u8,
    /// `wsrep_sst_donor` of this node.
    pub wanted: String,
    /// The position of its data.
    pub position: Position,
    /// The oldest write-set in its own gcache, if the provider will recover it: it counts among those of the
    /// members.
    pub lowest_cached: Option<Seqno>,
    /// The origin of its data.
    pub lineage: Option<Lineage>,
    /// Bytes of its data files.
    pub data: u64,
    /// Bytes that are free on the filesystem of its datadir, if that is known.
    pub free: Option<u64>,
    /// It gets rows while its server runs.
    pub gets_rows: bool,
    /// The backup that `base` or `base-command` offers as the start of a deep IST, or why there is none; none if neither is
    /// set.
    pub base: Option<Result<Base, String>>,
    /// Archives of write-sets: named by the operator, of members on this host, or reported by a member at a transfer.
    pub archives: Vec<ArchiveReach>,
    /// How fast its server applied write-sets in its last deep IST, if that is known.
    pub rate: Option<ReplayRate>,
    /// Whether IST can pass through a relay of ours as this node is set up; if not, why.
    pub relay: Result<(), String>,
    /// The group.
    pub group: Group,
}

/// The position of a node's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// It is in `grastate.dat`.
    Noted(StateId),
    /// InnoDB will recover to it; the provider gets it only if the start passes it on
    /// (`wsrep_start_position`, as `galera_recovery` does).
    Recovered(StateId),
    /// There is none, for this reason.
    None(String),
    /// It is not known, for this reason.
    Unknown(String),
}

impl Position {
    /// The position, whichever way the provider gets it.
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
    /// Its members in its order, without this node.
    pub members: Vec<Known>,
    /// How old this information is; none if a member was queried just now.
    pub age: Option<Duration>,
    /// The write rate, from a running member.
    pub pace: Option<Pace>,
}

/// The write rate of the group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Write-sets per second: the current rate, or the mean since the member's start if that is higher.
    pub per_second: f64,
    /// Mean bytes of a write-set.
    pub bytes_each: f64,
}

/// A member, and the source of the information about it.
#[derive(Clone, Debug)]
pub struct Known {
    /// The member.
    pub member: Member,
    /// The source.
    pub from: Origin,
    /// What rejoin would send from it, or why that is not known.
    pub sends: Result<Estimate, String>,
    /// Whether that would be files, and of which snapshot; none if that is not known.
    pub kind: Option<TransferKind>,
    /// What holds writes there while its rows are read.
    pub hold: Option<Hold>,
    /// Its archive of write-sets, if it is on this host.
    pub archive: Option<PathBuf>,
}

impl Known {
    /// A member that was not queried itself.
    pub(super) fn not_asked(member: Member, from: Origin) -> Known {
        let sends = Err("it was not asked".to_owned());
        Known { member, from, sends, kind: None, hold: None, archive: None }
    }
}

/// The source of information about a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was queried itself.
    Asked,
    /// The last view change, which has no segment; and why it was not queried.
    View(String),
    /// Only its name is known; and why it was not queried.
    Nothing(String),
}
