//! What an operator wants to know: who gives, how, how much, until when, and what would be better.
use std::time::Duration;

use formats::Seqno;
use formats::galera::conf_change::MemberState;

use super::choice::{Choice, Joiner, Member, Rule, choose, safe};
use super::facts::{Facts, Known, Origin, Position};
use super::transfer::Estimate;

/// Of what would be sent, one part in so many is no reason to choose another donor.
const LITTLE: u64 = 8;

/// How the node comes back.
#[derive(Clone, Debug, PartialEq)]
pub enum Way {
    /// It has everything already.
    NothingMissing,
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
    /// Everybody who could give is busy: it asks again every second.
    Waits,
    /// Nobody gives: its server ends.
    Refused,
}

/// A prediction.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// How it comes back.
    pub way: Way,
    /// Write-sets between its position and the group's.
    pub missing: Option<u64>,
    /// Their bytes, by the mean of the group's.
    pub missing_bytes: Option<u64>,
    /// What rejoin sends in an SST from the donor that is chosen; or why that is not known.
    pub sends: Option<Result<Estimate, String>>,
    /// Positions before this one are in the safety gap.
    pub safe: Seqno,
    /// The soonest that the donor's history may have moved past the position, at the pace of now.
    pub lasts_at_least: Option<Duration>,
    /// What would be better, and what the prediction rests on.
    pub advice: Vec<String>,
}

/// Speeds that only an operator knows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Speeds {
    /// Write-sets a second that this node applies.
    pub apply: Option<f64>,
    /// Bytes a second that a state transfer gets here.
    pub transfer: Option<f64>,
}

/// Predicts, from what is known now.
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
    let way = match ask(&facts.wanted) {
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
        sends: sends(&way, facts),
        way,
        missing,
        missing_bytes,
        advice: Vec::new(),
    };
    prediction.advice = advice(facts, &prediction, &members, &ask, speeds);
    prediction
}

/// The group with this node in it, as it will be when it asks.
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

fn sends(way: &Way, facts: &Facts) -> Option<Result<Estimate, String>> {
    let Way::Sst { donor, .. } = way else { return None };
    Some(facts.group.members.iter().find(|known| known.member.name == *donor)?.sends.clone())
}

/// A full ring drops a write-set for each that comes; one that is not full drops none yet.
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
            "the position is what InnoDB will recover: a start that does not pass it on (wsrep_start_position, as \
             galera_recovery does) has none and gets an SST"
                .to_owned(),
        );
    }
    match &prediction.way {
        Way::Ist { .. } => advice.extend(ist_or_rather_not(facts, prediction, speeds)),
        Way::Sst { .. } | Way::Refused | Way::Waits => {
            let better = better_donor(facts, members, ask, &prediction.way);
            advice.extend(better.or_else(|| nearest_donor(facts, ask, &prediction.way)));
        }
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
            "{} not asked: taken for Synced and of segment 0, with the history of the last view change; --donor may be \
             given for each member",
            unsure.join(", ")
        ));
    }
    advice
}

/// Somebody who has what is missing and is not chosen, in the words that would have it chosen.
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
            "set wsrep_sst_donor={} on this node: it has what is missing, and serves it by IST when it is named",
            member.name
        ));
    }
    let busy = able.iter().rev().find(|member| ask(&member.name) == Choice::Waits)?;
    (*way != Way::Waits).then(|| {
        format!(
            "{} has what is missing and is {}: start when it is Synced again, or set wsrep_sst_donor={}, with which this \
             node asks until it is",
            busy.name, busy.state, busy.name
        )
    })
}

/// Whose data shares most with what is here, in the words that would have it chosen. Pages are written by each node in
/// its own way: where members' files cannot be looked at, the one that the data came from is the guess.
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
        let size = crate::words::size;
        return worth_it.then(|| {
            format!("{}: it would send about {} instead of {}", set(name), size(about), size(of_chosen))
        });
    }
    let nearest = &facts.lineage.as_ref()?.donor;
    (donor != nearest && gives(nearest))
        .then(|| format!("{}: its data came from there, so least differs", set(nearest)))
}

/// Replaying may take longer than receiving the data.
fn ist_or_rather_not(facts: &Facts, prediction: &Prediction, speeds: Speeds) -> Option<String> {
    let replay = prediction.missing? as f64 / speeds.apply?;
    let transfer = facts.data as f64 / speeds.transfer?;
    (replay > transfer).then(|| {
        format!(
            "replaying takes about {} at the speed given, receiving as much data as is here {}: to have an SST instead, \
             move grastate.dat away and start without wsrep_start_position",
            crate::words::seconds(replay),
            crate::words::seconds(transfer)
        )
    })
}

#[cfg(test)]
#[path = "predict_tests.rs"]
mod tests;
