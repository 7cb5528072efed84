//! Real servers are started plainly at every step of an install, of its rollback and of a transfer in place: each refuses and
//! changes nothing, or comes up on the whole old or the whole new state.
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mysql::prelude::Queryable;
use rejoin_lab::places::User;
use rejoin_lab::{Cluster, Installation, Node, copy_tree, process};
use transfer::disk::filesystem::FilesystemId;
use transfer::disk::probe::{Entry, Probe, Rights};
use transfer::flavor::Flavor;
use transfer::flavor::mariadb::MariaDb;
use transfer::install::files::{Disk, Files, What};
use transfer::install::in_place::{in_place_begin, in_place_make_room};
use transfer::install::plan::{Class, Inputs, InstallPlan, Keep, OldKind, Placed, Sweep, plan};
use transfer::install::rollback::rollback;
use transfer::install::roots::{Roots, remember};
use transfer::install::run::install;

/// Starts that must all refuse where both guards stand.
const WAYS: [&str; 6] = [
    "--wsrep-recover",
    "--bootstrap",
    "--innodb-force-recovery=1",
    "--innodb-force-recovery=6",
    "--innodb-read-only",
    "--innodb-undo-tablespaces=4",
];
/// To start, or to say that it does not.
const START: Duration = Duration::from_secs(90);

/// The real disk; before each operation servers are tried on a copy, when the system files are others than the last time.
struct Tried<'a> {
    node: &'a Node,
    seen: RefCell<BTreeMap<String, String>>,
}

type SystemFiles = BTreeMap<String, (u64, bool)>;

impl Tried<'_> {
    fn before(&self) -> Result<()> {
        let files = system_files(&self.node.datadir())?;
        let key = format!("{files:?}");
        if !self.seen.borrow().contains_key(&key) {
            let first = !self.seen.borrow().values().any(|said| said == "both guards");
            let said = try_on_copy(self.node, &files, first).with_context(|| format!("with {files:?}"))?;
            self.seen.borrow_mut().insert(key, said);
        }
        Ok(())
    }

    /// Tries what there is in the end. Servers came up on both states, once each, and were refused in between.
    fn ends(&self) -> Result<()> {
        self.before()?;
        let seen = self.seen.borrow();
        let count = |outcome: &str| seen.values().filter(|said| *said == outcome).count();
        let counts = ["old", "new", "both guards", "one guard"].map(|outcome| (outcome, count(outcome)));
        let [old, new, both, one] = counts.map(|(_, count)| count);
        ensure!((old, new, one) == (1, 1, 2) && both >= 4, "{counts:?}");
        Ok(())
    }
}

macro_rules! changes {
    ($($name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
        $(fn $name(&self, $($argument: $type),*) -> Result<$answer> {
            self.before()?;
            Disk.$name($($argument),*)
        })*
    };
}

macro_rules! looks {
    ($($name:ident($argument:ident: &Path) -> $answer:ty;)*) => {
        $(fn $name(&self, $argument: &Path) -> Result<$answer> {
            Disk.$name($argument)
        })*
    };
}

impl Probe for Tried<'_> {
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

impl Files for Tried<'_> {
    looks! {
        filesystem(path: &Path) -> FilesystemId;
        real_path(path: &Path) -> PathBuf;
        what(path: &Path) -> Option<What>;
        state(path: &Path) -> Option<(u64, i128)>;
        list(path: &Path) -> Vec<PathBuf>;
        read(path: &Path) -> Option<Vec<u8>>;
        temporary(path: &Path) -> PathBuf;
        remove_temporaries(path: &Path) -> ();
        sync_file(path: &Path) -> ();
        sync_directory(path: &Path) -> ();
    }
    changes! {
        rename(from: &Path, to: &Path) -> ();
        link(from: &Path, to: &Path) -> bool;
        copy_unsynced(from: &Path, to: &Path) -> ();
        patch_unsynced(patch: &Path, table: &Path) -> ();
        write_unsynced(path: &Path, content: &[u8]) -> ();
        remove(path: &Path) -> ();
        make_directory(path: &Path) -> ();
        remove_directory(path: &Path) -> ();
    }
}

fn is_guard(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.len() < 52)
        && fs::read(path).is_ok_and(|t| t.starts_with(b"not complete"))
}

fn class(path: &Path) -> Class {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
    match name {
        "ibdata1" => Class::System(0),
        "aria_log_control" => Class::SecondControl,
        _ if name.starts_with("ib_logfile") => Class::Redo,
        _ if name.starts_with("undo0") => Class::Undo,
        _ if name.starts_with("aria_log.") => Class::SecondLog,
        _ if path.parent().is_some_and(|d| d.ends_with("mysql"))
            && matches!(path.extension().and_then(|e| e.to_str()), Some("MAI" | "MAD"))
            && !name.contains("_log.") =>
        {
            Class::SecondTable
        }
        _ => Class::Table,
    }
}

fn is_system(class: Class) -> bool {
    !class.is_tables()
}

