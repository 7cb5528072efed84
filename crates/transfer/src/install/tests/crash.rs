//! Stops install, rollback and release before every operation, with and without a server started in between.
use std::path::Path;

use anyhow::Result;

use super::server::Config;
use super::sim::{Loss, Sim};
use super::world::World;
use crate::failure::{Kind, kind_of};
use crate::install::files::Files;
use crate::install::in_place::{in_place_begin, in_place_make_room};
use crate::install::kept::{Status, release_old, save_grastate, status};
use crate::install::names::{IN_PLACE, own_directory};
use crate::install::plan::{InstallPlan, Keep, OldKind, Purpose};
use crate::install::record::{installed, pending};
use crate::install::rollback::{possible, rollback};
use crate::install::run::{finish_interrupted, install};

/// Servers that may run between two tries.
pub const SERVERS: [Option<Config>; 4] = [
    None,
    Some(Config { undo_zero: false, rotate: false }),
    Some(Config { undo_zero: true, rotate: false }),
    Some(Config { undo_zero: false, rotate: true }),
];

/// What is done between two tries, and what is tried.
pub struct Story<'a> {
    pub world: &'a World,
    pub between: &'a dyn Fn(&World, &Sim),
}

impl Story<'_> {
    /// Installs; stopped at each of `stops` in turn, then to the end.
    pub fn install(&self, sim: &Sim, plan: &InstallPlan, stops: &[usize], before: &str) -> Result<bool> {
        for &stop in stops {
            sim.stop_before(stop);
            let ended = self.go_on(sim, plan);
            sim.stop_before(usize::MAX);
            if ended.is_ok() {
                return Ok(false);
            }
            (self.between)(self.world, sim);
            if pending(sim, &self.world.datadir)?.is_none()
                && installed(sim, &self.world.datadir)?.is_none_or(|i| i.made != plan.made)
            {
                self.world.check(sim, &sim.everything(), before);
            }
        }
        self.go_on(sim, plan).map(|()| true)
    }

    fn go_on(&self, sim: &Sim, plan: &InstallPlan) -> Result<()> {
        let done = finish_interrupted(sim, &self.world.datadir)?.is_some()
            || installed(sim, &self.world.datadir)?.is_some_and(|i| i.made == plan.made);
        if !done {
            install(sim, plan)?;
        }
        Ok(())
    }

    /// Rolls back in the same way; `by_start`: the program's next start finishes it, not the operator.
    pub fn rollback(&self, sim: &Sim, stops: &[usize], by_start: bool) -> Result<bool> {
        let again = || -> Result<()> {
            let datadir = &self.world.datadir;
            if by_start && pending(sim, datadir)?.is_some_and(|p| p.purpose == Purpose::Rollback) {
                return finish_interrupted(sim, datadir).map(|_| ());
            }
            if possible(sim, datadir)?.is_err() {
                return Ok(());
            }
            rollback(sim, datadir, &self.world.managed(sim), |_| Ok(None), 1_800_000_000_000).map(|_| ())
        };
        for &stop in stops {
            sim.stop_before(stop);
            let ended = again();
            sim.stop_before(usize::MAX);
            if ended.is_ok() {
                return Ok(false);
            }
            (self.between)(self.world, sim);
        }
        again().map(|()| true)
    }
}

fn simulated(keep: Keep) -> (World, Sim, InstallPlan) {
    let (world, sim) = World::simulated(Loss::Suffix);
    let plan = world.plan(&sim, &sim, "new", keep, |p| sim.make_all(p));
    sim.settle();
    (world, sim, plan)
}

fn check_kept(sim: &Sim, datadir: &Path) {
    let plan = installed(sim, datadir).unwrap().unwrap();
    for kept in &plan.kept {
        let found = String::from_utf8(sim.read(&kept.copy).unwrap().expect("a kept file")).unwrap();
        let patched = plan.kept_patches.iter().any(|p| p.table == kept.path);
        assert!(
            found.starts_with(if patched { "new:" } else { "old:" }),
            "{:?} was kept as {found}",
            kept.path
        );
    }
}

fn grastate(sim: &Sim) -> String {
    String::from_utf8(sim.read(Path::new("/d/grastate.dat")).unwrap().unwrap()).unwrap()
}

#[test]
fn every_crash_point_of_an_install_and_then_back() {
    for keep in [Keep::Old, Keep::Nothing] {
        for server in SERVERS {
            let (world, before, plan) = simulated(keep);
            let story = Story { world: &world, between: &|world, sim| world.start(sim, server) };
            for stop in 0.. {
                let sim = before.clone();
                let stopped = story.install(&sim, &plan, &[stop], "old").unwrap();
                world.check(&sim, &sim.everything(), "new");
                if keep == Keep::Old {
                    check_kept(&sim, &world.datadir);
                    world.start(&sim, server);
                    story.rollback(&sim, &[], false).unwrap();
                    world.check(&sim, &sim.everything(), "old");
                    assert!(grastate(&sim).starts_with("old:"));
                    let left = status(&sim, &world.datadir, |_| Ok(1)).unwrap();
                    assert_eq!(left, Status::Nothing);
                }
                if !stopped {
                    assert!(stop > 60, "only {stop} operations were stopped");
                    break;
                }
            }
        }
    }
}

