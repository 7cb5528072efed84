//! What is remembered of files that are read back.
use protocol::inventory::{FileEntry, FileRole, Place};

use super::*;
use crate::datadir::testing::{Tree, page};
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
    staging.remember_with(KEY);
    staging.settle_list(&[(entry.clone(), target.clone())], true, Patches::None, 2).unwrap();
    let (bytes, arrived) = staging.read_back_and_learn(3, &Cancel::new()).unwrap();
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

/// A part of a logical snapshot is read back on its own as soon as it is complete, and is as long as the donor says although an
/// interrupted transfer has left a longer one.
#[test]
fn one_file_is_complete_before_the_others() {
    let tree = Tree::new();
    let layout = tree.layout(&[]);
    let part = |id, size| FileEntry {
        id: FileId(id),
        place: Place::Parts,
        path: "0011aabb/1-0".to_owned(),
        size,
        allocated: size,
        role: FileRole::Part,
    };
    let write = |staging: &Staging, entry: &FileEntry, byte: u8| {
        let whole = vec![byte; entry.size as usize];
        for (number, bytes) in whole.chunks(RANGE_BYTES as usize).enumerate() {
            let (at, len) = (number as u64 * u64::from(RANGE_BYTES), bytes.len() as u32);
            staging.writer().write_range(entry.id, at, &[(0, len)], bytes).unwrap();
            staging.expect(entry.id, at, len, Some(digest(bytes)), None).unwrap();
        }
    };
    let size = u64::from(RANGE_BYTES) + 20_000;
    let (longer, entry) = (part(0, size + 30_000), part(7, size));
    let target = layout.target_of(&entry).unwrap();
    let before = Staging::new(&MariaDb, &layout.datadir).unwrap();
    before.begin(&longer, &target).unwrap();
    write(&before, &longer, 1);
    drop(before);
    let staging = Staging::new(&MariaDb, &layout.datadir).unwrap();
    staging.adopt(&entry, &target).unwrap().unwrap();
    write(&staging, &entry, 2);
    let complete = staging.complete(entry.id, &Cancel::new()).unwrap();
    assert!(std::fs::read(&complete).unwrap() == vec![2; size as usize]);
    // Nothing of it is moved when the list has come, and what the disk has made of it since is not read again.
    staging.settle_list(&[(entry.clone(), target)], false, Patches::None, 2).unwrap();
    assert_eq!(staging.path(entry.id).unwrap(), complete);
    std::fs::write(&complete, vec![3; size as usize]).unwrap();
    assert_eq!(staging.read_back(1, &Cancel::new()).unwrap(), size);
    // Other bytes than the donor's are found at once.
    let other = FileEntry { path: "0011aabb/2-0".to_owned(), ..part(8, 100) };
    let staging = Staging::new(&MariaDb, &layout.datadir).unwrap();
    staging.begin(&other, &layout.target_of(&other).unwrap()).unwrap();
    write(&staging, &other, 4);
    std::fs::write(staging.path(other.id).unwrap(), [5; 100]).unwrap();
    let error = staging.complete(other.id, &Cancel::new()).unwrap_err();
    assert!(format!("{error:#}").contains("not what the donor read"), "{error:#}");
}

/// The first pages of a small tablespace are known from reading it back: it is not opened again once it is installed.
#[test]
fn what_a_tablespace_begins_with_is_learned_while_it_is_read_back() {
    let tree = Tree::new();
    let layout = tree.layout(&[]);
    std::fs::create_dir_all(layout.datadir.join("d")).unwrap();
    let target = layout.datadir.join("d/t.ibd");
    let content: Vec<u8> = (0..5).flat_map(|number| page(9, number, 77, &[])).collect();
    let (path, size, role) = ("d/t.ibd".to_owned(), content.len() as u64, FileRole::Table);
    let entry = FileEntry { id: FileId(1), place: Place::Datadir, path, size, allocated: 0, role };
    let staging = Staging::new(&MariaDb, &layout.datadir).unwrap();
    staging.begin(&entry, &target).unwrap();
    let parts = [(0, size as u32)];
    staging.writer().write_range(entry.id, 0, &parts, &content).unwrap();
    staging.expect(entry.id, 0, size as u32, Some(digest(&content)), None).unwrap();
    staging.remember_with(KEY);
    staging.settle_list(&[(entry.clone(), target.clone())], true, Patches::None, 1).unwrap();
    let (_, arrived) = staging.read_back_and_learn(1, &Cancel::new()).unwrap();
    std::fs::rename(staging.path(entry.id).unwrap(), &target).unwrap();
    // As nobody does: it shows that the file is not read.
    std::fs::write(&target, vec![0; content.len()]).unwrap();
    let memory = || Memory::with_key(&layout.datadir, KEY).unwrap().unwrap();
    let remembered = arrived.remember(&memory()).unwrap();
    assert_eq!(remembered, Some((1, size)), "run the tests with TMPDIR on ext4 or XFS");
    let memory = memory();
    let record = memory.find(&look(&target).unwrap().unwrap()).and_then(|at| memory.record(at)).unwrap();
    let front = record.front.unwrap();
    let pages = Front::of(&content).unwrap().encoded_pages();
    assert_eq!((front.space, front.lsn, front.pages), (9, 77, &pages[..]));
}
