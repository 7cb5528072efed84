//! Galera's rules for choosing a donor, and for IST or SST, as a function of values.
//!
//! Every member computes the same choice when the joiner's request arrives in the group's order. The rules
//! come from the provider's behaviour and sources (Galera 26.4.23, gcs_group.cpp and replicator_str.cpp), and
//! are tested against a cluster's logs (`choice_tests.rs`, `crates/lab/tests/servers/plan.rs`):
//!
//! 1. A joiner with a position in the group's history that is not too near the oldest write-set of any member (the
//!    *safety gap*: 1/128 of the history, 2^20 write-sets at most) gets a member that still has the next write-set: one
//!    that `wsrep_sst_donor` names before the first empty element, otherwise any of its own segment, otherwise any. Among
//!    several it is the one that reaches back *least*.
//! 2. Otherwise `wsrep_sst_donor` is processed in order: a name takes the first member whose name begins with it, an
//!    empty element (or no list) the first of the own segment, or the last one elsewhere.
//! 3. The chosen donor serves by IST if it has the write-set after the position.
//!
//! Only Synced members can be donors; a stateless one (`gcs.stateless`) serves only an IST, and only by rule 1.
use formats::Seqno;
use formats::galera::conf_change::MemberState;
use serde::Serialize;

/// The largest safety gap, in write-sets.
const GAP_MAX: i64 = 1 << 20;
/// The safety gap is this part of the history of all members, as a power of two.
const GAP_SHIFT: u32 = 7;

/// A member as seen by the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// `wsrep_node_name`.
    pub name: String,
    /// `gmcast.segment`.
    pub segment: u8,
    /// Its state.
    pub state: MemberState,
    /// `gcs.stateless`: it has no data to send.
    pub stateless: bool,
    /// The oldest write-set in its gcache; none if it has no write-sets (an arbitrator).
    pub lowest_cached: Option<Seqno>,
}

/// The node that requests a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joiner {
    /// Its index among the members.
    pub index: usize,
    /// Its position in the group's history; none when it has no position, or one of another history.
    pub position: Option<Seqno>,
    /// `wsrep_sst_donor`.
    pub wanted: String,
}

/// The rule that decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// It has the missing write-sets, and `wsrep_sst_donor` names it.
    HasItAndNamed,
    /// It has the missing write-sets, and is in the joiner's segment.
    HasItInSegment,
    /// It has the missing write-sets, and is in another segment.
    HasItElsewhere,
    /// `wsrep_sst_donor` names it.
    Named,
    /// The first Synced member in the joiner's segment.
    FirstInSegment,
    /// The last Synced member elsewhere.
    LastElsewhere,
}

/// The group's decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// This member is the donor.
    Donor {
        /// Its index among the members.
        index: usize,
        /// The rule that decided.
        rule: Rule,
        /// By IST, from this write-set on; otherwise by SST.
        ist_from: Option<Seqno>,
    },
    /// No member now, but one later: the joiner asks again every second.
    Waits,
    /// No member: the joiner's server ends.
    Refused,
}

/// Chooses a donor. `newest` is the seqno of the view in which the joiner asks, which is the group's last
/// one.
pub fn choose(members: &[Member], joiner: &Joiner, newest: Seqno) -> Choice {
    let next = joiner.position.map(|position| Seqno(position.0 + 1));
    let with_history = joiner.position.filter(|position| *position >= safe(members, newest));
    let by_history = with_history.and_then(|position| who_has(members, joiner, Seqno(position.0 + 1)));
    let chosen = match by_history {
        Some(found) => Ok(found),
        None => who_gives_all(members, joiner),
    };
    match chosen {
        Ok((index, rule)) => {
            let has = |next: &Seqno| has(&members[index], *next);
            Choice::Donor { index, rule, ist_from: next.filter(has) }
        }
        Err(Unavailable::ForNow) => Choice::Waits,
        Err(Unavailable::AtAll) => Choice::Refused,
    }
}

/// The oldest position for which an IST is considered: write-sets nearer to the oldest one may be gone when
/// the donor begins. The joiner's own history counts, and that of members that cannot be donors.
pub fn safe(members: &[Member], newest: Seqno) -> Seqno {
    let lowest = members.iter().filter_map(|member| member.lowest_cached).min().unwrap_or(newest);
    Seqno(lowest.0 + (newest.0.saturating_sub(lowest.0) >> GAP_SHIFT).clamp(0, GAP_MAX))
}

fn has(member: &Member, next: Seqno) -> bool {
    member.lowest_cached.is_some_and(|lowest| lowest <= next)
}

