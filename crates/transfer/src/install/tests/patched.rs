//! Tables that are changed where they lie.
use std::path::Path;

use super::server::Raw;
use super::sim::{Loss, Sim};
use super::world::World;
use crate::failure::{Kind, kind_of};
use crate::install::files::Files;
use crate::install::plan::{InstallPlan, Keep};
use crate::install::record::pending;
use crate::install::rollback::{possible, rollback};
use crate::install::run::{finish_interrupted, install};

const TABLE: &str = "/d/a/t1.ibd";

fn simulated() -> (World, Sim, InstallPlan) {
    let (mut world, sim) = World::simulated(Loss::Suffix);
    world.patched.push("a/t1.ibd");
    let plan = world.plan(&sim, &sim, "new", Keep::Old, |p| sim.make_all(p));
    sim.settle();
    (world, sim, plan)
}

fn undo(sim: &Sim, world: &World) -> anyhow::Result<()> {
    rollback(sim, &world.datadir, &world.managed(sim), |_| Ok(None), 1_800_000_000_000).map(drop)
}

/// What is there when something is stopped before each of its operations, until it ends.
fn stopped_everywhere(before: &Sim, ends: impl Fn(&Sim) -> bool) -> impl Iterator<Item = Sim> {
    (0..).map_while(move |stop| {
        let sim = before.clone();
        sim.stop_before(stop);
        let ended = ends(&sim);
        sim.stop_before(usize::MAX);
        (!ended).then_some(sim)
    })
}

/// A server writes to the table, where no patch writes.
fn write(sim: &Sim) -> String {
    let found = sim.get(TABLE.as_ref()).unwrap().replace("/d/", "/D/") + "|used";
    sim.put(TABLE.as_ref(), found.as_bytes());
    found
}

#[test]
fn a_plan_does_not_outlive_a_write_of_the_old_server() {
    let (world, before, plan) = simulated();
    let (mut given_up, mut gone_on) = (0, 0);
    for sim in stopped_everywhere(&before, |sim| install(sim, &plan).is_ok()) {
        let begun = pending(&sim, &world.datadir).unwrap().is_some();
        if sim.get("/d/ibdata1".as_ref()).is_some_and(|system| system.starts_with("old")) {
            let written = write(&sim);
            assert!(finish_interrupted(&sim, &world.datadir).unwrap().is_none());
            assert!(pending(&sim, &world.datadir).unwrap().is_none());
            assert_eq!(sim.get(TABLE.as_ref()).unwrap(), written);
            let error = install(&sim, &plan).unwrap_err();
            assert!(format!("{error:#}").contains("changed since it was compared"), "{error:#}");
            given_up += usize::from(begun);
        } else if begun {
            finish_interrupted(&sim, &world.datadir).unwrap();
            world.check(&sim, &sim.everything(), "new");
            gone_on += 1;
        }
    }
    assert!(given_up > 2 && gone_on > 20, "{given_up}, {gone_on}");
}

#[test]
fn a_table_that_was_written_to_since_is_not_put_back() {
    let (world, sim, plan) = simulated();
    install(&sim, &plan).unwrap();
    world.check(&sim, &sim.everything(), "new");
    assert!(possible(&sim, &world.datadir).unwrap().is_ok());
    let other = sim.clone();
    undo(&other, &world).unwrap();
    world.check(&other, &other.everything(), "old");
    write(&sim);
    let error = undo(&sim, &world).unwrap_err();
    assert_eq!((kind_of(&error), error.to_string().contains(TABLE)), (Kind::Refused, true), "{error:#}");
}

#[test]
fn a_rollback_does_not_outlive_a_write_of_the_new_server() {
    let (world, before, plan) = simulated();
    install(&before, &plan).unwrap();
    let mut given_up = 0;
    for sim in stopped_everywhere(&before, |sim| undo(sim, &world).is_ok()) {
        let begun = pending(&sim, &world.datadir).unwrap().is_some();
        if sim.get("/d/ibdata1".as_ref()).is_some_and(|system| system.starts_with("new")) {
            let written = write(&sim);
            assert!(finish_interrupted(&sim, &world.datadir).unwrap().is_none());
            assert_eq!(sim.get(TABLE.as_ref()).unwrap(), written);
            assert!(possible(&sim, &world.datadir).unwrap().is_err());
            given_up += usize::from(begun);
        } else {
            finish_interrupted(&sim, &world.datadir).unwrap();
            world.check(&sim, &sim.everything(), "old");
        }
    }
    assert!(given_up > 2, "{given_up}");
}

#[test]
fn a_patch_that_is_gone_is_noticed_before_anything_moves() {
    let (world, before, plan) = simulated();
    for lost in [&plan.patched[0].patch, plan.patched[0].back.as_ref().unwrap()] {
        let sim = before.clone();
        sim.delete(lost);
        let error = install(&sim, &plan).unwrap_err();
        assert!(format!("{error:#}").contains("is not staged"), "{error:#}");
        world.check(&sim, &sim.everything(), "old");
    }
    let sim = before.clone();
    install(&sim, &plan).unwrap();
    sim.delete(plan.patched[0].kept.as_deref().unwrap_or(Path::new("")));
    let error = undo(&sim, &world).unwrap_err();
    assert!(format!("{error:#}").contains("is gone"), "{error:#}");
    assert!(sim.exists(&plan.patched[0].table).unwrap());
    world.check(&sim, &sim.everything(), "new");
}
