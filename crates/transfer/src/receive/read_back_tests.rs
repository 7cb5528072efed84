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

/// A part of a logical snapshot.
fn part(id: u32, range: &str, size: u64) -> FileEntry {
    let path = format!("0011aabb/{range}");
    FileEntry { id: FileId(id), place: Place::Parts, path, size, allocated: size, role: FileRole::Part }
}

/// Receives all of a part, whose bytes are all this one.
fn write(staging: &Staging, entry: &FileEntry, byte: u8) {
    let whole = vec![byte; entry.size as usize];
    for (number, bytes) in whole.chunks(RANGE_BYTES as usize).enumerate() {
        let (at, len) = (number as u64 * u64::from(RANGE_BYTES), bytes.len() as u32);
        staging.writer().write_range(entry.id, at, &[(0, len)], bytes).unwrap();
        staging.expect(entry.id, at, len, Some(digest(bytes)), None).unwrap();
    }
}

/// A part of a logical snapshot is read back on its own as soon as it is complete, and is as long as the donor says although an
/// interrupted transfer has left a longer one.
#[test]
fn one_file_is_complete_before_the_others() {
    let tree = Tree::new();
    let layout = tree.layout(&[]);
    let size = u64::from(RANGE_BYTES) + 20_000;
    let (longer, entry) = (part(0, "1-0", size + 30_000), part(7, "1-0", size));
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
    let other = part(8, "2-0", 100);
    let staging = Staging::new(&MariaDb, &layout.datadir).unwrap();
    staging.begin(&other, &layout.target_of(&other).unwrap()).unwrap();
    write(&staging, &other, 4);
    std::fs::write(staging.path(other.id).unwrap(), [5; 100]).unwrap();
    let error = staging.complete(other.id, &Cancel::new()).unwrap_err();
    assert!(format!("{error:#}").contains("not what the donor read"), "{error:#}");
}

/// A part is read back once, whatever its length: what is known of a short one is kept encoded.
#[test]
fn what_was_read_back_when_it_was_complete_is_not_read_again() {
    let tree = Tree::new();
    let layout = tree.layout(&[]);
    let staging = Staging::new(&MariaDb, &layout.datadir).unwrap();
    let parts = [part(0, "1-0", 100), part(1, "2-0", u64::from(RANGE_BYTES)), part(2, "3-0", 3 << 20)];
    let listed = parts.clone().map(|part| (part.clone(), layout.target_of(&part).unwrap()));
    for (part, target) in &listed {
        staging.begin(part, target).unwrap();
        write(&staging, part, 7);
        let complete = staging.complete(part.id, &Cancel::new()).unwrap();
        // What the disk makes of it now would be found by another look.
        std::fs::write(complete, vec![8; part.size as usize]).unwrap();
    }
    // The last of the list is in memory as it arrived, and the others are encoded again.
    staging.settle_list(&listed, false, Patches::None, 2).unwrap();
    let bytes = parts.iter().map(|part| part.size).sum::<u64>();
    assert_eq!(staging.read_back(2, &Cancel::new()).unwrap(), bytes);
    // What comes again is read again.
    write(&staging, &parts[0], 9);
    std::fs::write(staging.path(parts[0].id).unwrap(), [8; 100]).unwrap();
    assert!(staging.read_back(2, &Cancel::new()).is_err());
}

/// The donor has begun its snapshot again: a part of the new one takes the place of its void namesake, and what of the void one
/// was still to be looked at is nothing to the new one.
#[test]
fn a_part_takes_the_place_of_a_void_one() {
    let tree = Tree::new();
    let layout = tree.layout(&[]);
    let staging = Staging::new(&MariaDb, &layout.datadir).unwrap();
    let stage = layout.datadir.join(".rejoin/stage");
    let files = || std::fs::read_dir(&stage).unwrap().count();
    let begin = |part: &FileEntry| staging.begin(part, &layout.target_of(part).unwrap()).unwrap();
    let (size, mut writer) = (u64::from(RANGE_BYTES), staging.writer());
    let void: Vec<FileEntry> = (0..20).map(|id| part(id, &format!("{id}-0"), size)).collect();
    for part in &void {
        begin(part);
        write(&staging, part, 1);
        writer.write_range(part.id, 0, &[(0, 100)], &[1; 100]).unwrap();
    }
    writer.read_behind(FileId(0), 0).unwrap();
    for part in &void {
        staging.complete(part.id, &Cancel::new()).unwrap();
    }
    staging.set_aside_before(FileId(20)).unwrap();
    assert!(staging.has_leftovers());
    let new = [part(20, "0-0", size + 5000), part(21, "gone-0", 100)];
    let targets = new.each_ref().map(|part| layout.target_of(part).unwrap());
    let (_, length) = staging.adopt(&new[0], &targets[0]).unwrap().unwrap();
    assert_eq!((length, files()), (size, void.len()), "no second file is made");
    assert_eq!(staging.adopt(&new[1], &targets[1]).unwrap(), None);
    for part in &new {
        begin(part);
        write(&staging, part, 2);
    }
    for _ in 0..20 {
        writer.read_behind(FileId(20), 0).unwrap();
    }
    new.iter().for_each(|part| drop(staging.complete(part.id, &Cancel::new()).unwrap()));
    let listed: Vec<_> = new.clone().into_iter().zip(targets).collect();
    staging.settle_list(&listed, false, Patches::None, 2).unwrap();
    assert_eq!(files(), 2, "what the list does not name is removed");
    assert!(std::fs::read(staging.path(FileId(20)).unwrap()).unwrap() == vec![2; size as usize + 5000]);
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
