//! Which received files become patches, and what becomes of these on a real disk.
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol::chunk::digest;
use protocol::inventory::{FileEntry, FileId, FileRole, Place};

use crate::cancel::Cancel;
use crate::disk::filesystem::shares_bytes;
use crate::disk::identity::look;
use crate::failure::{Kind, kind_of};
use crate::flavor::mariadb::MariaDb;
use crate::install::counted_disk::CountedDisk;
use crate::install::files::{Disk, Files};
use crate::install::patch::{Changes, TABLE_MIN, seal};
use crate::install::plan::{Class, InstallPlan, OldKind};
use crate::install::record::write_record;
use crate::install::rollback::rollback;
use crate::install::run::{finish_interrupted, install};
use crate::install::tests::world::plan_of_staged;
use crate::receive::reusable::Old;
use crate::receive::staging::{Patches, Staging};
use crate::server::local_work::LocalWork;

const SIZE: u64 = 2 * TABLE_MIN;
/// The range that is sent.
const PART: u32 = 1 << 20;

/// A system tablespace and one table, of which some ranges are received.
struct World {
    dir: tempfile::TempDir,
    files: Vec<(FileEntry, PathBuf)>,
}

impl World {
    fn new(name: &str) -> World {
        // Where bytes cannot be shared: there whole files are as cheap.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let entry = |id, path: &str, size, role| {
            let (place, path) = (Place::Datadir, path.to_owned());
            FileEntry { id: FileId(id), place, path, size, allocated: size, role }
        };
        let system = entry(0, "ibdata1", 4096, FileRole::SystemTablespace { index: 0 });
        let table = entry(1, name, SIZE, FileRole::Table);
        for (entry, byte) in [(&system, 1), (&table, 1)] {
            let path = dir.path().join(&entry.path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![byte; entry.size as usize]).unwrap();
        }
        let files = [system, table].map(|entry| (entry.clone(), dir.path().join(&entry.path)));
        World { dir, files: files.to_vec() }
    }

    fn table(&self) -> &Path {
        &self.files[1].1
    }

    /// Of the table these ranges are sent, the others are the same.
    fn received(&self, sent: &[u64]) -> Staging {
        let staging = Staging::new(&MariaDb, self.dir.path()).unwrap();
        self.files.iter().for_each(|(entry, target)| staging.begin(entry, target).unwrap());
        let mut writer = staging.writer();
        writer.write_range(FileId(0), 0, &[(0, 4096)], &[2; 4096]).unwrap();
        let old = Old::new(self.table().to_owned(), look(self.table()).unwrap().unwrap());
        for at in (0..SIZE).step_by(PART as usize) {
            let range = at..at + u64::from(PART);
            let byte = if sent.contains(&at) { 2 } else { 1 };
            staging.expect(FileId(1), at, PART, Some(digest(&[byte; PART as usize])), None).unwrap();
            if sent.contains(&at) {
                staging.hold(FileId(1), range.clone(), &[], Some(old.clone())).unwrap();
                let came = (&[(0, PART)][..], &[2; PART as usize][..]);
                writer.write(FileId(1), range, &[came], u64::from(PART)).unwrap();
            } else {
                staging.hold(FileId(1), range.clone(), &[(0, PART)], Some(old.clone())).unwrap();
                writer.write(FileId(1), range, &[], 0).unwrap();
            }
        }
        staging
    }

    fn plan(&self, staging: &Staging, patches: Patches) -> InstallPlan {
        let unchanged = staging.settle_list(&self.files, true, patches, 2).unwrap();
        staging.sync_all().unwrap();
        plan_of_staged(staging, self.dir.path(), &self.managed(), &unchanged)
    }

    fn managed(&self) -> [(PathBuf, OldKind); 2] {
        [
            (self.files[0].1.clone(), OldKind::Data(Class::System(0))),
            (self.files[1].1.clone(), OldKind::Data(Class::Table)),
        ]
    }

    fn is_new(&self, sent: &[u64]) {
        let found = fs::read(self.table()).unwrap();
        assert_eq!(found.len() as u64, SIZE);
        for at in (0..SIZE).step_by(PART as usize) {
            let wanted = if sent.contains(&at) { 2 } else { 1 };
            let part = &found[at as usize..(at + u64::from(PART)) as usize];
            assert!(part.iter().all(|byte| *byte == wanted), "at {at}");
        }
    }
}

