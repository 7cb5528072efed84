//! A node's datadir in three states: the old one, a new one, and a third that comes later.
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use protocol::extents::Extents;
use protocol::inventory::{FileRole, Place};

use super::server::{Config, Raw, Start, start, state_of};
use super::sim::{Loss, Sim};
use crate::failure::Failure;
use crate::flavor::mariadb::MariaDb;
use crate::flavor::{Flavor, Numbered};
use crate::install::files::Files;
use crate::install::names::{KEPT_DIRECTORY, OWN_DIRECTORY, working_directory};
use crate::install::patch::Changes;
use crate::install::plan::{
    Class, Inputs, InstallPlan, Keep, OldKind, Patched, Placed, Sweep, Unchanged, plan,
};
use crate::install::record::installed;
use crate::install::roots::{Roots, remember};
use crate::receive::staging::Staging;

/// Files nobody manages: they stay as they are whatever happens.
const UNKNOWN: [&str; 5] =
    ["cert.pem", "galera.cache", "a/notes.txt", "#sql-rejoin/log/1.log", "#sql-rejoin/status.json"];

const OLD: &str = "ibdata1 ib_logfile0 undo001 undo002 aria_log_control aria_log.00000001 \
    mysql/plugin.MAI mysql/plugin.frm a/t1.ibd a/t1.frm a/u.MAI gone/t.ibd";
const NEW: &str = "ibdata1 ib_logfile0 undo001 undo002 undo003 aria_log_control aria_log.00000001 \
    mysql/plugin.MAI mysql/plugin.frm a/t1.ibd a/t2.ibd a/u.MAI fresh/n.ibd";
const THIRD: &str =
    "ibdata1 ib_logfile0 undo001 aria_log_control aria_log.00000001 mysql/plugin.MAI a/t2.ibd";

/// Where everything is, and which files each state has.
#[derive(Clone, Debug)]
pub struct World {
    pub datadir: PathBuf,
    pub other: PathBuf,
    pub states: BTreeMap<&'static str, Vec<PathBuf>>,
    /// Tables that the new state's install patches where the old state has them: no server in most tests writes to these.
    pub patched: Vec<&'static str>,
}

impl World {
    pub fn new(datadir: &Path, other: &Path) -> World {
        let inside = |names: &str| names.split_whitespace().map(|n| datadir.join(n)).collect::<Vec<_>>();
        let mut states =
            BTreeMap::from([("old", inside(OLD)), ("new", inside(NEW)), ("third", inside(THIRD))]);
        for (state, names) in [("old", "x/e.ibd y/o.ibd"), ("new", "x/e.ibd"), ("third", "x/f.ibd")] {
            states.get_mut(state).unwrap().extend(names.split_whitespace().map(|n| other.join(n)));
        }
        let patched = vec!["a/u.MAI", "x/e.ibd", "t2.ibd"];
        World { datadir: datadir.to_path_buf(), other: other.to_path_buf(), states, patched }
    }

    /// On the simulated filesystem, with the old state in place.
    pub fn simulated(loss: Loss) -> (World, Sim) {
        let world = World::new("/d".as_ref(), "/other".as_ref());
        let sim = Sim::new(loss);
        world.build(&sim, |path| sim.make_all(path));
        sim.settle();
        (world, sim)
    }

    /// Writes the old state.
    pub fn build(&self, raw: &dyn Raw, make_all: impl Fn(&Path)) {
        let unknown = UNKNOWN.iter().map(|name| (self.datadir.join(name), "unknown"));
        let own = ["ddl_recovery.log", "grastate.dat", "#sql-rejoin/grastate.dat"]
            .map(|n| (self.datadir.join(n), "old"));
        let old = self.states["old"].iter().map(|path| (path.clone(), "old"));
        for (path, state) in old.chain(unknown).chain(own) {
            make_all(path.parent().unwrap());
            raw.put(&path, &content(state, &path));
        }
        raw.put(&self.datadir.join("grastate.dat"), "later:grastate");
    }

    /// What the finder of managed files would find.
    pub fn managed(&self, raw: &dyn Raw) -> Vec<(PathBuf, OldKind)> {
        let mut paths: BTreeSet<PathBuf> = self.states.values().flatten().cloned().collect();
        paths.extend(raw.names(&self.datadir));
        let kind = |path: PathBuf| {
            let name = path.file_name()?.to_str()?.to_owned();
            let content = raw.get(&path)?;
            Some(match () {
                () if name == "ddl_recovery.log" || name.starts_with("ibtmp") => (path, OldKind::RemoveOnly),
                () if content.starts_with("unknown") || name == "grastate.dat" => return None,
                () => (path.clone(), OldKind::Data(class(&path))),
            })
        };
        paths.into_iter().filter_map(kind).collect()
    }

