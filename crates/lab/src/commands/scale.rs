//! `lab scale`: what does not depend on how much changed must not depend on the number of tables. Transfers with ten tables
//! and with many, in one run: pause of replication, memory of both programs, seconds.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use rejoin_lab::load::{Intensity, Load};
use rejoin_lab::usage::HighWater;
use rejoin_lab::{Cluster, Node, Snapshot, data};

use super::observed::Observed;

/// What all others are compared with.
const FEW: u32 = 10;
const SYSBENCH_TABLES: u32 = 2;
const SYSBENCH_ROWS: u32 = 5_000;
const DATABASE: &str = "scale";
/// How long a server may take to start or stop.
const PATIENCE: Duration = Duration::from_secs(600);

const SETTINGS: [&str; 10] = [
    // An empty table takes 28 KiB instead of 112.
    "innodb_page_size=4k",
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

/// Only while tables are made: nobody needs them after a crash.
const MAKING: [&str; 6] = [
    "--wsrep-new-cluster",
    "--innodb-flush-method=nosync",
    "--innodb-doublewrite=0",
    "--innodb-flush-log-at-trx-commit=0",
    "--sync-frm=OFF",
    "--innodb-buffer-pool-size=2G",
];

/// How many tables, and what is varied.
#[derive(Args)]
pub struct Options {
    /// Numbers of tables beside ten, ascending.
    #[arg(long, value_delimiter = ',', default_value = "1000,20000")]
    tables: Vec<u32>,
    /// Transfers at each number: the first to an empty joiner, the others to one that has the same files.
    #[arg(long, default_value_t = 3)]
    tries: u32,
    /// Keeps the tables that were made in this directory, for the next run with the same numbers and settings.
    #[arg(long)]
    template: Option<PathBuf>,
    /// A line for `[mysqld]` of both nodes; may be given again.
    #[arg(long)]
    mysqld: Vec<String>,
    /// A line for `[sst]` of both nodes; may be given again.
    #[arg(long)]
    sst: Vec<String>,
}

/// Of one transfer.
struct Transfer {
    empty: bool,
    /// Milliseconds by our own log: held, and of it the server's part before anything is done.
    pause: f64,
    granted: f64,
    /// The longest commit of the donor's client, in milliseconds.
    client: f64,
    /// Bytes.
    donor: u64,
    joiner: u64,
    /// Seconds.
    transfer: f64,
    synced: f64,
}

/// Of all transfers at one number of tables.
struct Row {
    tables: u32,
    all: Vec<Transfer>,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    let lines = SETTINGS.iter().copied().chain(options.mysqld.iter().map(String::as_str));
    let builder = lines.fold(Cluster::builder().nodes(2), |builder, line| builder.mysqld(line));
    let cluster = options.sst.iter().fold(builder, |builder, line| builder.sst(line)).build()?;
    let (donor, joiner) = (cluster.node(1), cluster.node(2));
    let mut rows = Vec::new();
    let mut made = 0;
    for tables in std::iter::once(FEW).chain(options.tables.iter().copied()) {
        ensure!(tables >= made, "the numbers of tables must ascend");
        let began = Instant::now();
        let kept = options.template.as_ref().map(|dir| dir.join(tables.to_string()));
        match kept.as_deref().and_then(Snapshot::at) {
            Some(snapshot) => donor.restore(&snapshot)?,
            None => {
                make(donor, made..tables)?;
                kept.map(|dir| donor.snapshot_to(&dir)).transpose()?;
            }
        }
        rustix::fs::sync();
        donor.bootstrap()?;
        println!("{tables} tables after {:.1} s more of making them", began.elapsed().as_secs_f64());
        made = tables;
        joiner.wipe()?;
        let all = (0..options.tries).map(|n| transfer(donor, joiner, n == 0));
        rows.push(Row {
            tables,
            all: all.collect::<Result<_>>().with_context(|| format!("{tables} tables"))?,
        });
        donor.terminate();
        ensure!(donor.wait_exit(PATIENCE).is_some(), "the donor did not stop");
    }
    print(&rows);
    Ok(())
}

/// Makes tables on a donor that is down, fast.
fn make(donor: &Node, tables: std::ops::Range<u32>) -> Result<()> {
    donor.begin(&MAKING)?;
    donor.wait_synced(PATIENCE)?;
    if tables.start == 0 {
        data::sysbench_tables(donor, SYSBENCH_TABLES, SYSBENCH_ROWS)?;
    }
    data::more_small_tables(donor, DATABASE, tables)?;
    donor.terminate();
    ensure!(donor.wait_exit(PATIENCE).is_some_and(|status| status.success()), "the donor did not stop");
    Ok(())
}

fn transfer(donor: &Node, joiner: &Node, empty: bool) -> Result<Transfer> {
    let pause = Duration::from_millis(1);
    let (tables, rows) = (SYSBENCH_TABLES, SYSBENCH_ROWS);
    let load = Load::start(donor, Intensity { threads: 1, tables, rows, pause })?;
    let memory = HighWater::watch(donor.pid().context("the donor is down")?)?;
    let (observed, joiner_memory) = Observed::join_watched(donor, joiner, &[])?;
    let load = load.stop()?;
    ensure!(load.commits > 0, "nothing was committed: {:?}", load.last_error);
    let (from, to) = observed.giving()?;
    let (held, granted) = paused(&observed.donor_log())?;
    let measured = Transfer {
        empty,
        pause: held,
        granted,
        client: load.longest_within(from, to).as_secs_f64() * 1000.0,
        donor: memory.stop()?,
        joiner: joiner_memory,
        transfer: observed.sst()?.as_secs_f64(),
        synced: observed.took.as_secs_f64(),
    };
    println!(
        "  {}: paused {held:.1} ms (granted after {granted:.1}), longest commit {:.1} ms, donor {} MB, joiner {} MB, transfer {:.1} s, Synced {:.1} s",
        if empty { "empty" } else { "again" },
        measured.client,
        measured.donor / 1_000_000,
        measured.joiner / 1_000_000,
        measured.transfer,
        measured.synced,
    );
    joiner.terminate();
    ensure!(joiner.wait_exit(PATIENCE).is_some(), "the joiner did not stop");
    joiner.remove_grastate()?;
    Ok(measured)
}

/// Milliseconds: the pause, and what of it the server took to grant it.
fn paused(log: &str) -> Result<(f64, f64)> {
    let after = |lead: &str| -> Result<f64> {
        let rest = log.rsplit_once(lead).with_context(|| format!("no {lead:?} in the donor's log"))?.1;
        Ok(rest.split_once(" ms").context("a pause without its unit")?.0.parse()?)
    };
    Ok((after("replication paused for ")?, after("(granted after ")?))
}

fn print(rows: &[Row]) {
    println!(
        "\n| tables | pause ms (of it granting) | x | longest commit ms | x | donor MB | joiner MB: empty, again | transfer s: empty, again | to Synced s: empty, again |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    let few = &rows[0];
    for row in rows {
        let (pause, client) = (row.median(|t| t.pause), row.median(|t| t.client));
        println!(
            "| {} | {pause:.1} ({:.1}) | {:.2} | {client:.1} | {:.2} | {:.0} | {} | {} | {} |",
            row.tables,
            row.median(|t| t.granted),
            pause / few.median(|t| t.pause),
            client / few.median(|t| t.client),
            row.all.iter().map(|t| t.donor).max().unwrap_or_default() as f64 / 1e6,
            row.both(|t| t.joiner as f64 / 1e6, 0),
            row.both(|t| t.transfer, 1),
            row.both(|t| t.synced, 1),
        );
    }
}

impl Row {
    fn median(&self, of: impl Fn(&Transfer) -> f64) -> f64 {
        median(self.all.iter().map(of))
    }

    fn both(&self, of: impl Fn(&Transfer) -> f64, digits: usize) -> String {
        let kind = |empty: bool| median(self.all.iter().filter(|t| t.empty == empty).map(&of));
        format!("{:.digits$}, {:.digits$}", kind(true), kind(false))
    }
}

/// 0 of none.
fn median(of: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = of.collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or_default()
}
