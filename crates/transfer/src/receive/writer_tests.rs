//! What is received makes the same file on every filesystem, and leaves the page cache alone where the filesystem can.
use std::fs;
use std::io::IoSliceMut;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use protocol::chunk::digest;
use protocol::inventory::{FileEntry, FileRole, Place};
use protocol::limits::RANGE_BYTES;
use rustix::io::{ReadWriteFlags, preadv2};

use super::*;
use crate::cancel::Cancel;
use crate::disk::direct_write::{DIRECT_MIN, DirectWrites};
use crate::disk::identity::look;
use crate::flavor::mariadb::MariaDb;
use crate::receive::reusable::Old;
use crate::receive::staging::Patches;

const RANGE: u64 = RANGE_BYTES as u64;
/// The last range is not a whole number of blocks.
const SIZE: u64 = 2 * RANGE + DIRECT_MIN as u64 + 777;
const FILE: FileId = FileId(0);

/// Bytes of a previous file.
fn previous() -> Vec<u8> {
    (0..SIZE).map(|at| (at / 1000 + 100) as u8).collect()
}

/// A file that is being received over a previous one.
struct World {
    dir: tempfile::TempDir,
    file: (FileEntry, PathBuf),
    old: Old,
    staging: Staging,
}

impl World {
    fn new(on: &str) -> World {
        let dir = tempfile::tempdir_in(fs::canonicalize(on).unwrap()).unwrap();
        let (place, path) = (Place::Datadir, "db/t.ibd".to_owned());
        let target = dir.path().join(&path);
        fs::create_dir(dir.path().join("db")).unwrap();
        fs::write(&target, previous()).unwrap();
        let entry = FileEntry { id: FILE, place, path, size: SIZE, allocated: SIZE, role: FileRole::Table };
        let old = Old::new(target.clone(), look(&target).unwrap().unwrap());
        let staging = Staging::new(&MariaDb, dir.path()).unwrap();
        staging.begin(&entry, &target).unwrap();
        World { dir, file: (entry, target), old, staging }
    }

    fn staged(&self) -> PathBuf {
        self.staging.path(FILE).unwrap()
    }

    /// As the receiver does with a chunk of a whole range: these parts of it are `sent`, these the `same`; zeros are between them.
    fn receive(
        &self,
        writer: &mut Writer<'_>,
        bytes: &[u8],
        at: u64,
        sent: &[(u32, u32)],
        same: &[(u32, u32)],
    ) -> Result<()> {
        let part = |&(start, len): &(u32, u32)| &bytes[start as usize..(start + len) as usize];
        let data: Vec<u8> = sent.iter().flat_map(part).copied().collect();
        let len = bytes.len() as u32;
        let range = at..at + u64::from(len);
        self.staging.hold(FILE, range.clone(), same, Some(self.old.clone())).unwrap();
        let differing = u64::from(len - same.iter().map(|(_, len)| len).sum::<u32>());
        let past_cache = writer.write(FILE, range, &[(sent, &data)], differing).unwrap();
        let mut kept = [sent, same].concat();
        kept.sort_unstable();
        if differing > 0 {
            writer.clear_gaps(FILE, at, len, &kept).unwrap();
        }
        self.staging.expect(FILE, at, len, Some(digest(bytes)), None).unwrap();
        if past_cache { writer.read_behind(FILE, at) } else { Ok(()) }
    }

    /// Receives a range that is all one byte.
    fn fill(&self, writer: &mut Writer<'_>, at: u64, byte: u8) -> Result<()> {
        let len = RANGE.min(SIZE - at) as u32;
        self.receive(writer, &vec![byte; len as usize], at, &[(0, len)], &[])
    }

    /// The file as it is installed, once it has been read back.
    fn settled(&self) -> Vec<u8> {
        self.staging.settle_list(std::slice::from_ref(&self.file), false, Patches::None, 2).unwrap();
        assert_eq!(self.staging.read_back(2, &Cancel::new()).unwrap(), SIZE);
        fs::read(self.staged()).unwrap()
    }
}

/// Where the bytes of a part come from.
#[derive(Clone, Copy, Debug)]
enum Source {
    Donor(u8),
    Previous,
    Nowhere,
}

/// The number of a range, where its parts end, and where they come from.
fn chunk() -> impl Strategy<Value = (u64, Vec<u32>, Vec<Source>)> {
    let end = prop_oneof![(0..256u32).prop_map(|block| block * 4096), 0..RANGE_BYTES];
    let from = prop_oneof![3 => (1..99u8).prop_map(Source::Donor), 2 => Just(Source::Previous), 1 => Just(Source::Nowhere)];
    (0..3u64, proptest::collection::vec(end, 0..5), proptest::collection::vec(from, 6))
}

/// Parts of a range: start and length.
type Parts = Vec<(u32, u32)>;

