use protocol::inventory::FileId;
use protocol::message::SnapshotKind;
use report::record::Table;

use super::super::reporter::text_of;
use super::*;

#[test]
fn progress_ends_at_all_of_it_and_never_beyond() {
    let progress = Progress::new("joiner");
    // Nothing counts as done before the total is known.
    progress.done_bytes.fetch_add(7, Ordering::Relaxed);
    assert_eq!((progress.status().done_bytes, progress.status().total_bytes), (0, 0));
    progress.attempt(100);
    assert_eq!(progress.status().done_bytes, 0);
    progress.done_bytes.fetch_add(140, Ordering::Relaxed);
    assert_eq!((progress.status().done_bytes, progress.status().total_bytes), (100, 100));
    progress.found_corrupt_pages(2);
    progress.attempt(200);
    progress.done_bytes.fetch_add(60, Ordering::Relaxed);
    progress.all_is_copied();
    let status = progress.status();
    assert_eq!((status.done_bytes, status.attempts, status.corrupt_pages), (200, 2, 0));
    progress.copies_nothing();
    assert_eq!((progress.total(), progress.status().attempts), (0, 2));
}

#[test]
fn redo_is_a_part_of_the_total_and_changes_it_in_steps() {
    const MIB: u64 = 1 << 20;
    let progress = Progress::new("donor");
    progress.attempt(1000 * MIB);
    progress.expect_redo(700 * MIB, false);
    assert_eq!(progress.total(), 1700 * MIB);
    progress.expect_redo(710 * MIB, false);
    assert_eq!(progress.total(), 1700 * MIB, "not worth another stage");
    // A newer checkpoint is taken, and pages are read again.
    progress.more(5 * MIB);
    progress.expect_redo(3 * MIB, true);
    assert_eq!(progress.total(), 1008 * MIB);
    // Another attempt knows nothing of the redo of this one.
    progress.attempt(900 * MIB);
    progress.expect_redo(2 * MIB, true);
    assert_eq!(progress.total(), 902 * MIB);
    // The joiner has the donor's word, whatever that is.
    progress.total_is(u64::MAX);
    progress.expect_redo(1, true);
    assert!(progress.status().total_bytes > 0 && text_of(&progress.status(), None).contains(": 0 % of "));
}

#[test]
fn the_status_file_of_an_older_version_is_read() {
    let text = r#"{"role":"joiner","phase":"x","done_bytes":1,"total_bytes":2,"wire_bytes":3,"elapsed_ms":4,
        "pid":5,"outcome":"ok"}"#;
    let status: Status = serde_json::from_str(text).expect("a status");
    assert_eq!((status.pid, status.began_ms, status.phases.len()), (5, 0, 0));
}

/// What a transfer has moved is added to what earlier ones did, with the attempts that were given up.
#[test]
fn bytes_are_counted_over_all_attempts_and_transfers() {
    let donor = || {
        let progress = Progress::new("donor");
        progress.count(|| Moved { bytes: 50, steps: 1 });
        progress
    };
    let sends = |progress: &Progress, sent, reused| {
        progress.ledger.attempt(SnapshotKind::Online, "");
        let bytes = Table { sent, reused, rebuilt: 1, ..Table::default() };
        progress.ledger.count(FileId(1), &bytes);
    };
    let first = donor();
    sends(&first, 700, 0);
    sends(&first, 30, 4);
    first.ledger.update(|record| record.bytes.write_sets = 1000);
    let totals = first.status().totals["donor"];
    assert_eq!((totals.sent_bytes, totals.reused_bytes, totals.rebuilt_bytes), (1730, 4, 2));
    assert_eq!(totals.network_bytes, 50);
    first.end(OK);
    let second = donor();
    second.follow(Some(first.status()));
    assert_eq!(second.status().totals["donor"].sent_bytes, 1730);
    sends(&second, 5, 6);
    let totals = second.status().totals["donor"];
    assert_eq!((totals.sent_bytes, totals.reused_bytes, totals.rebuilt_bytes), (1735, 10, 3));
    assert_eq!((totals.network_bytes, totals.succeeded, totals.failed), (100, 1, 0));
}

#[test]
fn phases_and_successes_are_kept() {
    let progress = Progress::new("joiner");
    let last = Status {
        role: "joiner".to_owned(),
        last_success_ms: [("donor".to_owned(), 5)].into(),
        failures: [("donor".to_owned(), 1), ("joiner".to_owned(), 2)].into(),
        totals: [("donor".to_owned(), Totals { sent_bytes: 9, succeeded: 3, ..Totals::default() })].into(),
        ..Status::default()
    };
    progress.follow(Some(last));
    let failures = |progress: &Progress| progress.status().failures.into_iter().collect::<Vec<_>>();
    let expected = |joiner| vec![("donor".to_owned(), 1), ("joiner".to_owned(), joiner)];
    assert_eq!(failures(&progress), expected(3), "the last program was killed");
    let ended = |progress: &Progress, role: &str| {
        let totals = progress.status().totals[role];
        (totals.sent_bytes, totals.succeeded, totals.failed)
    };
    assert_eq!((ended(&progress, "donor"), ended(&progress, "joiner")), ((9, 3, 0), (0, 0, 1)));
    progress.phase("receiving", "");
    progress.end("broken");
    assert_eq!(progress.status().last_success_ms.keys().collect::<Vec<_>>(), ["donor"]);
    assert_eq!((failures(&progress), ended(&progress, "joiner")), (expected(4), (0, 0, 2)));
    progress.end(OK);
    assert_eq!((failures(&progress), ended(&progress, "joiner")), (expected(1)[..1].to_vec(), (0, 1, 1)));
    let status = progress.status();
    assert_eq!(status.last_success_ms.keys().collect::<Vec<_>>(), ["donor", "joiner"]);
    let names = |status: &Status| status.phases.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&status), ["starting", "receiving"]);
    progress.phase("checking", "");
    progress.phase("receiving", "");
    assert_eq!(names(&progress.status()), ["starting", "receiving", "checking"]);
}
