//! Receiving into `.rejoin/`.
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use protocol::inventory::{FileEntry, FileId, FileRole, Place};

use crate::failure::{Kind, kind_of};
use crate::flavor::mariadb::MariaDb;
use crate::install::files::Disk;
use crate::install::in_place;
use crate::install::kept::{Status, allocated, status};
use crate::install::roots;
use crate::install::run::install;
use crate::install::tests::world::plan_of_staged;
use crate::install::tidy::{release, remove_leftovers};
use crate::receive::staged::OPEN_FILES;
use crate::receive::staging::{Patches, Staging};

fn entry(id: u32, path: &str, size: u64, role: FileRole) -> FileEntry {
    FileEntry { id: FileId(id), place: Place::Datadir, path: path.to_owned(), size, allocated: size, role }
}

fn targets(datadir: &Path, count: u32, size: u64) -> Vec<(FileEntry, PathBuf)> {
    let one = |id| {
        let path = format!("db/t{id}.ibd");
        (entry(id, &path, size, FileRole::Table), datadir.join(&path))
    };
    (0..count).map(one).collect()
}

/// All files begun, nothing received.
fn staging(datadir: &Path, targets: &[(FileEntry, PathBuf)]) -> Staging {
    let staging = Staging::new(&MariaDb, datadir).unwrap();
    targets.iter().for_each(|(entry, target)| staging.begin(entry, target).unwrap());
    staging
}

#[test]
fn several_threads_write_more_files_than_they_hold_open() {
    let dir = tempfile::tempdir().unwrap();
    let count = 3 * OPEN_FILES as u32;
    let targets = targets(dir.path(), count, 64 << 10);
    let staging = staging(dir.path(), &targets);
    std::thread::scope(|scope| {
        for worker in 0..4u32 {
            let staging = &staging;
            scope.spawn(move || {
                let mut writer = staging.writer();
                for round in 0..4u64 {
                    for file in (0..count).filter(|f| (f + round as u32) % 4 == worker) {
                        let byte = [file as u8 + 1; 200];
                        writer
                            .write_range(FileId(file), round << 14, &[(0, 100), (4096, 100)], &byte)
                            .unwrap();
                    }
                }
            });
        }
    });
    staging.sync_all().unwrap();
    for file in 0..count {
        let content = fs::read(staging.path(FileId(file)).unwrap()).unwrap();
        assert_eq!(content.len(), 64 << 10);
        for (offset, byte) in content.iter().enumerate() {
            let written = offset % (16 << 10) < 100 || (4096..4196).contains(&(offset % (16 << 10)));
            assert_eq!(*byte, if written { file as u8 + 1 } else { 0 }, "file {file} at {offset}");
        }
    }
    // Nothing of the datadir was touched, not even an empty database.
    assert!(!dir.path().join("db").exists());
}

#[test]
fn what_is_zero_takes_no_room_and_may_become_zero_again() {
    let dir = tempfile::tempdir().unwrap();
    let staging = staging(dir.path(), &targets(dir.path(), 2, 8 << 20));
    let mut writer = staging.writer();
    writer.write_range(FileId(0), 1 << 20, &[(0, 1 << 20)], &vec![7; 1 << 20]).unwrap();
    writer.write_range(FileId(0), 2 << 20, &[], &[]).unwrap();
    let path = staging.path(FileId(0)).unwrap();
    assert!(fs::metadata(&path).unwrap().blocks() * 512 <= 2 << 20);
    writer.clear_range(FileId(0), (1 << 20) + 5, (1 << 20) - 10).unwrap();
    staging.sync_all().unwrap();
    let content = fs::read(&path).unwrap();
    assert_eq!(content.iter().filter(|b| **b == 7).count(), 10);
    // A file to which nothing was written has its length.
    assert_eq!(fs::metadata(staging.path(FileId(1)).unwrap()).unwrap().len(), 8 << 20);
}

