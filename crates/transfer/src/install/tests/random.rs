//! Random old and new sets of files, stopped anywhere, with anything in between.
use std::path::PathBuf;

use proptest::prelude::*;

use super::crash::{SERVERS, Story};
use super::power::Coin;
use super::sim::{Loss, Sim};
use super::world::World;
use crate::install::plan::Keep;

const SYSTEM: &str = "ibdata1 ib_logfile0 aria_log_control aria_log.00000001 mysql/plugin.MAI";

fn files() -> impl Strategy<Value = Vec<PathBuf>> {
    let database = prop::sample::select(vec!["/d/a", "/d/b", "/d/mysql", "/other/x", "/d/c#P#p0"]);
    let name = prop::sample::select(vec![
        "t1.ibd", "t1.frm", "t2.ibd", "t3.MAD", "t3.MAI", "db.opt", "undo001", "undo002",
    ]);
    let path = (database, name).prop_map(|(database, name)| {
        // Undo files lie in the datadir.
        PathBuf::from(if name.starts_with("undo") { "/d" } else { database }).join(name)
    });
    prop::collection::btree_set(path, 0..16).prop_map(|tables| {
        let system = SYSTEM.split(' ').map(|name| PathBuf::from("/d").join(name));
        system.chain(tables).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sets_of_files_survive_any_two_stops(
        old in files(),
        new in files(),
        stops in (0usize..120, 0usize..120),
        server in 0usize..3,
        loss in prop::sample::select(vec![Loss::All, Loss::Suffix, Loss::Any]),
        fails in prop::collection::vec(any::<bool>(), 3),
        seed in any::<u64>(),
    ) {
        let mut world = World::new("/d".as_ref(), "/other".as_ref());
        world.states.insert("old", old);
        world.states.insert("new", new);
        world.states.remove("third");
        let sim = Sim::new(loss);
        for directory in ["/other/x", "/other/y"] {
            sim.make_all(directory.as_ref());
        }
        world.build(&sim, |path| sim.make_all(path));
        let plan = world.plan(&sim, &sim, "new", Keep::Old, |path| sim.make_all(path));
        sim.settle();
        let fails = std::cell::RefCell::new(fails.into_iter().cycle());
        let coin = std::cell::RefCell::new(Coin::new(seed));
        let between = |world: &World, sim: &Sim| {
            if fails.borrow_mut().next() == Some(true) {
                sim.lose_power(|| coin.borrow_mut().toss(5));
            } else if loss == Loss::Any {
                // A server syncs what it makes, and no filesystem makes that durable without what came before it: such an
                // order is lost only where the power fails before the server comes.
                sim.settle();
            }
            world.start(sim, SERVERS[server]);
        };
        let story = Story { world: &world, between: &between };
        story.install(&sim, &plan, &[stops.0, stops.1], "old").unwrap();
        world.check(&sim, &sim.everything(), "new");
        story.rollback(&sim, &[stops.1, stops.0], seed % 2 == 0).unwrap();
        world.check(&sim, &sim.everything(), "old");
    }
}
