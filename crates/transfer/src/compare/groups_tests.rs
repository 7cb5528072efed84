use protocol::inventory::Place;

use super::*;

fn file(id: u32, size: u64) -> FileEntry {
    let (path, role) = (format!("d/t{id}.ibd"), FileRole::Table);
    FileEntry { id: FileId(id), place: Place::Datadir, path, size, allocated: size, role }
}

fn put<'a>(together: &'a Groups, file: u32, offset: u64, bytes: &[u8]) -> Put<'a> {
    together.put(FileId(file), offset, bytes, &Cancel::default()).unwrap()
}

#[test]
fn small_tables_that_follow_each_other_are_asked_for_together() {
    let range = u64::from(RANGE_BYTES);
    let log = FileEntry { role: FileRole::SecondLog, ..file(7, 8192) };
    let large = |id| file(id, range + 1);
    let asks =
        split(vec![large(1), large(2), file(3, 7), file(4, range), file(5, 0), file(6, 3), log.clone()]);
    let expected = [
        Ask::Each(vec![large(1), large(2)]),
        Ask::Grouped(vec![file(3, 7), file(4, range)]),
        Ask::Each(vec![file(5, 0), file(6, 3), log]),
    ];
    assert_eq!(asks, expected);
    assert_eq!(split(Vec::new()), []);
}

#[test]
fn a_group_is_whole_when_every_byte_of_it_was_read() {
    let (together, key) = (Groups::default(), [3; 32]);
    together.expect(vec![file(1, 3), file(2, 4)], &[3; 32]);
    assert!(matches!(put(&together, 3, 0, b"x"), Put::Apart));
    assert!(matches!(put(&together, 2, 0, b"ab"), Put::Waits));
    assert!(matches!(put(&together, 1, 0, b"xyz"), Put::Waits));
    let Put::Whole(whole) = put(&together, 2, 2, b"cd") else { panic!("not whole") };
    let group = &whole.group;
    assert_eq!(
        (group.first(), group.total_bytes(), &group.bytes[&FileId(2)][..]),
        (FileId(1), 7, &b"abcd"[..])
    );
    // As a joiner computes it.
    let range =
        |bytes: &[u8]| fingerprint::range_fingerprint(&key, &fingerprint::block_fingerprints(&key, bytes));
    let mut theirs = fingerprint::GroupHasher::new(&key);
    theirs.add(Some(3), &[range(b"xyz")]);
    theirs.add(Some(4), &[range(b"abcd")]);
    assert_eq!(group.fingerprint(&key), theirs.fingerprint());
    drop(whole);
    // Read again later it is an ordinary file, on the connection of its group.
    assert!(matches!(put(&together, 2, 0, b"abcd"), Put::Apart));
    assert_eq!((together.first_of(FileId(2)), together.first_of(FileId(3))), (FileId(1), FileId(3)));
    assert!(together.take_unfinished().is_none());
}

#[test]
fn what_is_not_as_expected_breaks_its_group() {
    let expected = || {
        let together = Groups::default();
        together.expect(vec![file(1, 3), file(2, 4)], &[3; 32]);
        together
    };
    // Read again before the others, and longer than it was.
    for (offset, bytes) in [(0, &b"new"[..]), (3, b"more")] {
        let together = expected();
        assert!(matches!(put(&together, 1, 0, b"xyz"), Put::Waits));
        let again = put(&together, 1, offset, bytes);
        let Put::Broken(broken) = again else { panic!("{again:?}") };
        assert_eq!(broken.group.bytes[&FileId(1)], b"xyz");
        drop(broken);
        assert!(matches!(put(&together, 2, 0, b"abcd"), Put::Apart));
    }
    // Longer from the start: nothing of it is in the group.
    let together = expected();
    let Put::Broken(broken) = put(&together, 1, 0, b"longer") else { panic!("not broken") };
    assert!(broken.group.bytes.is_empty());
    // One of its files is never read.
    let together = expected();
    assert!(matches!(put(&together, 1, 0, b"xyz"), Put::Waits));
    assert_eq!(together.take_unfinished().map(|leaving| leaving.group.first()), Some(FileId(1)));
}

#[test]
fn the_joiners_fingerprint_of_a_group_is_waited_for() {
    let together = Groups::default();
    together.expect(vec![file(1, 3), file(2, 4)], &[3; 32]);
    assert_eq!(together.theirs(FileId(1)), None);
    assert!(!together.answered(FileId(2), [1; 16]), "not the first of any");
    assert!(![1, 2].into_iter().any(|file| together.is_answered(FileId(file))));
    assert!(together.answered(FileId(1), [1; 16]));
    let answered: Vec<bool> = (1..=3).map(|file| together.is_answered(FileId(file))).collect();
    assert_eq!(answered, [true, true, false]);
    assert_eq!(together.theirs(FileId(1)), Some([1; 16]));
}

#[test]
fn a_group_of_remembered_files_is_known_without_reading_it() {
    let together = Groups::default();
    let range = |byte| fingerprint::fingerprint(&[3; 32], &[byte]);
    (1..=3).for_each(|id| together.remember(FileId(id), range(id as u8)));
    let [others, remembered] = together.by_memory((1..=4).map(|id| file(id, 3)).collect());
    assert_eq!((others, remembered.len()), (vec![file(4, 3)], 3));
    together.expect(vec![file(1, 3), file(2, 3)], &[3; 32]);
    together.expect(vec![file(3, 3), file(4, 3)], &[3; 32]);
    let mut theirs = fingerprint::GroupHasher::new(&[3; 32]);
    [1, 2].iter().for_each(|id| theirs.add(Some(3), &[range(*id)]));
    assert_eq!(together.standing(FileId(2)), Standing::Asked(FileId(1), theirs.fingerprint()));
    // One file of the other group must be read in any case.
    assert_eq!(together.standing(FileId(3)), Standing::MustBeRead);
    assert_eq!(together.standing(FileId(9)), Standing::Apart);
    assert_eq!(together.settle_unread(FileId(1)), Some(vec![file(1, 3), file(2, 3)]));
    assert_eq!(together.standing(FileId(2)), Standing::Same);
    // What is read of it later is no longer compared with it, and nothing of it is left.
    assert!(matches!(put(&together, 2, 0, b"abc"), Put::Apart));
    // A file was read before the joiner's answer was known: the group is compared by its bytes.
    assert!(matches!(put(&together, 3, 0, b"abc"), Put::Waits));
    assert_eq!(together.settle_unread(FileId(3)), None);
    assert_eq!(together.take_unfinished().map(|leaving| leaving.group.first()), Some(FileId(3)));
    assert_eq!(together.standing(FileId(3)), Standing::Apart);
}
