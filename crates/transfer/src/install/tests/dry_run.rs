//! What would stop an install in its middle is refused before anything is changed; what need not stop it does not.
use std::path::{Path, PathBuf};

use super::sim::{Loss, Sim};
use super::world::World;
use crate::disk::probe::{Entry, Kind, Rights};
use crate::install::dry_run::{directories, dry_run};
use crate::install::files::Files;
use crate::install::plan::{InstallPlan, Keep, Retired};
use crate::install::record::pending;
use crate::install::rollback::rollback;
use crate::install::run::install;

fn simulated() -> (World, Sim, InstallPlan) {
    let (mut world, sim) = World::simulated(Loss::Suffix);
    world.patched.push("a/t1.ibd");
    let plan = world.plan(&sim, &sim, "new", Keep::Old, |p| sim.make_all(p));
    sim.settle();
    (world, sim, plan)
}

fn entry(kind: Kind) -> Entry {
    Entry::plain(kind)
}

/// The install is refused with these words, and everything is as it was.
fn refused(sim: &Sim, plan: &InstallPlan, words: &[&str]) {
    let before = sim.everything();
    let error = format!("{:#}", install(sim, plan).unwrap_err());
    for word in words {
        assert!(error.contains(word), "{word:?} is not in {error}");
    }
    assert!(pending(sim, &plan.datadir).unwrap().is_none());
    assert_eq!(sim.everything(), before);
}

#[test]
fn a_directory_that_cannot_take_its_files_is_refused_by_name() {
    let link = Kind::Link("/mnt/not-mounted/fresh".into());
    for (kind, words) in [
        (link, ["/d/fresh is a link to /mnt/not-mounted/fresh, which does not exist", "or remove the link"]),
        (Kind::File, ["/d/fresh is a file, but must be a directory", "move it away"]),
        (Kind::Other("FIFO"), ["/d/fresh is a FIFO, but must be a directory", "move it away"]),
    ] {
        let (_, sim, plan) = simulated();
        sim.entries.borrow_mut().insert("/d/fresh".into(), entry(kind));
        refused(&sim, &plan, &words);
    }
    for (directory, rights, words) in [
        ("/d/a", Rights::Denied, ["/d/a is not writable for", "chown"]),
        ("/d/a", Rights::Locked, ["/d/a has the immutable or append-only attribute", "chattr -i -a /d/a"]),
        (
            "/other/y",
            Rights::ReadOnly,
            ["/other/y is on a filesystem that is mounted read-only", "remount,rw"],
        ),
        ("/d", Rights::Denied, ["/d is not writable for", "chown"]),
    ] {
        let (_, sim, plan) = simulated();
        sim.rights.borrow_mut().insert(directory.into(), rights);
        refused(&sim, &plan, &words);
    }
}

#[test]
fn a_file_that_cannot_be_moved_is_refused_by_name() {
    let locked = Entry { locked: true, ..entry(Kind::File) };
    let mounted = Entry { mounted: true, ..entry(Kind::File) };
    for (path, entry, words) in [
        ("/d/gone/t.ibd", locked.clone(), ["/d/gone/t.ibd has the immutable", "chattr -i -a /d/gone/t.ibd"]),
        ("/d/ibdata1", mounted, ["/d/ibdata1 is a mount point", "umount /d/ibdata1"]),
        ("/d/a/t1.ibd", locked, ["/d/a/t1.ibd has the immutable", "chattr"]),
        ("/d/a/u.MAI", entry(Kind::Directory), ["/d/a/u.MAI is no longer a file", "move it away"]),
        ("/d/a/t1.frm", entry(Kind::Directory), ["/d/a/t1.frm is a directory where", "move it away"]),
        ("/d/a/t2.ibd", entry(Kind::Directory), ["/d/a/t2.ibd is a directory where", "move it away"]),
    ] {
        let (_, sim, plan) = simulated();
        sim.entries.borrow_mut().insert(path.into(), entry);
        refused(&sim, &plan, &words);
    }
    let (_, sim, plan) = simulated();
    sim.rights.borrow_mut().insert("/d/a".into(), Rights::OwnEntries);
    assert!(
        dry_run(&sim, &plan).unwrap().refusals.is_empty(),
        "only the own entries of a sticky directory are there"
    );
    let other = Entry { own: false, ..entry(Kind::File) };
    sim.entries.borrow_mut().insert("/d/a/t1.frm".into(), other);
    refused(&sim, &plan, &["/d/a/t1.frm belongs to another user", "chown"]);
    for path in ["/d/a/t1.ibd", "/d/aria_log_control"] {
        let (_, sim, plan) = simulated();
        sim.closed.borrow_mut().insert(path.into());
        refused(&sim, &plan, &[path, "chown"]);
    }
}