#[test]
fn every_two_crash_points_of_an_install() {
    for server in [SERVERS[2], SERVERS[3]] {
        let (world, before, plan) = simulated(Keep::Old);
        let story = Story { world: &world, between: &|world, sim| world.start(sim, server) };
        for first in 0.. {
            let mut reached = true;
            for second in 0.. {
                let sim = before.clone();
                let operations = sim.operations.get();
                let stopped = story.install(&sim, &plan, &[first, second], "old").unwrap();
                world.check(&sim, &sim.everything(), "new");
                check_kept(&sim, &world.datadir);
                reached = sim.operations.get() - operations > first || stopped;
                if !stopped {
                    break;
                }
            }
            if !reached || first > 200 {
                break;
            }
        }
    }
}

#[test]
fn every_crash_point_of_a_rollback() {
    for server in SERVERS {
        for by_start in [false, true] {
            let (world, before, plan) = simulated(Keep::Old);
            install(&before, &plan).unwrap();
            world.start(&before, server);
            // A table that the new life made.
            before.put("/d/fresh/later.ibd".as_ref(), b"new:later");
            let mut world = world;
            world.states.get_mut("new").unwrap().push("/d/fresh/later.ibd".into());
            let story = Story { world: &world, between: &|world, sim| world.start(sim, server) };
            for stop in 0.. {
                let sim = before.clone();
                let stopped = story.rollback(&sim, &[stop], by_start).unwrap();
                world.check(&sim, &sim.everything(), "old");
                assert!(!sim.exists("/d/#sql-rejoin/old".as_ref()).unwrap());
                if !stopped {
                    break;
                }
            }
        }
    }
}

#[test]
fn every_crash_point_of_an_install_is_one_a_rollback_begins_at() {
    for server in SERVERS {
        let (world, before, plan) = simulated(Keep::Old);
        let story = Story { world: &world, between: &|world, sim| world.start(sim, server) };
        for stop in 0.. {
            let interrupted = before.clone();
            interrupted.stop_before(stop);
            let ended = install(&interrupted, &plan).is_ok();
            interrupted.stop_before(usize::MAX);
            world.start(&interrupted, server);
            for again in [0, 3, 12, 25, 40, 50, 60, 70, 80, 90, 100, usize::MAX] {
                let sim = interrupted.clone();
                story.rollback(&sim, &[again], again % 2 == 0).unwrap();
                world.check(&sim, &sim.everything(), "old");
            }
            if ended {
                break;
            }
        }
    }
}

#[test]
fn a_second_install_before_the_node_was_synced_keeps_the_first_old_state() {
    for server in SERVERS {
        let (world, before, plan) = simulated(Keep::Old);
        install(&before, &plan).unwrap();
        before.put("/d/grastate.dat".as_ref(), b"of the new life");
        save_grastate(&before, &world.datadir).unwrap();
        let third = world.plan(&before, &before, "third", Keep::Old, |p| before.make_all(p));
        // What was patched is needed for the way back.
        let leaves: Vec<_> = third.retired.iter().filter(|d| d.to.is_some()).map(|d| &d.path).collect();
        assert_eq!(leaves, plan.patched.iter().map(|p| &p.table).rev().collect::<Vec<_>>());
        before.settle();
        let story = Story { world: &world, between: &|world, sim| world.start(sim, server) };
        for stop in 0.. {
            let sim = before.clone();
            let stopped = story.install(&sim, &third, &[stop], "new").unwrap();
            world.check(&sim, &sim.everything(), "third");
            check_kept(&sim, &world.datadir);
            let interrupted = before.clone();
            interrupted.stop_before(stop);
            let _ = install(&interrupted, &third);
            interrupted.stop_before(usize::MAX);
            world.start(&interrupted, server);
            for sim in [sim, interrupted] {
                story.rollback(&sim, &[17], true).unwrap();
                world.check(&sim, &sim.everything(), "old");
                assert!(grastate(&sim).starts_with("old:"));
            }
            if !stopped {
                break;
            }
        }
    }
}

#[test]
fn every_crash_point_of_a_release() {
    let (world, before, plan) = simulated(Keep::Old);
    install(&before, &plan).unwrap();
    for stop in 0.. {
        let sim = before.clone();
        sim.stop_before(stop);
        let ended = release_old(&sim, &world.datadir).is_ok();
        sim.stop_before(usize::MAX);
        if sim.exists("/d/#sql-rejoin/released.json".as_ref()).unwrap() {
            let refused = rollback(&sim, &world.datadir, &[], |_| Ok(None), 1).unwrap_err();
            assert_eq!(kind_of(&refused), Kind::Refused);
        }
        if stop % 2 == 0 {
            finish_interrupted(&sim, &world.datadir).unwrap();
        }
        release_old(&sim, &world.datadir).unwrap();
        world.check(&sim, &sim.everything(), "new");
        let own: Vec<String> = sim
            .everything()
            .keys()
            .map(|p| p.display().to_string())
            .filter(|p| p.contains(".rejoin") || p.contains("#sql-rejoin"))
            .collect();
        let left =
            ["", "/grastate.dat", "/log", "/log/1.log", "/status.json"].map(|n| format!("/d/#sql-rejoin{n}"));
        assert_eq!(own, left);
        assert_eq!(status(&sim, &world.datadir, |_| Ok(1)).unwrap(), Status::Nothing);
        if ended {
            break;
        }
    }
}