#[test]
fn a_large_table_of_which_little_differs_is_changed_where_it_lies() {
    let world = World::new("db/t.ibd");
    let sent = [0, 3 << 20];
    let inode = fs::metadata(world.table()).unwrap().ino();
    let staging = world.received(&sent);
    if shares_bytes(world.dir.path()) {
        assert!(world.plan(&staging, Patches::Kept).patched.is_empty());
        return;
    }
    let staged = fs::metadata(staging.path(FileId(1)).unwrap()).unwrap().blocks() * 512;
    assert!(staged <= 3 << 20, "{staged} bytes were written for 2 MiB");
    let plan = world.plan(&staging, Patches::Kept);
    assert_eq!((plan.patched.len(), plan.placed.len(), plan.retired.len()), (1, 1, 1));
    assert_eq!(staging.read_back(2, &Cancel::new()).unwrap(), 2 << 20, "what stays is not read");
    install(&Disk, &plan).unwrap();
    world.is_new(&sent);
    assert_eq!(fs::metadata(world.table()).unwrap().ino(), inode);
    rollback(&Disk, world.dir.path(), &world.managed(), |_| Ok(None), 2).unwrap();
    assert!(fs::read(world.table()).unwrap().iter().all(|byte| *byte == 1));
    assert_eq!(fs::metadata(world.table()).unwrap().len(), SIZE);
}

/// A liveness probe killed joiners while they copied, read back and installed: nothing travels then.
#[test]
fn copying_reading_back_and_installing_are_progress() {
    let world = World::new("db/t.ibd");
    let staging = world.received(&[0, 3 << 20]);
    let work = Arc::new(LocalWork::default());
    staging.count_in(&work);
    let mut before = 0;
    let mut more = |at_least, what: &str| {
        let steps = work.steps();
        assert!(steps - before >= at_least, "{what}: {} steps", steps - before);
        before = steps;
    };
    let plan = world.plan(&staging, Patches::Kept);
    more(2, "settling two files");
    staging.read_back(2, &Cancel::new()).unwrap();
    more(2, "reading back two ranges");
    install(&CountedDisk(&work), &plan).unwrap();
    more(10, "installing");
    // Interrupted after the record was written.
    let world = World::new("db/t.ibd");
    let plan = world.plan(&world.received(&[0]), Patches::Kept);
    write_record(&Disk, &plan).unwrap();
    let disk = CountedDisk(&work);
    finish_interrupted(&disk, world.dir.path()).unwrap().unwrap();
    more(10, "finishing an interrupted install");
    world.is_new(&[0]);
}

/// Also within one patch, which can be of hundreds of gigabytes.
#[test]
fn a_long_patch_is_applied_in_steps() {
    const LENGTH: u64 = 200 << 20;
    let dir = tempfile::tempdir().unwrap();
    let [table, patch] = ["t.ibd", "patch"].map(|name| dir.path().join(name));
    fs::File::create(&table).unwrap().set_len(LENGTH).unwrap();
    fs::File::create(&patch).unwrap();
    let changes = Changes { size: LENGTH, parts: std::iter::once(0..LENGTH - 4096).collect() };
    seal(&patch, &changes).unwrap();
    let work = LocalWork::default();
    CountedDisk(&work).patch_unsynced(&patch, &table).unwrap();
    assert_eq!(work.steps(), 4);
}

