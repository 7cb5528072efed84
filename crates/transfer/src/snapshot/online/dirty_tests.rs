use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::page_set::PIECE_PAGES;
use super::*;

fn page(space: u32, page: u32) -> Record<'static> {
    Record::Page { space: SpaceId(space), page: PageNo(page) }
}

/// All pages that must be read again; `None` = everything.
fn pages(dirty: &Dirty, space: u32, below: u64, longest: u32) -> Option<BTreeSet<u32>> {
    let (mut found, mut from) = (BTreeSet::new(), 0);
    loop {
        match dirty.again(SpaceId(space), Lsn(below), from, longest) {
            Again::Whole => return None,
            Again::Nothing => return Some(found),
            Again::Run(run) => {
                assert!(run.start >= from && run.end > run.start && run.end - run.start <= longest);
                from = run.end;
                found.extend(run);
            }
        }
    }
}

fn note(dirty: &Dirty, lsn: u64, records: &[Record<'_>]) {
    dirty.note_records(Lsn(lsn), Lsn(lsn + 1), records.iter().map(|r| Ok(*r)));
}

#[test]
fn neighbours_come_together() {
    let dirty = Dirty::new(Lsn(0), 1 << 30);
    for n in [3, 4, 5, 9, 4095, 4096, 8191] {
        note(&dirty, u64::from(n), &[page(7, n)]);
    }
    let again = |from, longest| dirty.again(SpaceId(7), Lsn(1 << 30), from, longest);
    assert_eq!(again(0, 64), Again::Run(3..6));
    assert_eq!(again(0, 2), Again::Run(3..5));
    assert_eq!(again(5, 64), Again::Run(5..6));
    assert_eq!(again(10, 64), Again::Run(4095..4097));
    assert_eq!(again(4097, 64), Again::Run(8191..8192));
    assert_eq!(again(8192, 64), Again::Nothing);
    assert_eq!(dirty.again(SpaceId(8), Lsn(1 << 30), 0, 64), Again::Nothing);
    assert_eq!(dirty.again(SpaceId(7), Lsn(0), 0, 64), Again::Nothing);
}

#[test]
fn pages_without_redo_are_found() {
    let dirty = Dirty::new(Lsn(100), 1 << 30);
    for n in [0, 1, 4, 4096] {
        note(&dirty, 100 + u64::from(n), &[page(7, n)]);
    }
    let untouched = |space, pages| dirty.untouched(SpaceId(space), pages);
    assert_eq!(untouched(7, 9), [2, 3, 5, 6, 7, 8]);
    assert!(untouched(7, 2).is_empty());
    assert_eq!(untouched(8, 3), [0, 1, 2]);
    assert!(dirty.has_page(SpaceId(7), 4) && !dirty.has_page(SpaceId(7), 5));
    assert_eq!(dirty.since(), Lsn(100));
    note(&dirty, 9000, &[Record::TrimPages { space: SpaceId(7), pages: PageNo(3) }]);
    assert!(untouched(7, 9).is_empty(), "nothing is known of it any more");
}

#[test]
fn a_cut_tablespace_is_read_whole_until_its_cut_is_old() {
    let dirty = Dirty::new(Lsn(0), 1 << 30);
    note(&dirty, 1, &[page(1, 5), Record::TrimPages { space: SpaceId(1), pages: PageNo(3) }]);
    note(&dirty, 2, &[page(1, 6), page(2, 6)]);
    assert_eq!(pages(&dirty, 1, 10, 64), None);
    assert_eq!(pages(&dirty, 2, 10, 64), Some([6].into()));
    dirty.cut();
    note(&dirty, 3, &[page(1, 8)]);
    dirty.forget(Lsn(2));
    assert_eq!(pages(&dirty, 1, 10, 64), None);
    dirty.forget(Lsn(3));
    assert_eq!(pages(&dirty, 1, 10, 64), Some([8].into()));
}

#[test]
fn the_record_of_a_checkpoint_is_known_again() {
    let dirty = Dirty::new(Lsn(0), 1 << 30);
    let record = |lsn| Record::File(FileEvent::Checkpoint { lsn });
    note(&dirty, 50, &[record(Some(Lsn(40)))]);
    note(&dirty, 70, &[record(None)]);
    let passed = |lsn, end_lsn| dirty.passed(&Checkpoint { lsn: Lsn(lsn), end_lsn: Lsn(end_lsn) });
    assert!(passed(40, 50) && passed(40, 49) && !passed(40, 51) && !passed(39, 50));
    assert!(passed(60, 70) && !passed(60, 69));
}

#[test]
fn a_record_that_is_not_understood_blinds() {
    let dirty = Dirty::new(Lsn(0), 1 << 30);
    assert!(!dirty.is_blind());
    dirty.note_records(Lsn(1), Lsn(2), [Err(BadRecord { at: 0, byte: 0 })].into_iter());
    assert!(dirty.is_blind());
}

#[test]
fn memory_is_bounded_by_marking_whole() {
    let most = 1 << 20;
    let dirty = Dirty::within(Lsn(0), 1 << 30, most);
    for n in 0..40_000 {
        note(&dirty, n, &[page(n as u32 % 30_000, n as u32 * 4096)]);
        assert!(dirty.lock().memory <= most + most / 2);
        assert!(dirty.touches(SpaceId(n as u32 % 30_000), Lsn(n + 1)));
    }
    assert_eq!(pages(&dirty, 1, 1 << 30, 64), None);
    let state = dirty.lock();
    assert_eq!(state.memory, state.generations.iter().map(Generation::memory).sum::<usize>());
}

#[test]
fn a_terabyte_fits() {
    let dirty = Dirty::new(Lsn(0), 1 << 40);
    for piece in 0..(1u32 << 26) / PIECE_PAGES {
        note(&dirty, u64::from(piece), &[page(1, piece * PIECE_PAGES)]);
    }
    assert_eq!(dirty.again(SpaceId(1), Lsn(1 << 40), 1, 1), Again::Run(4096..4097));
    assert!(dirty.lock().memory < 10 << 20);
}

proptest! {
    /// Compared with a set of pages: the count is that of the pages to read again, and `touched` counts what changed.
    #[test]
    fn counts_are_of_distinct_pages(
        steps in prop::collection::vec((0u32..3, 0u32..9000, 0u8..10), 1..200),
        from in 0u32..9000,
        len in 0u32..9000,
    ) {
        let dirty = Dirty::new(Lsn(0), 1 << 30);
        let mut changed = BTreeSet::new();
        for (lsn, (space, number, action)) in steps.into_iter().enumerate() {
            note(&dirty, lsn as u64, &[page(space, number)]);
            changed.insert((space, number));
            if action == 0 {
                dirty.cut();
            }
        }
        let range = from..from + len;
        for space in 0..3 {
            let expected = changed.iter().filter(|c| c.0 == space && range.contains(&c.1)).count();
            prop_assert_eq!(dirty.count(SpaceId(space), Lsn(u64::MAX), &range), Some(expected as u64));
        }
        let spaces: BTreeSet<u32> = changed.iter().map(|c| c.0).collect();
        let touched = Touched { pages: changed.len() as u64, spaces: spaces.len() as u64 };
        prop_assert_eq!(dirty.touched(Lsn(0)), touched);
    }

    /// Compared with every page and the LSN of each change: the answer is never less than what changed below the
    /// checkpoint and was not forgotten, and never contains a page that did not change.
    #[test]
    fn never_less_than_what_changed(
        steps in prop::collection::vec((0u32..4, 0u32..9000, 0u8..20), 1..400),
        capacity in 8u64..4000,
        memory in prop_oneof![Just(1usize << 20), 500usize..8000],
    ) {
        let dirty = Dirty::within(Lsn(0), capacity, memory);
        let (mut changes, mut base) = (Vec::new(), 0);
        for (lsn, (space, number, action)) in steps.into_iter().enumerate() {
            let lsn = lsn as u64;
            note(&dirty, lsn, &[page(space, number)]);
            changes.push((lsn, space, number));
            match action {
                0 => dirty.cut(),
                1 => {
                    // A round: everything between the last point and a newer one is asked for.
                    let below = base + (lsn - base) * u64::from(number % 10) / 9;
                    for space in 0..4 {
                        let changed = |from: u64, to: u64| -> BTreeSet<u32> {
                            let of = changes.iter().filter(|c| c.1 == space && (from..to).contains(&c.0));
                            of.map(|c| c.2).collect()
                        };
                        if let Some(found) = pages(&dirty, space, below, 64) {
                            prop_assert!(found.is_superset(&changed(base, below)));
                            prop_assert!(changed(0, u64::MAX).is_superset(&found));
                        }
                    }
                    dirty.forget(Lsn(below));
                    base = below;
                }
                _ => {}
            }
        }
    }
}