/// Returns the preferred one of the Synced members that have everything from `next` on.
fn who_has(members: &[Member], joiner: &Joiner, next: Seqno) -> Option<(usize, Rule)> {
    let able = |&(index, member): &(usize, &Member)| {
        index != joiner.index && member.state == MemberState::Synced && has(member, next)
    };
    let named = names(&joiner.wanted).take_while(|name| !name.is_empty());
    let first = |name: &str| members.iter().enumerate().filter(able).find(|(_, m)| m.name.starts_with(name));
    // Among equals the later one is chosen, because `max_by_key` returns the last.
    let least_far = |(_, member): &(usize, &Member)| member.lowest_cached;
    if let Some((index, _)) = named.filter_map(first).max_by_key(least_far) {
        return Some((index, Rule::HasItAndNamed));
    }
    let own = members.get(joiner.index).map(|member| member.segment);
    let stateful = || members.iter().enumerate().filter(able).filter(|(_, member)| !member.stateless);
    let here = stateful().filter(|(_, member)| Some(member.segment) == own).max_by_key(least_far);
    if let Some((index, _)) = here {
        return Some((index, Rule::HasItInSegment));
    }
    stateful().max_by_key(least_far).map(|(index, _)| (index, Rule::HasItElsewhere))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unavailable {
    /// A member is busy.
    ForNow,
    /// No member can ever be the donor.
    AtAll,
}

/// Chooses the donor of an SST from the list, element by element.
fn who_gives_all(members: &[Member], joiner: &Joiner) -> Result<(usize, Rule), Unavailable> {
    let mut answer = Unavailable::AtAll;
    for name in names(&joiner.wanted) {
        let found = match name {
            // After a busy member, another one is allowed only if the list ends with a comma.
            "" if answer == Unavailable::ForNow && !joiner.wanted.ends_with(',') => continue,
            "" => anybody(members, joiner),
            name => by_name(members, joiner, name).map(|index| (index, Rule::Named)),
        };
        match found {
            Ok(found) => return Ok(found),
            Err(Unavailable::ForNow) => answer = Unavailable::ForNow,
            Err(Unavailable::AtAll) => {}
        }
    }
    Err(answer)
}

fn by_name(members: &[Member], joiner: &Joiner, name: &str) -> Result<usize, Unavailable> {
    let mut all = members.iter().enumerate();
    let found = all.find(|(_, member)| !member.stateless && member.name.starts_with(name));
    match found {
        Some((index, _)) if index == joiner.index => Err(Unavailable::AtAll),
        Some((index, member)) => state_of(member).map(|()| index),
        None => Err(Unavailable::AtAll),
    }
}

fn anybody(members: &[Member], joiner: &Joiner) -> Result<(usize, Rule), Unavailable> {
    let own = members.get(joiner.index).map(|member| member.segment);
    let others = members.iter().enumerate().filter(|(index, m)| *index != joiner.index && !m.stateless);
    let (here, elsewhere): (Vec<_>, Vec<_>) = others.partition(|(_, member)| Some(member.segment) == own);
    match first_that_gives(here.into_iter()) {
        Ok(index) => Ok((index, Rule::FirstInSegment)),
        // A busy member nearby is preferred to a free one far away.
        Err(Unavailable::ForNow) => Err(Unavailable::ForNow),
        Err(Unavailable::AtAll) => {
            first_that_gives(elsewhere.into_iter().rev()).map(|index| (index, Rule::LastElsewhere))
        }
    }
}

fn first_that_gives<'m>(all: impl Iterator<Item = (usize, &'m Member)>) -> Result<usize, Unavailable> {
    let mut answer = Unavailable::AtAll;
    for (index, member) in all {
        match state_of(member) {
            Ok(()) => return Ok(index),
            Err(Unavailable::ForNow) => answer = Unavailable::ForNow,
            Err(Unavailable::AtAll) => {}
        }
    }
    Err(answer)
}

/// Whether it can be a donor in its state.
fn state_of(member: &Member) -> Result<(), Unavailable> {
    match member.state {
        MemberState::Synced => Ok(()),
        MemberState::Joiner | MemberState::Donor | MemberState::Joined => Err(Unavailable::ForNow),
        MemberState::NonPrimary | MemberState::Primary | MemberState::Other(_) => Err(Unavailable::AtAll),
    }
}

/// Elements of the list; one empty element if there is no list.
fn names(wanted: &str) -> impl Iterator<Item = &str> {
    wanted.split(',')
}

#[cfg(test)]
#[path = "choice_tests.rs"]
mod tests;
