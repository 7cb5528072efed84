//! Whether a round went well, and what kind of wrong it was.

use std::fmt;

use rejoin_lab::compare::{self, Difference};
use rejoin_lab::failed_ddl::{APPLIER_ERROR, FailedDdl};
use rejoin_lab::{LogMark, Node, process, sst};
use transfer::remembered::memory::WRONG;

use super::fixture::Fixture;
use super::log_report::{LogReport, SnapshotKind};

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// Synced, but it holds something else than the others.
    NotEqual,
    /// Its server did not start with what it was given.
    RecoveryRefused,
    /// A node could not apply what the others applied, or crashed.
    ThrownOut,
    /// The transfer itself failed.
    SstFailed,
    /// It is equal to one of the two old members, which are not equal to each other.
    MembersDiffer,
    /// It neither joined nor ended, or clients of the others never got an answer.
    Hung,
}

impl Wrong {
    pub const ALL: [Self; 6] = [
        Self::NotEqual,
        Self::RecoveryRefused,
        Self::ThrownOut,
        Self::SstFailed,
        Self::MembersDiffer,
        Self::Hung,
    ];

    /// The transfer reported success, and what it made was wrong.
    pub fn is_of_the_joiner(self) -> bool {
        matches!(self, Self::NotEqual | Self::RecoveryRefused | Self::ThrownOut)
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NotEqual => "not equal",
            Self::RecoveryRefused => "recovery refused",
            Self::ThrownOut => "thrown out",
            Self::SstFailed => "SST failed",
            Self::MembersDiffer => "members differ",
            Self::Hung => "hung",
        })
    }
}

/// The group found that a node is not what the others are, or a server crashed.
const THROWN_OUT: [&str; 5] = [
    "Inconsistency detected",
    "Inconsistent by consensus",
    "inconsistent with group",
    "got signal",
    "Assertion",
];
/// The joiner's server says so when its program has given it a position.
const SST_GIVEN: [&str; 2] = ["SST received", "SST complete"];
/// And so when the program failed.
const SST_FAILED: &str = "Process completed with error: wsrep_sst_";
/// Whether DDL failed on all nodes is looked at apart from other errors.
/// A table that was discarded on the donor is asked for on the joiner, to find out whether it is there too.
const ALLOWED: [&str; 2] = [APPLIER_ERROR, "Got error 194 when reading table './storm/imported'"];

/// A verdict with its reasons.
pub type Verdict = Option<(Wrong, Vec<String>)>;

/// What was logged on each node, from these places on.
pub struct Logs {
    marks: [LogMark; 3],
}

impl Logs {
    /// From now on.
    pub fn from_now(fixture: &Fixture) -> Self {
        Self { marks: fixture.nodes().map(Node::log_mark) }
    }

    /// Donor, other, joiner.
    pub fn texts(&self, fixture: &Fixture) -> [String; 3] {
        let [donor, other, joiner] = fixture.nodes();
        [donor.log_since(self.marks[0]), other.log_since(self.marks[1]), joiner.log_since(self.marks[2])]
    }

    /// Why the node did not join, which it had `ended` or went on trying.
    pub fn why_not_joined(&self, fixture: &Fixture, ended: bool) -> (Wrong, Vec<String>) {
        let texts = self.texts(fixture);
        let joiner = &texts[2];
        let wrong = if thrown_out(&texts).is_some() {
            Wrong::ThrownOut
        } else if !ended {
            Wrong::Hung
        } else if !joiner.contains(SST_FAILED) && SST_GIVEN.iter().any(|given| joiner.contains(given)) {
            Wrong::RecoveryRefused
        } else {
            Wrong::SstFailed
        };
        let mut reasons: Vec<String> = thrown_out(&texts).into_iter().collect();
        reasons.extend(fixture.joiner().unexpected_errors_since(self.marks[2], &ALLOWED).into_iter().take(6));
        reasons.extend(fixture.donor().unexpected_errors_since(self.marks[0], &ALLOWED).into_iter().take(3));
        if reasons.is_empty() {
            reasons.push(process::tail(joiner, 3));
        }
        (wrong, reasons)
    }

    /// Whether all three are equal now, and nobody complained on the way.
    pub fn after_joining(&self, fixture: &Fixture) -> Verdict {
        if let Some(line) = thrown_out(&self.texts(fixture)) {
            return Some((Wrong::ThrownOut, vec![line]));
        }
        let found = match compare::compare_all(&[fixture.donor(), fixture.other()], fixture.joiner()) {
            Ok(found) => found,
            Err(error) => {
                let gone = thrown_out(&self.texts(fixture)).or_else(|| lost(fixture));
                let wrong = if gone.is_some() { Wrong::ThrownOut } else { Wrong::Hung };
                return Some((wrong, gone.into_iter().chain([format!("{error:#}")]).collect()));
            }
        };
        let joiners = found.beside.iter().all(|list| !list.is_empty()) || !found.damage.is_empty();
        let mut reasons = self.positions(fixture);
        reasons.extend(wrongly_remembered(&self.texts(fixture)));
        for (node, mark) in fixture.nodes().into_iter().zip(self.marks) {
            let errors = node.unexpected_errors_since(mark, &ALLOWED).into_iter();
            reasons.extend(errors.map(|line| format!("{}: {line}", node.name())));
        }
        let [beside_other, beside_joiner] = self.failed_ddl(fixture);
        reasons.extend(beside_joiner);
        let wrong = if joiners || !reasons.is_empty() { Wrong::NotEqual } else { Wrong::MembersDiffer };
        reasons.extend(beside_other);
        reasons.splice(0..0, said_of(&found, fixture));
        match thrown_out(&self.texts(fixture)).or_else(|| lost(fixture)) {
            Some(line) => Some((Wrong::ThrownOut, [vec![line], reasons].concat())),
            None => (!reasons.is_empty()).then_some((wrong, reasons)),
        }
    }

