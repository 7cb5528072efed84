//! A server that is started in the middle of anything refuses, and changes nothing, or comes up on a whole state.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::crash::SERVERS;
use super::server::{Start, start};
use super::sim::{Loss, Sim};
use super::world::World;
use crate::install::files::Files;
use crate::install::guard::is_guard;
use crate::install::in_place::{guard_again, in_place_begin, in_place_make_room, let_join};
use crate::install::plan::{InstallPlan, Keep};
use crate::install::rollback::rollback;
use crate::install::run::{finish_interrupted, install};

type Everything = BTreeMap<PathBuf, Option<Vec<u8>>>;

fn simulated(keep: Keep) -> (World, Sim, InstallPlan) {
    let (world, sim) = World::simulated(Loss::Suffix);
    let plan = world.plan(&sim, &sim, "new", keep, |p| sim.make_all(p));
    sim.settle();
    (world, sim, plan)
}

fn guarded(sim: &Sim) -> (bool, bool) {
    let is = |name: &str| is_guard(sim, &Path::new("/d").join(name)).unwrap();
    (is("aria_log_control"), is("ibdata1"))
}

/// What differs, except what only a server's Aria writes.
fn differs(one: &Everything, other: &Everything) -> Vec<PathBuf> {
    let arias = |path: &Path| {
        path.display().to_string().contains("aria_log") || path.extension() == Some("MAI".as_ref())
    };
    let all = one.keys().chain(other.keys());
    all.filter(|path| !arias(path) && one.get(*path) != other.get(*path)).cloned().collect()
}

/// Starts a server; where no guard stands, `whole` says what it comes up on.
fn judge(world: &World, sim: &Sim, whole: &[&str]) {
    for config in SERVERS.into_iter().flatten() {
        let sim = sim.clone();
        // What a crash leaves of writing a guard is no guard, and goes later.
        for name in ["ibdata1.tmp", "aria_log_control.tmp"] {
            sim.delete(&world.datadir.join(name));
        }
        let (before, guards) = (sim.everything(), guarded(&sim));
        let started = start(&sim, &world.datadir, &world.states, config);
        match (guards, &started) {
            ((true, true), (Start::Refuses, Start::Refuses)) => assert_eq!(sim.everything(), before),
            // Between the two guards, which is one rename.
            ((false, true), (Start::Runs(state), Start::Refuses)) => {
                assert!(whole.contains(&state.as_str()), "{state}");
                assert_eq!(differs(&before, &sim.everything()), Vec::<PathBuf>::new());
            }
            ((false, false), (Start::Runs(aria), Start::Runs(innodb))) => {
                assert!(aria == innodb && whole.contains(&aria.as_str()), "{started:?}");
                world.check(&sim, &sim.everything(), aria);
            }
            _ => panic!("guards {guards:?}: {started:?}"),
        }
    }
}

#[test]
fn in_every_instant_of_an_install_and_of_its_rollback() {
    for keep in [Keep::Old, Keep::Nothing] {
        let (world, before, plan) = simulated(keep);
        for stop in 0.. {
            let sim = before.clone();
            sim.stop_before(stop);
            let ended = install(&sim, &plan).is_ok();
            judge(&world, &sim, &["old", "new"]);
            if ended {
                assert_eq!(guarded(&sim), (false, false));
                break;
            }
        }
        if keep == Keep::Nothing {
            continue;
        }
        install(&before, &plan).unwrap();
        let found = world.managed(&before);
        for stop in 0.. {
            let sim = before.clone();
            sim.stop_before(stop);
            let ended = rollback(&sim, &world.datadir, &found, |_| Ok(None), 9).is_ok();
            judge(&world, &sim, &["old", "new"]);
            if ended {
                assert_eq!(guarded(&sim), (false, false));
                break;
            }
        }
    }
}

fn begin(world: &World, sim: &Sim) -> anyhow::Result<()> {
    let aria = world.datadir.join("aria_log_control");
    let old = world.managed(sim);
    let system = world.datadir.join("ibdata1");
    in_place_begin(sim, &world.datadir, &old, Some(&system), Some(&aria))?;
    old.iter().try_for_each(|(path, _)| in_place_make_room(sim, &world.datadir, path))
}

