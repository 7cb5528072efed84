//! What is remembered of a file that was read, and above all what is not.
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use protocol::remembered::{Remembered, Written};

use super::*;
use crate::disk::identity::now;
use crate::remembered::trust::SETTLED;

const KEY: FingerprintKey = [4; 32];
const FILE: FileId = FileId(1);

struct Dir {
    dir: tempfile::TempDir,
    path: PathBuf,
    content: Vec<u8>,
    learner: Learner,
}

/// A file of two ranges, on a filesystem that counts as good.
fn dir(name: &str) -> Dir {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    let content: Vec<u8> = (0..RANGE_BYTES + 5000).map(|n| (n % 251) as u8).collect();
    fs::write(&path, &content).unwrap();
    let learner = Learner::default();
    Dir { dir, path, content, learner }
}

/// As if the file had been left alone for long enough.
fn later() -> i128 {
    now() + SETTLED.as_nanos() as i128 + 1_000_000_000
}

impl Dir {
    fn look(&self) -> Look {
        look(&self.path).unwrap().unwrap()
    }

    fn read(&self) {
        let (first, second) = self.content.split_at(RANGE_BYTES as usize);
        self.learner.read(&KEY, FILE, u64::from(RANGE_BYTES), second);
        self.learner.read(&KEY, FILE, 0, first);
    }

    fn learned(self) -> Remembered {
        let _kept = self.dir;
        let list = self.learner.list.into_inner().unwrap();
        Remembered::parse(list.finish(&Written::default())).unwrap()
    }

    fn is_good(&self) -> bool {
        // On another filesystem nothing is ever remembered, so these tests would prove nothing.
        is_good(&state_of(&self.look()))
    }
}

#[test]
fn an_old_file_is_remembered_as_it_was_read() {
    let dir = dir("t.frm");
    assert!(dir.is_good(), "run the tests with TMPDIR on ext4 or XFS");
    let (before, content) = (dir.look(), dir.content.clone());
    dir.learner.begin(FILE, &dir.path, &before, Some(later()), true, None);
    dir.read();
    let list = dir.learned();
    let record = list.get(list.find(&state_of(&before)).unwrap()).unwrap();
    let (first, second) = content.split_at(RANGE_BYTES as usize);
    for (number, bytes) in [(0, first), (1, second)] {
        let fingerprint = range_fingerprint(&KEY, &block_fingerprints(&KEY, bytes));
        assert_eq!(record.range(number), Some((fingerprint, digest(bytes))));
        assert_eq!(record.len_of(number) as usize, bytes.len());
    }
}

#[test]
fn a_file_that_changed_lately_is_not_remembered() {
    let dir = dir("t.frm");
    dir.learner.begin(FILE, &dir.path, &dir.look(), Some(now()), true, None);
    dir.read();
    assert!(dir.learned().is_empty());
}

#[test]
fn a_file_that_changes_while_it_is_read_is_not_remembered() {
    let changes: [fn(&Dir); 4] = [
        |dir| File::options().write(true).open(&dir.path).unwrap().write_all_at(b"x", 7).unwrap(),
        |dir| fs::rename(&dir.path, dir.path.with_extension("x")).unwrap(),
        // The same name and length, another file: the inode may even be the same one.
        |dir| {
            fs::remove_file(&dir.path).unwrap();
            fs::write(&dir.path, &dir.content).unwrap();
        },
        |dir| File::options().write(true).open(&dir.path).unwrap().set_len(RANGE_BYTES.into()).unwrap(),
    ];
    for (number, change) in changes.iter().enumerate() {
        let dir = dir("t.frm");
        dir.learner.begin(FILE, &dir.path, &dir.look(), Some(later()), true, None);
        std::thread::sleep(std::time::Duration::from_millis(20));
        change(&dir);
        dir.read();
        assert!(dir.learned().is_empty(), "change {number}");
    }
}

#[test]
fn what_was_not_read_whole_is_not_remembered() {
    // A range is missing; one is read in parts; what was read is not what the file contains.
    let reads: [fn(&Dir); 3] = [
        |dir| dir.learner.read(&KEY, FILE, 0, &dir.content[..RANGE_BYTES as usize]),
        |dir| {
            dir.learner.read(&KEY, FILE, 0, &dir.content[..4096]);
            dir.read();
        },
        |dir| {
            dir.learner.give_up(FILE);
            dir.read();
        },
    ];
    for (number, read) in reads.iter().enumerate() {
        let dir = dir("t.frm");
        dir.learner.begin(FILE, &dir.path, &dir.look(), Some(later()), true, None);
        read(&dir);
        assert!(dir.learned().is_empty(), "read {number}");
    }
}

#[test]
fn a_running_servers_mapped_files_are_not_remembered() {
    for (live, expected) in [(true, 0), (false, 1)] {
        let dir = dir("t.MYD");
        dir.learner.begin(FILE, &dir.path, &dir.look(), Some(later()), live, None);
        dir.read();
        assert_eq!(dir.learned().len(), expected, "{live}");
    }
    // A tablespace without a first page is still being created.
    let dir = dir("t.ibd");
    dir.learner.begin(FILE, &dir.path, &dir.look(), Some(later()), false, None);
    dir.read();
    assert!(dir.learned().is_empty());
}
