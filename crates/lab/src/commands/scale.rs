//! `lab scale`: what does not depend on how much changed must not depend on the number of tables, and what depends on the
//! bytes must depend on nothing else. Transfers with ten tables, with many, and with many bytes, in one run: pause of
//! replication, memory of both programs, processor time, page cache, seconds.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use rejoin_lab::{Cluster, Node, Snapshot, data};

mod room;
mod table;
mod transfer;

use super::bench::ceilings::Ceilings;
use super::bench::machine;
use table::{Row, print};
use transfer::Transfer;

/// What all others are compared with.
const FEW: u32 = 10;
const SYSBENCH_TABLES: u32 = 2;
const SYSBENCH_ROWS: u32 = 5_000;
/// Where small tables are.
const DATABASE: &str = "scale";
/// Tables that have the megabytes, for each step.
const FILLERS: u64 = 4;
/// How long a server may take to start or stop.
const PATIENCE: Duration = Duration::from_secs(600);

const SETTINGS: [&str; 9] = [
    "innodb_buffer_pool_size=512M",
    "innodb_log_file_size=256M",
    "innodb_flush_log_at_trx_commit=2",
    // Neither server holds all tables open.
    "table_open_cache=2000",
    "table_definition_cache=2000",
    "innodb_open_files=2000",
    "open_files_limit=16384",
    "innodb_stats_auto_recalc=OFF",
    "innodb_stats_persistent=OFF",
];

/// Of nodes with many tables: an empty table takes 28 KiB instead of 112.
const SMALL_PAGES: &str = "innodb_page_size=4k";

/// Only while tables are made: nobody needs them after a crash.
const MAKING: [&str; 6] = [
    "--wsrep-new-cluster",
    "--innodb-flush-method=nosync",
    "--innodb-doublewrite=0",
    "--innodb-flush-log-at-trx-commit=0",
    "--sync-frm=OFF",
    "--innodb-buffer-pool-size=2G",
];

/// How many tables and megabytes, and what is varied.
#[derive(Args)]
pub struct Options {
    /// Numbers of tables beside ten, ascending. 1000,20000 when neither these nor megabytes are given.
    #[arg(long, value_delimiter = ',')]
    tables: Vec<u32>,
    /// Megabytes of data in few tables, ascending: 1000,5000,20000.
    #[arg(long, value_delimiter = ',')]
    megabytes: Vec<u64>,
    /// Transfers at each size: the first to an empty joiner, the others to one that has the same files.
    #[arg(long, default_value_t = 3)]
    tries: u32,
    /// The page cache has nothing of either node's files before a transfer.
    #[arg(long)]
    cold: bool,
    /// Keeps what was made in this directory, for the next run with the same sizes and settings.
    #[arg(long)]
    template: Option<PathBuf>,
    /// A line for `[mysqld]` of both nodes; may be given again.
    #[arg(long)]
    mysqld: Vec<String>,
    /// A line for `[sst]` of both nodes (threads=16: 16 connections); may be given again.
    #[arg(long)]
    sst: Vec<String>,
}

/// What a donor has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// So many small tables.
    Tables(u32),
    /// So many megabytes in few tables.
    Megabytes(u64),
}

impl Size {
    fn name(self) -> String {
        match self {
            Size::Tables(tables) => tables.to_string(),
            Size::Megabytes(megabytes) => format!("{megabytes}-megabytes"),
        }
    }

    /// Makes it of a running donor that has `before`.
    fn make(self, donor: &Node, before: Option<Size>) -> Result<()> {
        match (before, self) {
            (None, Size::Tables(to)) => data::more_small_tables(donor, DATABASE, 0..to),
            (Some(Size::Tables(from)), Size::Tables(to)) => {
                data::more_small_tables(donor, DATABASE, from..to)
            }
            (Some(Size::Megabytes(from)), Size::Megabytes(to)) => fill(donor, from, to),
            (_, Size::Megabytes(to)) => fill(donor, 0, to),
            (Some(Size::Megabytes(_)), Size::Tables(_)) => anyhow::bail!("tables come first"),
        }
    }
}