#[test]
fn every_crash_point_of_a_transfer_in_place() {
    let begin = |world: &World, sim: &Sim| {
        let aria = world.datadir.join("aria_log_control");
        let system = world.datadir.join("ibdata1");
        in_place_begin(sim, &world.datadir, &world.managed(sim), Some(&system), Some(&aria))
    };
    for server in SERVERS {
        for stop in 0.. {
            let (world, sim, _) = simulated(Keep::InPlace);
            sim.stop_before(stop);
            let ended = begin(&world, &sim).is_ok();
            sim.stop_before(usize::MAX);
            if !sim.exists(&own_directory(&world.datadir).join(IN_PLACE)).unwrap() {
                world.check(&sim, &sim.everything(), "old");
                assert!(in_place_make_room(&sim, &world.datadir, "/d/a/t1.ibd".as_ref()).is_err());
                continue;
            }
            assert_eq!(status(&sim, &world.datadir, |_| Ok(1)).unwrap(), Status::InPlaceBroken);
            let refused = rollback(&sim, &world.datadir, &[], |_| Ok(None), 1).unwrap_err();
            assert_eq!(kind_of(&refused), Kind::Refused);
            world.start(&sim, server);
            begin(&world, &sim).unwrap();
            in_place_make_room(&sim, &world.datadir, "/d/a/t1.ibd".as_ref()).unwrap();
            let plan = world.plan(&sim, &sim, "new", Keep::InPlace, |p| sim.make_all(p));
            let story = Story { world: &world, between: &|world, sim| world.start(sim, server) };
            for stop in [0, 5, 20, 35, 50, 65, 80] {
                let sim = sim.clone();
                let found = sim.everything();
                sim.stop_before(stop);
                let _ = install(&sim, &plan);
                sim.stop_before(usize::MAX);
                world.start(&sim, server);
                if pending(&sim, &world.datadir).unwrap().is_none()
                    && installed(&sim, &world.datadir).unwrap().is_none()
                {
                    assert!(found.keys().all(|p| sim.exists(p).unwrap()));
                }
                story.install(&sim, &plan, &[], "new").unwrap();
                world.check(&sim, &sim.everything(), "new");
                assert!(!sim.exists("/d/#sql-rejoin/in-place".as_ref()).unwrap());
                assert!(possible(&sim, &world.datadir).unwrap().is_err());
            }
            if ended {
                break;
            }
        }
    }
}

#[test]
fn what_must_be_refused_is_refused_before_anything_moves() {
    let (world, before, plan) = simulated(Keep::Old);
    let refused = |change: &dyn Fn(&Sim, &mut InstallPlan), why: &str| {
        let (sim, mut plan) = (before.clone(), plan.clone());
        change(&sim, &mut plan);
        let found = sim.everything();
        let error = install(&sim, &plan).unwrap_err();
        assert!(format!("{error:#}").contains(why), "{error:#}");
        assert_eq!(sim.everything(), found);
    };
    refused(&|sim, plan| sim.delete(&plan.placed[3].staged), "is not staged");
    refused(&|sim, _| sim.put("/d/a/t2.ibd".as_ref(), b"somebody's"), "is not this table's earlier copy");
    refused(&|_, plan| plan.placed[0].target = "/other/x/elsewhere".into(), "not on one filesystem");
    refused(&|sim, _| sim.put("/d/#sql-rejoin/in-place".as_ref(), b""), "cannot be kept");
    let running = |_: &Path| Ok(Some("mariadbd with process id 7".to_owned()));
    install(&before, &plan).unwrap();
    let error = rollback(&before, &world.datadir, &[], running, 1).unwrap_err();
    assert_eq!(kind_of(&error), Kind::Server);
    let lost = before.clone();
    lost.delete(&installed(&lost, &world.datadir).unwrap().unwrap().kept[0].copy);
    let error = rollback(&lost, &world.datadir, &[], |_| Ok(None), 1).unwrap_err();
    assert!(format!("{error:#}").contains("is gone"), "{error:#}");
    world.check(&lost, &lost.everything(), "new");
    assert!(pending(&before, "/e".as_ref()).unwrap().is_none());
    let managed: Vec<(std::path::PathBuf, OldKind)> = Vec::new();
    rollback(&before, &world.datadir, &managed, |_| Ok(None), 1).unwrap();
    world.check(&before, &before.everything(), "old");
}
