//! `lab throttle`: what clients of a busy donor feel of a transfer, with `adaptive-throttle` and without, and what it costs.
//!
//! The donor's clients first write as fast as they can, then at a part of that rate all the time: without a transfer, during
//! full transfers that give way to nobody, and during full transfers as they are by themselves, in turn.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use rejoin_lab::load::{Intensity, Load, LoadReport};
use rejoin_lab::mounted::Mounted;
use rejoin_lab::page_cache::forget_all;
use rejoin_lab::places::User;
use rejoin_lab::{Cluster, Node, data};

use super::bench::{fixture, machine};
use super::median;
use super::observed::Observed;

const TABLES: u32 = 4;
/// How long clients write as fast as they can.
const FLAT_OUT: Duration = Duration::from_secs(10);
/// How long they write before they are looked at.
const WARM: Duration = Duration::from_secs(3);
/// What a transfer may cost: p99 of the clients, and its own seconds.
const GOAL: (f64, f64) = (2.0, 1.5);

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// Megabytes of sysbench tables.
    #[arg(long, default_value_t = 4000)]
    megabytes: u64,
    /// Connections that write to the donor.
    #[arg(long, default_value_t = 4)]
    writers: u32,
    /// How much they write, in percent of what the idle donor can take.
    #[arg(long, default_value_t = 80)]
    load: u32,
    /// Seconds without a transfer, each time.
    #[arg(long, default_value_t = 20)]
    calm: u64,
    /// The joiner's files lie on the donor's disk. Else they are in memory, because a joiner has a disk of its own.
    #[arg(long)]
    one_disk: bool,
    /// How many times all three take their turn.
    #[arg(long, default_value_t = 3)]
    repeat: u32,
    /// A line for `[sst]` of all nodes; may be given again.
    #[arg(long)]
    sst: Vec<String>,
    /// A line for `[mysqld]` of all nodes; may be given again.
    #[arg(long)]
    mysqld: Vec<String>,
}

/// What happens while clients are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meanwhile {
    Nothing,
    /// A transfer with `adaptive-throttle=` this.
    Transfer(bool),
}

impl Meanwhile {
    const ALL: [Self; 3] = [Self::Nothing, Self::Transfer(false), Self::Transfer(true)];

    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "no transfer",
            Self::Transfer(false) => "adaptive-throttle=0",
            Self::Transfer(true) => "adaptive-throttle=1",
        }
    }
}

/// What was seen in one turn.
struct Turn {
    meanwhile: Meanwhile,
    commits: f64,
    p99: Duration,
    longest: Duration,
    /// While the donor gave.
    took: Duration,
    /// How often it was slowed.
    slowed: usize,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    ensure!(options.repeat > 0 && options.writers > 0 && options.load > 0, "nothing to measure");
    println!("{}.\n", machine::line()?);
    let builder = fixture::builder(2, &options.sst).mysqld("innodb_flush_log_at_trx_commit=1");
    let builder = options.mysqld.iter().fold(builder, |builder, line| builder.mysqld(line));
    let cluster = builder.mysqld_of(2, "wsrep_sst_donor=n1").build()?;
    let rows = data::rows_of(options.megabytes, TABLES)?;
    let joiner = cluster.node(2);
    let disk = || Mounted::small(&joiner.datadir(), options.megabytes * 2 + 2000, User::for_servers()?);
    let _disk = (!options.one_disk).then(disk).transpose()?;
    println!("loading {} MB ...", options.megabytes);
    cluster.node(1).bootstrap()?;
    data::sysbench_tables(cluster.node(1), TABLES, rows)?;
    let intensity = Intensity { threads: options.writers, tables: TABLES, rows, pause: Duration::ZERO };
    let most = flat_out(cluster.node(1), intensity)?;
    let rate = most * f64::from(options.load) / 100.0;
    println!("{most:.0} commits a second flat out, so {rate:.0} from here on");
    let mut turns = Vec::new();
    for number in 1..=options.repeat {
        for meanwhile in Meanwhile::ALL {
            let turn =
                turn(&cluster, options, meanwhile, || Load::start_at_rate(cluster.node(1), intensity, rate));
            let turn = turn.with_context(|| format!("{} {number}", meanwhile.name()))?;
            println!(
                "  {} {number}: {:.0} commits a second, p99 {:.1} ms, {:.1} s, slowed {} times",
                meanwhile.name(),
                turn.commits,
                ms(turn.p99),
                turn.took.as_secs_f64(),
                turn.slowed
            );
            turns.push(turn);
        }
    }
    println!("\n{}", table(&turns));
    Ok(())
}