    /// Stages a state as a transfer does, and plans its install.
    pub fn plan(
        &self,
        files: &dyn Files,
        raw: &dyn Raw,
        state: &str,
        keep: Keep,
        make_all: impl Fn(&Path),
    ) -> InstallPlan {
        let managed = self.managed(raw);
        let targets = &self.states[state];
        let all = managed.iter().map(|(path, _)| path).chain(targets);
        let roots = Roots::choose(files, &self.datadir, all.map(PathBuf::as_path)).unwrap();
        remember(files, &self.datadir, roots.all()).unwrap();
        let (mut staged, mut patched) = (Vec::new(), Vec::new());
        for (number, target) in targets.iter().enumerate() {
            let path = working_directory(roots.for_path(target).unwrap(), "stage").join(number.to_string());
            make_all(path.parent().unwrap());
            if !target.starts_with(&self.datadir) {
                make_all(target.parent().unwrap());
            }
            let (new, old) = (content(state, target), raw.get(target));
            let earlier = installed(files, &self.datadir).unwrap().is_some();
            let may =
                !earlier && keep != Keep::InPlace && self.patched.iter().any(|name| target.ends_with(name));
            let old = old.filter(|old| may && state_of(old) == "old");
            if let Some(old) = old {
                patched.push(stage_patch(raw, &path, target, old.as_bytes(), new.as_bytes(), keep));
                continue;
            }
            raw.put(&path, &new);
            staged.push(Placed { staged: path, target: target.clone(), class: class(target) });
        }
        self.plan_with(files, &managed, (&staged, &patched), &roots, keep, state.len() as u64).unwrap()
    }

    /// Plans an install of these files over those.
    pub fn plan_of(
        &self,
        files: &dyn Files,
        managed: &[(PathBuf, OldKind)],
        staged: &[Placed],
    ) -> Result<InstallPlan, Failure> {
        let all = managed.iter().map(|(path, _)| path).chain(staged.iter().map(|p| &p.target));
        let roots = Roots::choose(files, &self.datadir, all.map(PathBuf::as_path)).unwrap();
        self.plan_with(files, managed, (staged, &[]), &roots, Keep::Old, 0)
    }

    fn plan_with(
        &self,
        files: &dyn Files,
        managed: &[(PathBuf, OldKind)],
        (staged, patched): (&[Placed], &[(Patched, Unchanged)]),
        roots: &Roots,
        keep: Keep,
        later: u64,
    ) -> Result<InstallPlan, Failure> {
        plan(Inputs {
            datadir: &self.datadir,
            managed,
            staged: staged.to_vec(),
            unchanged: Vec::new(),
            patched,
            roots,
            keep,
            earlier: installed(files, &self.datadir).unwrap().as_ref(),
            sweep: &made_at_start(&self.datadir),
            position: "11111111-1111-1111-1111-111111111111:7",
            made: 1_700_000_000_000 + later,
        })
    }

    /// A server is started, as between two tries: it refuses, or comes up on one of the states.
    pub fn start(&self, raw: &dyn Raw, config: Option<Config>) {
        let Some(config) = config else { return };
        let (aria, innodb) = start(raw, &self.datadir, &self.states, config);
        for started in [&aria, &innodb] {
            let known = !matches!(started, Start::Runs(state) if !self.states.contains_key(state.as_str()));
            assert!(
                *started != Start::Anew && known,
                "a server starts on what it finds: {aria:?}, {innodb:?}"
            );
        }
        if let (Start::Runs(one), Start::Runs(other)) = (aria, innodb) {
            assert_eq!(one, other, "a server comes up on two states");
        }
    }

    /// The datadir holds exactly this state, and what nobody manages.
    pub fn check(&self, raw: &dyn Raw, everything: &BTreeMap<PathBuf, Option<Vec<u8>>>, state: &str) {
        let mut expected: BTreeMap<PathBuf, String> =
            self.states[state].iter().map(|path| (path.clone(), content(state, path))).collect();
        expected.extend(
            UNKNOWN.iter().map(|n| (self.datadir.join(n), content("unknown", &self.datadir.join(n)))),
        );
        let control = raw.get(&self.datadir.join("aria_log_control")).unwrap();
        if control.contains("|rotated") {
            expected.insert(self.datadir.join("aria_log.00000002"), format!("{state}:second"));
        }
        let grastate = self.datadir.join("grastate.dat");
        let mut expected_directories: BTreeSet<PathBuf> =
            expected.keys().flat_map(|p| p.ancestors().skip(1).map(Path::to_path_buf)).collect();
        // Outside the datadir, directories stay.
        expected_directories.extend([self.other.join("x"), self.other.join("y"), self.other.clone()]);
        for (path, found) in everything {
            let own =
                path.components().any(|c| c.as_os_str() == OWN_DIRECTORY || c.as_os_str() == KEPT_DIRECTORY);
            let Some(found) = found.as_deref().map(String::from_utf8_lossy) else {
                assert!(own || expected_directories.contains(path), "{state}: directory {path:?}");
                continue;
            };
            match expected.remove(path) {
                Some(wanted) => assert_eq!(clean(&found), wanted, "{state}: {path:?}"),
                None if own || *path == grastate => {}
                None if state == "old" && path.ends_with("ddl_recovery.log") => {}
                None => assert_eq!(state_of(&found), "temporary", "{state}: {path:?} holds {found}"),
            }
        }
        assert!(expected.is_empty(), "{state}: missing {:?}", expected.keys());
    }
}

