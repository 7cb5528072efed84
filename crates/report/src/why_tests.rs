use super::*;
use crate::record::{self, Bytes, Change, OK, Plan, Settings};

const MIB: u64 = 1 << 20;

fn verdict(this: &Transfer, before: Option<(usize, &Transfer)>) -> String {
    let (head, rest) = super::verdict(this, before);
    head + &rest
}

fn transfer(phases: &[(&str, u64)], sent: u64) -> Transfer {
    let mut at = 1_000_000;
    let phases: Vec<Phase> = phases
        .iter()
        .map(|(name, ms)| {
            let phase = Phase { name: (*name).to_owned(), began_ms: at, ended_ms: at + ms };
            at += ms;
            phase
        })
        .collect();
    let bytes = Bytes { total: 1000 * MIB, sent, ..Bytes::default() };
    let record = Record {
        role: "joiner".into(),
        method: Some(Method::Files),
        phases,
        bytes,
        began_ms: 1_000_000,
        ended_ms: Some(at),
        outcome: Some(OK.to_owned()),
        ..Record::default()
    };
    Transfer { joiner: Some(record), donor: None }
}

#[test]
fn more_bytes_are_a_reason() {
    let before = transfer(&[("starting", 100), ("receiving", 2000), ("installing", 500)], 200 * MIB);
    let mut now = transfer(&[("starting", 100), ("receiving", 10_000), ("installing", 600)], 1000 * MIB);
    if let Some(joiner) = &mut now.joiner {
        joiner.plan =
            Some(Plan { words: "plan: full, 1000.0 MiB to send: why; redo: x".into(), ..Plan::default() });
    }
    assert_eq!(
        verdict(&now, Some((1, &before))),
        "8.1 s slower than #1: comparing and sending took 10.0 s instead of 2.0 s, because 1000.0 MiB were sent instead \
         of 200.0 MiB (plan: full, 1000.0 MiB to send: why)."
    );
    assert!(
        verdict(&before, Some((2, &now)))
            .starts_with("8.1 s faster than #2: comparing and sending took 2.0 s")
    );
    assert_eq!(verdict(&before, None), "Sent 200.0 MiB of 1000.0 MiB.");
    assert!(verdict(&before, Some((1, &before))).starts_with("As long as #1."));
}

#[test]
fn a_slow_network_and_its_limit_are_a_reason() {
    let before = transfer(&[("receiving", 2000)], 500 * MIB);
    let mut now = transfer(&[("receiving", 50_000)], 500 * MIB);
    let settings = Settings { rlimit: Some(10 * MIB), ..Settings::default() };
    now.donor = Some(Record { outcome: Some(OK.into()), settings, ..Record::default() });
    let text = verdict(&now, Some((1, &before)));
    assert!(
        text.contains("at 10.0 MiB/s instead of 250.0 MiB/s (the donor's rlimit was 10.0 MiB/s)"),
        "{text}"
    );
}

/// `rejoin set` in the second second, and the other way round: the limit from the beginning says nothing.
#[test]
fn a_limit_that_was_changed_counts_for_as_long_as_it_was_there() {
    let before = transfer(&[("receiving", 2000)], 500 * MIB);
    let with = |rlimit, at_ms, set: &str| {
        let mut now = transfer(&[("receiving", 50_000)], 500 * MIB);
        let mut donor = now.joiner.clone().unwrap();
        donor.role = "donor".into();
        donor.settings = Settings { rlimit, ..Settings::default() };
        donor.changes = vec![Change { at_ms, set: set.to_owned(), user: 0 }];
        now.donor = Some(donor);
        verdict(&now, Some((1, &before)))
    };
    let slowed = with(None, 1_001_000, "rlimit=10485760");
    assert!(slowed.ends_with("(for 49.0 s of 50.0 s the donor's rlimit was 10.0 MiB/s)."), "{slowed}");
    let lifted = with(Some(10 * MIB), 1_001_000, "rlimit=0");
    assert!(lifted.ends_with("instead of 250.0 MiB/s."), "{lifted}");
}

