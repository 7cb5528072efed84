//! `lab figures`: what a node that comes back receives, by how much was changed since and how much before.
//!
//! Two numbers decide how much two nodes share: how many rows were changed while the node was away, and how often rows
//! were rewritten while both were members since the node's last copy of the data ("churn": each writes a page its own way).
//! For each pair the node is put back to the same old datadir before each method takes its turn.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use rejoin_lab::data;

mod fixture;
mod grid;
mod pairs;
mod trial;

use super::bench::machine;
use super::link::LinkOptions;
use fixture::Fixture;
use trial::{Contender, Trial, Trials};

/// What to measure.
#[derive(Args, Clone)]
pub struct Options {
    /// Megabytes of sysbench tables.
    #[arg(long, default_value_t = 200)]
    megabytes: u64,
    /// So many small tables beside them.
    #[arg(long, default_value_t = 0)]
    small_tables: u32,
    /// Rows rewritten while both were members, in multiples of all rows.
    #[arg(long, value_delimiter = ',', default_value = "0,0.2,1,4")]
    churn: Vec<f64>,
    /// Percent of all rows changed while the joiner was away.
    #[arg(long, value_delimiter = ',', default_value = "0,0.1,1,10,100")]
    changed: Vec<f64>,
    /// Which rows: uniform, pareto (skewed), and what else sysbench knows as --rand-type.
    #[arg(long, default_value = "uniform")]
    rand_type: String,
    /// The methods; may be given again, separated by commas. All when not given.
    #[arg(long, value_enum, value_delimiter = ',')]
    method: Vec<Contender>,
    /// Each method takes so many turns
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// A line for `[sst]` of all nodes; may be given again.
    #[arg(long)]
    sst: Vec<String>,
    /// A line for `[mysqld]` of all nodes; may be given again.
    #[arg(long)]
    mysqld: Vec<String>,
    /// The donor is written to meanwhile.
    #[arg(long)]
    loaded: bool,
    #[command(flatten)]
    link: LinkOptions,
    /// Look at pairs of pages only: what each way to send a page would take. Nothing is transferred but by rejoin.
    #[arg(long)]
    pairs: bool,
    #[command(flatten)]
    grid: grid::GridOptions,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    if options.grid.is_asked() {
        return grid::run(options);
    }
    ensure!(!options.churn.is_empty() && !options.changed.is_empty(), "nothing to measure");
    let contenders = match (&options.method[..], options.pairs) {
        (_, true) => vec![Contender::Rejoin],
        ([], false) => Contender::USUAL.to_vec(),
        (some, false) => some.to_vec(),
    };
    let link = options.link.link()?;
    println!("{}.\n", machine::line()?);
    options.churn.iter().try_for_each(|churn| by_changes(options, &contenders, *churn))?;
    println!("{}", trial::notes(link.is_some()));
    Ok(())
}

/// Two nodes with this much rewritten while both were members, and every method for each share of rows changed since.
fn by_changes(options: &Options, contenders: &[Contender], churn: f64) -> Result<()> {
    let fixture = Fixture::make(options)?;
    let rewritten = fixture.rewrite(churn)?;
    fixture.leave().context("the joiner leaves")?;
    println!("Churn {churn} ({rewritten} transactions, {}):\n", options.rand_type);
    if !options.pairs {
        println!("{}", trial::head(fixture.path().is_some()));
    }
    let (mut before, mut own) = (0.0, Vec::new());
    for &changed in &options.changed {
        ensure!(changed >= before, "--changed must not fall: it is done on top of what was changed before");
        fixture.change((changed - before) / 100.0)?;
        before = changed;
        let all = in_turns(&fixture, contenders, options)
            .with_context(|| format!("churn {churn}, {changed} % changed"))?;
        if !options.pairs {
            all.iter().for_each(|trials| println!("| {changed} % | {}", trials.row()));
        }
        if options.pairs {
            println!("{changed} % changed: {}", pairs::weigh(fixture.old(), &fixture.joiner().datadir())?);
        } else {
            let cell = if fixture.path().is_some() { " |" } else { "" };
            println!("| {changed} % | {}{cell}", fixture.pages()?.row());
            own.extend(trial::own_choice(&all).map(|[synced, transfer]| {
                format!(
                    "{changed} %: by itself {synced:.2} of the best fixed choice's seconds to Synced, {transfer:.2} of the transfer's."
                )
            }));
        }
    }
    if !own.is_empty() {
        println!("\n{}", own.join("\n"));
    }
    print!("\n{:.1} MB on disk; reading both datadirs at once takes ", fixture.megabytes()?);
    // What was just compared, and what the server wrote past it, is not all there.
    fixture.read_both(false)?;
    let (cached, from_disk) = (fixture.read_both(false)?, fixture.read_both(true)?);
    println!("{cached:.2} s from the page cache, {from_disk:.2} s with the donor's from the disk.\n");
    if let Some(path) = fixture.path() {
        println!("{}\n", path.report()?);
    }
    Ok(())
}

/// Each contender joins so many times, in turns with the others.
fn in_turns(fixture: &Fixture, contenders: &[Contender], options: &Options) -> Result<Vec<Trials>> {
    let mut all = Trials::none_of(contenders);
    (0..options.repeat).try_for_each(|_| one_turn(fixture, contenders, options.loaded, &mut all))?;
    Ok(all)
}

/// Each contender joins once more.
fn one_turn(fixture: &Fixture, contenders: &[Contender], loaded: bool, all: &mut [Trials]) -> Result<()> {
    contenders.iter().zip(all).try_for_each(|(contender, trials)| {
        // Without clients every turn does the same.
        let compare = loaded || trials.0.is_empty();
        trials.0.push(Trial::run(fixture, *contender, loaded, compare).context(contender.name())?);
        Ok(())
    })
}

/// How long nodes are waited for.
const PATIENCE: Duration = Duration::from_secs(600);

/// Rows that a transaction of sysbench's `oltp_write_only` rewrites: two updates, and one that is deleted and inserted.
const ROWS_EACH: f64 = 3.0;

fn transactions(rows: u32, times: f64) -> u64 {
    (f64::from(rows) * f64::from(fixture::TABLES) * times / ROWS_EACH) as u64
}

fn sysbench_run(node: &rejoin_lab::Node, rows: u32, rand_type: &str, events: u64) -> Result<()> {
    if events == 0 {
        return Ok(());
    }
    let mut command = data::sysbench(node, "oltp_write_only", fixture::TABLES, rows)?;
    command.args([
        "--threads=4",
        "--time=0",
        &format!("--events={events}"),
        &format!("--rand-type={rand_type}"),
    ]);
    command.args(["--mysql-ignore-errors=all", "run"]);
    rejoin_lab::process::run(command, PATIENCE * 3).context("sysbench").map(drop)
}
