//! When a list counts, and what is kept of it.
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use protocol::remembered::FileState;

use super::*;
use crate::remembered::testing::{KEY, misremembering, plant, plant_in_state, remembering};

struct Datadir {
    dir: tempfile::TempDir,
    file: PathBuf,
}

fn datadir() -> Datadir {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.frm");
    fs::write(&file, "what is in a file").unwrap();
    Datadir { dir, file }
}

impl Datadir {
    fn at(&self) -> &Path {
        self.dir.path()
    }

    fn found(&self, memory: &Memory) -> bool {
        memory.find(&look(&self.file).unwrap().unwrap()).is_some()
    }

    fn has_list(&self) -> bool {
        self.at().join(store::LIST).exists()
    }
}

#[test]
fn a_file_is_recalled_in_its_state_only() {
    let changes: [fn(&Path); 5] = [
        |file| fs::write(file, "what is in a File").unwrap(),
        |file| fs::write(file, "longer than it was before").unwrap(),
        // The times are set back: the time of the change is not.
        |file| {
            let before = fs::metadata(file).unwrap().modified().unwrap();
            let open = fs::File::options().write(true).open(file).unwrap();
            open.set_modified(before).unwrap();
        },
        |file| {
            let content = fs::read(file).unwrap();
            fs::remove_file(file).unwrap();
            fs::write(file, content).unwrap();
        },
        // Renamed and back.
        |file| {
            fs::rename(file, file.with_extension("x")).unwrap();
            fs::rename(file.with_extension("x"), file).unwrap();
        },
    ];
    let here = datadir();
    assert!(here.found(&remembering(here.at(), &[&here.file])), "nothing has changed");
    for (number, change) in changes.iter().enumerate() {
        let here = datadir();
        let memory = remembering(here.at(), &[&here.file]);
        std::thread::sleep(std::time::Duration::from_millis(20));
        change(&here.file);
        assert!(!here.found(&memory), "change {number}");
    }
}

/// Does something to a file and then sets the time of its last change back, as `cp -p`, `tar` and `rsync -t` do.
fn with_its_time(file: &Path, change: impl FnOnce(&Path)) {
    let before = fs::metadata(file).unwrap().modified().unwrap();
    change(file);
    fs::File::options().write(true).open(file).unwrap().set_modified(before).unwrap();
    assert_eq!(fs::metadata(file).unwrap().modified().unwrap(), before);
}

/// Another content of the same length.
fn other(file: &Path) -> Vec<u8> {
    fs::read(file).unwrap().iter().map(|byte| byte ^ 1).collect()
}

/// The name, the length and the time of its last change are those of before; the content is not.
#[test]
fn a_file_that_was_replaced_or_restored_is_read_whatever_its_time_says() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 5] = [
        ("TRUNCATE TABLE: made anew, perhaps with the same inode", |file| {
            let content = other(file);
            fs::remove_file(file).unwrap();
            fs::write(file, content).unwrap();
        }),
        ("ALTER TABLE, OPTIMIZE: another file gets its name", |file| {
            let altered = file.with_file_name("#sql-alter-1-2.frm");
            fs::write(&altered, other(file)).unwrap();
            fs::rename(&altered, file).unwrap();
        }),
        ("DISCARD, a copy of the file, IMPORT TABLESPACE: pages are written in place", |file| {
            let exported = file.with_extension("exported");
            let copied = std::process::Command::new("cp").arg("-p").args([file, exported.as_path()]).status();
            assert!(copied.unwrap().success());
            fs::remove_file(file).unwrap();
            fs::rename(&exported, file).unwrap();
            fs::File::options().write(true).open(file).unwrap().write_all_at(b"I", 3).unwrap();
        }),
        ("IMPORT TABLESPACE of the file itself, which was moved away and back", |file| {
            let away = file.with_extension("away");
            fs::rename(file, &away).unwrap();
            fs::rename(&away, file).unwrap();
            fs::File::options().write(true).open(file).unwrap().write_all_at(b"I", 3).unwrap();
        }),
        ("restored from a backup in place (rsync --inplace -t)", |file| {
            fs::File::options().write(true).open(file).unwrap().write_all_at(&other(file), 0).unwrap();
        }),
    ];
    for (what, change) in changes {
        let here = datadir();
        let memory = remembering(here.at(), &[&here.file]);
        let before = look(&here.file).unwrap().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        with_its_time(&here.file, change);
        let after = look(&here.file).unwrap().unwrap();
        assert_eq!(
            (after.modified, after.signature.size),
            (before.modified, before.signature.size),
            "{what}"
        );
        assert!(here.found(&remembering(here.at(), &[&here.file])), "{what}: it can be remembered again");
        assert!(!here.found(&memory), "{what}");
    }
}

