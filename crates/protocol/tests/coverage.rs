//! Nothing is complete before every range of every file has come exactly once.
use proptest::prelude::*;
use rejoin_protocol::coverage::{Coverage, CoverageError};
use rejoin_protocol::inventory::{FileEntry, FileId, FileRole, Place};
use rejoin_protocol::limits::RANGE_BYTES;

const RANGE: u64 = RANGE_BYTES as u64;

fn files(sizes: &[u64]) -> Vec<FileEntry> {
    let one = |(i, size): (usize, &u64)| FileEntry {
        id: FileId(i as u32),
        place: Place::Datadir,
        path: format!("f{i}"),
        size: *size,
        allocated: *size,
        role: FileRole::Table,
    };
    sizes.iter().enumerate().map(one).collect()
}

#[test]
fn refuses_what_is_not_a_range_of_the_file() {
    let coverage = Coverage::new(&files(&[RANGE + 10, 0]));
    assert_eq!(coverage.check(FileId(0), 0, RANGE_BYTES), Ok(()));
    assert_eq!(coverage.check(FileId(0), RANGE, 10), Ok(()));
    assert_eq!(coverage.check(FileId(2), 0, 1), Err(CoverageError::UnknownFile(2)));
    for (file, offset, len) in
        [(0, 1, 10), (0, RANGE, 11), (0, RANGE, 9), (0, 2 * RANGE, 1), (1, 0, 0), (1, 0, 1)]
    {
        let refused = coverage.check(FileId(file), offset, len);
        assert!(matches!(refused, Err(CoverageError::BadRange { .. })), "{file} {offset} {len}");
    }
}

#[test]
fn a_range_that_comes_twice_is_refused() {
    let mut coverage = Coverage::new(&files(&[RANGE]));
    assert_eq!(coverage.mark(FileId(0), 0), Ok(()));
    assert_eq!(coverage.mark(FileId(0), 0), Err(CoverageError::Duplicate { file: 0, offset: 0 }));
}

#[test]
fn the_first_range_of_a_file_is_known_once() {
    let mut coverage = Coverage::new(&files(&[2 * RANGE]));
    assert_eq!(coverage.begin(FileId(0), RANGE, RANGE_BYTES), Ok(true));
    assert_eq!(coverage.begin(FileId(0), 0, RANGE_BYTES), Ok(false));
    assert!(coverage.begin(FileId(0), 1, RANGE_BYTES).is_err());
}

proptest! {
    #[test]
    fn complete_exactly_when_the_last_range_came(sizes in proptest::collection::vec(0u64..5 * RANGE, 1..6),
                                                 seed in any::<u64>()) {
        let mut coverage = Coverage::new(&files(&sizes));
        let mut ranges: Vec<(u32, u64)> = Vec::new();
        for (file, size) in sizes.iter().enumerate() {
            ranges.extend((0..size.div_ceil(RANGE)).map(|r| (file as u32, r * RANGE)));
        }
        let turn = if ranges.is_empty() { 0 } else { (seed % ranges.len() as u64) as usize };
        ranges.rotate_left(turn);
        for (file, offset) in ranges {
            prop_assert!(coverage.first_incomplete().is_some());
            prop_assert_eq!(coverage.mark(FileId(file), offset), Ok(()));
        }
        prop_assert_eq!(coverage.first_incomplete(), None);
    }
}
