//! Files of which the old state has a part, or all.
use std::fs;
use std::path::{Path, PathBuf};

use protocol::inventory::{FileEntry, FileId, FileRole, Place};

use crate::disk::filesystem::shares_bytes;
use crate::disk::identity::look;
use crate::failure::{Kind, kind_of};
use crate::flavor::mariadb::MariaDb;
use crate::install::files::Disk;
use crate::install::plan::{Class, InstallPlan, OldKind};
use crate::install::rollback::{possible, rollback};
use crate::install::run::install;
use crate::install::tests::world::plan_of_staged;
use crate::receive::reusable::Old;
use crate::receive::staging::{Patches, Staging};

const SIZE: u64 = 64 << 10;

fn entry(id: u32, path: &str, role: FileRole) -> FileEntry {
    FileEntry {
        id: FileId(id),
        place: Place::Datadir,
        path: path.to_owned(),
        size: SIZE,
        allocated: SIZE,
        role,
    }
}

fn old(path: &Path) -> Old {
    Old::new(path.to_owned(), look(path).unwrap().unwrap())
}

/// A system tablespace and three tables: one that is the same, one that is half the same, one that was renamed.
struct World {
    dir: tempfile::TempDir,
    files: Vec<(FileEntry, PathBuf)>,
    managed: Vec<(PathBuf, OldKind)>,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("db")).unwrap();
        let system = FileRole::SystemTablespace { index: 0 };
        let mut files = vec![(entry(8, "ibdata1", system), dir.path().join("ibdata1"))];
        for (id, path) in [(0, "db/same.ibd"), (1, "db/half.ibd"), (2, "db/newname.ibd")] {
            files.push((entry(id, path, FileRole::Table), dir.path().join(path)));
        }
        let mut managed = Vec::new();
        for (path, kind) in [
            ("ibdata1", OldKind::Data(Class::System(0))),
            ("db/same.ibd", OldKind::Data(Class::Table)),
            ("db/half.ibd", OldKind::Data(Class::Table)),
            ("db/oldname.ibd", OldKind::Data(Class::Table)),
        ] {
            let path = dir.path().join(path);
            fs::write(&path, vec![1; SIZE as usize]).unwrap();
            managed.push((path, kind));
        }
        World { dir, files, managed }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn received(&self) -> Staging {
        let staging = Staging::new(&MariaDb, self.dir.path()).unwrap();
        self.files.iter().for_each(|(entry, target)| staging.begin(entry, target).unwrap());
        let whole = [(0, SIZE as u32)];
        staging.writer().write_range(FileId(8), 0, &whole, &[2; SIZE as usize]).unwrap();
        staging.hold(FileId(0), 0..SIZE, &whole, Some(old(&self.at("db/same.ibd")))).unwrap();
        let half = SIZE as u32 / 2;
        staging.hold(FileId(1), 0..SIZE, &[(0, half)], Some(old(&self.at("db/half.ibd")))).unwrap();
        staging.writer().write_range(FileId(1), 0, &[(half, half)], &vec![2; half as usize]).unwrap();
        staging.hold(FileId(2), 0..SIZE, &whole, Some(old(&self.at("db/oldname.ibd")))).unwrap();
        staging
    }

    fn plan(&self, staging: &Staging, may_stay: bool) -> InstallPlan {
        let unchanged = staging.settle_list(&self.files, may_stay, Patches::Kept, 2).unwrap();
        staging.sync_all().unwrap();
        plan_of_staged(staging, self.dir.path(), &self.managed, &unchanged)
    }

    fn content(&self) -> Vec<(&str, Vec<u8>)> {
        ["ibdata1", "db/same.ibd", "db/half.ibd", "db/newname.ibd", "db/oldname.ibd"]
            .into_iter()
            .filter_map(|path| Some((path, fs::read(self.at(path)).ok()?)))
            .collect()
    }

    fn is_new(&self) {
        let half = [vec![1; SIZE as usize / 2], vec![2; SIZE as usize / 2]].concat();
        let (ones, twos) = (vec![1; SIZE as usize], vec![2; SIZE as usize]);
        let wanted = [
            ("ibdata1", twos),
            ("db/same.ibd", ones.clone()),
            ("db/half.ibd", half),
            ("db/newname.ibd", ones),
        ];
        assert!(self.content() == wanted);
    }

    fn undo(&self) -> anyhow::Result<()> {
        let mut now = self.managed.clone();
        now.push((self.at("db/newname.ibd"), OldKind::Data(Class::Table)));
        rollback(&Disk, self.dir.path(), &now, |_| Ok(None), 2).map(drop)
    }
}

#[test]
fn what_is_the_same_stays_and_the_rest_is_put_together() {
    let world = World::new();
    let before = world.content();
    let plan = world.plan(&world.received(), true);
    assert_eq!(plan.unchanged.iter().map(|s| &s.path).collect::<Vec<_>>(), [&world.at("db/same.ibd")]);
    install(&Disk, &plan).unwrap();
    world.is_new();
    assert!(possible(&Disk, world.dir.path()).unwrap().is_ok());
    world.undo().unwrap();
    assert!(world.content() == before);
}