fn plan_in_place(world: &World, sim: &Sim) -> InstallPlan {
    let mut plan = world.plan(sim, sim, "new", Keep::InPlace, |p| sim.make_all(p));
    // As for every database that is there without a file.
    plan.emptied.push(world.datadir.join("gone"));
    plan
}

#[test]
fn in_every_instant_of_a_transfer_in_place() {
    for stop in 0.. {
        let (world, sim, _) = simulated(Keep::InPlace);
        sim.stop_before(stop);
        let ended = begin(&world, &sim).is_ok();
        sim.stop_before(usize::MAX);
        judge(&world, &sim, &["old"]);
        if ended {
            let plan = plan_in_place(&world, &sim);
            for stop in 0.. {
                let sim = sim.clone();
                sim.stop_before(stop);
                let ended = install(&sim, &plan).is_ok();
                judge(&world, &sim, &["new"]);
                if ended {
                    break;
                }
            }
            break;
        }
    }
}

/// systemd starts no server whose recovery step fails: an operator, or the unit, lets it.
#[test]
fn a_broken_transfer_in_place_refuses_until_it_is_let() {
    let (world, sim, _) = simulated(Keep::InPlace);
    assert!(!let_join(&sim, &world.datadir).unwrap());
    begin(&world, &sim).unwrap();
    assert!(finish_interrupted(&sim, &world.datadir).unwrap().is_none());
    judge(&world, &sim, &[]);
    assert!(let_join(&sim, &world.datadir).unwrap());
    let recovery = SERVERS[1].unwrap();
    let started = start(&sim, &world.datadir, &world.states, recovery);
    assert_eq!(started, (Start::Anew, Start::Anew));
    // The joiner's program sets them again before it does anything else.
    guard_again(&sim, &world.datadir).unwrap();
    judge(&world, &sim, &[]);
    begin(&world, &sim).unwrap();
    let plan = plan_in_place(&world, &sim);
    // A begun install is finished, not let go.
    let interrupted = sim.clone();
    interrupted.stop_before(30);
    assert!(install(&interrupted, &plan).is_err());
    interrupted.stop_before(usize::MAX);
    assert!(!let_join(&interrupted, &world.datadir).unwrap());
    for sim in [sim, interrupted] {
        if finish_interrupted(&sim, &world.datadir).unwrap().is_none() {
            install(&sim, &plan).unwrap();
        }
        world.check(&sim, &sim.everything(), "new");
        guard_again(&sim, &world.datadir).unwrap();
        assert_eq!(guarded(&sim), (false, false));
    }
}

/// A datadir without anything is whole as it is: a server makes everything. From the first guard on none comes up.
#[test]
fn an_empty_joiner_refuses_from_the_first_guard_on() {
    let mut world = World::new("/d".as_ref(), "/other".as_ref());
    world.states.insert("old", Vec::new());
    let before = Sim::new(Loss::Suffix);
    before.make_all("/other/x".as_ref());
    before.make_all("/other/y".as_ref());
    world.build(&before, |path| before.make_all(path));
    let plan = world.plan(&before, &before, "new", Keep::Old, |p| before.make_all(p));
    before.settle();
    for config in SERVERS.into_iter().flatten() {
        for stop in 0.. {
            let sim = before.clone();
            sim.stop_before(stop);
            let ended = install(&sim, &plan).is_ok();
            sim.stop_before(usize::MAX);
            let (found, guards) = (sim.everything(), guarded(&sim));
            let started = start(&sim, &world.datadir, &world.states, config);
            match (guards, &started) {
                ((true, true), (Start::Refuses, Start::Refuses)) => assert_eq!(sim.everything(), found),
                ((false, true), (Start::Runs(_) | Start::Anew, Start::Refuses)) => {}
                ((false, false), (Start::Runs(_), Start::Runs(_)))
                    if ended || found.contains_key(&world.datadir.join("ib_logfile0")) => {}
                ((false, false), (Start::Anew, Start::Anew))
                    if !found.contains_key(&world.datadir.join("ib_logfile0")) => {}
                _ => panic!("stop {stop}, guards {guards:?}: {started:?}"),
            }
            if !ended
                && finish_interrupted(&sim, &world.datadir).unwrap().is_none()
                && !sim.exists("/d/#sql-rejoin/installed.json".as_ref()).unwrap()
            {
                install(&sim, &plan).unwrap();
            }
            world.check(&sim, &sim.everything(), "new");
            if ended {
                break;
            }
        }
    }
}