/// A filesystem that was mounted again has another mount, and mostly another device; a restored volume has one or both, although
/// everything that the inode says is as before.
#[test]
fn every_part_of_the_state_counts() {
    type Part = fn(&mut FileState);
    let parts: [(&str, Part); 8] = [
        ("another major number of the device", |state| state.device.0 += 1),
        ("another minor number of the device", |state| state.device.1 += 1),
        ("the same device, mounted again", |state| state.mount += 1),
        ("another inode", |state| state.inode += 1),
        ("the same inode, given to another file", |state| state.birth += 1),
        ("another length", |state| state.size -= 1),
        ("another mtime", |state| state.modified += 1),
        ("another ctime", |state| state.changed += 1),
    ];
    let now = trust::moment().unwrap();
    for (what, part) in parts {
        let here = datadir();
        plant_in_state(here.at(), &[&here.file], &now, part, |_| {});
        let memory = Memory::open(here.at()).unwrap().unwrap();
        assert!(memory.files() == 1 && !here.found(&memory), "{what}");
    }
}

#[test]
fn a_copied_datadir_remembers_nothing() {
    let (here, there) = (datadir(), tempfile::tempdir().unwrap());
    drop(remembering(here.at(), &[&here.file]));
    for name in [store::LIST, store::KEY, "t.frm"] {
        let copied =
            std::process::Command::new("cp").arg("-a").arg(here.at().join(name)).arg(there.path()).status();
        assert!(copied.unwrap().success());
    }
    let memory = Memory::open(there.path()).unwrap().unwrap();
    assert_eq!(memory.files(), 1);
    assert!(memory.find(&look(&there.path().join("t.frm")).unwrap().unwrap()).is_none());
}

#[test]
fn nothing_counts_after_another_boot_or_a_clock_that_was_set_back() {
    let now = trust::moment().unwrap();
    let second = 1_000_000_000;
    let lists = [
        (Written { boot: [9; 16], ..now }, "another boot"),
        (Written { at: now.at + 3600 * second, ..now }, "written in the future"),
        (Written { ahead: now.ahead + second, ..now }, "the clock was set back since"),
    ];
    for (written, why) in lists {
        let here = datadir();
        plant(here.at(), &[&here.file], &written, |_| {});
        let memory = Memory::open(here.at()).unwrap().unwrap();
        assert!(memory.files() == 0 && !here.found(&memory), "{why}");
    }
    let here = datadir();
    plant(here.at(), &[&here.file], &now, |_| {});
    assert!(here.found(&Memory::open(here.at()).unwrap().unwrap()));
}

#[test]
fn another_key_forgets() {
    let here = datadir();
    drop(remembering(here.at(), &[&here.file]));
    assert!(here.found(&Memory::with_key(here.at(), KEY).unwrap().unwrap()));
    assert!(!here.found(&Memory::with_key(here.at(), [7; 32]).unwrap().unwrap()) && !here.has_list());
}

#[test]
fn what_was_seen_in_its_state_is_remembered_on() {
    let here = datadir();
    let other = here.at().join("gone.frm");
    fs::write(&other, "a table that is dropped").unwrap();
    let memory = remembering(here.at(), &[&here.file, &other]);
    let at = memory.find(&look(&here.file).unwrap().unwrap()).unwrap();
    memory.keep(at);
    memory.keep(at);
    assert_eq!(memory.save().unwrap(), Some((1, 17)));
    let memory = Memory::open(here.at()).unwrap().unwrap();
    assert!(here.found(&memory) && memory.files() == 1);
}

#[test]
fn what_is_wrong_is_forgotten_for_good() {
    let here = datadir();
    let memory = misremembering(here.at(), &[&here.file]);
    let at = memory.find(&look(&here.file).unwrap().unwrap()).unwrap();
    memory.keep(at);
    let said = memory.is_wrong_about(&here.file, 0);
    assert!(said.starts_with(WRONG) && said.contains("t.frm at 0"), "{said}");
    assert!(memory.is_wrong() && !here.found(&memory) && !here.has_list());
    assert_eq!(memory.save().unwrap(), None);
    assert!(!here.has_list());
}

#[test]
fn a_list_that_another_program_wrote_meanwhile_is_left_alone() {
    let here = datadir();
    let memory = remembering(here.at(), &[&here.file]);
    let other = Memory::open(here.at()).unwrap().unwrap();
    other.is_wrong_about(&here.file, 0);
    // What this one recalled is what the other one found wrong.
    memory.keep(memory.find(&look(&here.file).unwrap().unwrap()).unwrap());
    assert_eq!(memory.save().unwrap(), None);
    assert!(!here.has_list());
}
