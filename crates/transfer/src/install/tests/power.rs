//! The power fails: what was not synced is partly gone, then a server may be started, then the program goes on.
use super::crash::{SERVERS, Story};
use super::server::Config;
use super::sim::{LeftOut, Loss, Sim};
use super::world::World;
use crate::install::files::Files;
use crate::install::in_place::{in_place_begin, in_place_make_room, was_begun};
use crate::install::kept::release_old;
use crate::install::plan::{InstallPlan, Keep};
use crate::install::run::{finish_interrupted, install};

const LOSSES: [Loss; 3] = [Loss::All, Loss::Suffix, Loss::Any];

/// Random bits that are the same in every run.
pub struct Coin(u64);

impl Coin {
    pub fn new(seed: u64) -> Coin {
        Coin(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// True in `of_ten` of ten cases.
    pub fn toss(&mut self, of_ten: u64) -> bool {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % 10 < of_ten
    }
}

fn simulated(loss: Loss) -> (World, Sim, InstallPlan) {
    let (world, sim) = World::simulated(loss);
    let plan = world.plan(&sim, &sim, "new", Keep::Old, |p| sim.make_all(p));
    sim.settle();
    (world, sim, plan)
}

fn lose(world: &World, sim: &Sim, server: Option<Config>, seed: u64) {
    let mut coin = Coin::new(seed);
    let of_ten = [2, 5, 8][(seed % 3) as usize];
    sim.lose_power(|| coin.toss(of_ten));
    world.start(sim, server);
}

#[test]
fn power_fails_at_every_point_of_an_install_and_of_the_rollback() {
    for loss in LOSSES {
        let (world, before, plan) = simulated(loss);
        for server in &SERVERS[..3] {
            for stop in 0.. {
                let mut stopped = false;
                for seed in 0..if loss == Loss::All { 1 } else { 5 } {
                    let between =
                        |world: &World, sim: &Sim| lose(world, sim, *server, seed + 31 * stop as u64);
                    let story = Story { world: &world, between: &between };
                    let sim = before.clone();
                    stopped = story.install(&sim, &plan, &[stop], "old").unwrap();
                    // What it said was done stays done.
                    lose(&world, &sim, None, seed);
                    assert!(finish_interrupted(&sim, &world.datadir).unwrap().is_none());
                    world.check(&sim, &sim.everything(), "new");
                    sim.settle();
                    story.rollback(&sim, &[stop], seed % 2 == 0).unwrap();
                    lose(&world, &sim, None, seed);
                    world.check(&sim, &sim.everything(), "old");
                }
                if !stopped {
                    break;
                }
            }
        }
    }
}

/// The first process dies, its operations are seen by the second, and lost with the power afterwards.
#[test]
fn what_a_dead_process_did_not_sync_is_synced_by_the_next() {
    for loss in LOSSES {
        let (world, before, plan) = simulated(loss);
        for first in 0..70 {
            for step in 1..16 {
                let sim = before.clone();
                sim.stop_before(first);
                let ended = install(&sim, &plan).is_ok();
                sim.stop_before(step);
                let _ = finish_interrupted(&sim, &world.datadir);
                sim.stop_before(usize::MAX);
                let between = |_: &World, _: &Sim| {};
                let story = Story { world: &world, between: &between };
                let forward = sim.clone();
                lose(&world, &forward, SERVERS[1], (first * step) as u64);
                story.install(&forward, &plan, &[], "old").unwrap();
                world.check(&forward, &forward.everything(), "new");
                // Or the operator's rollback comes next, and then the power fails.
                let between = |world: &World, sim: &Sim| lose(world, sim, SERVERS[1], (first + step) as u64);
                let story = Story { world: &world, between: &between };
                story.rollback(&sim, &[step * 4], true).unwrap();
                world.check(&sim, &sim.everything(), "old");
                if ended {
                    break;
                }
            }
        }
    }
}

#[test]
fn power_fails_at_every_point_of_a_release() {
    for loss in LOSSES {
        let (world, before, plan) = simulated(loss);
        install(&before, &plan).unwrap();
        for stop in 0..40 {
            for seed in 0..8 {
                let sim = before.clone();
                sim.stop_before(stop);
                let _ = release_old(&sim, &world.datadir);
                sim.stop_before(usize::MAX);
                lose(&world, &sim, None, seed);
                finish_interrupted(&sim, &world.datadir).unwrap();
                world.check(&sim, &sim.everything(), "new");
                let story = Story { world: &world, between: &|_, _| {} };
                // Either everything is still kept, or nothing is offered.
                if sim.exists("/d/#sql-rejoin/installed.json".as_ref()).unwrap() {
                    story.rollback(&sim, &[], false).unwrap();
                    world.check(&sim, &sim.everything(), "old");
                }
            }
        }
    }
}

/// A transfer in place from the first removal to the end, with a power loss before operation `stop` of the removals, and
/// one in the install. Returns whether the removals were cut short.
pub fn in_place(loss: Loss, left_out: Option<LeftOut>, stop: usize, seed: u64) -> anyhow::Result<bool> {
    let (world, sim) = World::simulated(loss);
    sim.left_out.set(left_out);
    sim.stop_before(stop);
    let cut = remove_old(&world, &sim).is_err();
    sim.stop_before(usize::MAX);
    lose(&world, &sim, SERVERS[1], seed + 31 * stop as u64);
    if !was_begun(&sim, &world.datadir)? {
        world.check(&sim, &sim.everything(), "old");
        return Ok(cut);
    }
    remove_old(&world, &sim)?;
    let plan = world.plan(&sim, &sim, "new", Keep::InPlace, |p| sim.make_all(p));
    sim.sync_filesystem();
    for stop in [0, 5, 20, 35, 50, 65, 80] {
        let sim = sim.clone();
        sim.stop_before(stop);
        let done = install(&sim, &plan).is_ok();
        sim.stop_before(usize::MAX);
        lose(&world, &sim, SERVERS[1], seed + stop as u64);
        // If the record was lost, the transfer is not over: it installs again.
        if finish_interrupted(&sim, &world.datadir)?.is_none() && was_begun(&sim, &world.datadir)? {
            anyhow::ensure!(!done, "an install that had ended was lost");
            install(&sim, &plan)?;
        }
        lose(&world, &sim, None, seed);
        finish_interrupted(&sim, &world.datadir)?;
        world.check(&sim, &sim.everything(), "new");
    }
    Ok(cut)
}

fn remove_old(world: &World, sim: &Sim) -> anyhow::Result<()> {
    let (system, control) = (world.datadir.join("ibdata1"), world.datadir.join("aria_log_control"));
    let old = world.managed(sim);
    in_place_begin(sim, &world.datadir, &old, Some(&system), Some(&control))?;
    in_place_make_room(sim, &world.datadir, &world.datadir.join("a/t1.ibd"))
}

#[test]
fn power_fails_at_every_point_of_a_transfer_in_place() {
    for loss in LOSSES {
        let seeds = if loss == Loss::All { 1 } else { 4 };
        let mut stops = 0..;
        while stops
            .next()
            .is_some_and(|stop| (0..seeds).any(|seed| in_place(loss, None, stop, seed).unwrap()))
        {}
    }
}