#[test]
fn files_after_ist_need_a_reason() {
    let mut before = transfer(&[("receiving", 2000)], 0);
    before.joiner.iter_mut().for_each(|joiner| joiner.method = Some(Method::Ist));
    let mut now = transfer(&[("receiving", 50_000)], 900 * MIB);
    let said = |now: &Transfer| verdict(now, Some((1, &before)));
    let head = "48.0 s slower than #1: #1 was IST, and this time files were needed: ";
    let sent = "Sent 900.0 MiB of 1000.0 MiB.";
    assert_eq!(said(&now), format!("{head}no position was read from the joiner's files. {sent}"));
    let joiner = now.joiner.as_mut().unwrap();
    joiner.position = record::Positions { before: Some("a:100".into()), after: Some("a:40100".into()) };
    joiner.no_deep_ist = Some("no deep IST: the donor's archive begins at 20000".into());
    let expected = "IST could not bring the 40000 write-sets that were missing; no deep IST: the donor's archive begins at 20000. ";
    assert_eq!(said(&now), format!("{head}{expected}{sent}"));
    now.joiner.as_mut().unwrap().position.after = Some("b:5".into());
    assert!(said(&now).contains("the joiner's files were of another history; no deep IST"), "{}", said(&now));
}

#[test]
fn a_donor_that_gave_way_is_a_reason() {
    let before = transfer(&[("receiving", 2000)], 500 * MIB);
    let mut now = transfer(&[("receiving", 20_000)], 500 * MIB);
    let name = "a write of the server's log takes 14.2 ms, 3.1 ms before".to_owned();
    let slowed = vec![Phase { name, began_ms: 1_002_000, ended_ms: 1_014_000 }];
    now.donor = Some(Record { outcome: Some(OK.into()), slowed, ..Record::default() });
    let text = verdict(&now, Some((1, &before)));
    let expected = "data was sent at 25.0 MiB/s instead of 250.0 MiB/s (for 12.0 s the donor read more slowly for its \
                    server's sake: a write of the server's log takes 14.2 ms, 3.1 ms before).";
    assert!(text.ends_with(expected), "{text}");
    // Where that was little of the time it explains nothing.
    if let Some(donor) = &mut now.donor {
        donor.slowed[0].ended_ms = 1_004_000;
    }
    assert!(verdict(&now, Some((1, &before))).ends_with("250.0 MiB/s."));
}

#[test]
fn each_phase_belongs_to_a_part_that_says_what_was_done() {
    for (phase, part) in [
        ("starting", Part::Prepare),
        ("waiting for the donor", Part::Prepare),
        ("waiting for the donor to begin", Part::Prepare),
        ("contacting the joiner", Part::Prepare),
        ("checking settings and free space", Part::Prepare),
        ("listing files (blocking)", Part::Prepare),
        ("listing tables", Part::Prepare),
        ("filling a base", Part::Base),
        ("sending files (mariabackup)", Part::Move),
        ("sending write-sets", Part::Move),
        ("reading rows", Part::Move),
        ("sending rows", Part::Move),
        ("receiving", Part::Move),
        ("making tables on the joiner", Part::Make),
        ("making keys", Part::Make),
        ("loading rows", Part::Make),
        ("loading accounts and routines", Part::Make),
        ("ending the private server", Part::Make),
        ("preparing the backup", Part::Make),
        ("copying the backup", Part::Store),
        ("copying unchanged bytes", Part::Store),
        ("verifying the staged files", Part::Store),
        ("waiting for the joiner to store everything", Part::Store),
        ("installing", Part::Install),
        ("replacing the joiner's old data", Part::Install),
        ("failed; waiting up to 30 s for the group to expel the donor", Part::After),
    ] {
        assert_eq!(Part::of(phase), part, "{phase}");
    }
    let before = transfer(&[("receiving", 2000), ("loading rows", 1000)], 500 * MIB);
    let now = transfer(&[("receiving", 2000), ("loading rows", 61_000)], 500 * MIB);
    assert_eq!(
        verdict(&now, Some((1, &before))),
        "60.0 s slower than #1: loading rows or preparing a backup took 61.0 s instead of 1.0 s."
    );
}