fn stage_patch(
    raw: &dyn Raw,
    patch: &Path,
    table: &Path,
    old: &[u8],
    new: &[u8],
    keep: Keep,
) -> (Patched, Unchanged) {
    let mut same = Extents::default();
    for (at, _) in old.iter().zip(new).enumerate().filter(|(_, (old, new))| old == new) {
        same.add(at as u64..at as u64 + 1);
    }
    let changes = Changes::but(&same, new.len() as u64);
    let put = |path: &Path, body: &[u8], changes: &Changes| {
        let mut sparse = vec![b'!'; body.len()];
        for part in &changes.parts {
            let part = part.start as usize..part.end as usize;
            sparse[part.clone()].copy_from_slice(&body[part]);
        }
        raw.put_bytes(path, &[sparse, changes.list()].concat());
    };
    put(patch, new, &changes);
    let back = (keep == Keep::Old).then(|| patch.with_extension("back"));
    if let Some(back) = &back {
        put(back, old, &changes.back(old.len() as u64));
    }
    let (patch, table) = (patch.to_owned(), table.to_owned());
    let was = Unchanged { path: table.clone(), size: old.len() as u64, changed: raw.changed(&table) };
    (Patched { table, patch, back, kept: None }, was)
}

/// What a file of a state holds.
pub fn content(state: &str, path: &Path) -> String {
    format!("{state}:{}", path.display())
}

fn clean(found: &str) -> String {
    found.split('|').next().unwrap_or("").to_owned()
}

fn class(path: &Path) -> Class {
    let name = path.file_name().unwrap().to_str().unwrap();
    let places = [Place::LogHome, Place::UndoDir, Place::SecondLogDir];
    let role = match places.into_iter().find_map(|place| MariaDb.numbered(place, name)) {
        _ if name == "ibdata1" => FileRole::SystemTablespace { index: 0 },
        Some(Numbered::Data(role)) => role,
        Some(Numbered::Past) => FileRole::Redo,
        None => FileRole::Table,
    };
    MariaDb.class(&role, path)
}

impl Raw for Sim {
    fn get(&self, path: &Path) -> Option<String> {
        self.read(path).unwrap().map(|content| String::from_utf8(content).unwrap())
    }

    fn put(&self, path: &Path, content: &str) {
        Sim::put(self, path, content.as_bytes());
    }

    fn put_bytes(&self, path: &Path, content: &[u8]) {
        Sim::put(self, path, content);
    }

    fn changed(&self, path: &Path) -> i128 {
        self.state(path).unwrap().unwrap().1
    }

    fn delete(&self, path: &Path) {
        Sim::delete(self, path);
    }

    fn names(&self, directory: &Path) -> Vec<PathBuf> {
        let all = self.list(directory).unwrap();
        all.into_iter().filter(|p| self.read(p).unwrap().is_some()).collect()
    }
}

/// Plans the install of what was staged and settled over these files.
pub fn plan_of_staged(
    staging: &Staging,
    datadir: &Path,
    managed: &[(PathBuf, OldKind)],
    unchanged: &[Unchanged],
) -> InstallPlan {
    plan(Inputs {
        datadir,
        managed,
        staged: staging.staged(),
        unchanged: unchanged.to_vec(),
        patched: &staging.patched(),
        roots: &staging.roots(),
        keep: Keep::Old,
        earlier: None,
        sweep: &made_at_start(datadir),
        position: "11111111-1111-1111-1111-111111111111:7",
        made: 1,
    })
    .unwrap()
}

/// What a server makes when it starts, if every directory of it is the datadir.
fn made_at_start(datadir: &Path) -> Vec<Sweep> {
    let made = MariaDb.made_at_start().into_iter();
    made.map(|(_, set, pattern)| Sweep { directory: datadir.to_owned(), set, pattern }).collect()
}
