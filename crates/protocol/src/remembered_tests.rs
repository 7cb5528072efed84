//! The format of a list of fingerprints, and what is found in it.
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
struct Owned {
    state: FileState,
    front: Option<(u32, u64, Vec<u8>)>,
    ranges: Vec<u8>,
}

impl Owned {
    fn record(&self) -> FileRecord<'_> {
        let front = self.front.as_ref().map(|(space, lsn, pages)| Front { space: *space, lsn: *lsn, pages });
        FileRecord { state: self.state, front, ranges: &self.ranges }
    }
}

fn owned() -> impl Strategy<Value = Owned> {
    let state =
        (any::<(u32, u32, u64)>(), 0..9u64, any::<i64>(), 1..4_000_000u64, any::<i64>(), any::<i64>());
    let front = prop::option::of((any::<u32>(), any::<u64>(), prop::collection::vec(any::<u8>(), 32)));
    (state, front, any::<u8>()).prop_map(
        |(((major, minor, mount), inode, birth, size, modified, changed), front, byte)| Owned {
            state: FileState { device: (major, minor), mount, inode, birth, size, modified, changed },
            front,
            ranges: vec![byte; fingerprint::ranges(size) as usize * RANGE_RECORD_BYTES],
        },
    )
}

fn list(files: &[Owned], written: &Written) -> Vec<u8> {
    let mut builder = Builder::default();
    files.iter().for_each(|file| assert!(builder.push(&file.record())));
    assert_eq!(builder.len(), files.len());
    builder.finish(written)
}

#[test]
fn the_format_is_frozen() {
    let state = FileState { device: (8, 1), mount: 7, inode: 77, birth: 1, size: 5, modified: 2, changed: 3 };
    let ranges = range_record(&[9; 16], 0x0807_0605_0403_0201);
    let front = Some(Front { space: 4, lsn: 6, pages: &[1; 8] });
    let record = FileRecord { state, front, ranges: &ranges };
    let mut builder = Builder::default();
    assert!(builder.push(&record));
    let bytes = builder.finish(&Written { boot: [7; 16], at: 1, ahead: -1 });
    let mut expected = b"rjfngrpt\x02\0\0\0".to_vec();
    expected.extend([7; 16]);
    expected.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([0xff; 8]);
    expected.extend([8, 1, 7, 77, 6, 2, 4, 5, 1, 4, 6, 8]);
    expected.extend([1; 8]);
    expected.push(24);
    expected.extend([9; 16]);
    expected.extend([1, 2, 3, 4, 5, 6, 7, 8]);
    expected.extend(xxh3_64(&expected).to_le_bytes());
    assert_eq!(bytes, expected);
    let read = Remembered::parse(bytes).unwrap();
    let found = read.get(read.find(&state).unwrap()).unwrap();
    assert_eq!(found.range(0), Some(([9; 16], 0x0807_0605_0403_0201)));
    assert_eq!((found.range(1), found.len_of(0), found.count()), (None, 5, 1));
}

#[test]
fn what_lacks_a_range_is_not_taken() {
    let state = FileState { size: 2 << 20, ..FileState::default() };
    let record = |ranges: &'static [u8]| FileRecord { state, front: None, ranges };
    let mut builder = Builder::default();
    assert!(!builder.push(&record(&[0; 24])) && !builder.push(&record(&[0; 47])));
    assert!(builder.push(&record(&[0; 48])));
    let nothing = FileRecord { state: FileState::default(), front: None, ranges: &[] };
    assert!(!builder.push(&nothing), "an empty file has nothing to remember");
}

#[test]
fn a_newer_version_is_named() {
    let mut bytes = list(&[], &Written::default());
    bytes[8] = 3;
    assert_eq!(Remembered::parse(bytes).unwrap_err(), BadRemembered::Version(3));
}

proptest! {
    #[test]
    fn a_file_is_found_in_its_state_only(
        files in prop::collection::vec(owned(), 0..12),
        (at, ahead) in any::<(i64, i64)>(),
    ) {
        let written = Written { boot: [3; 16], at, ahead };
        let read = Remembered::parse(list(&files, &written)).unwrap();
        prop_assert_eq!((read.written(), read.len()), (written, files.len()));
        for file in &files {
            let found = read.get(read.find(&file.state).unwrap()).unwrap();
            prop_assert_eq!(found.state, file.state);
            let other = FileState { changed: file.state.changed.wrapping_add(1), ..file.state };
            prop_assert!(read.find(&other).is_none() || files.iter().any(|file| file.state == other));
        }
    }

    #[test]
    fn a_changed_byte_is_noticed(
        files in prop::collection::vec(owned(), 1..4),
        at in any::<prop::sample::Index>(),
        bit in 0..8u8,
    ) {
        let mut bytes = list(&files, &Written::default());
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(Remembered::parse(bytes).is_err());
    }

    #[test]
    fn no_bytes_are_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Remembered::parse(bytes.clone());
        let mut whole = b"rjfngrpt\x02\0\0\0".to_vec();
        whole.extend(bytes);
        whole.extend(xxh3_64(&whole).to_le_bytes());
        let _ = Remembered::parse(whole);
    }
}