#[test]
fn what_does_not_fit_is_the_peers_fault() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = targets(dir.path(), 1, 4096);
    let link = FileRole::Link { target: "/elsewhere".to_owned() };
    files.push((entry(1, "db", 0, link), dir.path().join("db")));
    let staging = staging(dir.path(), &files);
    let mut writer = staging.writer();
    let mut refused = |file, offset, parts: &[(u32, u32)], length| {
        let error = writer.write_range(FileId(file), offset, parts, &vec![1; length]).unwrap_err();
        assert_eq!(kind_of(&error), Kind::Peer, "{error:#}");
    };
    refused(0, u64::MAX, &[(0, 100)], 100);
    refused(0, 0, &[(0, 100)], 99);
    refused(0, 0, &[(0, 100), (50, 10)], 110);
    refused(7, 0, &[(0, 1)], 1);
    refused(1, 0, &[], 0);
    assert!(staging.sync_all().is_err(), "the link is missing");
    staging.settle_list(&files, true, Patches::Kept, 2).unwrap();
    staging.sync_all().unwrap();
    assert_eq!(fs::read_link(staging.path(FileId(1)).unwrap()).unwrap(), Path::new("/elsewhere"));
    let twice = [files[0].clone(), files[0].clone()];
    assert_eq!(kind_of(&staging.settle_list(&twice, true, Patches::Kept, 2).unwrap_err()), Kind::Peer);
}

#[test]
fn the_last_word_decides_names_lengths_and_what_counts() {
    let dir = tempfile::tempdir().unwrap();
    let files = targets(dir.path(), 3, 8192);
    let staging = staging(dir.path(), &files);
    for id in 0..3 {
        staging.writer().write_range(FileId(id), 0, &[(0, 8192)], &[1; 8192]).unwrap();
    }
    let dropped = staging.path(FileId(1)).unwrap();
    // The first was renamed and truncated, the second dropped, the third grew; a fourth came, empty.
    let last = [(0, "db/renamed.ibd", 4096), (2, "db/t2.ibd", 12288), (3, "db/new.frm", 0)]
        .map(|(id, path, size)| (entry(id, path, size, FileRole::Table), dir.path().join(path)));
    staging.settle_list(&last, true, Patches::Kept, 2).unwrap();
    staging.sync_all().unwrap();
    assert!(!dropped.exists());
    let placed = staging.staged();
    let found: Vec<_> = placed.iter().map(|p| (p.target.clone(), fs::read(&p.staged).unwrap())).collect();
    let grown = [vec![1; 8192], vec![0; 4096]].concat();
    let wanted = [("db/renamed.ibd", vec![1; 4096]), ("db/t2.ibd", grown), ("db/new.frm", vec![])];
    assert_eq!(found, wanted.map(|(path, bytes)| (dir.path().join(path), bytes)));
}

#[test]
fn what_comes_again_replaces_what_came() {
    let dir = tempfile::tempdir().unwrap();
    let staging = staging(dir.path(), &targets(dir.path(), 1, 65536));
    let mut writer = staging.writer();
    writer.write_range(FileId(0), 0, &[(0, 65536)], &[1; 65536]).unwrap();
    let parts = [(4096, 4096), (16384, 100)];
    writer.write_range(FileId(0), 0, &parts, &[2; 4196]).unwrap();
    writer.clear_gaps(FileId(0), 0, 32768, &parts).unwrap();
    let mut wanted = vec![0; 32768];
    wanted[4096..8192].fill(2);
    wanted[16384..16484].fill(2);
    wanted.extend([1; 32768]);
    assert!(fs::read(staging.path(FileId(0)).unwrap()).unwrap() == wanted);
}

#[test]
fn leftovers_of_an_earlier_transfer_go() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(status(&Disk, dir.path(), allocated).unwrap(), Status::Nothing);
    let first = staging(dir.path(), &targets(dir.path(), 3, 10));
    first.sync_all().unwrap();
    assert_eq!(status(&Disk, dir.path(), allocated).unwrap(), Status::Staging { files: 3 });
    let wanted = targets(dir.path(), 1, 20);
    let second = staging(dir.path(), &wanted);
    // They wait to be taken over until it is known what is wanted.
    assert_eq!(status(&Disk, dir.path(), allocated).unwrap(), Status::Staging { files: 3 });
    second.settle_list(&wanted, true, Patches::Kept, 2).unwrap();
    second.sync_all().unwrap();
    assert_eq!(status(&Disk, dir.path(), allocated).unwrap(), Status::Staging { files: 1 });
    in_place::note_ran_full(&Disk, dir.path()).unwrap();
    remove_leftovers(&Disk, dir.path()).unwrap();
    assert_eq!(status(&Disk, dir.path(), allocated).unwrap(), Status::Nothing);
    assert!(!dir.path().join(".rejoin").exists() && !dir.path().join("#sql-rejoin").exists());
}

