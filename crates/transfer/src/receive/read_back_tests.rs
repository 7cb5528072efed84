//! What is remembered of files that are read back.
use protocol::inventory::{FileEntry, FileRole, Place};

use super::*;
use crate::datadir::testing::Tree;
use crate::disk::identity::look;
use crate::flavor::mariadb::MariaDb;
use crate::receive::staging::{Patches, Staging};
use crate::remembered::learn::record_of;
use crate::remembered::memory::Memory;
use crate::remembered::testing::KEY;

/// Several threads read a large file, each some of its ranges: it is remembered once all were read, with all of them.
#[test]
fn a_file_of_several_parts_is_remembered_as_a_whole() {
    const RANGES: u64 = 2 * AT_ONCE as u64 + 1;
    let tree = Tree::new();
    let layout = tree.layout(&[]);
    std::fs::create_dir_all(layout.datadir.join("d")).unwrap();
    let target = layout.datadir.join("d/t.MAD");
    let (path, size, role) = ("d/t.MAD".to_owned(), RANGES * u64::from(RANGE_BYTES), FileRole::Table);
    let entry = FileEntry { id: FileId(1), place: Place::Datadir, path, size, allocated: 0, role };
    let staging = Staging::new(&MariaDb, &layout.datadir).unwrap();
    staging.begin(&entry, &target).unwrap();
    for range in 0..RANGES {
        let at = range * u64::from(RANGE_BYTES);
        staging.expect(entry.id, at, RANGE_BYTES, Some(digest(&[])), None).unwrap();
    }
    staging.will_remember();
    staging.settle_list(&[(entry.clone(), target.clone())], true, Patches::None, 2).unwrap();
    let (bytes, arrived) = staging.read_back_and_learn(&KEY, 3, &Cancel::new()).unwrap();
    assert_eq!(bytes, size);
    std::fs::rename(staging.path(entry.id).unwrap(), &target).unwrap();
    let memory = || Memory::with_key(&layout.datadir, KEY).unwrap().unwrap();
    let remembered = arrived.remember(&memory()).unwrap();
    assert_eq!(remembered, Some((1, size)), "run the tests with TMPDIR on ext4 or XFS");
    let memory = memory();
    let record = memory.find(&look(&target).unwrap().unwrap()).and_then(|at| memory.record(at)).unwrap();
    let zeros = record_of(&KEY, &vec![0; RANGE_BYTES as usize]);
    assert!(record.ranges.chunks(zeros.len()).all(|range| range == zeros));
    assert_eq!(record.count(), RANGES as u32);
}
