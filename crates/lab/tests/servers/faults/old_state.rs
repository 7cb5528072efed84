//! The old datadir: it stays until the new one is complete, and can be restored until the node was Synced.
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rejoin_lab::load::{Intensity, Load};
use rejoin_lab::{Cluster, Node, compare};
use rustix::process::Signal;

use super::manifest::Manifest;
use super::pair::{self, Pair, set_sst, until, verb};
use super::verbs;

/// Kills of the joiner's program and server at one moment each.
const KILLS: u32 = 12;
/// How long a transfer and its install take about, in milliseconds.
const SPAN: u64 = 2500;

/// Whatever moment the joiner dies at, its old data is there or its new data is, and the next start brings it in.
#[test]
fn a_joiner_that_is_killed_at_any_moment() -> Result<()> {
    let pair = Pair::new(Cluster::builder().nodes(2).sst("rlimit=12M"))?;
    let (donor, joiner) = (pair.donor(), pair.joiner());
    let intensity = Intensity { threads: 1, tables: 2, rows: 3000, pause: Duration::from_millis(10) };
    let load = Load::start(donor, intensity)?;
    let mut rng = fastrand::Rng::with_seed(7);
    for round in 0..KILLS {
        joiner.remove_grastate()?;
        let before = Manifest::of(&joiner.datadir())?;
        let delay = rng.u64(0..SPAN);
        kill_after(joiner, Duration::from_millis(delay))?;
        // A member that comes again before the group has let its dead self go may never find in: Galera's own affair.
        until("the group has let the dead member go", Duration::from_secs(60), || {
            Ok(donor.status("wsrep_cluster_size")? == "1")
        })?;
        let installing =
            ["install.json", "installed.json"].map(|n| joiner.datadir().join("#sql-rejoin").join(n));
        if !installing.iter().any(|record| record.exists()) && !joiner.log_since_start().contains("is Synced")
        {
            let changed = before.differences(&Manifest::of(&joiner.datadir())?);
            let whole = changed.is_empty() || finished(joiner);
            ensure!(whole, "round {round}, killed after {delay} ms: {changed:?}");
        }
        // Every third time the node is let in; the other times the next round's kill comes upon what this one left.
        if round % 3 == 2 {
            joiner.join().with_context(|| format!("round {round}, killed after {delay} ms"))?;
            until("the mark of a transfer is gone", Duration::from_secs(1), || {
                Ok(!joiner.datadir().join("sst_in_progress").exists())
            })?;
            joiner.stop()?;
        }
    }
    load.stop()?;
    joiner.join()?;
    compare::assert_equal(donor, joiner)?;
    nothing_is_kept(joiner)
}

/// Starts the server and kills it, and the program, so long after the program said `ready`.
fn kill_after(joiner: &Node, delay: Duration) -> Result<()> {
    joiner.begin(&[])?;
    until("the program runs", Duration::from_secs(60), || {
        Ok(joiner.datadir().join("sst_in_progress").exists() || !joiner.is_alive())
    })?;
    std::thread::sleep(delay);
    let programs = pair::program(joiner);
    programs.iter().for_each(|p| rejoin_lab::process::signal(p.pid, Signal::KILL));
    joiner.kill();
    until("all is dead", Duration::from_secs(5), || Ok(pair::program(joiner).is_empty()))
}

/// Whether the last transfer on this node ended well.
fn finished(joiner: &Node) -> bool {
    pair::last_log(joiner, "joiner").is_ok_and(|log| log.contains("installing:"))
}

/// The replaced files go by themselves.
fn nothing_is_kept(node: &Node) -> Result<()> {
    until("the replaced files are gone", Duration::from_secs(8), || Ok(!pair::leavings(node)))
        .with_context(|| format!("SST processes: {:?}", node.sst_processes()))?;
    until("no process is left", Duration::from_secs(3), || Ok(node.sst_processes().is_empty()))
}

/// Lets a transfer be installed under a server that cannot go on, and kills that server.
fn install_without_server(pair: &mut Pair) -> Result<()> {
    pair.begin(&[])?;
    let joiner = pair.joiner();
    joiner.wait_log("connected to the donor", Duration::from_secs(60))?;
    joiner.signal(Signal::STOP);
    until("the program is done", Duration::from_secs(20), || Ok(pair::program(joiner).is_empty()))?;
    joiner.kill();
    Ok(())
}

