//! The donor begins its snapshot again.
use super::*;

/// Equal paths are not equal rows: nothing that has arrived for a snapshot is there for the one that follows it.
#[test]
fn nothing_of_a_void_snapshot_is_taken_for_the_next_one() {
    let ((mut parts, _), (mut next_one, last)) = (snapshot(0, &plans(&[3])), snapshot(1, &plans(&[3])));
    let rest = next_one.split_off(1);
    parts.extend(next_one);
    let first = FileId(parts.len() as u32 - 1);
    let mut schedule = after(parts);
    assert_eq!(schedule.snapshot().map(|(number, _)| number), Some(first));
    assert_eq!(schedule.system(&["list/0".to_owned()]), None);
    assert_eq!([next(&mut schedule), next(&mut schedule)], ["make t0", "make merge"]);
    assert_eq!([next(&mut schedule), next(&mut schedule)], ["finish merge", "wait"]);
    assert_eq!(schedule.rows(), 0);
    for (number, part) in (first.0 + 1..).zip(rest) {
        schedule.arrived(FileId(number), part).unwrap();
    }
    assert_eq!(schedule.system(&["list/0".to_owned()]), Some(vec![PathBuf::from("1:list/0")]));
    assert_eq!([next(&mut schedule), next(&mut schedule)], ["load 3 of t0", "finish t0"]);
    schedule.is_complete(&last, first).unwrap();
    assert_eq!(schedule.rows(), 3);
}

/// What the donor calls its last snapshot must be the one that was loaded, and no earlier or later one.
#[test]
fn the_last_snapshot_must_be_the_loaded_one() {
    let sent = || {
        let ((mut parts, _), (again, last)) = (snapshot(0, &plans(&[2])), snapshot(1, &plans(&[2])));
        let first = parts.len() as u32;
        parts.extend(again);
        (after(parts), last, first)
    };
    let (mut schedule, last, first) = sent();
    schedule.is_complete(&last, FileId(first)).unwrap();
    for wrong in [0, first - 1, first + 1] {
        let (mut schedule, last, _) = sent();
        assert!(schedule.is_complete(&last, FileId(wrong)).is_err(), "{wrong}");
    }
}

#[test]
fn a_donor_that_describes_nothing_beforehand_may_begin_again() {
    let (void, _) = snapshot(0, &plans(&[5]));
    let (parts, last) = snapshot(1, &plans(&[3]));
    let is_rows = |part: &Arrived| matches!(part, Arrived::Rows(..));
    let void: Vec<_> = void.into_iter().filter(is_rows).collect();
    let first = FileId(void.len() as u32);
    let mut schedule = after(void.into_iter().chain(parts.into_iter().filter(is_rows)).collect());
    schedule.is_complete(&last, first).unwrap();
    assert_eq!([next(&mut schedule), next(&mut schedule)], ["make t0", "load 3 of t0"]);
    assert_eq!(schedule.system(&["list/0".to_owned()]), Some(vec![PathBuf::from("1:list/0")]));
}
