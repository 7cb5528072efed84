//! The prediction for an operator: the donor, the way, the amount, the time limit and what it demands.
use std::time::Duration;

use formats::Seqno;
use formats::galera::conf_change::MemberState;
use protocol::message::ReplayRate;

use super::advice;
use super::choice::{Choice, Joiner, Member, Rule, choose, safe};
use super::costs::{self, Cost};
use super::deep_ist::{self, DeepIst, Question};
use super::demand::{Pause, Room};
use super::facts::{Facts, Known};
use super::kind::TransferKind;
use super::transfer::Estimate;
use crate::snapshot::logical::locked::Hold;

/// How the node comes back.
#[derive(Clone, Debug, PartialEq)]
pub enum Way {
    /// It has everything already.
    NothingMissing,
    /// It has more than the group, which was bootstrapped from an older node: its server ends ("Reversing history").
    Ahead {
        /// Write-sets that only it has.
        by: u64,
    },
    /// A donor sends write-sets.
    Ist {
        /// The donor's name.
        donor: String,
        /// What decided.
        rule: Rule,
        /// The first write-set.
        from: Seqno,
    },
    /// A donor sends its data.
    Sst {
        /// The donor's name.
        donor: String,
        /// What decided.
        rule: Rule,
    },
    /// Every possible donor is busy: the node asks again every second.
    Waits,
    /// No member can be the donor: its server ends.
    Refused,
}

/// A prediction.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// How it comes back.
    pub way: Way,
    /// Write-sets between its position and the group's.
    pub missing: Option<u64>,
    /// Their size, by the mean of the group's write-sets.
    pub missing_bytes: Option<u64>,
    /// What rejoin sends in an SST from the chosen donor, or why that is not known.
    pub sends: Option<Result<Estimate, String>>,
    /// Whether that would be files, and of which snapshot.
    pub kind: Option<TransferKind>,
    /// How the donor's server stands still.
    pub pause: Option<Pause>,
    /// The tables without transactions for which it does, if rows travel.
    pub hold: Option<Hold>,
    /// The room that this node needs.
    pub room: Option<Room>,
    /// Instead of that, write-sets of the donor's archive.
    pub deep_ist: Option<DeepIst>,
    /// What each way costs that is open to the node, the cheapest first.
    pub costs: Vec<Cost>,
    /// Earlier positions are in the safety gap.
    pub safe: Seqno,
    /// The earliest time at which the donor's history may have moved past the position, at the current rate.
    pub lasts_at_least: Option<Duration>,
    /// Recommendations, and the assumptions of the prediction.
    pub advice: Vec<String>,
}

/// Speeds that only the operator knows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Speeds {
    /// Write-sets per second that this node applies.
    pub apply: Option<f64>,
    /// Bytes per second of a state transfer.
    pub transfer: Option<f64>,
}

impl Speeds {
    /// The given rate, for write-sets of so many bytes each.
    fn replay(&self, bytes_each: f64) -> Option<ReplayRate> {
        let write_sets = self.apply?;
        let at_least_one = |number: f64| number.max(1.0) as u64;
        Some(ReplayRate {
            write_sets: at_least_one(write_sets),
            bytes: at_least_one(write_sets * bytes_each),
        })
    }
}

