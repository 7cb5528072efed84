//! `lab cold`: a node comes back to a cluster of which most tables have not changed. With what both hosts remember, without
//! it, and by rsync: bytes that each host read, and seconds. Then what the table that changes costs in a cluster of its own.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use rejoin_lab::page_cache::forget_all;
use rejoin_lab::{Cluster, compare, data};

use super::bench::fixture::builder;
use super::bench::machine;
use super::observed::Observed;
use super::record::Counted;

/// How long files must have been left alone before a donor remembers them, and a little more.
const SETTLED: Duration = Duration::from_secs(123);
/// One of them is written to while the joiner is away.
const TABLES: u32 = 20;

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// Megabytes in twenty tables: one of sysbench, which is written to, and others of random bytes.
    #[arg(long, default_value_t = 2000)]
    megabytes: u64,
    /// Turns.
    #[arg(long, default_value_t = 3)]
    repeat: u32,
    /// A line for `[sst]` of both nodes; may be given again.
    #[arg(long)]
    sst: Vec<String>,
}

/// What one join took.
struct Took {
    /// From the start of the joiner's program to what it tells its server.
    seconds: f64,
    /// Of the donor's and the joiner's program; `None` of another method.
    bytes: Option<[Counted; 2]>,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    println!("{}.\n", machine::line()?);
    turns(options)?;
    // In the same table.
    hot_alone(options)?;
    println!(
        "\nNothing of either datadir is in the page cache before a transfer. MB are of the hosts' own files."
    );
    Ok(())
}

/// A cluster whose donor has the table that changes and so many others, settled on the disk, and whose joiner has all of it.
fn pair(options: &Options, others: u32) -> Result<(Cluster, Took)> {
    let cluster = builder(2, &options.sst).build()?;
    let (donor, joiner) = (cluster.node(1), cluster.node(2));
    donor.bootstrap()?;
    data::sysbench_tables(donor, 1, data::rows_of(options.megabytes, TABLES)?)?;
    let megabytes = options.megabytes / u64::from(TABLES);
    (1..=others).try_for_each(|n| data::filler(donor, &format!("filler{n}"), megabytes))?;
    donor.write_pages()?;
    std::thread::sleep(SETTLED);
    joiner.wipe()?;
    let full = join(&cluster, "rejoin", 1, 0)?;
    Ok((cluster, full))
}

/// The table that changes, in a cluster that has no other: both hosts read all of it.
fn hot_alone(options: &Options) -> Result<()> {
    let (cluster, _) = pair(options, 0)?;
    (1..=options.repeat).try_for_each(|turn| {
        row(turn, "the table that changes alone", &join(&cluster, "rejoin", 0, turn)?, None);
        Ok(())
    })
}

fn turns(options: &Options) -> Result<()> {
    let (cluster, full) = pair(options, TABLES - 1)?;
    let donor = cluster.node(1);
    let all = data::disk_bytes(&donor.datadir())? as f64 / 1e6;
    let hot = donor.datadir().join("sbtest/sbtest1.ibd").metadata()?.len() as f64 / 1e6;
    println!(
        "{all:.0} MB on disk; the table that changes has {hot:.0} MB. The first, full transfer took {:.1} s.\n",
        full.seconds
    );
    println!(
        "| turn | | transfer (SST), s | of reading everything | MB read, donor | joiner | MB remembered, donor | joiner |"
    );
    println!("|---|---|---:|---:|---:|---:|---:|---:|");
    for turn in 1..=options.repeat {
        let mut reading = None;
        for (name, remembers) in [("rejoin, remember-fingerprints=0", 0), ("rejoin", 1)] {
            let took = join(&cluster, "rejoin", remembers, turn * 10 + remembers)?;
            row(turn, name, &took, Some(*reading.get_or_insert(took.seconds)));
        }
        if turn == options.repeat {
            // The last one: it writes all files of the joiner.
            row(turn, "rsync", &join(&cluster, "rsync", 1, turn * 10 + 2)?, reading);
        }
    }
    Ok(())
}

fn row(turn: u32, name: &str, took: &Took, reading: Option<f64>) {
    let mb = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
    let figures = match took.bytes {
        None => "| | | |".to_owned(),
        Some([donor, joiner]) => format!(
            "{} | {} | {} | {} |",
            mb(donor.read),
            mb(joiner.read),
            mb(donor.remembered),
            mb(joiner.remembered)
        ),
    };
    let part = reading.map_or_else(String::new, |reading| format!("{:.2}", took.seconds / reading));
    println!("| {turn} | {name} | {:.2} | {part} | {figures}", took.seconds);
}

/// Stops the joiner, changes some rows of one table, and lets it come back.
fn join(cluster: &Cluster, method: &str, remembers: u32, change: u32) -> Result<Took> {
    let (donor, joiner) = (cluster.node(1), cluster.node(2));
    if joiner.is_alive() {
        joiner.wait_tidy()?;
        joiner.stop()?;
    }
    donor.exec(&[
        &format!("UPDATE sbtest.sbtest1 SET c = 'changed by {change}' WHERE id % 7 = {}", change % 7),
        &format!("SET GLOBAL wsrep_sst_method='{method}'"),
    ])?;
    let line = format!("remember-fingerprints={remembers}");
    [donor, joiner].into_iter().try_for_each(|node| node.add_options("sst", &[&line]))?;
    compare::wait_purged(donor, 50, Duration::from_secs(600))?;
    donor.checkpoint()?;
    rustix::fs::sync();
    [donor, joiner].into_iter().try_for_each(|node| forget_all(&node.datadir()))?;
    joiner.remove_grastate()?;
    let observed = Observed::join(donor, joiner, &[&format!("--wsrep-sst-method={method}")])?;
    observed.ran(method)?;
    compare::assert_equal(donor, joiner)?;
    let bytes = match method {
        "rejoin" => Some([Counted::on(donor)?, Counted::on(joiner)?]),
        _ => None,
    };
    Ok(Took { seconds: observed.sst()?.as_secs_f64(), bytes })
}
