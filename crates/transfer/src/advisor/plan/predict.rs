//! The prediction for an operator: the donor, the way, the amount, the time limit, and what would be better.
use std::time::Duration;

use formats::Seqno;
use formats::galera::conf_change::MemberState;

use super::choice::{Choice, Joiner, Member, Rule, choose, safe};
use super::costs::{self, Cost};
use super::deep_ist::{self, DeepIst, Question};
use super::facts::{Facts, Known, Origin, Position};
use super::kind::TransferKind;
use super::transfer::Estimate;

/// A saving of less than one part in this many is no reason to choose another donor.
const LITTLE: u64 = 8;

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
    /// Whether that would be files.
    pub kind: Option<TransferKind>,
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
        deep_ist: instead(&way, facts, state.map(|state| state.seqno)),
        sends: donor_of(&way, facts).map(|known| known.sends.clone()),
        kind: donor_of(&way, facts).and_then(|known| known.kind.clone()),
        way,
        missing,
        missing_bytes,
        costs: Vec::new(),
        advice: Vec::new(),
    };
    prediction.costs = costs::costs(&costs::Known {
        way: &prediction.way,
        missing: (missing.unwrap_or(0), missing_bytes.unwrap_or(0)),
        rate: facts.rate,
        sends: prediction.sends.as_ref().and_then(|sends| sends.as_ref().ok()),
        kind: prediction.kind.as_ref(),
        deep_ist: prediction.deep_ist.as_ref(),
    });
    prediction.advice = advice(facts, &prediction, &members, &ask, speeds);
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

/// The donor of an SST.
fn donor_of<'a>(way: &Way, facts: &'a Facts) -> Option<&'a Known> {
    let Way::Sst { donor, .. } = way else { return None };
    facts.group.members.iter().find(|known| known.member.name == *donor)
}

