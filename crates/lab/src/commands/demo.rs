//! `lab demo`: one join, shown.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use rejoin_lab::load::{Intensity, Load, LoadReport};
use rejoin_lab::{Cluster, Node, compare, data, zoo};

use super::watch;

const TABLES: u32 = 4;

/// What to show.
#[derive(Args)]
pub struct Options {
    /// SST method of the joiner.
    #[arg(long, default_value = "rejoin")]
    method: String,
    /// Megabytes of sysbench tables.
    #[arg(long, default_value_t = 400)]
    megabytes: u64,
    /// Connections that write during the join.
    #[arg(long, default_value_t = 2)]
    writers: u32,
    /// The joiner was a member before and comes back with its old data, instead of with an empty disk.
    #[arg(long)]
    old_data: bool,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    let rows = data::rows_of(options.megabytes, TABLES)?;
    let cluster =
        Cluster::builder().nodes(2).method(&options.method).provider("gcache.size", "256M").build()?;
    let (donor, joiner) = (cluster.node(1), cluster.node(2));
    println!("node 1: Synced after {:.1} s", donor.bootstrap()?.as_secs_f64());
    println!("loading {TABLES} tables of {rows} rows, and one table of every kind ...");
    zoo::create(donor)?;
    data::sysbench_tables(donor, TABLES, rows)?;
    joiner.wipe()?;
    if options.old_data {
        println!("node 2 joins once and leaves, to come back with old data ...");
        joiner.join()?;
        joiner.stop()?;
        joiner.remove_grastate()?;
    }
    let writers =
        Intensity { threads: options.writers, tables: TABLES, rows, pause: Duration::from_millis(2) };
    let load = Load::start(donor, writers)?;
    // The longest wait is to be compared with how it is without a transfer.
    std::thread::sleep(Duration::from_secs(2));
    join(donor, joiner, load, options)
}

fn join(donor: &Node, joiner: &Node, load: Load, options: &Options) -> Result<()> {
    let bytes = data::disk_bytes(&donor.datadir())?;
    println!(
        "node 2 joins with wsrep_sst_method={}, {} connections writing to node 1 ...",
        options.method, options.writers
    );
    joiner.begin(&[])?;
    let joined = watch::until_synced(joiner, donor, bytes, Duration::from_secs(1800));
    let load = load.stop()?;
    let joined = joined?;
    println!("node 2: Synced; comparing every object of both nodes ...");
    let differences = compare::compare(donor, joiner)?;
    report(bytes, &joined, &load, differences.is_empty());
    differences.iter().take(30).for_each(|difference| println!("  {difference}"));
    ensure!(differences.is_empty(), "{} differences", differences.len());
    let errors = joiner.unexpected_errors(&[]);
    ensure!(errors.is_empty(), "errors in the joiner's log:\n{}", errors.join("\n"));
    Ok(())
}

fn report(bytes: u64, joined: &watch::Joined, load: &LoadReport, equal: bool) {
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    println!();
    println!("donor's datadir          {}", mib(bytes));
    println!(
        "bytes on the network     {}",
        joined.wire_bytes.map_or("not told by this method".to_owned(), mib)
    );
    println!("start to Synced          {:.1} s", joined.took.as_secs_f64());
    println!("commits meanwhile        {} ({} failed)", load.commits, load.errors);
    println!(
        "transactions took        {:.1} ms (half), {:.1} ms (99 of 100)",
        millis(load.p50),
        millis(load.p99)
    );
    println!("longest wait of a commit {:.0} ms", millis(load.longest));
    println!("nodes are equal          {}", if equal { "yes" } else { "NO" });
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
