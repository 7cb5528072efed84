use proptest::prelude::*;

use super::*;

const OBSERVED: &str = include_str!("../../../tests/data/donor-cases.txt");

fn member(name: &str, lowest: i64) -> Member {
    Member {
        name: name.to_owned(),
        segment: 0,
        state: MemberState::Synced,
        stateless: false,
        lowest_cached: (lowest > 0).then_some(Seqno(lowest)),
    }
}

/// One observed choice.
struct Case<'a> {
    title: &'a str,
    members: Vec<Member>,
    joiner: Joiner,
    newest: Seqno,
    outcome: &'a str,
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let rest = text.split_once(before).expect(text).1;
    rest.split_once(after).expect(text).0
}

fn read(line: &str) -> Case<'_> {
    let (title, outcome) =
        (line.split_once(" pos=").expect(line).0.trim(), line.split_once(" -> ").expect(line).1);
    let mut members: Vec<Member> = between(line, "cached={", "}")
        .split(", ")
        .map(|pair| {
            let (name, lowest) = pair.split_once(": ").expect(pair);
            member(name.trim_matches('\''), lowest.parse().expect(pair))
        })
        .collect();
    for member in &mut members {
        member.segment = u8::from(member.name == "rust3");
        if member.name == "rust2" {
            member.stateless = title.starts_with("STATELESS");
            if title.starts_with("rust2 busy") {
                member.state = MemberState::Donor;
            }
        }
    }
    let away = title.starts_with("other segment") || title.starts_with("segment 1 joiner");
    // It only asked: it had no history of its own.
    members.push(Member { segment: u8::from(away), state: MemberState::Primary, ..member("joiner", 0) });
    let joiner = Joiner {
        index: members.len() - 1,
        position: between(line, " pos=", " ").parse().ok().map(Seqno),
        wanted: between(line, "donor='", "'").to_owned(),
    };
    let newest = Seqno(between(line, " now=", " ").parse().expect(line));
    Case { title, members, joiner, newest, outcome }
}

#[test]
fn chooses_as_a_cluster_did() {
    let lines: Vec<&str> = OBSERVED.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines.len(), 25);
    for line in lines {
        let case = read(line);
        let choice = choose(&case.members, &case.joiner, case.newest);
        if case.outcome.contains("impossible to select") {
            assert_eq!(choice, Choice::Refused, "{}", case.title);
            continue;
        }
        let name = between(case.outcome.split_once(' ').expect(line).1, "(", ")");
        let by_ist = case.outcome.contains("[SYNCED;");
        let Choice::Donor { index, ist_from, .. } = choice else { panic!("{}: {choice:?}", case.title) };
        assert_eq!((case.members[index].name.as_str(), ist_from.is_some()), (name, by_ist), "{}", case.title);
    }
}

fn with(members: &[Member], position: Option<i64>, wanted: &str) -> Choice {
    let mut members = members.to_vec();
    members.push(Member { state: MemberState::Primary, ..member("joiner", 0) });
    let joiner =
        Joiner { index: members.len() - 1, position: position.map(Seqno), wanted: wanted.to_owned() };
    choose(&members, &joiner, Seqno(10_000))
}

#[test]
fn who_is_busy_is_waited_for_or_passed_over() {
    let busy = |name| Member { state: MemberState::Donor, ..member(name, 100) };
    let far = Member { segment: 1, ..member("far", 100) };
    assert_eq!(with(&[busy("a"), far.clone()], None, ""), Choice::Waits);
    assert_eq!(with(&[busy("a"), member("b", 1)], None, "a"), Choice::Waits);
    // Only a trailing comma allows another member.
    let any = Choice::Donor { index: 1, rule: Rule::FirstInSegment, ist_from: None };
    assert_eq!(with(&[busy("a"), member("b", 1)], None, "a,"), any);
    assert_eq!(with(&[busy("a"), member("b", 1)], None, "a,,zzz"), Choice::Waits);
    // An unknown name does not exclude the next one.
    let named = Choice::Donor { index: 1, rule: Rule::Named, ist_from: None };
    assert_eq!(with(&[busy("a"), member("b", 1)], None, "zzz,b"), named);
    assert_eq!(with(&[busy("a"), member("b", 1)], None, "joiner"), Choice::Refused);
    assert_eq!(
        with(&[far.clone(), far], None, ""),
        Choice::Donor { index: 1, rule: Rule::LastElsewhere, ist_from: None }
    );
}

#[test]
fn near_the_oldest_write_set_nobody_is_asked_for_its_history() {
    let members = [member("a", 9_000), member("b", 2_000)];
    // 2000 + 8000 / 128.
    assert_eq!(safe(&members, Seqno(10_000)), Seqno(2_062));
    let in_gap = with(&members, Some(2_061), "");
    assert_eq!(in_gap, Choice::Donor { index: 0, rule: Rule::FirstInSegment, ist_from: None });
    let at_its_end = with(&members, Some(2_062), "");
    assert_eq!(
        at_its_end,
        Choice::Donor { index: 1, rule: Rule::HasItInSegment, ist_from: Some(Seqno(2_063)) }
    );
    // If it is named, it serves what it has nevertheless.
    let named = with(&members, Some(2_061), "b");
    assert_eq!(named, Choice::Donor { index: 1, rule: Rule::Named, ist_from: Some(Seqno(2_062)) });
    assert_eq!(safe(&[], Seqno(5)), Seqno(5));
    assert_eq!(safe(&[member("a", 1)], Seqno(i64::MAX)), Seqno(1 + GAP_MAX));
}

fn any_member() -> impl Strategy<Value = Member> {
    let state = (0usize..6).prop_map(|at| {
        use MemberState::*;
        [NonPrimary, Primary, Joiner, Donor, Joined, Synced][at]
    });
    ("[ab]{1,2}", 0u8..3, state, any::<bool>(), 0i64..300).prop_map(
        |(name, segment, state, stateless, lowest)| Member {
            segment,
            state,
            stateless,
            ..member(&name, lowest)
        },
    )
}

proptest! {
    #[test]
    fn a_donor_is_another_member_that_can_give(
        members in proptest::collection::vec(any_member(), 1..7),
        index in 0usize..7,
        position in proptest::option::of(0i64..400),
        wanted in "[ab,]{0,6}",
    ) {
        let joiner = Joiner { index: index % members.len(), position: position.map(Seqno), wanted };
        let choice = choose(&members, &joiner, Seqno(400));
        if let Choice::Donor { index, rule, ist_from } = choice {
            let donor = &members[index];
            prop_assert!(index != joiner.index && donor.state == MemberState::Synced);
            prop_assert!(!donor.stateless || rule == Rule::HasItAndNamed);
            let has = donor.lowest_cached.zip(position).is_some_and(|(lowest, at)| lowest.0 <= at + 1);
            prop_assert_eq!(ist_from, position.filter(|_| has).map(|at| Seqno(at + 1)));
        } else {
            // If Galera chooses freely, a Synced member with data in the own segment is never passed over.
            let own = members[joiner.index].segment;
            let gives = |(at, m): (usize, &Member)| {
                at != joiner.index && m.state == MemberState::Synced && !m.stateless && m.segment == own
            };
            prop_assert!(!joiner.wanted.is_empty() || !members.iter().enumerate().any(gives));
        }
    }
}
