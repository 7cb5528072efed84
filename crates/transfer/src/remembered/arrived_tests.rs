//! What a joiner remembers of its files right after an install.
use std::path::PathBuf;

use super::*;
use crate::remembered::learn::record_of;
use crate::remembered::testing::{KEY, remembering};

struct Datadir(tempfile::TempDir);

impl Datadir {
    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn finds(&self, path: &Path) -> bool {
        let memory = Memory::open(self.0.path()).unwrap().unwrap();
        memory.find(&look(path).unwrap().unwrap()).is_some()
    }
}

fn state(path: &Path) -> FileState {
    state_of(&look(path).unwrap().unwrap())
}

#[test]
fn what_was_installed_is_remembered_at_once_and_what_a_server_wrote_lately_is_not() {
    let dir = Datadir(tempfile::tempdir().unwrap());
    let (installed, stays, known) =
        (dir.file("t.frm", "installed"), dir.file("u.frm", "stays"), dir.file("v.frm", "known"));
    let (other, longer) = (dir.file("w.frm", "changed since"), dir.file("x.frm", "longer than that"));
    assert!(is_good(&state(&installed)), "run the tests with TMPDIR on ext4 or XFS");
    let memory = remembering(dir.0.path(), &[&known]);
    let mut arrived = Arrived::waiting_in(dir.0.path());
    let mut add = |path: &Path, size, state| {
        arrived.add(path, size, state, None, &record_of(&KEY, b"what it contains"))
    };
    add(&installed, 9, None);
    add(&stays, 5, Some(state(&stays)));
    add(&known, 5, Some(state(&known)));
    add(&other, 13, Some(FileState { changed: 7, ..state(&other) }));
    add(&longer, 7, None);
    // A tablespace whose first page is not one.
    let broken = dir.file("y.ibd", "no page");
    add(&broken, 7, None);
    assert_eq!(arrived.remember(&memory).unwrap().map(|(files, _)| files), Some(2));
    assert!(dir.finds(&installed), "nobody else has written to it");
    assert!(dir.finds(&known), "it was remembered before");
    assert!(!dir.finds(&stays), "a server wrote it a moment ago");
    assert!(!dir.finds(&other) && !dir.finds(&longer) && !dir.finds(&broken));
    // Whatever is written now has another time, however soon.
    std::fs::write(&installed, "INSTALLED").unwrap();
    assert!(!dir.finds(&installed));
}

#[test]
fn nothing_is_remembered_of_a_time_to_come() {
    let dir = Datadir(tempfile::tempdir().unwrap());
    let installed = dir.file("t.frm", "installed");
    let to_come = std::time::SystemTime::now() + Duration::from_secs(3600);
    std::fs::File::options().write(true).open(&installed).unwrap().set_modified(to_come).unwrap();
    let memory = remembering(dir.0.path(), &[]);
    let mut arrived = Arrived::waiting_in(dir.0.path());
    arrived.add(&installed, 9, None, None, &record_of(&KEY, b"installed"));
    assert_eq!(arrived.remember(&memory).unwrap(), None);
    assert!(!dir.finds(&installed));
}

#[test]
fn nothing_is_remembered_of_what_could_not_wait() {
    let dir = Datadir(tempfile::tempdir().unwrap());
    let (installed, known) = (dir.file("t.frm", "installed"), dir.file("u.frm", "known"));
    let memory = remembering(dir.0.path(), &[&known]);
    let mut arrived = Arrived::waiting_in(&dir.0.path().join("none"));
    arrived.add(&installed, 9, None, None, &record_of(&KEY, b"installed"));
    assert_eq!(arrived.remember(&memory).unwrap(), None);
    assert!(!dir.finds(&installed) && dir.finds(&known), "the list of before is left alone");
}