#[test]
fn rows_are_not_counted_as_bytes_of_files() {
    let of = |sent, network| {
        let mut rows = transfer(&[("sending rows", 2000)], sent);
        if let Some(joiner) = &mut rows.joiner {
            joiner.attempts = vec![record::Attempt { snapshot: "logical".into(), ..Default::default() }];
            joiner.bytes.network = network;
        }
        verdict(&rows, None)
    };
    assert_eq!(of(300 * MIB, 100 * MIB), "Sent 300.0 MiB of rows.");
    // To a server that runs already.
    assert_eq!(of(0, 200 * MIB), "Sent 200.0 MiB of rows.");
    assert_eq!(of(0, 0), "Sent rows.");
}

#[test]
fn attempts_that_were_given_up_are_a_reason() {
    let before = transfer(&[("receiving", 4000)], 500 * MIB);
    let mut now = transfer(
        &[("receiving", 9000), ("waiting for the donor to begin", 50), ("receiving", 4500)],
        500 * MIB,
    );
    if let Some(joiner) = &mut now.joiner {
        let attempt = |began_ms, snapshot: &str, reason: &str| record::Attempt {
            began_ms,
            snapshot: snapshot.to_owned(),
            reason: reason.to_owned(),
        };
        joiner.attempts = vec![
            attempt(1_000_000, "online", ""),
            attempt(1_009_050, "blocking", "the redo log is encrypted"),
        ];
    }
    assert_eq!(
        verdict(&now, Some((1, &before))),
        "9.6 s slower than #1: 9.1 s went by in an attempt that was given up; the last one had the blocking snapshot (the \
         redo log is encrypted)."
    );
}

#[test]
fn files_that_are_no_longer_remembered_are_a_reason() {
    let mut before = transfer(&[("receiving", 400)], MIB);
    let mut now = transfer(&[("receiving", 6400)], MIB);
    let reads = |transfer: &mut Transfer, read, remembered| {
        if let Some(joiner) = &mut transfer.joiner {
            (joiner.bytes.read, joiner.bytes.remembered) = (read, remembered);
        }
    };
    reads(&mut before, 10 * MIB, 990 * MIB);
    reads(&mut now, 1000 * MIB, 0);
    assert_eq!(
        verdict(&now, Some((1, &before))),
        "6.0 s slower than #1: comparing and sending took 6.4 s instead of 0.4 s, because 1000.0 MiB were read to be compared \
         instead of 10.0 MiB (0 B were remembered instead of 990.0 MiB)."
    );
}

#[test]
fn a_wait_is_a_reason_and_names_the_holder() {
    let before = transfer(&[("receiving", 2000)], 500 * MIB);
    let mut now = transfer(&[("receiving", 42_000)], 500 * MIB);
    if let Some(joiner) = &mut now.joiner {
        let name = "waiting for the consistency point: session 7 of app holds a lock".to_owned();
        joiner.waits = vec![Phase { name, began_ms: 1_001_000, ended_ms: 1_041_000 }];
    }
    let text = verdict(&now, Some((1, &before)));
    let expected = "40.0 s slower than #1: waiting for a lock or the server took 40.0 s instead of 0.0 s: waiting for the \
                    consistency point: session 7 of app holds a lock.";
    assert_eq!(text, expected);
}

#[test]
fn a_failure_is_told_by_the_host_that_knows_it() {
    let mut failed = transfer(&[("receiving", 2000), ("failed; waiting", 9000)], 5);
    if let Some(joiner) = &mut failed.joiner {
        joiner.outcome = Some("the donor gave up: a page is damaged".into());
        let donor =
            Record { role: "donor".into(), outcome: Some("a page is damaged".into()), ..joiner.clone() };
        failed.donor = Some(donor);
    }
    assert_eq!(
        verdict(&failed, None),
        "Failed on the donor after 2.0 s in phase “receiving”: a page is damaged"
    );
    let mut killed = transfer(&[("receiving", 2000)], 5);
    if let Some(joiner) = &mut killed.joiner {
        (joiner.outcome, joiner.ended_ms, joiner.written_ms) = (None, None, joiner.began_ms + 2000);
    }
    assert!(verdict(&killed, None).starts_with("No outcome is recorded"), "{}", verdict(&killed, None));
}