    /// What DDL failed otherwise on the other member and on the joiner than on the donor, if any.
    fn failed_ddl(&self, fixture: &Fixture) -> [Option<String>; 2] {
        let [donor, other, joiner] = self.texts(fixture).map(|text| FailedDdl::of(&text));
        let beside_donor = |failed: &FailedDdl, all, node: &Node| {
            donor.objection(failed, all).map(|what| format!("{} beside the donor: {what}", node.name()))
        };
        // The joiner begins in the middle.
        [beside_donor(&other, true, fixture.other()), beside_donor(&joiner, false, fixture.joiner())]
    }

    /// The joiner's server truncated undo tablespaces before it read its position: that may be an older one.
    pub fn truncated_undo_first(&self, fixture: &Fixture) -> bool {
        let [_, _, joiner] = self.texts(fixture);
        sst::truncated_undo_first(&joiner)
    }

    /// The recovered position must be that of the consistency point, which both hosts told.
    fn positions(&self, fixture: &Fixture) -> Vec<String> {
        let [donor, _, joiner] = self.texts(fixture);
        let recovered = sst::recovered_position(&joiner);
        let told = [("donor", LogReport::read(&donor)), ("joiner", LogReport::read(&joiner))];
        let served: Vec<&SnapshotKind> = told.iter().filter_map(|(_, told)| told.snapshot.as_ref()).collect();
        let mut wrong = Vec::new();
        if let Some(other) = served.iter().find(|snapshot| !fixture.case.is_by(snapshot)) {
            wrong.push(format!(
                "the data comes from another kind of snapshot than the case is about: {other:?}"
            ));
        }
        let by_backup = served.contains(&&SnapshotKind::Mariabackup);
        let native =
            served.iter().any(|kind| matches!(kind, SnapshotKind::Online | SnapshotKind::Logical(_)));
        for (host, told) in told {
            match (told.backup, &recovered) {
                (Some(backup), Ok(recovered)) if backup != *recovered => {
                    wrong.push(format!(
                        "recovered at {recovered:?}, the {host} told of a backup at {backup:?}"
                    ));
                }
                (None, _) if by_backup => wrong.push(format!("the {host} told nothing of a backup")),
                _ => {}
            }
            match (told.moment, &recovered) {
                // No fault of the files: its server forgot.
                (Some(moment), Ok(recovered))
                    if sst::truncated_undo_first(&joiner)
                        && moment.position.uuid == recovered.uuid
                        && moment.position.seqno > recovered.seqno => {}
                (Some(moment), Ok(recovered)) if native && moment.position != *recovered => {
                    wrong.push(format!("recovered at {recovered:?}, the {host} told {:?}", moment.position));
                }
                (Some(_), Err(error)) => wrong.push(format!("{error:#}")),
                (None, _) if native => wrong.push(format!("the {host} told nothing of a consistency point")),
                _ => {}
            }
        }
        wrong
    }
}

fn said_of(found: &compare::Found, fixture: &Fixture) -> Vec<String> {
    let mut all: Vec<String> = found.damage.iter().map(Difference::to_string).collect();
    let [donor, other] = [&found.beside[0], &found.beside[1]];
    all.extend(donor.iter().map(Difference::to_string));
    // An object that is as on one of the two old members only: these two differ.
    for (name, mine, its) in [(fixture.other().name(), other, donor), (fixture.donor().name(), donor, other)]
    {
        let alone = mine.iter().filter(|difference| !its.contains(difference));
        all.extend(alone.map(|difference| format!("beside {name} alone: {difference}")));
    }
    all.iter().map(|line| line.chars().take(600).collect()).collect()
}

/// Nothing here changes a file behind its filesystem's back, so a remembered fingerprint is never wrong.
fn wrongly_remembered(texts: &[String; 3]) -> Option<String> {
    texts.iter().flat_map(|text| text.lines()).find(|line| line.contains(WRONG)).map(str::to_owned)
}

fn thrown_out(texts: &[String; 3]) -> Option<String> {
    let telling = |line: &&str| THROWN_OUT.iter().any(|words| line.contains(words));
    let mut nodes = texts.iter().enumerate();
    nodes.find_map(|(i, text)| text.lines().find(telling).map(|line| format!("n{}: {line}", i + 1)))
}

fn lost(fixture: &Fixture) -> Option<String> {
    let gone = fixture.nodes().into_iter().find(|node| !node.is_alive());
    gone.map(|node| format!("{} is gone: {}", node.name(), process::tail(&node.log_text(), 2)))
}
