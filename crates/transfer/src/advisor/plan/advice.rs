//! Recommendations to an operator: what would be better than what is predicted, and what the prediction assumes.
use super::choice::{Choice, Member};
use super::deep_ist::{DeepIst, Reaches};
use super::demand::Room;
use super::facts::{Facts, Known, Origin, Position};
use super::kind::TransferKind;
use super::predict::{Prediction, Speeds, Way, instead};
use crate::human::size;

/// A saving of less than one part in this many is no reason to choose another donor.
const LITTLE: u64 = 8;

/// All of them. `ask` is what Galera decides with a `wsrep_sst_donor`.
pub(super) fn of(
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
            let better = better.or_else(|| donor_with_archive(facts, prediction, ask));
            advice.extend(better.or_else(|| nearest_donor(facts, ask, &prediction.way)));
            advice.extend(more_room(prediction));
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

/// Recommends a member whose archive of write-sets reaches back to this node more surely than that of the chosen donor, if any does.
fn donor_with_archive(
    facts: &Facts,
    prediction: &Prediction,
    ask: &dyn Fn(&str) -> Choice,
) -> Option<String> {
    let Way::Sst { donor, .. } = &prediction.way else { return None };
    let chosen = prediction.deep_ist.as_ref().map_or(Reaches::No, DeepIst::reaches);
    let others = facts.group.members.iter().filter(|known| known.member.name != *donor);
    let pays = |deep: &DeepIst| {
        deep.closed.is_none()
            && deep.reaches() > chosen
            && deep.ways.is_none_or(|ways| ways.replay_is_cheaper())
    };
    let able = others.filter_map(|known| Some((instead(known, facts).filter(pays)?, &known.member.name)));
    let able = able.filter(|(_, name)| is_chosen(facts, ask, name));
    let (deep, name) = able.max_by_key(|(deep, _)| deep.reaches())?;
    let so = match deep.reaches() {
        Reaches::No | Reaches::Yes => ", so",
        Reaches::IfItStayed => "; if it has kept as many since,",
        Reaches::IfItGrew => "; if it has kept more since,",
    };
    let (set, archive) = (name_donor(name), deep.archive.in_words());
    Some(format!("{set}: {archive}{so} it can send {} write-sets instead of files", deep.write_sets))
}

/// Whether Galera chooses this member if it is named.
fn is_chosen(facts: &Facts, ask: &dyn Fn(&str) -> Choice, name: &str) -> bool {
    let is_it = |index: usize| facts.group.members.get(index).is_some_and(|known| known.member.name == name);
    matches!(ask(name), Choice::Donor { index, .. } if is_it(index))
}

fn name_donor(name: &str) -> String {
    format!("set wsrep_sst_donor={name}, (with the comma) on this node")
}

/// Recommends the member whose data is most similar, with the setting that would choose it. Each node writes
/// its own pages, so if members' files cannot be read, the best guess is the donor of the last transfer.
fn nearest_donor(facts: &Facts, ask: &dyn Fn(&str) -> Choice, way: &Way) -> Option<String> {
    let Way::Sst { donor, .. } = way else { return None };
    let members = &facts.group.members;
    let gives = |name: &str| is_chosen(facts, ask, name);
    let about = |known: &Known| known.sends.as_ref().ok().and_then(|sends| sends.about);
    let of_chosen = members.iter().find(|known| known.member.name == *donor).and_then(about);
    let least = members
        .iter()
        .filter(|known| gives(&known.member.name))
        .filter_map(|known| about(known).map(|about| (about, &known.member.name)))
        .min();
    if let (Some(of_chosen), Some((about, name))) = (of_chosen, least) {
        let worth_it = of_chosen - of_chosen / LITTLE > about;
        return worth_it.then(|| {
            format!(
                "{}: it would send about {} instead of {}",
                name_donor(name),
                size(about),
                size(of_chosen)
            )
        });
    }
    let nearest = &facts.lineage.as_ref()?.donor;
    (donor != nearest && gives(nearest))
        .then(|| format!("{}: this node's data came from there, so least differs", name_donor(nearest)))
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

/// What follows if a whole set of files does not fit beside this node's data.
fn more_room(prediction: &Prediction) -> Option<String> {
    let room = prediction.room.filter(Room::is_short)?;
    let missing = size(room.needed - room.free);
    let otherwise = match prediction.kind {
        Some(TransferKind::Rows(_)) => "otherwise it refuses: a logical transfer is never in place",
        _ => {
            "otherwise files are replaced in place, which cannot be rolled back, or refused with in-place=never under [sst]"
        }
    };
    Some(format!("free {missing} on the filesystem of this node's datadir: {otherwise}"))
}
