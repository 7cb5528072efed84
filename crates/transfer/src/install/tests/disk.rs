//! The same on real filesystems: two where the machine has two, and always also one where the second is made believe.
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::crash::SERVERS;
use super::server::Raw;
use super::world::World;
use crate::disk::filesystem::{FilesystemId, filesystem_of};
use crate::disk::probe::{Entry, Probe, Rights};
use crate::install::files::{Disk, Files, What};
use crate::install::kept::{Status, allocated, release_old, status};
use crate::install::plan::{Class, Keep, Kept, OldKind, Retired, sort_leaving};
use crate::install::record::{installed, pending};
use crate::install::rollback::rollback;
use crate::install::run::{finish_interrupted, install};

/// The real disk, stopped before its n-th operation. Nothing is synced: no power fails here.
struct Stopping {
    left: Cell<usize>,
    /// Paths below it are said to be on another filesystem.
    elsewhere: Option<PathBuf>,
}

impl Stopping {
    fn tick(&self) -> Result<()> {
        if self.left.get() == 0 {
            bail!("stopped");
        }
        self.left.set(self.left.get() - 1);
        Ok(())
    }
}

impl Probe for Stopping {
    fn entry(&self, path: &Path) -> std::io::Result<Option<Entry>> {
        Disk.entry(path)
    }

    fn rights(&self, directory: &Path) -> std::io::Result<Rights> {
        Disk.rights(directory)
    }

    fn may_open(&self, file: &Path, write: bool) -> bool {
        Disk.may_open(file, write)
    }
}

impl Files for Stopping {
    fn real_path(&self, directory: &Path) -> Result<PathBuf> {
        Disk.real_path(directory)
    }

    fn filesystem(&self, path: &Path) -> Result<FilesystemId> {
        match &self.elsewhere {
            Some(elsewhere) if path.starts_with(elsewhere) => filesystem_of("/proc".as_ref()),
            _ => Disk.filesystem(path),
        }
    }

    fn what(&self, path: &Path) -> Result<Option<What>> {
        Disk.what(path)
    }

    fn state(&self, path: &Path) -> Result<Option<(u64, i128)>> {
        Disk.state(path)
    }

    fn list(&self, directory: &Path) -> Result<Vec<PathBuf>> {
        Disk.list(directory)
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        Disk.read(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.tick()?;
        assert_eq!(self.filesystem(from)?, self.filesystem(to)?, "{from:?} to {to:?}");
        Disk.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> Result<bool> {
        self.tick()?;
        Disk.link(from, to)
    }

    fn copy_unsynced(&self, from: &Path, to: &Path) -> Result<()> {
        self.tick()?;
        Disk.copy_unsynced(from, to)
    }

    fn patch_unsynced(&self, patch: &Path, table: &Path) -> Result<()> {
        self.tick()?;
        Disk.patch_unsynced(patch, table)
    }

    fn temporary(&self, path: &Path) -> Result<PathBuf> {
        Disk.temporary(path)
    }

    fn remove_temporaries(&self, path: &Path) -> Result<()> {
        Disk.remove_temporaries(path)
    }

    fn write_unsynced(&self, path: &Path, content: &[u8]) -> Result<()> {
        self.tick()?;
        Disk.write_unsynced(path, content)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.tick()?;
        Disk.remove(path)
    }

    fn make_directory(&self, path: &Path) -> Result<()> {
        self.tick()?;
        Disk.make_directory(path)
    }

    fn remove_directory(&self, path: &Path) -> Result<()> {
        self.tick()?;
        Disk.remove_directory(path)
    }

    fn sync_file(&self, _: &Path) -> Result<()> {
        self.tick()
    }

    fn sync_directory(&self, _: &Path) -> Result<()> {
        self.tick()
    }
}

impl Raw for Disk {
    fn get(&self, path: &Path) -> Option<String> {
        fs::read_to_string(path).ok()
    }

    fn put(&self, path: &Path, content: &str) {
        fs::write(path, content).unwrap();
    }

    fn put_bytes(&self, path: &Path, content: &[u8]) {
        fs::write(path, content).unwrap();
    }

    fn changed(&self, path: &Path) -> i128 {
        Disk.state(path).unwrap().unwrap().1
    }

    fn delete(&self, path: &Path) {
        fs::remove_file(path).unwrap();
    }

    fn names(&self, directory: &Path) -> Vec<PathBuf> {
        self.list(directory).unwrap().into_iter().filter(|p| p.is_file()).collect()
    }
}

fn everything(roots: [&Path; 2]) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut todo: Vec<PathBuf> = roots.map(Path::to_path_buf).to_vec();
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(Disk.list(&path).unwrap());
            found.insert(path, None);
        } else {
            let content = fs::read(&path).unwrap();
            found.insert(path, Some(content));
        }
    }
    found
}

/// Directories for the datadir and for tables elsewhere.
struct Place {
    datadir: tempfile::TempDir,
    other: tempfile::TempDir,
    believe: bool,
}

impl Place {
    fn believed(at: &Path) -> Place {
        let make = || tempfile::tempdir_in(at).unwrap();
        Place { datadir: make(), other: make(), believe: true }
    }

    /// On two real filesystems.
    fn real() -> Place {
        let shm = Path::new("/dev/shm");
        let datadir = tempfile::tempdir().unwrap();
        let differs = shm.is_dir() && filesystem_of(shm).unwrap() != filesystem_of(datadir.path()).unwrap();
        assert!(differs, "this test needs two filesystems: /dev/shm, and TMPDIR on another one");
        Place { datadir, other: tempfile::tempdir_in(shm).unwrap(), believe: false }
    }

