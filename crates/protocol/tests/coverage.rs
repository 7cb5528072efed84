//! Nothing is complete before every byte of every file has come, in whatever order and however often.
use proptest::prelude::*;
use rejoin_protocol::coverage::{Coverage, CoverageError};
use rejoin_protocol::inventory::{FileEntry, FileId, FileRole, Place};
use rejoin_protocol::limits::{FILES_MAX, PIECES_MAX, RANGE_BYTES};

const RANGE: u64 = RANGE_BYTES as u64;
const FILE: FileId = FileId(3);

fn file(size: u64) -> FileEntry {
    FileEntry {
        id: FILE,
        place: Place::Datadir,
        path: "db/t.ibd".to_owned(),
        size,
        allocated: size,
        role: FileRole::Table,
    }
}

fn begun() -> Coverage {
    let mut coverage = Coverage::new();
    assert_eq!(coverage.begin(FILE), Ok(true));
    coverage
}

#[test]
fn refuses_what_is_not_inside_one_range_of_a_file_that_was_begun() {
    let coverage = begun();
    assert_eq!(coverage.check(FILE, 0, RANGE_BYTES), Ok(false));
    assert_eq!(coverage.check(FILE, RANGE + 5, 10), Ok(false));
    assert_eq!(coverage.check(FileId(2), 0, 1), Err(CoverageError::UnknownFile(2)));
    for (offset, len) in
        [(0, 0), (1, RANGE_BYTES), (RANGE - 1, 2), (u64::MAX, 1), (1 << 62, 1), (0, u32::MAX)]
    {
        let refused = coverage.check(FILE, offset, len);
        assert!(matches!(refused, Err(CoverageError::BadRange { .. })), "{offset} {len}");
    }
    assert_eq!(begun().begin(FileId(FILES_MAX)), Err(CoverageError::TooMany(FILES_MAX)));
    assert!(Coverage::new().record(FILE, 0, 1).is_err());
}

#[test]
fn a_file_is_begun_once() {
    let mut coverage = begun();
    coverage.record(FILE, 0, 100).expect("record");
    assert_eq!(coverage.begin(FILE), Ok(false), "another worker begins it too");
    assert_eq!(coverage.missing(&file(100)), None, "and forgets nothing");
}

#[test]
fn what_came_before_is_known() {
    let mut coverage = begun();
    coverage.record(FILE, 4096, 4096).expect("record");
    for (offset, len, before) in
        [(0, 4096, false), (0, 4097, true), (8191, 1, true), (8192, 4096, false), (4100, 10, true)]
    {
        assert_eq!(coverage.check(FILE, offset, len), Ok(before), "{offset} {len}");
    }
}

#[test]
fn a_donor_that_scatters_a_file_is_refused() {
    let mut coverage = begun();
    let mut records = (0..=PIECES_MAX as u64).map(|n| coverage.record(FILE, n * 2, 1));
    assert!(records.by_ref().take(PIECES_MAX).all(|m| m.is_ok()));
    assert_eq!(records.next(), Some(Err(CoverageError::Scattered(FILE.0))));
}

#[test]
fn a_file_of_which_nothing_came_is_missing_unless_it_is_empty() {
    let coverage = Coverage::new();
    assert_eq!(coverage.missing(&file(0)), None);
    assert_eq!(coverage.missing(&file(7)), Some(0..7));
}

proptest! {
    /// Held against one flag a byte.
    #[test]
    fn the_same_as_counting_bytes(
        pieces in proptest::collection::vec((0u64..300, 1u32..80), 0..30), size in 0u64..400
    ) {
        let mut coverage = begun();
        let mut bytes = [false; 400];
        for (offset, len) in pieces {
            let now = offset as usize..offset as usize + len as usize;
            prop_assert_eq!(coverage.check(FILE, offset, len), Ok(bytes[now.clone()].contains(&true)));
            coverage.record(FILE, offset, len).expect("record");
            bytes[now].fill(true);
        }
        let first = bytes[..size as usize].iter().position(|come| !come);
        let gap = first.map(|first| {
            let end = bytes[first..size as usize].iter().position(|come| *come);
            first as u64..end.map_or(size, |end| (first + end) as u64)
        });
        prop_assert_eq!(coverage.missing(&file(size)), gap);
    }
}
