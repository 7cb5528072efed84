//! Filesystems whose files can share their bytes (the suite's own mostly cannot): what is the same takes no room, nothing is
//! changed where it lies, and all of it goes back.
use anyhow::{Result, ensure};
use rejoin_lab::mounted::Mounted;
use rejoin_lab::places::User;
use rejoin_lab::progress::sent;
use rejoin_lab::skipped::skip;
use rejoin_lab::{Cluster, Node, compare, data};
use transfer::disk::filesystem::shares_bytes;

use super::manifest::Manifest;
use super::pair::{self, verb};

const TABLES: u32 = 2;
const ROWS: u32 = 100_000;

#[test]
fn nodes_on_xfs() -> Result<()> {
    nodes_on("xfs")
}

#[test]
fn nodes_on_btrfs() -> Result<()> {
    nodes_on("btrfs")
}

fn nodes_on(kind: &str) -> Result<()> {
    let user = User::for_servers()?;
    if let Some(missing) = Mounted::what_is_missing_for(kind, user)? {
        return skip(&format!("root and loop devices, to mount {kind}: here {missing}"));
    }
    let cluster = Cluster::builder().nodes(2).build()?;
    let (donor, joiner) = (cluster.node(1), cluster.node(2));
    let _donors = Mounted::made(kind, &donor.datadir(), 4, user)?;
    let joiners = Mounted::made(kind, &joiner.datadir(), 4, user)?;
    ensure!(shares_bytes(&joiner.datadir()), "files on {kind} do not share their bytes here");
    donor.bootstrap()?;
    data::sysbench_tables(donor, TABLES, ROWS)?;
    joiner.join()?;
    joiner.wait_tidy()?;
    joiner.stop()?;
    what_is_the_same_takes_no_room(&cluster, &joiners)?;
    what_is_cut_is_gone_on_with(donor, joiner)
}

fn what_is_the_same_takes_no_room(cluster: &Cluster, mounted: &Mounted) -> Result<()> {
    let (donor, joiner) = (cluster.node(1), cluster.node(2));
    change(donor, 2000)?;
    let (before, used) = (Manifest::of(&joiner.datadir())?, mounted.used()?);
    joiner.add_options("sst", &["keep-previous=always"])?;
    joiner.remove_grastate()?;
    joiner.join()?;
    let words = pair::words_of(joiner);
    ensure!(words.contains(", 0 patched in place"), "{words}");
    let little = sent(joiner)?;
    ensure!(little.same > little.all / 4 * 3, "{little:?}\n{words}");
    compare::assert_equal(donor, joiner)?;
    joiner.stop()?;
    ensure!(joiner.innochecksum()? > TABLES as usize, "tablespaces were checked");
    let tables = (1..=TABLES).map(|n| joiner.datadir().join(format!("sbtest/sbtest{n}.ibd")).metadata());
    let tables = tables.map(|meta| Ok(meta?.len())).sum::<Result<u64>>()?;
    let (grew, both) = (mounted.used()?.saturating_sub(used), data::disk_bytes(&joiner.datadir())?);
    // Of two sets the tables are there once: their old files hold what the new ones have of them.
    ensure!(
        grew < both / 2 - tables / 2,
        "{grew} more in use, for two sets of {both} with tables of {tables}"
    );
    let (went, said) = verb(cluster, joiner, "rollback")?;
    ensure!(went && said.contains("put back"), "{said}");
    let changed = before.differences(&Manifest::of(&joiner.datadir())?);
    ensure!(changed.is_empty(), "changed by an install and its rollback: {changed:?}");
    ensure!(joiner.recover_position()?.seqno > 0);
    joiner.add_options("sst", &["keep-previous=until-synced"])
}

fn what_is_cut_is_gone_on_with(donor: &Node, joiner: &Node) -> Result<()> {
    // Much more than what is received before the cut, however well pages pack.
    change(donor, 10)?;
    donor.add_options("sst", &["rlimit=4M", "compress=none"])?;
    let before = Manifest::of(&joiner.datadir())?;
    joiner.remove_grastate()?;
    joiner.cut_joining(donor, 6 << 20)?;
    let changed = before.differences(&Manifest::of(&joiner.datadir())?);
    ensure!(changed.is_empty(), "changed by a transfer that was cut: {changed:?}");
    donor.add_options("sst", &["rlimit=4G"])?;
    joiner.join()?;
    let rest = sent(joiner)?;
    ensure!(rest.received > 4 << 20, "{rest:?}\n{}", pair::words_of(joiner));
    compare::assert_equal(donor, joiner)?;
    joiner.wait_tidy()?;
    joiner.stop()?;
    ensure!(joiner.innochecksum()? > TABLES as usize, "tablespaces were checked");
    Ok(())
}

/// One row in so many, on pages of the files: what is in the redo log only would travel as that.
fn change(donor: &Node, one_in: u32) -> Result<()> {
    for table in 1..=TABLES {
        donor.exec(&[&format!(
            "UPDATE sbtest.sbtest{table} SET c = 'changed for {one_in}' WHERE id % {one_in} = 0"
        )])?;
    }
    donor.write_pages()
}
