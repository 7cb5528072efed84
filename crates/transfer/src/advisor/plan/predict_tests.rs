use formats::Uuid;
use formats::wsrep::state_id::StateId;

use super::super::facts::{Group, Known, Origin, Pace, Position};
use super::*;
use crate::datadir::lineage::Lineage;
use crate::snapshot::logical::locked::{LockedTables, ReadRate, Until};

const HISTORY: &str = "2f0eaefd-0000-11f0-a0a0-000000000000";

fn at(seqno: i64) -> StateId {
    StateId { uuid: HISTORY.parse().unwrap(), seqno: Seqno(seqno) }
}

fn known(name: &str, state: MemberState, lowest: i64) -> Known {
    let lowest_cached = Some(Seqno(lowest));
    let member = Member { name: name.to_owned(), segment: 0, state, stateless: false, lowest_cached };
    Known { member, from: Origin::Asked, sends: Err(String::new()), kind: None, hold: None, archive: None }
}

/// A node at 10,000; n1 has the last thousand write-sets and n2 the last nine thousand.
fn facts(position: Position) -> Facts {
    let members = vec![known("n1", MemberState::Synced, 9_000), known("n2", MemberState::Synced, 1_000)];
    let pace = Some(Pace { per_second: 10.0, bytes_each: 500.0 });
    let (history, newest) = (HISTORY.parse().unwrap(), Seqno(10_000));
    Facts {
        name: "n3".to_owned(),
        segment: 0,
        wanted: String::new(),
        position,
        lowest_cached: None,
        lineage: None,
        data: 1_000_000,
        free: Some(1 << 30),
        gets_rows: false,
        base: None,
        archives: Vec::new(),
        rate: None,
        relay: Ok(()),
        group: Group { history, newest, members, age: None, pace },
    }
}