/// Puts something in the way.
type Obstacle = Box<dyn Fn(&Sim)>;

/// Everything that may be in the way of a plan, one at a time.
fn obstacles(sim: &Sim, plan: &InstallPlan) -> Vec<Obstacle> {
    let mut all: Vec<Obstacle> = Vec::new();
    let named = plan.directories.iter().chain(&plan.emptied).chain(&plan.roots).cloned();
    let mut paths: Vec<PathBuf> = sim.everything().into_keys().chain(named).collect();
    paths.extend(plan.placed.iter().map(|p| p.target.clone()));
    paths.sort();
    paths.dedup();
    for path in paths {
        let is_directory = sim.what(&path).unwrap() == Some(crate::install::files::What::Directory);
        let mut put = |entry: Entry| {
            let path = path.clone();
            all.push(Box::new(move |sim: &Sim| {
                sim.entries.borrow_mut().insert(path.clone(), entry.clone());
            }));
        };
        let kind = if is_directory { Kind::Directory } else { Kind::File };
        if sim.exists(&path).unwrap() {
            put(Entry { locked: true, ..entry(kind.clone()) });
            put(Entry { mounted: true, ..entry(kind) });
        }
        if is_directory {
            for rights in [Rights::Denied, Rights::ReadOnly, Rights::Locked] {
                let path = path.clone();
                all.push(Box::new(move |sim: &Sim| {
                    sim.rights.borrow_mut().insert(path.clone(), rights);
                }));
            }
        } else {
            let path = path.clone();
            all.push(Box::new(move |sim: &Sim| {
                sim.closed.borrow_mut().insert(path.clone());
            }));
        }
    }
    all
}

/// For whatever is in the way: either nothing was changed, or the install (and then its rollback) goes through.
#[test]
fn an_install_never_stops_in_its_middle_for_what_could_be_seen() {
    let (mut refused, mut through) = (0, 0);
    let (_, before, plan) = simulated();
    for obstacle in obstacles(&before, &plan) {
        let (world, sim, plan) = simulated();
        obstacle(&sim);
        let was = sim.everything();
        match install(&sim, &plan) {
            Err(error) => {
                let error = format!("{error:#}");
                assert!(pending(&sim, &plan.datadir).unwrap().is_none(), "stopped in the middle: {error}");
                assert!(sim.everything() == was, "changed and refused: {error}");
                assert!(error.contains("hint: "), "no remedy: {error}");
                refused += 1;
            }
            Ok(_) => {
                let back =
                    rollback(&sim, &world.datadir, &world.managed(&sim), |_| Ok(None), 1_800_000_000_000);
                let whole = pending(&sim, &plan.datadir).unwrap().is_none();
                assert!(whole, "the rollback stopped in the middle: {:#}", back.unwrap_err());
                through += 1;
            }
        }
    }
    assert!(refused > 60 && through > 10, "{refused} refused, {through} went through");
}