/// The bytes of a chunk, and its parts by where they come from.
fn content(at: u64, mut ends: Vec<u32>, from: &[Source], previous: &[u8]) -> (Vec<u8>, Parts, Parts) {
    let len = RANGE.min(SIZE - at) as u32;
    ends.push(len);
    ends.iter_mut().for_each(|end| *end = len.min(*end));
    ends.sort_unstable();
    let (mut bytes, mut sent, mut same, mut start) = (vec![0; len as usize], Vec::new(), Vec::new(), 0);
    for (end, from) in ends.into_iter().zip(from).filter(|(end, _)| *end > 0) {
        let part = start as usize..end as usize;
        let (place, len) = (at as usize + start as usize, end - start);
        match from {
            _ if len == 0 => {}
            Source::Nowhere => {}
            Source::Donor(byte) => {
                bytes[part].fill(*byte);
                sent.push((start, len));
            }
            Source::Previous => {
                bytes[part].copy_from_slice(&previous[place..place + len as usize]);
                same.push((start, len));
            }
        }
        start = end;
    }
    (bytes, sent, same)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn any_chunks_in_any_order_make_the_file(chunks in proptest::collection::vec(chunk(), 1..8)) {
        let previous = previous();
        for on in [".", "/dev/shm"] {
            let world = World::new(on);
            let (mut expected, mut writer) = (vec![0; SIZE as usize], world.staging.writer());
            // Everything is received at least once, and what is received again replaces it.
            let first = (0..3).map(|range| (range, Vec::new(), vec![Source::Donor(99)]));
            for (range, ends, from) in first.chain(chunks.iter().cloned()) {
                let at = range * RANGE;
                let (bytes, sent, same) = content(at, ends, &from, &previous);
                world.receive(&mut writer, &bytes, at, &sent, &same).unwrap();
                expected[at as usize..at as usize + bytes.len()].copy_from_slice(&bytes);
            }
            prop_assert!(world.settled() == expected, "on {on}");
        }
    }
}

#[test]
fn several_threads_write_one_file_in_both_ways() {
    for on in [".", "/dev/shm"] {
        let world = World::new(on);
        std::thread::scope(|scope| {
            for thread in 0..3u64 {
                let world = &world;
                scope.spawn(move || {
                    let (mut writer, at) = (world.staging.writer(), thread * RANGE);
                    let len = RANGE.min(SIZE - at) as u32;
                    for round in 1..9u8 {
                        // In every second round only the ends of the range.
                        let byte = 10 * (thread as u8 + 1) + round;
                        let whole: &[(u32, u32)] = &[(0, len)];
                        let parts = if round % 2 == 0 { whole } else { &[(0, 100), (len - 5000, 5000)] };
                        let mut bytes = vec![0; len as usize];
                        for &(start, len) in parts {
                            bytes[start as usize..(start + len) as usize].fill(byte);
                        }
                        world.receive(&mut writer, &bytes, at, parts, &[]).unwrap();
                    }
                });
            }
        });
        let content = world.settled();
        let last = |at: u64| 10 * ((at / RANGE) as u8 + 1) + 8;
        assert!((0..).zip(&content).all(|(at, byte)| *byte == last(at)), "on {on}");
    }
}

/// Whether the block at the beginning of a file is in the page cache. Asking may bring it there.
fn is_cached(path: &Path) -> bool {
    let (file, mut byte) = (File::open(path).unwrap(), [0]);
    preadv2(&file, &mut [IoSliceMut::new(&mut byte)], 0, ReadWriteFlags::NOWAIT).is_ok_and(|read| read == 1)
}

#[test]
fn what_is_received_is_on_the_disk_and_not_in_the_page_cache() {
    let received = || {
        let world = World::new(".");
        let can = DirectWrites::try_in(world.dir.path()).work();
        assert!(can, "this test needs a filesystem that can write past the page cache");
        let mut writer = world.staging.writer();
        for (number, at) in (1..).zip((0..SIZE).step_by(RANGE as usize)) {
            world.fill(&mut writer, at, number).unwrap();
        }
        world
    };
    let world = received();
    assert!(!is_cached(&world.staged()), "it was written through the cache");
    assert_eq!(world.staging.read_back(2, &Cancel::new()).unwrap(), SIZE);
    assert!(is_cached(&world.file.1), "a file that was just written is in the cache");

    let world = received();
    world.staging.settle_list(std::slice::from_ref(&world.file), false, Patches::None, 2).unwrap();
    world.staging.sync_all().unwrap();
    assert_eq!(world.staging.read_back(2, &Cancel::new()).unwrap(), SIZE);
    assert!(!is_cached(&world.staged()), "it was read back through the cache");
}