    fn world(&self) -> World {
        let make_all = |path: &Path| fs::create_dir_all(path).unwrap();
        let world = World::new(self.datadir.path(), self.other.path());
        world.build(&Disk, make_all);
        world
    }

    fn files(&self, left: usize) -> Stopping {
        let elsewhere = self.believe.then(|| self.other.path().to_path_buf());
        Stopping { left: Cell::new(left), elsewhere }
    }

    fn check(&self, world: &World, state: &str) {
        world.check(&Disk, &everything([self.datadir.path(), self.other.path()]), state);
    }
}

fn there_and_back(place: &Place, stop: usize, server: usize) -> bool {
    let world = place.world();
    let datadir = place.datadir.path();
    let whole = place.files(usize::MAX);
    let plan = world.plan(&whole, &Disk, "new", Keep::Old, |p| fs::create_dir_all(p).unwrap());
    assert_eq!(plan.roots.len(), 2);
    let stopped = install(&place.files(stop), &plan).is_err();
    world.start(&Disk, SERVERS[server]);
    if finish_interrupted(&whole, datadir).unwrap().is_none() && installed(&whole, datadir).unwrap().is_none()
    {
        place.check(&world, "old");
        install(&whole, &plan).unwrap();
    }
    place.check(&world, "new");
    let left = status(&whole, datadir, allocated).unwrap();
    assert!(matches!(left, Status::InstalledKept { bytes, .. } if bytes > 0), "{left:?}");
    let back =
        |files: &Stopping| rollback(files, datadir, &world.managed(&Disk), |_| Ok(None), 9).map(|_| ());
    if back(&place.files(stop)).is_err() {
        world.start(&Disk, SERVERS[server]);
        match pending(&whole, datadir).unwrap() {
            Some(_) => finish_interrupted(&whole, datadir).map(|_| ()).unwrap(),
            None => back(&whole).unwrap_or_else(|e| assert!(e.to_string().contains("no install"), "{e}")),
        }
    }
    place.check(&world, "old");
    stopped
}

#[test]
fn every_crash_point_with_a_second_filesystem_made_believe() {
    let shm = Path::new("/dev/shm");
    let temporary = std::env::temp_dir();
    let at = if shm.is_dir() { shm } else { &temporary };
    for server in [0, 2] {
        let mut stop = 0;
        while there_and_back(&Place::believed(at), stop, server) {
            stop += 1;
        }
        assert!(stop > 60, "only {stop}");
    }
}

#[test]
fn every_crash_point_on_two_filesystems() {
    let mut stop = 0;
    while there_and_back(&Place::real(), stop, 1) {
        stop += 1;
    }
    assert!(stop > 60, "only {stop}");
}

#[test]
fn the_real_disk_installs_releases_and_syncs() {
    let place = Place::real();
    let world = place.world();
    let plan = world.plan(&Disk, &Disk, "new", Keep::Old, |p| fs::create_dir_all(p).unwrap());
    install(&Disk, &plan).unwrap();
    place.check(&world, "new");
    release_old(&Disk, place.datadir.path()).unwrap();
    place.check(&world, "new");
    assert!(!everything([place.other.path(); 2]).keys().any(|p| p.ends_with(".rejoin")));
    assert!(!place.datadir.path().join("#sql-rejoin/old").exists());
    assert!(rollback(&Disk, place.datadir.path(), &[], |_| Ok(None), 9).is_err());
}

#[test]
fn a_database_that_is_a_link_leaves_and_comes_back() {
    let place = Place::real();
    let mut world = place.world();
    let (link, real) = (place.datadir.path().join("linked"), place.other.path().join("real"));
    fs::create_dir_all(&real).unwrap();
    fs::write(real.join("t.ibd"), "old:linked").unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let before = everything([place.other.path(); 2]);
    world.states.get_mut("old").unwrap().push(link.join("t.ibd"));
    let mut plan = world.plan(&Disk, &Disk, "new", Keep::Old, |p| fs::create_dir_all(p).unwrap());
    let to = plan.retired[0].to.as_ref().unwrap().with_file_name("link");
    plan.retired.insert(0, Retired { path: link.clone(), to: Some(to.clone()), class: Class::Table });
    plan.kept.push(Kept { path: link.clone(), copy: to, class: Class::Table });
    sort_leaving(&mut plan.retired);
    install(&Disk, &plan).unwrap();
    assert!(!link.exists() && !link.is_symlink() && !real.join("t.ibd").exists());
    rollback(&Disk, place.datadir.path(), &world.managed(&Disk), |_| Ok(None), 9).unwrap();
    assert_eq!(fs::read_link(&link).unwrap(), real);
    assert_eq!(fs::read_to_string(link.join("t.ibd")).unwrap(), "old:linked");
    assert_eq!(everything([place.other.path(); 2]).len(), before.len());
    let mut through = plan.placed[0].clone();
    through.target = link.join("t.ibd");
    let refused = world.plan_of(
        &Disk,
        &[(link, OldKind::Data(Class::Table))],
        &[through, plan.placed.last().unwrap().clone()],
    );
    assert!(refused.unwrap_err().text.contains("through a link"));
}

#[test]
fn what_was_renamed_before_is_not_renamed_again_and_a_missing_directory_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let [from, to, nowhere] = ["from", "to", "none/to"].map(|name| dir.path().join(name));
    Disk.put(&from, "new");
    Disk.rename_if_there(&from, &to).unwrap();
    Disk.rename_if_there(&from, &to).unwrap();
    assert_eq!(Disk.get(&to).as_deref(), Some("new"));
    let error = Disk.rename_if_there(&to, &nowhere).unwrap_err();
    assert!(format!("{error:#}").contains("cannot rename"), "{error:#}");
}