#[test]
fn what_is_no_such_table_is_written_anew() {
    let much: Vec<u64> = (0..3).map(|n| n << 20).collect();
    let little = [1 << 20];
    for (name, sent, patches) in [
        ("db/t.ibd", &much[..], Patches::Kept),
        ("db/t.MYD", &little, Patches::Kept),
        ("db/t.ibd", &little, Patches::None),
    ] {
        let world = World::new(name);
        let staging = world.received(sent);
        let plan = world.plan(&staging, patches);
        assert_eq!((plan.patched.len(), plan.placed.len(), plan.retired.len()), (0, 2, 2), "{name}");
        assert_eq!(staging.read_back(2, &Cancel::new()).unwrap(), SIZE, "{name}");
        install(&Disk, &plan).unwrap();
        world.is_new(sent);
        rollback(&Disk, world.dir.path(), &world.managed(), |_| Ok(None), 2).unwrap();
        assert!(fs::read(world.table()).unwrap().iter().all(|byte| *byte == 1));
    }
    // One that is called otherwise now.
    let mut world = World::new("db/t.ibd");
    let staging = world.received(&little);
    let renamed = world.dir.path().join("db/s.ibd");
    world.files[1].0.path = "db/s.ibd".into();
    world.files[1].1 = renamed.clone();
    staging.settle_list(&world.files, true, Patches::Kept, 2).unwrap();
    assert!(staging.patched().is_empty());
    let staged = staging.staged();
    let placed = staged.iter().find(|placed| placed.target == renamed).unwrap();
    assert_eq!(fs::read(&placed.staged).unwrap()[..1 << 20], vec![1; 1 << 20]);
}

#[test]
fn what_is_staged_otherwise_than_the_donor_read_it_is_not_installed() {
    // As a patch, and written anew with what is the old file's.
    for (patches, at) in
        [(Patches::Kept, (3 << 20) + 77), (Patches::None, 77), (Patches::None, (5 << 20) + 7)]
    {
        let world = World::new("db/t.ibd");
        let staging = world.received(&[3 << 20]);
        world.plan(&staging, patches);
        staging.read_back(2, &Cancel::new()).unwrap();
        let staged = fs::File::options().write(true).open(staging.path(FileId(1)).unwrap()).unwrap();
        staged.write_all_at(&[9], at).unwrap();
        let error = staging.read_back(2, &Cancel::new()).unwrap_err();
        let text = format!("{error:#}");
        assert_eq!(kind_of(&error), Kind::Disk, "{text}");
        let wanted = format!("t.ibd at {}: the staged bytes are not what the donor read", at >> 20 << 20);
        assert!(text.contains(&wanted), "{text}");
    }
}

#[test]
fn holes_are_zeros_where_the_donor_read_zeros_only() {
    let received = |world: &World, byte: u8| {
        let staging = Staging::new(&MariaDb, world.dir.path()).unwrap();
        world.files.iter().for_each(|(entry, target)| staging.begin(entry, target).unwrap());
        let mut writer = staging.writer();
        writer.write_range(FileId(0), 0, &[(0, 4096)], &[2; 4096]).unwrap();
        for at in (0..SIZE).step_by(PART as usize) {
            let read = if at == 3 << 20 { byte } else { 0 };
            staging.expect(FileId(1), at, PART, Some(digest(&[read; PART as usize])), None).unwrap();
            writer.write(FileId(1), at..at + u64::from(PART), &[], 0).unwrap();
        }
        world.plan(&staging, Patches::None);
        staging
    };
    let error = |staging: &Staging| format!("{:#}", staging.read_back(2, &Cancel::new()).unwrap_err());
    let world = World::new("db/t.ibd");
    let staging = received(&world, 0);
    assert_eq!(staging.read_back(2, &Cancel::new()).unwrap(), SIZE);
    let staged = fs::File::options().write(true).open(staging.path(FileId(1)).unwrap()).unwrap();
    staged.write_all_at(&[9], (6 << 20) - 1).unwrap();
    let text = error(&staging);
    assert!(text.contains(&format!("t.ibd at {}: the staged bytes are not", 5 << 20)), "{text}");
    let other = World::new("db/t.ibd");
    let text = error(&received(&other, 7));
    assert!(text.contains(&format!("t.ibd at {}: the staged bytes are not", 3 << 20)), "{text}");
}

#[test]
fn an_old_table_that_changes_meanwhile_is_not_patched() {
    let world = World::new("db/t.ibd");
    let staging = world.received(&[0]);
    fs::write(world.table(), vec![9; SIZE as usize]).unwrap();
    let error = staging.settle_list(&world.files, true, Patches::Kept, 2).unwrap_err();
    assert!(format!("{error:#}").contains("changed while it was compared"), "{error:#}");
}
