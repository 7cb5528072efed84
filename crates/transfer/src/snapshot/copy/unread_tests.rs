//! What a donor does not read, and what it reads anyway.
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use protocol::fingerprint::Fingerprint;
use protocol::inventory::{FileEntry, Place};

use super::*;
use crate::cancel::Cancel;
use crate::datadir::testing::page;
use crate::remembered::testing::{misremembering, remembering};
use crate::snapshot::copy::page_file::HEAD_BYTES;
use crate::snapshot::copy::pages::copy;
use crate::snapshot::copy::pages::tests::copier;
use crate::snapshot::copy::small;
use crate::snapshot::sink::SnapshotSink;
use crate::threads::lock;

/// A joiner that has some ranges, whatever their fingerprints are.
#[derive(Default)]
struct Joiner {
    has: Vec<u64>,
    /// Changes a file when the second range is handed over.
    changes: Option<PathBuf>,
    written: Mutex<BTreeMap<u64, usize>>,
    unread: Mutex<Vec<u64>>,
}

impl SnapshotSink for Joiner {
    fn announce(&self, _: &FileEntry) -> Result<()> {
        Ok(())
    }

    fn write(&self, _: FileId, offset: u64, bytes: &[u8]) -> Result<()> {
        lock(&self.written).insert(offset, bytes.len());
        Ok(())
    }

    fn put_remembered(&self, _: FileId, offset: u64, _: u32, _: &Fingerprint) -> Result<bool> {
        if let Some(path) = &self.changes {
            std::thread::sleep(std::time::Duration::from_millis(20));
            File::options().write(true).open(path).unwrap().write_all_at(&[7], 3).unwrap();
        }
        let has = self.has.contains(&(offset >> 20));
        lock(&self.unread).extend(has.then_some(offset >> 20));
        Ok(has)
    }
}

struct Table {
    dir: tempfile::TempDir,
    wanted: Wanted,
}

const RANGES: u64 = 6;

/// A file of six ranges.
fn table(name: &str) -> Table {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    let content: Vec<u8> = match name.ends_with(".ibd") {
        true => {
            (0..RANGES as u32 * 64).flat_map(|number| page(9, number, 77, &[(1000, &[3; 9][..])])).collect()
        }
        false => (0..RANGES << 20).map(|n| (n % 251) as u8).collect(),
    };
    fs::write(&path, &content).unwrap();
    let seen = look(&path).unwrap().unwrap();
    let (size, path_in) = (seen.signature.size, format!("d/{name}"));
    let (place, role) = (Place::Datadir, FileRole::Table);
    let entry = FileEntry { id: FileId(1), place, path: path_in, size, allocated: size, role };
    Table { dir, wanted: Wanted { entry, path, identity: seen.identity, system: None } }
}

impl Table {
    fn memory(&self) -> Memory {
        remembering(self.dir.path(), &[&self.wanted.path])
    }

    fn copy(&self, joiner: &Joiner, memory: &Memory) -> Result<Copied> {
        let (cancel, bytes) = (Cancel::new(), AtomicU64::new(0));
        let copier = Copier { memory: Some(memory), ..copier(joiner, &cancel, &bytes) };
        if !self.wanted.path.ends_with("t.ibd") {
            let copied = small::copy(copier, &self.wanted)?.map(|(bytes, _)| bytes);
            let (space, first_lsn, head, fresh) = (None, None, Vec::new(), Vec::new());
            return Ok(Copied { id: FileId(1), bytes: copied, space, first_lsn, head, fresh });
        }
        let (copied, damage) = copy(copier, std::slice::from_ref(&self.wanted))?;
        assert!(damage.is_empty());
        Ok(copied[0].clone())
    }

    /// The ranges that are read although they are remembered.
    fn checked(&self, memory: &Memory) -> Vec<u64> {
        let at = memory.find(&look(&self.wanted.path).unwrap().unwrap()).unwrap();
        (0..RANGES).filter(|range| memory.is_checked(at, *range as u32)).collect()
    }
}

fn written(joiner: &Joiner) -> Vec<u64> {
    lock(&joiner.written).keys().map(|offset| offset >> 20).collect()
}

#[test]
fn what_the_joiner_has_is_not_read() {
    for name in ["t.ibd", "t.MAD"] {
        let table = table(name);
        let (memory, joiner) = (table.memory(), Joiner { has: (0..RANGES).collect(), ..Joiner::default() });
        let checked = table.checked(&memory);
        let copied = table.copy(&joiner, &memory).unwrap();
        assert!(!checked.is_empty() && checked.len() < RANGES as usize, "{checked:?}");
        assert_eq!(copied.bytes, Some(RANGES << 20), "{name}");
        if name == "t.ibd" {
            assert_eq!(written(&joiner), checked, "only these are read");
            let pages = HEAD_BYTES / 16384;
            assert_eq!((copied.space, copied.head.len()), (Some(SpaceId(9)), pages));
            assert_eq!(copied.first_lsn, Some(Lsn(77)));
            assert_eq!(copied.fresh, [(Lsn(0), 0)]);
        } else {
            // Such a file is read from the first range on that must be read.
            assert_eq!(written(&joiner), (checked[0]..RANGES).collect::<Vec<_>>());
        }
        memory.save().unwrap().unwrap();
        let again = Memory::open(table.dir.path()).unwrap().unwrap();
        assert!(again.find(&look(&table.wanted.path).unwrap().unwrap()).is_some(), "it is remembered on");
    }
}