#[test]
fn what_stayed_and_was_written_to_since_cannot_be_put_back() {
    let world = World::new();
    install(&Disk, world.plan(&world.received(), true)).unwrap();
    fs::write(world.at("db/same.ibd"), vec![3; SIZE as usize]).unwrap();
    assert!(possible(&Disk, world.dir.path()).unwrap().is_err());
    let error = world.undo().unwrap_err();
    assert_eq!(kind_of(&error), Kind::Refused);
    assert!(error.to_string().contains("same.ibd"), "{error:#}");
    // Where whole copies are kept it can.
    let world = World::new();
    let before = world.content();
    let plan = world.plan(&world.received(), false);
    assert!(plan.unchanged.is_empty());
    install(&Disk, &plan).unwrap();
    world.is_new();
    fs::write(world.at("db/same.ibd"), vec![3; SIZE as usize]).unwrap();
    world.undo().unwrap();
    assert!(world.content() == before);
}

#[test]
fn a_later_word_about_a_range_counts() {
    let world = World::new();
    let staging = world.received();
    let same = old(&world.at("db/same.ibd"));
    // Sent after all, then the same again in part.
    staging.hold(FileId(0), 0..SIZE, &[], Some(same.clone())).unwrap();
    staging.writer().write_range(FileId(0), 0, &[(0, SIZE as u32)], &[5; SIZE as usize]).unwrap();
    staging.hold(FileId(0), 0..SIZE, &[(4096, 4096)], Some(same.clone())).unwrap();
    assert!(staging.settle_list(&world.files, true, Patches::Kept, 2).unwrap().is_empty());
    let content = fs::read(staging.path(FileId(0)).unwrap()).unwrap();
    assert!(content[..4096].iter().all(|b| *b == 5) && content[8192..].iter().all(|b| *b == 5));
    assert!(content[4096..8192].iter().all(|b| *b == 1));
}

#[test]
fn an_old_file_that_changes_meanwhile_is_not_taken_from() {
    let world = World::new();
    let staging = world.received();
    fs::write(world.at("db/half.ibd"), vec![9; SIZE as usize]).unwrap();
    let error = staging.settle_list(&world.files, true, Patches::Kept, 2).unwrap_err();
    assert!(format!("{error:#}").contains("changed while it was compared"), "{error:#}");
    let unknown = staging.hold(FileId(8), 0..SIZE, &[(0, 4096)], None);
    assert!(unknown.is_err(), "a base that was never looked at");
}

#[test]
fn what_a_changed_file_has_of_the_old_one_is_copied_meanwhile() {
    let world = World::new();
    let staging = world.received();
    let mut writer = staging.writer();
    writer.write(FileId(0), 0..SIZE, &[], 0).unwrap();
    assert!(!staging.path(FileId(0)).unwrap().exists(), "it may be the old file");
    writer.write(FileId(1), 0..8192, &[], 0).unwrap();
    let half = staging.path(FileId(1)).unwrap();
    let ones = || fs::read(&half).unwrap().iter().filter(|byte| **byte == 1).count() as u64;
    assert_eq!(ones(), 0, "not known to differ yet");
    let base = old(&world.at("db/half.ibd"));
    staging.hold(FileId(1), 4096..12288, &[(0, 4096), (4196, 3996)], Some(base)).unwrap();
    writer.write(FileId(1), 4096..12288, &[(&[(4096, 100)], &[7; 100])], 100).unwrap();
    // What can be shared is, in the end.
    let there = if shares_bytes(world.dir.path()) { 4096..12288 } else { 0..SIZE as usize / 2 };
    assert_eq!(ones(), there.len() as u64 - 100, "that range, and what came before it");
    let wanted = |at: usize| if (8192..8292).contains(&at) { 7 } else { 1 };
    let written = fs::read(&half).unwrap();
    assert!(there.clone().all(|at| written[at] == wanted(at)));
    // A later word counts here too, and the old file is looked at in the end though nothing is left to be copied.
    staging.hold(FileId(1), 0..SIZE, &[], None).unwrap();
    writer.write_range(FileId(1), 0, &[(0, 4096)], &[5; 4096]).unwrap();
    assert_eq!(ones(), there.len().min(there.end - 4096) as u64 - 100);
    fs::write(world.at("db/half.ibd"), vec![9; SIZE as usize]).unwrap();
    let error = staging.settle_list(&world.files, true, Patches::Kept, 2).unwrap_err();
    assert!(format!("{error:#}").contains("changed while it was compared"), "{error:#}");
}

#[test]
fn what_a_broken_transfer_received_is_gone_on_with() {
    let world = World::new();
    let half = SIZE as u32 / 2;
    let broken = world.received();
    broken.writer().write_range(FileId(2), 0, &[(0, half)], &vec![4; half as usize]).unwrap();
    drop(broken);
    // The same files under other numbers.
    let staging = Staging::new(&MariaDb, world.dir.path()).unwrap();
    let of = |id, path| (entry(id, path, FileRole::Table), world.at(path));
    let (known, target) = of(12, "db/newname.ibd");
    let (path, size) = staging.adopt(&known, &target).unwrap().expect("it was begun before");
    assert_eq!((fs::read(&path).unwrap()[..half as usize].to_vec(), size), (vec![4; half as usize], SIZE));
    assert!(staging.adopt(&known, &target).unwrap().is_none(), "only once");
    let (unknown, elsewhere) = of(13, "db/never.ibd");
    assert!(staging.adopt(&unknown, &elsewhere).unwrap().is_none());
    // What is neither the same nor sent must become zero there.
    assert!(staging.hold(FileId(12), 0..SIZE, &[], None).unwrap());
    let system = entry(8, "ibdata1", FileRole::SystemTablespace { index: 0 });
    staging.settle_list(&[(known, target), (system, world.at("ibdata1"))], true, Patches::Kept, 2).unwrap();
    let stage = world.at(".rejoin/stage");
    let names: Vec<_> = fs::read_dir(stage).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "what nobody wanted is gone: {names:?}");
}