#[test]
fn a_received_state_is_installed_on_its_filesystems() {
    let dir = tempfile::tempdir().unwrap();
    let shm = Path::new("/dev/shm");
    let other = if shm.is_dir() { tempfile::tempdir_in(shm).unwrap() } else { tempfile::tempdir().unwrap() };
    let mut targets = targets(dir.path(), 2, 4096);
    let system = entry(8, "ibdata1", 4096, FileRole::SystemTablespace { index: 0 });
    targets.push((system, dir.path().join("system/ibdata1")));
    let mut elsewhere =
        entry(9, "/anywhere/db/e.ibd", 4096, FileRole::TableElsewhere { owner: "db/e.isl".into() });
    elsewhere.place = Place::External;
    targets.push((elsewhere, other.path().join("missing/db/e.ibd")));
    let staging = staging(dir.path(), &targets);
    for id in [0, 1, 8, 9] {
        staging.writer().write_range(FileId(id), 0, &[(0, 4)], b"data").unwrap();
    }
    staging.sync_all().unwrap();
    let home = dir.path().to_path_buf();
    let plan = plan_of_staged(&staging, &home, &[], &[]);
    install(&Disk, &plan).unwrap();
    for (_, target) in &targets {
        assert_eq!(&fs::read(target).unwrap()[..4], b"data");
    }
    assert!(fs::read_dir(home.join("#sql-rejoin")).unwrap().count() == 2, "roots.json and installed.json");
}

/// A crash must not leave a staging directory that nobody finds again.
#[test]
fn what_is_staged_beside_a_log_directory_elsewhere_is_written_down_first() {
    let dir = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir_in("/dev/shm").expect("this test needs /dev/shm");
    let staging = Staging::new(&MariaDb, dir.path()).unwrap();
    let stage = staging.stage_for(&other.path().join("log/master.state")).unwrap();
    fs::write(stage.join("binlog.state"), "0-1-2").unwrap();
    let known = roots::remembered(&Disk, dir.path()).unwrap();
    assert!(known.iter().any(|root| stage.starts_with(root)), "{stage:?} is in none of {known:?}");
    // The end of receiving syncs these.
    assert!(staging.roots().all().iter().any(|root| stage.starts_with(root)));
    staging.sync_all().unwrap();
    drop(staging);
    remove_leftovers(&Disk, dir.path()).unwrap();
    assert!(!stage.exists());
}

/// A table that was renamed while it was sent is renamed here too: not copied, and its holes stay.
#[test]
fn a_table_that_was_renamed_meanwhile_is_not_copied() {
    let dir = tempfile::tempdir().unwrap();
    let began = targets(dir.path(), 1, 64 << 20);
    let staging = staging(dir.path(), &began);
    staging.writer().write_range(FileId(0), 32 << 20, &[(0, 4)], b"data").unwrap();
    let before = fs::metadata(staging.path(FileId(0)).unwrap()).unwrap();
    let renamed = entry(0, "db/other.ibd", 64 << 20, FileRole::Table);
    let target = dir.path().join("db/other.ibd");
    staging.settle_list(&[(renamed, target)], false, Patches::None, 1).unwrap();
    let after = fs::metadata(staging.path(FileId(0)).unwrap()).unwrap();
    assert_eq!((after.ino(), after.len()), (before.ino(), 64 << 20));
    assert!(after.blocks() * 512 < 1 << 20, "{} blocks", after.blocks());
}

/// A private server, or mariadb-backup, that ended with our program.
#[test]
fn what_other_programs_left_is_removed_and_counted() {
    let (dir, far) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let root = far.path().join(".rejoin");
    let leave = || {
        roots::remember(&Disk, dir.path(), std::slice::from_ref(&root)).unwrap();
        let own = dir.path().join(".rejoin");
        for at in [own.join("server/data/db"), own.join("prepare/db"), root.join("server/undo")] {
            fs::create_dir_all(&at).unwrap();
            fs::write(at.join("file"), [1; 8192]).unwrap();
        }
    };
    leave();
    // Before the free space is determined.
    roots::clear_after_programs(&Disk, dir.path()).unwrap();
    assert!(!dir.path().join(".rejoin/server").exists() && !dir.path().join(".rejoin/prepare").exists());
    assert!(!root.join("server").exists());
    leave();
    let removed = release(&Disk, dir.path()).unwrap();
    assert!(removed.files == 3 && removed.bytes >= 3 * 8192, "{removed:?}");
    assert!(!dir.path().join(".rejoin").exists() && !root.exists());
}