#[test]
fn what_the_disk_has_changed_is_found_while_others_arrive() {
    let world = World::new(".");
    let mut writer = world.staging.writer();
    let damage = |byte: u8| {
        let file = File::options().write(true).open(world.staged()).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[byte], 5000).unwrap();
    };
    let others = |writer: &mut Writer<'_>| (0..BEHIND).try_for_each(|_| world.fill(writer, RANGE, 7));
    world.fill(&mut writer, 0, 1).unwrap();
    damage(9);
    let error = others(&mut writer).unwrap_err();
    assert!(format!("{error:#}").contains("at 0: the staged bytes are not what the donor read"), "{error:#}");

    // It is sent again, and that was in time: only the last version counts.
    let mut writer = world.staging.writer();
    world.fill(&mut writer, 0, 1).unwrap();
    damage(9);
    world.fill(&mut writer, 0, 2).unwrap();
    others(&mut writer).unwrap();
    others(&mut writer).unwrap();
    world.fill(&mut writer, 2 * RANGE, 3).unwrap();
    // What was read back meanwhile is not read again at the end.
    damage(9);
    assert_eq!(world.staging.read_back(2, &Cancel::new()).unwrap(), SIZE);
}

/// It grew since it was listed, by zeros, as InnoDB makes a file longer.
#[test]
fn a_piece_that_ends_in_zeros_beyond_the_file_is_read_at_the_end() {
    let mut world = World::new(".");
    let (at, len) = (3 * RANGE, 2 * DIRECT_MIN);
    let mut bytes = vec![0; RANGE as usize];
    bytes[..len].fill(5);
    let mut writer = world.staging.writer();
    for start in [0, 2 * RANGE] {
        world.fill(&mut writer, start, 7).unwrap();
    }
    world.receive(&mut writer, &bytes, at, &[(0, len as u32)], &[]).unwrap();
    (0..=BEHIND).try_for_each(|_| world.fill(&mut writer, RANGE, 7)).unwrap();
    drop(writer);
    world.file.0.size = at + RANGE;
    world.staging.settle_list(std::slice::from_ref(&world.file), false, Patches::None, 2).unwrap();
    world.staging.read_back(2, &Cancel::new()).unwrap();
    let content = fs::read(world.staged()).unwrap();
    assert!(content.len() as u64 == at + RANGE && content[at as usize..] == bytes);
}

/// Zeros over a previous file that was adopted: nothing is written.
#[test]
fn nothing_that_was_written_is_nothing_to_read_back() {
    let world = World::new(".");
    let mut writer = world.staging.writer();
    let nothing: [Came<'_>; 2] = [(&[], &[]), (&[], &[])];
    assert!(!writer.write(FILE, 0..RANGE, &nothing, RANGE).unwrap());
}

#[test]
fn a_piece_of_which_something_is_still_to_come_is_not_read() {
    let world = World::new(".");
    let mut writer = world.staging.writer();
    let others = |writer: &mut Writer<'_>| (0..=BEHIND).try_for_each(|_| world.fill(writer, RANGE, 7));
    let len = RANGE_BYTES;

    // It is sent again, but for a block that the donor has yet to send.
    world.fill(&mut writer, 0, 1).unwrap();
    world.staging.expect(FILE, 0, len, Some(digest(&vec![2; len as usize])), None).unwrap();
    others(&mut writer).unwrap();

    // The first block is copied from the previous file at the end.
    let (same, sent) = ([(0, 4096)], [(4096, len - 4096)]);
    let mut bytes = vec![3; len as usize];
    bytes[..4096].copy_from_slice(&previous()[..4096]);
    assert!(writer.write_range(FILE, 0, &sent, &bytes[4096..]).unwrap());
    world.staging.hold(FILE, 0..RANGE, &same, Some(world.old.clone())).unwrap();
    world.staging.expect(FILE, 0, len, Some(digest(&bytes)), None).unwrap();
    writer.read_behind(FILE, 0).unwrap();
    others(&mut writer).unwrap();
    world.fill(&mut writer, 2 * RANGE, 4).unwrap();
    assert_eq!(&world.settled()[..len as usize], bytes);
}

/// Only where something may have changed its length is a file looked at again.
#[test]
fn a_file_has_its_last_length_whatever_was_written() {
    let dir = tempfile::tempdir().unwrap();
    for (begun, written, last) in
        [(100, 100, 100), (100, 60, 100), (100, 300, 100), (100, 100, 200), (200, 200, 100)]
    {
        let staging = Staging::new(&MariaDb, dir.path()).unwrap();
        let (place, path, role) = (Place::Datadir, "db/t.frm".to_owned(), FileRole::Table);
        let entry = FileEntry { id: FILE, place, path, size: begun, allocated: begun, role };
        let target = dir.path().join("db/t.frm");
        staging.begin(&entry, &target).unwrap();
        let bytes = vec![7; written as usize];
        staging.writer().write_range(FILE, 0, &[(0, written as u32)], &bytes).unwrap();
        let entry = FileEntry { size: last, ..entry };
        staging.settle_list(&[(entry, target)], false, Patches::None, 1).unwrap();
        let mut expected = bytes;
        expected.resize(last as usize, 0);
        assert_eq!(fs::read(staging.path(FILE).unwrap()).unwrap(), expected, "{begun} {written} {last}");
    }
}