/// Which file each is, and whether it is a guard.
fn system_files(datadir: &Path) -> Result<SystemFiles> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(datadir)? {
        let path = entry?.path();
        if path.is_file() && is_system(class(&path)) {
            let guard = is_guard(&path);
            let inode = if guard { 0 } else { fs::metadata(&path)?.ino() };
            found.insert(path.file_name().unwrap_or_default().to_string_lossy().into_owned(), (inode, guard));
        }
    }
    Ok(found)
}

/// All bytes of all files.
fn contents(directory: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![directory.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() {
                todo.push(path.clone());
                found.insert(path, Vec::new());
            } else if path.is_file() {
                let bytes = fs::read(&path)?;
                found.insert(path, bytes);
            }
        }
    }
    Ok(found)
}

fn differences(one: &BTreeMap<PathBuf, Vec<u8>>, other: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<PathBuf> {
    let mut paths: Vec<&PathBuf> = one.keys().chain(other.keys()).collect();
    paths.sort();
    paths.dedup();
    paths.into_iter().filter(|path| one.get(*path) != other.get(*path)).cloned().collect()
}

/// What a server does on a copy of the datadir, which must be right.
fn try_on_copy(node: &Node, files: &SystemFiles, in_all_ways: bool) -> Result<String> {
    let copy = node.dir().join("copy");
    let _ = fs::remove_dir_all(&copy);
    copy_tree(&node.datadir(), &copy)?;
    // Here the install runs as the user who runs the tests. A verb started by root would switch to the server's user.
    User::for_servers()?.own(&copy)?;
    let stands = |name: &str| files.get(name).is_some_and(|(_, guard)| *guard);
    let (system, aria) = (stands("ibdata1"), stands("aria_log_control"));
    let before = contents(&copy)?;
    let answer = start(node, &copy, &[], &asked)?;
    let changed = differences(&before, &contents(&copy)?);
    match (system, aria) {
        (false, false) => return answer.context("it refuses a datadir without a guard"),
        (true, true) => ensure!(answer.is_none() && changed.is_empty(), "{answer:?}, changed {changed:?}"),
        // One rename later both stand: Aria recovers its own set, which is whole.
        _ => {
            let arias = |path: &PathBuf| {
                let name = path.display().to_string();
                name.contains("/aria_log") || name.ends_with(".MAI") || name.ends_with(".MAD")
            };
            ensure!(
                system && answer.is_none() && changed.iter().all(arias),
                "{answer:?}, changed {changed:?}"
            );
            return Ok("one guard".to_owned());
        }
    }
    for way in WAYS.iter().filter(|_| in_all_ways) {
        let answer = start(node, &copy, &[way], &asked)?;
        let changed = differences(&before, &contents(&copy)?);
        ensure!(answer.is_none() && changed.is_empty(), "{way}: {answer:?}, changed {changed:?}");
    }
    Ok("both guards".to_owned())
}

/// Starts a server without a cluster and asks it. Nothing when it refuses to start.
fn start(
    node: &Node,
    datadir: &Path,
    more: &[&str],
    ask: &dyn Fn(&mut mysql::Conn) -> Result<String>,
) -> Result<Option<String>> {
    let mut command = User::for_servers()?.command(node.installation().server());
    let log = node.dir().join("plain.log");
    let _ = fs::remove_file(&log);
    let socket = node.dir().join("plain.sock");
    command.arg("--no-defaults").arg(format!("--basedir={}", node.installation().base().display()));
    command.arg(format!("--datadir={}", datadir.display())).arg(format!("--socket={}", socket.display()));
    command.arg(format!("--log-error={}", log.display()));
    command.arg(format!("--pid-file={}", node.dir().join("plain.pid").display()));
    command.args([
        "--skip-networking",
        "--wsrep-on=OFF",
        "--innodb-buffer-pool-size=32M",
        "--innodb-log-file-size=48M",
    ]);
    command.args(["--skip-grant-tables", "--innodb-fast-shutdown=2"]).args(more).stdin(Stdio::null());
    let mut server = process::spawn(command)?;
    let begun = Instant::now();
    loop {
        if let Some(status) = server.try_wait()? {
            ensure!(status.code() == Some(1), "{status}: {}", fs::read_to_string(&log).unwrap_or_default());
            return Ok(None);
        }
        if fs::read_to_string(&log).is_ok_and(|text| text.contains("ready for connections")) {
            break;
        }
        if begun.elapsed() > START {
            process::signal(server.id(), rustix::process::Signal::KILL);
            anyhow::bail!("it neither starts nor refuses: {}", fs::read_to_string(&log).unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let socket = Some(socket.to_string_lossy().into_owned());
    let options = mysql::OptsBuilder::new().socket(socket).user(Some("root")).prefer_socket(true);
    let answer =
        mysql::Conn::new(options).map_err(Into::into).and_then(|mut connection| ask(&mut connection));
    process::signal(server.id(), rustix::process::Signal::TERM);
    ensure!(process::wait(&mut server, START)?.is_some(), "it does not end");
    answer.map(Some)
}

/// Which state it has.
fn asked(connection: &mut mysql::Conn) -> Result<String> {
    let both: Option<(String, String)> = connection.query_first("SELECT i.state, a.state FROM d.i, d.a")?;
    let (innodb, aria) = both.context("no row")?;
    ensure!(innodb == aria, "InnoDB has the {innodb} state, Aria the {aria} one");
    Ok(innodb)
}

/// Makes a datadir that knows which state it is.
fn make(node: &Node, state: &str) -> Result<()> {
    let statements = [
        "CREATE DATABASE d".to_owned(),
        format!("CREATE TABLE d.i ENGINE=InnoDB SELECT '{state}' AS state"),
        format!("CREATE TABLE d.a ENGINE=Aria SELECT '{state}' AS state"),
        format!("CREATE TABLE d.only_{state} (a INT) ENGINE=InnoDB"),
    ];
    let make = |connection: &mut mysql::Conn| {
        statements.iter().try_for_each(|statement| connection.query_drop(statement))?;
        asked(connection)
    };
    let made = start(node, &node.datadir(), &[], &make)?;
    ensure!(made.as_deref() == Some(state), "{made:?}");
    Ok(())
}

fn managed(datadir: &Path) -> Result<Vec<(PathBuf, OldKind)>> {
    let paths = contents(datadir)?.into_keys().filter(|path| path.is_file());
    let of = |path: PathBuf| {
        let inside = path.strip_prefix(datadir).ok()?;
        let own = inside.starts_with("#sql-rejoin") || inside.starts_with(".rejoin");
        let top = inside.components().count() == 1;
        match class(&path) {
            _ if own => None,
            class if top && is_system(class) => Some((path, OldKind::Data(class))),
            _ if top => None,
            class => Some((path, OldKind::Data(class))),
        }
    };
    Ok(paths.filter_map(of).collect())
}

/// Stages a whole other datadir, and plans its install.
fn planned(node: &Node, from: &Path, keep: Keep, made: u64) -> Result<InstallPlan> {
    let datadir = node.datadir();
    let (old, new) = (managed(&datadir)?, managed(from)?);
    let target = |path: &Path| Ok::<_, anyhow::Error>(datadir.join(path.strip_prefix(from)?));
    let targets = new.iter().map(|(path, _)| target(path)).collect::<Result<Vec<_>>>()?;
    // Each database has its directory there before roots are chosen for it.
    let roots = Roots::choose(
        &Disk,
        &datadir,
        old.iter().map(|(path, _)| path.as_path()).chain(targets.iter().map(PathBuf::as_path)),
    )?;
    remember(&Disk, &datadir, roots.all())?;
    let stage = datadir.join(".rejoin/stage");
    fs::create_dir_all(&stage)?;
    let mut staged = Vec::new();
    for (number, ((path, _), target)) in new.iter().zip(&targets).enumerate() {
        let to = stage.join(number.to_string());
        fs::copy(path, &to)?;
        staged.push(Placed { staged: to, target: target.clone(), class: class(target) });
    }
    User::for_servers()?.own(&datadir)?;
    let made_at_start = MariaDb.made_at_start().into_iter();
    let sweep: Vec<Sweep> =
        made_at_start.map(|(_, set, pattern)| Sweep { directory: datadir.clone(), set, pattern }).collect();
    Ok(plan(Inputs {
        datadir: &datadir,
        managed: &old,
        staged,
        unchanged: vec![],
        patched: &[],
        roots: &roots,
        keep,
        earlier: None,
        sweep: &sweep,
        position: "11111111-1111-1111-1111-111111111111:7",
        made,
    })?)
}

fn refuses_in_every_instant(installation: Installation) -> Result<()> {
    let cluster = Cluster::builder().nodes(2).installation(installation).build()?;
    let (node, other) = (cluster.node(1), cluster.node(2));
    make(node, "old")?;
    make(other, "new")?;
    let datadir = node.datadir();

    let plan = planned(node, &other.datadir(), Keep::Old, 1)?;
    let there = Tried { node, seen: RefCell::default() };
    install(&there, &plan).context("the install")?;
    there.ends()?;

    let back = Tried { node, seen: RefCell::default() };
    rollback(&back, &datadir, &managed(&datadir)?, |_| Ok(None), 2).context("the rollback")?;
    back.ends()?;

    let in_place = Tried { node, seen: RefCell::default() };
    let (old, system) = (managed(&datadir)?, datadir.join("ibdata1"));
    let control = datadir.join("aria_log_control");
    in_place_begin(&in_place, &datadir, &old, Some(&system), Some(&control))?;
    old.iter().try_for_each(|(path, _)| in_place_make_room(&in_place, &datadir, path))?;
    install(&in_place, &planned(node, &other.datadir(), Keep::InPlace, 3)?)
        .context("the install in place")?;
    in_place.ends()
}

#[test]
fn a_server_of_10_11_refuses_in_every_instant() -> Result<()> {
    refuses_in_every_instant(Installation::system()?)
}

#[test]
fn a_server_of_11_8_refuses_in_every_instant() -> Result<()> {
    refuses_in_every_instant(Installation::mariadb_11_8()?)
}