#[test]
fn the_old_data_comes_back_byte_for_byte() -> Result<()> {
    let mut pair = Pair::new(Cluster::builder().nodes(2))?;
    // A datadir that was a member, with data of its own, stopped cleanly.
    pair.joins_now()?;
    refuses_while_a_server_runs(&pair)?;
    nothing_is_kept(pair.joiner())?;
    pair.joiner().stop()?;
    pair.donor().exec(&[
        "CREATE DATABASE later",
        "CREATE TABLE later.t (a INT) ENGINE=InnoDB",
        "DROP TABLE sbtest.sbtest2",
    ])?;

    install_without_server(&mut pair)?;
    ensure!(pair.old_data_is_untouched().is_err(), "nothing was installed");
    rolls_back(&pair).context("the server never saw the position")?;

    // Now a server recovers the new data, and more, before it is killed. Tables that stayed or were patched are its own then.
    begins_to_use_it(&mut pair)?;
    let (went, said) = verb(&pair.cluster, pair.joiner(), "rollback")?;
    ensure!(went || said.contains("was written to after"), "{said}");
    if went {
        pair.old_data_is_untouched()?;
    }
    pair.joins_now()?;
    nothing_is_kept(pair.joiner())?;
    pair.joiner().stop()?;
    pair.donor().exec(&["UPDATE sbtest.sbtest1 SET c = 'changed' WHERE id < 1000"])?;
    // Whole copies come back in any case.
    set_sst(pair.joiner(), &["keep-previous=always"])?;
    begins_to_use_it(&mut pair)?;
    rolls_back(&pair).context("the server had begun to use the new data")?;
    set_sst(pair.joiner(), &[])?;

    // An old server could start on it: what it says is its position is where it was.
    ensure!(pair.joiner().recover_position()?.seqno > 0);
    pair.joins_now()?;
    compare::assert_equal(pair.donor(), pair.joiner())?;
    nothing_is_kept(pair.joiner())
}

fn begins_to_use_it(pair: &mut Pair) -> Result<()> {
    pair.begin(&[])?;
    pair.joiner().wait_log("Recovered position from storage", Duration::from_secs(60))?;
    pair.joiner().kill();
    Ok(())
}

fn refuses_while_a_server_runs(pair: &Pair) -> Result<()> {
    let (went, said) = verb(&pair.cluster, pair.joiner(), "rollback")?;
    ensure!(!went && said.contains("runs on") && said.contains("stop it first"), "{said}");
    let pid = pair.joiner().pid().context("no server")?;
    ensure!(said.contains(&format!("process {pid}")), "{said}");
    Ok(())
}

fn rolls_back(pair: &Pair) -> Result<()> {
    let (went, said) = verb(&pair.cluster, pair.joiner(), "rollback")?;
    ensure!(went && said.contains("put back"), "{said}");
    pair.old_data_is_untouched()?;
    ensure!(!pair::leavings(pair.joiner()), "our directory stays");
    let (went, said) = verb(&pair.cluster, pair.joiner(), "rollback")?;
    ensure!(!went && said.contains("nothing to roll back in"), "{said}");
    Ok(())
}

#[test]
fn how_long_replaced_files_are_kept_is_the_operators_choice() -> Result<()> {
    let mut pair = Pair::new(Cluster::builder().nodes(2))?;
    set_sst(pair.joiner(), &["keep-previous=never"])?;
    pair.begin(&[])?;
    pair.joiner().wait_log("installing:", Duration::from_secs(60))?;
    until("the program is done", Duration::from_secs(20), || Ok(pair::program(pair.joiner()).is_empty()))?;
    ensure!(!pair::leavings(pair.joiner()), "something is kept");
    pair.joiner().wait_synced(Duration::from_secs(60))?;

    set_sst(pair.joiner(), &["keep-previous=always"])?;
    pair.begin(&[])?;
    pair.joiner().wait_synced(Duration::from_secs(60))?;
    std::thread::sleep(Duration::from_secs(3));
    let kept = std::fs::read_dir(pair.joiner().datadir().join("#sql-rejoin/old"))?.count();
    ensure!(kept > 50, "{kept} files are kept");
    pair.joiner().stop()?;
    rolls_back(&pair)?;
    pair.joins_now()?;
    compare::assert_equal(pair.donor(), pair.joiner())?;
    // Without its option file nobody knows how to ask the server.
    let (went, said) = verb(&pair.cluster, pair.joiner(), "release")?;
    ensure!(!went && said.contains("does not report that it is Synced"), "{said}");
    ensure!(pair::leavings(pair.joiner()), "nothing is kept");
    let (code, said) = verbs::run(&pair.cluster, pair.joiner(), "release")?;
    ensure!(code == Some(0), "{code:?}: {said}");
    ensure!(!pair::leavings(pair.joiner()), "something is kept");
    ensure!(pair.joiner().is_synced(), "the server has ended");
    Ok(())
}
