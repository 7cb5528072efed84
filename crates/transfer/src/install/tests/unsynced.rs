//! That the power-loss tests find a sync that is missing: each kind is left out once.
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::crash::{SERVERS, Story};
use super::power::{Coin, in_place};
use super::sim::{LeftOut, Loss, Sim, Sync};
use super::world::World;
use crate::install::plan::Keep;
use crate::install::run::{finish_interrupted, install};

/// What is left out. A rename is durable when one of its two directories was synced, as with a journal, so that only to leave out
/// both can be seen.
const KINDS: [(&str, LeftOut); 12] = [
    ("staged files", |sync, path| sync == Sync::File && within(path, "stage")),
    ("the record", |sync, path| sync == Sync::File && path.ends_with("install.json.tmp")),
    ("the guards", |sync, path| sync == Sync::File && is_guard(path)),
    ("kept copies of Aria's set", |sync, path| sync == Sync::File && within(path, "old")),
    ("copies of Aria's new set", |sync, path| sync == Sync::File && within(path, "copy")),
    ("patched tables", |sync, path| {
        sync == Sync::File && (path.ends_with("u.MAI") || path.ends_with("e.ibd"))
    }),
    ("names of records", |sync, path| sync == Sync::Directory && path.ends_with("#sql-rejoin")),
    ("names of kept files", |sync, path| sync == Sync::Directory && path.ends_with("old")),
    ("names in the datadir", |sync, path| sync == Sync::Directory && path == Path::new("/d")),
    ("names in databases", |sync, path| sync == Sync::Directory && in_datadir(path) && !own(path)),
    ("names elsewhere", |sync, path| sync == Sync::Directory && path.starts_with("/other")),
    ("all names", |sync, _| sync == Sync::Directory),
];

fn within(path: &Path, name: &str) -> bool {
    path.parent().is_some_and(|directory| directory.ends_with(name))
}

fn is_guard(path: &Path) -> bool {
    path.ends_with("ibdata1.tmp") || path.ends_with("aria_log_control.tmp")
}

fn own(path: &Path) -> bool {
    path.components().any(|c| [".rejoin", "#sql-rejoin"].iter().any(|own| c.as_os_str() == *own))
}

fn in_datadir(path: &Path) -> bool {
    path.starts_with("/d") && path != Path::new("/d")
}

/// The power fails at every point of an install and of the rollback, without these syncs. Whether anything went wrong.
fn goes_wrong(left_out: Option<LeftOut>) -> bool {
    for loss in [Loss::Suffix, Loss::Any] {
        let (world, before) = World::simulated(loss);
        let plan = world.plan(&before, &before, "new", Keep::Old, |p| before.make_all(p));
        before.settle();
        before.are_unsynced(|path| within(path, "stage"));
        before.left_out.set(left_out);
        before.sync_filesystem();
        for stop in 0.. {
            let mut stopped = false;
            for seed in 0..6u64 {
                let lose = |sim: &Sim, server: usize| {
                    let mut coin = Coin::new(seed + 31 * stop as u64);
                    sim.lose_power(|| coin.toss([3, 5, 8][(seed % 3) as usize]));
                    world.start(sim, SERVERS[server]);
                };
                let between = |_: &World, sim: &Sim| lose(sim, (seed % 2) as usize);
                let story = Story { world: &world, between: &between };
                let there_and_back = || -> anyhow::Result<bool> {
                    let sim = before.clone();
                    let stopped = story.install(&sim, &plan, &[stop], "old")?;
                    lose(&sim, 0);
                    finish_interrupted(&sim, &world.datadir)?;
                    world.check(&sim, &sim.everything(), "new");
                    story.rollback(&sim, &[stop], seed % 2 == 0)?;
                    lose(&sim, 0);
                    world.check(&sim, &sim.everything(), "old");
                    // Or the operator wants the old state in the middle of the install.
                    let sim = before.clone();
                    sim.stop_before(stop);
                    let _ = install(&sim, &plan);
                    sim.stop_before(usize::MAX);
                    lose(&sim, (seed % 2) as usize);
                    story.rollback(&sim, &[], false)?;
                    lose(&sim, 0);
                    world.check(&sim, &sim.everything(), "old");
                    Ok(stopped)
                };
                match catch_unwind(AssertUnwindSafe(there_and_back)) {
                    Ok(Ok(more)) => stopped |= more,
                    _ => return true,
                }
            }
            if !stopped {
                break;
            }
        }
    }
    false
}

/// The kinds whose absence goes unnoticed.
fn unseen(kinds: &[(&'static str, LeftOut)], goes_wrong: fn(Option<LeftOut>) -> bool) -> Vec<&'static str> {
    kinds.iter().filter(|(_, left_out)| !goes_wrong(Some(*left_out))).map(|(name, _)| *name).collect()
}

#[test]
fn every_kind_of_sync_is_missed() {
    assert!(!goes_wrong(None), "nothing is left out");
    assert_eq!(unseen(&KINDS, goes_wrong), [""; 0]);
}

/// What is left out of a transfer in place. What the marker and the guards hold is not among them: a server refuses whatever
/// is in a guard's place, and a marker counts whatever it holds.
const KINDS_IN_PLACE: [(&str, LeftOut); 2] = [
    ("names of records", |sync, path| sync == Sync::Directory && path.ends_with("#sql-rejoin")),
    ("names in the datadir", |sync, path| sync == Sync::Directory && path == Path::new("/d")),
];

fn goes_wrong_in_place(left_out: Option<LeftOut>) -> bool {
    let fails = |loss, stop, seed| {
        catch_unwind(AssertUnwindSafe(|| in_place(loss, left_out, stop, seed)))
            .map_or(true, |done| done.is_err())
    };
    [Loss::Suffix, Loss::Any]
        .into_iter()
        .any(|loss| (0..60).any(|stop| (0..6).any(|seed| fails(loss, stop, seed))))
}

#[test]
fn every_kind_of_sync_of_a_transfer_in_place_is_missed() {
    assert!(!goes_wrong_in_place(None), "nothing is left out");
    assert_eq!(unseen(&KINDS_IN_PLACE, goes_wrong_in_place), [""; 0]);
}