/// Write-sets instead of files, if the archive of the chosen donor reaches back to the position.
fn instead(way: &Way, facts: &Facts, position: Option<Seqno>) -> Option<DeepIst> {
    let known = donor_of(way, facts)?;
    let question = Question {
        group: (facts.group.history, facts.group.newest),
        position,
        base: facts.base.as_ref().and_then(|base| base.as_ref().ok()),
        donor: (&known.member.name, known.member.lowest_cached),
        rate: facts.rate,
        sends: known.sends.as_ref().ok(),
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

fn advice(
    facts: &Facts,
    prediction: &Prediction,
    members: &[Member],
    ask: &dyn Fn(&str) -> Choice,
    speeds: Speeds,
) -> Vec<String> {
    let mut advice = Vec::new();
    if let Position::Recovered(_) = facts.position {
        advice.push(
            "InnoDB will recover to this position: a start that does not pass it on (wsrep_start_position, as \
             galera_recovery does) has no position and gets an SST"
                .to_owned(),
        );
    }
    match &prediction.way {
        Way::Ist { .. } => advice.extend(ist_or_rather_not(facts, prediction, speeds)),
        Way::Sst { .. } | Way::Refused | Way::Waits => {
            let better = better_donor(facts, members, ask, &prediction.way);
            advice.extend(better.or_else(|| nearest_donor(facts, ask, &prediction.way)));
        }
        Way::Ahead { by } => advice.extend(either_loses(facts, *by)),
        Way::NothingMissing => {}
    }
    let unsure: Vec<&str> = facts
        .group
        .members
        .iter()
        .filter(|known| known.from != Origin::Asked)
        .map(|known| known.member.name.as_str())
        .collect();
    if !unsure.is_empty() {
        advice.push(format!(
            "not asked, so assumed to be Synced in segment 0 with the write-sets of the last view change: {} (name each with \
             --donor SOCKET or --donor HOST)",
            unsure.join(" and ")
        ));
    }
    advice
}

/// Both histories continued from one position: the operator must choose which of them counts.
fn either_loses(facts: &Facts, by: u64) -> [String; 2] {
    let newest = facts.group.newest;
    [
        format!(
            "to keep the group: {by} write-sets of this node, those after {newest}, are lost, and so are its earlier \
             ones that the group replaced by its own. Save what you need of them first (binary log, or a dump from this \
             node started alone), then move grastate.dat away and start without wsrep_start_position: a state transfer \
             follows, and keep-previous=always under [sst] keeps the previous state"
        ),
        "to keep this node: whatever the group has committed since it was bootstrapped is lost. Stop all members, set \
         safe_to_bootstrap: 1 in this node's grastate.dat, bootstrap the group here (galera_new_cluster), move grastate.dat \
         of the other members away and start them: each gets a state transfer"
            .to_owned(),
    ]
}

/// Recommends a member that has the missing write-sets but is not chosen, with the setting that would choose
/// it.
fn better_donor(
    facts: &Facts,
    members: &[Member],
    ask: &dyn Fn(&str) -> Choice,
    way: &Way,
) -> Option<String> {
    let position = facts.position.state().filter(|state| state.uuid == facts.group.history)?.seqno;
    let has = |member: &&Member| {
        member.name != facts.name && member.lowest_cached.is_some_and(|lowest| lowest.0 <= position.0 + 1)
    };
    let mut able: Vec<&Member> = members.iter().filter(has).collect();
    able.sort_by_key(|member| member.lowest_cached);
    let named = able.iter().rev().find(|member| {
        matches!(ask(&member.name), Choice::Donor { index, ist_from: Some(_), .. } if members[index].name == member.name)
    });
    if let Some(member) = named {
        return Some(format!(
            "set wsrep_sst_donor={} on this node: it has the missing write-sets, and serves them by IST if it is named",
            member.name
        ));
    }
    let busy = able.iter().rev().find(|member| ask(&member.name) == Choice::Waits)?;
    (*way != Way::Waits).then(|| {
        format!(
            "{} has the missing write-sets and is {}: start when it is Synced again, or set wsrep_sst_donor={}, with which \
             this node asks until it is",
            busy.name, busy.state, busy.name
        )
    })
}

/// Recommends the member whose data is most similar, with the setting that would choose it. Each node writes
/// its own pages, so if members' files cannot be read, the best guess is the donor of the last transfer.
fn nearest_donor(facts: &Facts, ask: &dyn Fn(&str) -> Choice, way: &Way) -> Option<String> {
    let Way::Sst { donor, .. } = way else { return None };
    let members = &facts.group.members;
    let gives = |name: &str| matches!(ask(name), Choice::Donor { index, .. } if members.get(index).is_some_and(|known| known.member.name == name));
    let about = |known: &Known| known.sends.as_ref().ok().and_then(|sends| sends.about);
    let set = |name: &str| format!("set wsrep_sst_donor={name}, (with the comma) on this node");
    let of_chosen = members.iter().find(|known| known.member.name == *donor).and_then(about);
    let least = members
        .iter()
        .filter(|known| gives(&known.member.name))
        .filter_map(|known| about(known).map(|about| (about, &known.member.name)))
        .min();
    if let (Some(of_chosen), Some((about, name))) = (of_chosen, least) {
        let worth_it = of_chosen - of_chosen / LITTLE > about;
        let size = crate::human::size;
        return worth_it.then(|| {
            format!("{}: it would send about {} instead of {}", set(name), size(about), size(of_chosen))
        });
    }
    let nearest = &facts.lineage.as_ref()?.donor;
    (donor != nearest && gives(nearest))
        .then(|| format!("{}: this node's data came from there, so least differs", set(nearest)))
}

/// Replaying may take longer than receiving the data.
fn ist_or_rather_not(facts: &Facts, prediction: &Prediction, speeds: Speeds) -> Option<String> {
    let replay = prediction.missing? as f64 / speeds.apply?;
    let transfer = facts.data as f64 / speeds.transfer?;
    (replay > transfer).then(|| {
        format!(
            "replaying takes about {} at the given speed, receiving this node's amount of data {}: to get an SST instead, \
             move grastate.dat away and start without wsrep_start_position",
            crate::human::seconds(replay),
            crate::human::seconds(transfer)
        )
    })
}

#[cfg(test)]
#[path = "predict_tests.rs"]
mod tests;