/// Commits a second of clients that do not rest.
fn flat_out(donor: &Node, intensity: Intensity) -> Result<f64> {
    let load = Load::start(donor, intensity)?;
    std::thread::sleep(WARM);
    let from = Instant::now();
    std::thread::sleep(FLAT_OUT);
    let to = Instant::now();
    Ok(committed(load.stop()?)?.rate_within(from, to))
}

fn committed(report: LoadReport) -> Result<LoadReport> {
    ensure!(report.commits > 0, "nothing was committed: {:?}", report.last_error);
    Ok(report)
}

fn turn(
    cluster: &Cluster,
    options: &Options,
    meanwhile: Meanwhile,
    load: impl FnOnce() -> Result<Load>,
) -> Result<Turn> {
    let (donor, joiner) = (cluster.node(1), cluster.node(2));
    joiner.wipe()?;
    donor.checkpoint()?;
    rustix::fs::sync();
    // As beside a server that reads and writes past the page cache.
    forget_all(&donor.datadir())?;
    let load = load()?;
    std::thread::sleep(WARM);
    let (from, to, slowed) = match meanwhile {
        Meanwhile::Nothing => {
            let from = Instant::now();
            std::thread::sleep(Duration::from_secs(options.calm));
            (from, Instant::now(), 0)
        }
        Meanwhile::Transfer(adaptive) => {
            donor.add_options("sst", &[&format!("adaptive-throttle={}", u8::from(adaptive))])?;
            let observed = Observed::join(donor, joiner, &[])?;
            observed.ran("rejoin")?;
            let log = observed.donor_log();
            ensure!(log.contains("snapshot: online"), "the snapshot was not online:\n{log}");
            let (from, to) = observed.giving()?;
            (from, to, log.matches("the transfer is slowed for the donor's server").count())
        }
    };
    let report = committed(load.stop()?)?;
    if meanwhile != Meanwhile::Nothing {
        joiner.stop()?;
    }
    Ok(Turn {
        meanwhile,
        commits: report.rate_within(from, to),
        p99: report.p99_within(from, to),
        longest: report.longest_within(from, to),
        took: to - from,
        slowed,
    })
}

/// Medians of the turns, and how they compare, as Markdown.
fn table(turns: &[Turn]) -> String {
    let of = |meanwhile: Meanwhile, value: fn(&Turn) -> f64| {
        median(turns.iter().filter(|turn| turn.meanwhile == meanwhile).map(value))
    };
    let (calm, free) = (Meanwhile::Nothing, Meanwhile::Transfer(false));
    let mut out = "| median | commits a second | p99, ms | of that without a transfer | longest, ms | transfer, s | of that without the throttle |\n\
                   |---|---:|---:|---:|---:|---:|---:|\n"
        .to_owned();
    let p99 = |meanwhile| of(meanwhile, |turn| ms(turn.p99));
    let took = |meanwhile| of(meanwhile, |turn| turn.took.as_secs_f64());
    for meanwhile in Meanwhile::ALL {
        let transfer = match meanwhile {
            Meanwhile::Nothing => "| |".to_owned(),
            Meanwhile::Transfer(_) => {
                format!("{:.1} | {:.2} |", took(meanwhile), took(meanwhile) / took(free))
            }
        };
        out += &format!(
            "| {} | {:.0} | {:.1} | {:.2} | {:.0} | {transfer}\n",
            meanwhile.name(),
            of(meanwhile, |turn| turn.commits),
            p99(meanwhile),
            p99(meanwhile) / p99(calm),
            of(meanwhile, |turn| ms(turn.longest)),
        );
    }
    let reached = (p99(Meanwhile::Transfer(true)) / p99(calm), took(Meanwhile::Transfer(true)) / took(free));
    let is = if reached.0 <= GOAL.0 && reached.1 <= GOAL.1 { "reached" } else { "not reached" };
    out + &format!(
        "\nGoal, p99 at most {:.1} of that without a transfer at {:.1} of the seconds without the throttle: {is}.",
        GOAL.0, GOAL.1
    )
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