#[test]
fn only_what_the_joiner_lacks_is_read() {
    let table = table("t.ibd");
    let (memory, joiner) = (table.memory(), Joiner { has: vec![0, 1, 3, 5], ..Joiner::default() });
    let checked = table.checked(&memory);
    let copied = table.copy(&joiner, &memory).unwrap();
    let expected: Vec<u64> = (0..RANGES).filter(|n| [2, 4].contains(n) || checked.contains(n)).collect();
    assert_eq!((written(&joiner), copied.bytes), (expected, Some(RANGES << 20)));
    assert!(lock(&joiner.written).values().all(|len| *len == 1 << 20));
    // Ranges that were read later do not make those between them any fresher.
    assert_eq!(copied.fresh, [(Lsn(0), 0)]);
}

#[test]
fn a_changed_file_is_read() {
    for name in ["t.ibd", "t.MAD"] {
        let table = table(name);
        let memory = table.memory();
        std::thread::sleep(std::time::Duration::from_millis(20));
        // The same byte: the state of a file tells that it was written to, and not what.
        let byte = fs::read(&table.wanted.path).unwrap()[1000];
        File::options().write(true).open(&table.wanted.path).unwrap().write_all_at(&[byte], 1000).unwrap();
        let joiner = Joiner { has: (0..RANGES).collect(), ..Joiner::default() };
        table.copy(&joiner, &memory).unwrap();
        assert!(lock(&joiner.unread).is_empty(), "{name}");
        assert_eq!(written(&joiner), (0..RANGES).collect::<Vec<_>>());
    }
}

#[test]
fn what_is_changed_while_it_is_handed_over_is_read_from_there_on() {
    let table = table("t.MAD");
    let memory = table.memory();
    let (has, changes) = ((0..RANGES).collect(), Some(table.wanted.path.clone()));
    let joiner = Joiner { has, changes, ..Joiner::default() };
    table.copy(&joiner, &memory).unwrap();
    let unread = lock(&joiner.unread).clone();
    assert!(unread.is_empty() || unread == [0], "{unread:?}");
    assert_eq!(written(&joiner), (unread.len() as u64..RANGES).collect::<Vec<_>>());
}

#[test]
fn a_wrong_fingerprint_is_found_and_everything_is_forgotten() {
    for name in ["t.ibd", "t.MAD"] {
        let table = table(name);
        let memory = misremembering(table.dir.path(), &[&table.wanted.path]);
        let joiner = Joiner { has: (0..RANGES).collect(), ..Joiner::default() };
        let error = table.copy(&joiner, &memory).unwrap_err();
        let declined = error.downcast_ref::<Declined>();
        assert!(
            matches!(declined, Some(Declined::WrongFingerprints(what)) if what.contains(name)),
            "{error:#}"
        );
        assert!(memory.is_wrong() && !table.dir.path().join("rejoin-fingerprints").exists());
        // The next attempt reads everything.
        let joiner = Joiner { has: (0..RANGES).collect(), ..Joiner::default() };
        table.copy(&joiner, &memory).unwrap();
        assert_eq!(written(&joiner), (0..RANGES).collect::<Vec<_>>());
    }
}

/// What is remembered was whole. So a corrupt range of a file whose state is unchanged is one that the disk has lost, whether
/// corrupt pages are permitted or not.
#[test]
fn a_remembered_range_that_is_corrupt_now_is_wrong() {
    for allow_corrupt in [false, true] {
        let table = table("t.ibd");
        let file = File::options().write(true).open(&table.wanted.path).unwrap();
        (0..RANGES)
            .for_each(|range| file.write_all_at(&[0xee; 64], (range << 20) + 16384 * 3 + 500).unwrap());
        let memory = misremembering(table.dir.path(), &[&table.wanted.path]);
        let (joiner, cancel, bytes) =
            (Joiner { has: (0..RANGES).collect(), ..Joiner::default() }, Cancel::new(), AtomicU64::new(0));
        let copier = Copier { memory: Some(&memory), allow_corrupt, ..copier(&joiner, &cancel, &bytes) };
        let error = copy(copier, std::slice::from_ref(&table.wanted)).unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(Declined::WrongFingerprints(_))), "{error:#}");
        assert!(memory.is_wrong());
    }
}