fn donor(prediction: &Prediction) -> (&str, bool) {
    match &prediction.way {
        Way::Ist { donor, .. } => (donor, true),
        Way::Sst { donor, .. } => (donor, false),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_ist_is_counted_and_timed() {
    let prediction = predict(&facts(Position::Noted(at(9_500))), Speeds::default());
    assert_eq!(donor(&prediction), ("n1", true));
    assert_eq!((prediction.missing, prediction.missing_bytes), (Some(500), Some(250_000)));
    // 501 write-sets until the one that it needs is the oldest.
    assert_eq!(prediction.lasts_at_least, Some(Duration::from_secs_f64(50.1)));
    assert!(prediction.advice.is_empty(), "{:?}", prediction.advice);

    let slow = Speeds { apply: Some(10.0), transfer: Some(1e6) };
    let advice = predict(&facts(Position::Noted(at(9_500))), slow).advice;
    assert!(advice[0].contains("move grastate.dat away"), "{advice:?}");
    assert!(
        predict(&facts(Position::Noted(at(9_500))), Speeds { transfer: Some(1e3), ..slow }).advice.is_empty()
    );
    assert_eq!(predict(&facts(Position::Noted(at(10_000))), slow).way, Way::NothingMissing);
}

#[test]
fn a_position_of_another_history_is_none() {
    let other = StateId { uuid: Uuid::NIL, seqno: Seqno(9_500) };
    for position in [Position::Noted(other), Position::None(String::new()), Position::Unknown(String::new())]
    {
        let prediction = predict(&facts(position), Speeds::default());
        assert_eq!((donor(&prediction), prediction.missing), (("n1", false), None));
    }
    let advice = predict(&facts(Position::Recovered(at(9_500))), Speeds::default()).advice;
    assert!(advice[0].contains("wsrep_start_position"), "{advice:?}");
}

#[test]
fn who_has_more_history_is_named_where_that_helps() {
    // 1000 + 9000 / 128: in the gap, so n1 would send everything.
    let in_gap = predict(&facts(Position::Noted(at(1_050))), Speeds::default());
    assert_eq!((donor(&in_gap), in_gap.safe), (("n1", false), Seqno(1_070)));
    assert!(in_gap.advice[0].starts_with("set wsrep_sst_donor=n2"), "{:?}", in_gap.advice);

    let mut busy = facts(Position::Noted(at(5_000)));
    busy.group.members[1].member.state = MemberState::Donor;
    let prediction = predict(&busy, Speeds::default());
    assert_eq!(donor(&prediction), ("n1", false));
    assert!(
        prediction.advice[0].contains("n2 has the missing write-sets and is Donor"),
        "{:?}",
        prediction.advice
    );

    busy.group.members[0].from = Origin::Nothing("no account".to_owned());
    assert!(predict(&busy, Speeds::default()).advice[1].starts_with("not asked, so assumed"));
    // For a full transfer, the origin of the data counts.
    let lineage = |donor| Some(Lineage::now(donor, "u:1"));
    let from = |donor| {
        predict(&Facts { lineage: lineage(donor), ..facts(Position::Noted(at(500))) }, Speeds::default())
    };
    assert!(from("n2").advice[0].starts_with("set wsrep_sst_donor=n2,"), "{:?}", from("n2").advice);
    assert!(from("n1").advice.is_empty() && from("gone").advice.is_empty());
    // No member has it, so there is nothing to recommend.
    assert!(predict(&facts(Position::Noted(at(500))), Speeds::default()).advice.is_empty());
}

#[test]
fn who_shares_most_is_named_for_an_sst() {
    let estimate = |about| Ok(Estimate { all: 900, about, at_least: 0, why: "why".to_owned(), redo: None });
    let with = |of_n1, of_n2| {
        let mut facts = facts(Position::Noted(at(500)));
        facts.lineage = Some(Lineage::now("n2", "u:1"));
        facts.group.members[0].sends = of_n1;
        facts.group.members[1].sends = of_n2;
        predict(&facts, Speeds::default())
    };
    let prediction = with(estimate(Some(800)), estimate(Some(100)));
    assert_eq!((donor(&prediction), &prediction.sends), (("n1", false), &Some(estimate(Some(800)))));
    assert!(prediction.advice[0].contains("about 100 B instead of 800 B"), "{:?}", prediction.advice);
    // A small saving is no reason, and a sample counts more than the origin of the data.
    assert!(with(estimate(Some(800)), estimate(Some(750))).advice.is_empty());
    assert!(with(estimate(Some(800)), estimate(Some(900))).advice.is_empty());
    // Nothing was sampled.
    let guess = with(estimate(None), estimate(None));
    assert!(guess.advice[0].contains("least differs"), "{:?}", guess.advice);
    let ist = predict(&facts(Position::Noted(at(9_500))), Speeds::default());
    assert_eq!(ist.sends, None);
}

#[test]
fn a_node_that_is_ahead_of_its_group_is_told_what_either_choice_costs() {
    for position in [Position::Noted(at(10_007)), Position::Recovered(at(10_007))] {
        let prediction = predict(&facts(position), Speeds::default());
        assert_eq!(prediction.way, Way::Ahead { by: 7 });
        let said = |words: &str| prediction.advice.iter().any(|advice| advice.contains(words));
        assert!(said("7 write-sets of this node, those after 10000, are lost"), "{:?}", prediction.advice);
        assert!(said("whatever the group has committed since it was bootstrapped is lost"));
    }
    // No member was queried: the node cannot be ahead of a group that it only saw earlier.
    let mut seen_last = facts(Position::Noted(at(10_007)));
    seen_last.group.age = Some(Duration::from_secs(5));
    assert_eq!(predict(&seen_last, Speeds::default()).way, Way::NothingMissing);
    // The numbers of another history do not compare.
    let other = StateId { uuid: Uuid::NIL, seqno: Seqno(10_007) };
    assert!(matches!(predict(&facts(Position::Noted(other)), Speeds::default()).way, Way::Sst { .. }));
}

#[test]
fn a_snapshot_of_which_kind_says_what_it_demands() {
    use protocol::message::SnapshotKind;

    use super::super::snapshot::Predicted;
    let with = |kind, free| {
        let mut facts = facts(Position::Noted(at(500)));
        (facts.group.members[0].kind, facts.free) = (Some(kind), Some(free));
        facts.group.members[0].sends =
            Ok(Estimate { all: 9 << 30, about: Some(1 << 30), at_least: 0, why: String::new(), redo: None });
        predict(&facts, Speeds::default())
    };
    let files = |kind| TransferKind::Files(Predicted { kind, why: "why".to_owned() });
    let blocking = with(files(SnapshotKind::Blocking), 1 << 30);
    let takes = blocking.costs.iter().find(|cost| cost.back == costs::Back::Incremental).unwrap().takes;
    assert!(takes.is_some() && blocking.pause == Some(Pause::Whole(takes)), "{blocking:?}");
    assert!(blocking.advice.is_empty(), "less than a whole set may do: {:?}", blocking.advice);

    let backup = with(files(SnapshotKind::Mariabackup), 1 << 30);
    assert_eq!(backup.pause, Some(Pause::Backup));
    assert!(backup.advice[0].contains("in-place=never"), "{:?}", backup.advice);
    assert!(with(files(SnapshotKind::Mariabackup), 1 << 40).advice.is_empty());
    let rows = with(TransferKind::Rows("why".to_owned()), 1 << 30);
    assert!(rows.pause.is_none() && rows.advice[0].contains("never in place"), "{rows:?}");
    // Unless tables without transactions are read.
    let held = |until, seconds| {
        let mut facts = facts(Position::Noted(at(500)));
        let (takes, rate) = (Duration::from_secs(seconds), ReadRate::Assumed);
        let hold =
            Hold { tables: LockedTables::default(), until, takes, at_least: false, rate, ended_after: None };
        (facts.group.members[0].kind, facts.group.members[0].hold) =
            (Some(TransferKind::Rows("why".to_owned())), Some(hold));
        predict(&facts, Speeds::default()).pause
    };
    assert_eq!(held(Until::TheyAreRead, 1), Some(Pause::Tables(Duration::from_secs(1))));
    assert_eq!(held(Until::AllIsRead, 9), Some(Pause::Whole(Some(Duration::from_secs(9)))));
    // By write-sets nothing of the kind is needed.
    let ist = predict(&facts(Position::Noted(at(9_500))), Speeds::default());
    assert_eq!((ist.pause, ist.room), (None, None));
}

#[test]
fn another_member_whose_archive_reaches_back_is_named() {
    use super::super::archives::ArchiveReach;
    let reach = |member: &str, first, last, reported_ms| {
        let (member, history) = (Some(member.to_owned()), HISTORY.parse().unwrap());
        ArchiveReach {
            member,
            history,
            first: Seqno(first),
            last: Seqno(last),
            bytes_each: None,
            reported_ms,
        }
    };
    let with = |archives: &[ArchiveReach]| {
        predict(&Facts { archives: archives.to_vec(), ..facts(Position::Noted(at(500))) }, Speeds::default())
    };
    let of_n2 = reach("n2", 1, 9_600, Some(1_000));
    let advised = with(std::slice::from_ref(&of_n2));
    let text = &advised.advice[0];
    assert!(advised.deep_ist.is_none() && text.starts_with("set wsrep_sst_donor=n2,"), "{advised:?}");
    assert!(
        text.contains("n2's archive reached back to 1 (9600 write-sets); if it has kept as many"),
        "{text}"
    );
    assert!(text.ends_with("it can send 9500 write-sets instead of files"), "{text}");
    // That of the chosen donor reaches as surely, or less so.
    let of_n1 = |last| reach("n1", 1, last, Some(2_000));
    let both = with(&[of_n2.clone(), of_n1(9_700)]);
    assert!(both.deep_ist.is_some() && both.advice.is_empty(), "{both:?}");
    let short = with(&[of_n2.clone(), of_n1(100)]);
    assert!(short.deep_ist.is_some() && short.advice[0].contains("n2's archive"), "{short:?}");
    let now = with(&[of_n1(9_700), reach("n2", 1, 9_600, None)]);
    assert!(now.advice[0].contains("n2's archive reaches back to 1 (9600 write-sets), so it can"), "{now:?}");
    // It began too late, or this node cannot take it.
    assert!(with(&[reach("n2", 502, 9_600, None)]).advice.is_empty());
    let relay = Err("ist.recv_bind is not set".to_owned());
    let closed = Facts { archives: vec![of_n2], relay, ..facts(Position::Noted(at(500))) };
    assert!(predict(&closed, Speeds::default()).advice.is_empty());
}