#[test]
fn a_rollback_is_tried_before_it_begins_too() {
    let (world, sim, plan) = simulated();
    install(&sim, &plan).unwrap();
    sim.rights.borrow_mut().insert("/d/a".into(), Rights::ReadOnly);
    let before = sim.everything();
    let error =
        rollback(&sim, &world.datadir, &world.managed(&sim), |_| Ok(None), 1_800_000_000_000).unwrap_err();
    let error = format!("{error:#}");
    assert!(
        error.contains("the previous state cannot be restored (nothing was changed): /d/a is on"),
        "{error}"
    );
    assert_eq!(sim.everything(), before);
}

#[test]
fn a_directory_that_cannot_go_is_only_warned_of() {
    for (path, found) in [
        ("/d/gone", Entry { mounted: true, ..entry(Kind::Directory) }),
        ("/d/gone", Entry { locked: false, ..entry(Kind::Directory) }),
    ] {
        let (world, sim, plan) = simulated();
        if !found.mounted {
            sim.put("/d/gone/notes.txt".as_ref(), b"unknown");
        }
        sim.entries.borrow_mut().insert(path.into(), found);
        let findings = dry_run(&sim, &plan).unwrap();
        let warning = findings.warnings.join("; ");
        assert!(
            findings.refusals.is_empty() && warning.starts_with("/d/gone stays although"),
            "{findings:?}"
        );
        assert!(warning.contains("once the server is down, remove /d/gone"), "{warning}");
        install(&sim, &plan).unwrap();
        assert!(sim.exists(path.as_ref()).unwrap() && !sim.exists("/d/gone/t.ibd".as_ref()).unwrap());
        rollback(&sim, &world.datadir, &world.managed(&sim), |_| Ok(None), 1_800_000_000_000).unwrap();
        assert!(sim.exists("/d/gone/t.ibd".as_ref()).unwrap());
    }
}

/// A server takes names of its own files for databases when it has no such files.
#[test]
fn databases_with_names_of_the_servers_files() {
    let names = ["undo004", "ib_logfile101", "ibtmp2"];
    let (mut world, sim) = World::simulated(Loss::Suffix);
    for name in names {
        world.states.get_mut("new").unwrap().push(format!("/d/{name}/t.ibd").into());
    }
    // One stands there as a file of the old state, and one as a marker of the transfer.
    sim.put("/d/undo004".as_ref(), b"old:undo004");
    world.states.get_mut("old").unwrap().push("/d/undo004".into());
    let mut plan = world.plan(&sim, &sim, "new", Keep::Old, |p| sim.make_all(p));
    sim.settle();
    let first = plan.retired.first().unwrap().class;
    plan.retired.push(Retired { path: "/d/not-there".into(), to: None, class: first });
    install(&sim, &plan).unwrap();
    for name in names {
        assert!(sim.exists(Path::new("/d").join(name).join("t.ibd").as_ref()).unwrap(), "{name}");
    }
    rollback(&sim, &world.datadir, &world.managed(&sim), |_| Ok(None), 1_800_000_000_000).unwrap();
    assert_eq!(sim.read("/d/undo004".as_ref()).unwrap().unwrap(), b"old:undo004");
}

#[test]
fn directories_are_tried_before_there_is_a_plan() {
    let (_, sim, _) = simulated();
    let tried = |wanted: &str| directories(&sim, [Path::new(wanted)]).refusals;
    assert!(tried("/d/a").is_empty() && tried("/d/new/deep").is_empty());
    sim.rights.borrow_mut().insert("/d".into(), Rights::ReadOnly);
    sim.entries.borrow_mut().insert("/d/dangling".into(), entry(Kind::Link("nowhere".into())));
    assert!(tried("/d/a").is_empty());
    assert!(tried("/d/new/deep")[0].text.contains("/d is on a filesystem that is mounted read-only"));
    assert!(tried("/d/dangling")[0].text.contains("a link to nowhere, which does not exist"));
    assert!(tried("/d/dangling/deep")[0].text.contains("a link to nowhere, which does not exist"));
}