fn fill(donor: &Node, from: u64, to: u64) -> Result<()> {
    (1..=FILLERS).try_for_each(|n| data::filler(donor, &format!("filler{to}_{n}"), (to - from) / FILLERS))
}

/// Runs it. What was measured before a failure is shown as well.
pub fn run(options: &Options) -> Result<()> {
    let asked = !options.tables.is_empty() || !options.megabytes.is_empty();
    let tables = if asked { &options.tables[..] } else { &[1_000, 20_000] };
    let tables: Vec<Size> = std::iter::once(&FEW).chain(tables).map(|n| Size::Tables(*n)).collect();
    let megabytes: Vec<Size> = options.megabytes.iter().map(|n| Size::Megabytes(*n)).collect();
    ensure!(options.tries > 0, "nothing to measure");
    let ascends = |sizes: &[Size]| sizes.is_sorted_by_key(|size| room::bytes(*size));
    ensure!(ascends(&tables) && ascends(&megabytes), "tables (more than {FEW}) and megabytes must ascend");
    room::ensure_room(&[&tables, &megabytes], options.template.as_deref())?;
    println!("{}.\n", machine::line()?);
    let mut rows = Vec::new();
    let measured = measure(options, &tables, &[SMALL_PAGES], &mut rows)
        .and_then(|()| measure(options, &megabytes, &[], &mut rows));
    if !rows.is_empty() {
        print(&rows);
    }
    measured
}

/// Sizes of one kind, with nodes of their own.
fn measure(options: &Options, sizes: &[Size], lines: &[&str], rows: &mut Vec<Row>) -> Result<()> {
    if sizes.is_empty() {
        return Ok(());
    }
    let lines = SETTINGS.iter().chain(lines).copied().chain(options.mysqld.iter().map(String::as_str));
    let builder = lines.fold(Cluster::builder().nodes(2), |builder, line| builder.mysqld(line));
    let cluster = options.sst.iter().fold(builder, |builder, line| builder.sst(line)).build()?;
    let (donor, joiner) = (cluster.node(1), cluster.node(2));
    let mut made = None;
    // By the first size whose files are long enough to tell.
    let mut ceilings = None;
    for &size in sizes {
        let began = Instant::now();
        let kept = options.template.as_ref().map(|dir| dir.join(size.name()));
        match kept.as_deref().and_then(Snapshot::at) {
            Some(snapshot) => donor.restore(&snapshot)?,
            None => {
                make(donor, made, size)?;
                kept.map(|dir| donor.snapshot_to(&dir)).transpose()?;
            }
        }
        made = Some(size);
        rustix::fs::sync();
        println!("{size:?} after {:.1} s more of making them", began.elapsed().as_secs_f64());
        if ceilings.is_none() && matches!(size, Size::Megabytes(_)) {
            let found = Ceilings::measure(&donor.datadir(), cluster.dir(), None)?;
            println!("{found}");
            ceilings = Some(found);
        }
        donor.bootstrap()?;
        joiner.wipe()?;
        let all = (0..options.tries).map(|n| {
            Transfer::run(donor, joiner, n == 0, options.cold).with_context(|| format!("{size:?}, try {n}"))
        });
        rows.push(Row { size, ceilings, all: all.collect::<Result<_>>()? });
        donor.terminate();
        ensure!(donor.wait_exit(PATIENCE).is_some(), "the donor did not stop");
    }
    Ok(())
}

/// Makes tables on a donor that is down, fast.
fn make(donor: &Node, before: Option<Size>, size: Size) -> Result<()> {
    donor.begin(&MAKING)?;
    donor.wait_synced(PATIENCE)?;
    if before.is_none() {
        data::sysbench_tables(donor, SYSBENCH_TABLES, SYSBENCH_ROWS)?;
    }
    size.make(donor, before)?;
    donor.terminate();
    ensure!(donor.wait_exit(PATIENCE).is_some_and(|status| status.success()), "the donor did not stop");
    Ok(())
}