/// Predicts from the current facts.
pub fn predict(facts: &Facts, speeds: Speeds) -> Prediction {
    let group = &facts.group;
    let state = facts.position.state().filter(|state| state.uuid == group.history);
    let members = members(facts);
    // The view in which it asks is a change of its own.
    let newest = Seqno(group.newest.0.saturating_add(1));
    let ask = |wanted: &str| {
        let (index, wanted) = (members.len() - 1, wanted.to_owned());
        choose(&members, &Joiner { index, position: state.map(|state| state.seqno), wanted }, newest)
    };
    let missing = state.map(|state| u64::try_from(group.newest.0 - state.seqno.0).unwrap_or(0));
    // An old state of the group does not show which node is ahead now.
    let ahead = state.filter(|_| group.age.is_none()).map_or(0, |state| state.seqno.0 - group.newest.0);
    let way = match ask(&facts.wanted) {
        _ if ahead > 0 => Way::Ahead { by: ahead.unsigned_abs() },
        _ if missing == Some(0) => Way::NothingMissing,
        Choice::Donor { index, rule, ist_from } => {
            let donor = members[index].name.clone();
            match ist_from {
                Some(from) => Way::Ist { donor, rule, from },
                None => Way::Sst { donor, rule },
            }
        }
        Choice::Waits => Way::Waits,
        Choice::Refused => Way::Refused,
    };
    let pace = group.pace;
    let missing_bytes = missing.zip(pace).map(|(sets, pace)| (sets as f64 * pace.bytes_each) as u64);
    let mut prediction = Prediction {
        lasts_at_least: lasts(&way, facts, state.map(|state| state.seqno)),
        safe: safe(&members, newest),
        deep_ist: donor_of(&way, facts).and_then(|known| instead(known, facts)),
        sends: donor_of(&way, facts).map(|known| known.sends.clone()),
        kind: donor_of(&way, facts).and_then(|known| known.kind.clone()),
        hold: donor_of(&way, facts).and_then(|known| known.hold.clone()),
        way,
        missing,
        missing_bytes,
        pause: None,
        room: None,
        costs: Vec::new(),
        advice: Vec::new(),
    };
    prediction.costs = costs::costs(&costs::Known {
        way: &prediction.way,
        missing: (missing.unwrap_or(0), missing_bytes.unwrap_or(0)),
        rate: speeds.replay(pace.map_or(0.0, |pace| pace.bytes_each)).or(facts.rate),
        link: speeds.transfer.map(|bytes| bytes as u64),
        sends: prediction.sends.as_ref().and_then(|sends| sends.as_ref().ok()),
        kind: prediction.kind.as_ref(),
        deep_ist: prediction.deep_ist.as_ref(),
    });
    prediction.pause = match &prediction.kind {
        Some(TransferKind::Files(from)) => Some(Pause::of(from.kind, &prediction.costs)),
        Some(TransferKind::Rows(_)) => prediction.hold.as_ref().map(Pause::by_tables),
        Some(TransferKind::Nothing(_)) | None => None,
    };
    prediction.room = room(facts, &prediction);
    prediction.advice = advice::of(facts, &prediction, &members, &ask, speeds);
    prediction
}

/// The group including this node, as it will be when the node asks.
fn members(facts: &Facts) -> Vec<Member> {
    let mut all: Vec<Member> = facts.group.members.iter().map(|known| known.member.clone()).collect();
    all.push(Member {
        name: facts.name.clone(),
        segment: facts.segment,
        state: MemberState::Primary,
        stateless: false,
        lowest_cached: facts.lowest_cached,
    });
    all
}

/// What the chosen donor's data needs here; a server that runs already has its rows beside its tables.
fn room(facts: &Facts, prediction: &Prediction) -> Option<Room> {
    let sends = prediction.sends.as_ref()?.as_ref().ok().filter(|_| !facts.gets_rows)?;
    Room::of(prediction.kind.as_ref(), sends, facts.free?)
}

/// The donor of an SST.
fn donor_of<'a>(way: &Way, facts: &'a Facts) -> Option<&'a Known> {
    let Way::Sst { donor, .. } = way else { return None };
    facts.group.members.iter().find(|known| known.member.name == *donor)
}

/// Write-sets instead of files, if the archive of this member reaches back to the position.
pub(super) fn instead(known: &Known, facts: &Facts) -> Option<DeepIst> {
    let position = facts.position.state().filter(|state| state.uuid == facts.group.history);
    let question = Question {
        group: (facts.group.history, facts.group.newest),
        position: position.map(|state| state.seqno),
        base: facts.base.as_ref().and_then(|base| base.as_ref().ok()),
        donor: (&known.member.name, known.member.lowest_cached),
        rate: facts.rate,
        sends: known.sends.as_ref().ok(),
        bytes_each: facts.group.pace.map_or(0.0, |pace| pace.bytes_each),
    };
    deep_ist::predict(&facts.archives, &facts.relay, &question)
}

/// A full ring drops one write-set for each new one; one that is not full drops none yet.
fn lasts(way: &Way, facts: &Facts, position: Option<Seqno>) -> Option<Duration> {
    let Way::Ist { donor, .. } = way else { return None };
    let donor = facts.group.members.iter().find(|known| known.member.name == *donor)?;
    let spare = position?.0 + 1 - donor.member.lowest_cached?.0;
    let seconds = spare as f64 / facts.group.pace?.per_second;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
#[path = "predict_tests.rs"]
mod tests;
