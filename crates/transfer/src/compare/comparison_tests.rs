use protocol::fingerprint::Fingerprint;
use protocol::inventory::{FileRole, Place};

use super::*;

/// What is remembered of a file does not grow with its length, neither received fingerprints nor ranges that were
/// handed over.
#[test]
fn what_was_handed_over_is_one_entry_and_late_fingerprints_are_dropped() {
    let cancel = Cancel::new();
    let compare = Compare::new([1; 32], Parts::Never, &cancel);
    let size = 1000 * u64::from(RANGE_BYTES);
    let (path, role) = ("d/t.ibd".to_owned(), FileRole::Table);
    let entry = FileEntry { id: FileId(7), place: Place::Datadir, path, size, allocated: size, role };
    compare.expect(&mut std::iter::once(&entry));
    let theirs =
        |change: &mut dyn FnMut(&mut Theirs)| change(lock(&compare.files).get_mut(entry.id).unwrap());
    theirs(&mut |theirs| {
        // The length may come last.
        (0..2000).for_each(|range| theirs.add(range, Fingerprint::default()));
        theirs.size = Some(Some(2 * size));
        // Our file had 1000 ranges when it was asked for: fingerprints beyond them are dropped.
        assert_eq!((theirs.ranges_asked(), theirs.ranges.len()), (1000, 1000));
    });
    for range in 0..999 {
        compare.look(entry.id, range * u64::from(RANGE_BYTES), &[0], true, false).unwrap();
    }
    theirs(&mut |theirs| {
        theirs.add(5, Fingerprint::default());
        assert_eq!((theirs.ranges.len(), theirs.used.len(), theirs.close().asked.len()), (1, 1, 0));
    });
    // Only the entry is left of a file that was handed over completely.
    compare.look(entry.id, 999 * u64::from(RANGE_BYTES), &[0], true, false).unwrap();
    let is_open = lock(&compare.files).get_mut(entry.id).is_some();
    assert!(!is_open && compare.is_known(&entry));
    assert!(compare.look(entry.id, 0, &[0], true, false).unwrap().same.is_empty());
}
