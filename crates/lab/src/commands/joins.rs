//! `lab joins`: many joins in a row, everything compared each time.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use fastrand::Rng;
use rejoin_lab::ddl::{Repertoire, Storm};
use rejoin_lab::failed_ddl::{APPLIER_ERROR, FailedDdl};
use rejoin_lab::load::{Intensity, Load, Sysbench};
use rejoin_lab::states::{Foreign, JoinerState};
use rejoin_lab::{Cluster, compare, data, sample_schema};

const TABLES: u32 = 4;
/// Further ones, of which only a few rows change from one join to the next.
const COLD: u32 = 2;

/// What to run.
#[derive(Args)]
pub struct Options {
    /// How many joins.
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    /// SST method.
    #[arg(long, default_value = "rejoin")]
    method: String,
    /// Rows of each of four sysbench tables.
    #[arg(long, default_value_t = 20_000)]
    rows: u32,
    /// Milliseconds from one DDL statement to the next.
    #[arg(long, default_value_t = 100)]
    ddl_every: u64,
    /// Decides what DDL runs and what breaks.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A line for `[sst]` of all nodes; may be given again.
    #[arg(long)]
    sst: Vec<String>,
}

struct Round {
    state: JoinerState,
    joined: Duration,
    longest: Duration,
    ddl: u64,
    tps: f64,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    let foreign = Foreign::make().context("making a foreign datadir")?;
    // n1 gives, n2 joins, n3 runs the DDL.
    let builder = Cluster::builder().nodes(3).method(&options.method).mysqld_of(2, "wsrep_sst_donor=n1");
    let builder = builder.provider("gcache.size", "128M");
    let cluster = options.sst.iter().fold(builder, |builder, line| builder.sst(line)).build()?;
    cluster.node(1).bootstrap()?;
    sample_schema::create(cluster.node(1))?;
    data::sysbench_tables(cluster.node(1), TABLES + COLD, options.rows)?;
    cluster.node(3).wipe()?;
    cluster.node(3).join()?;
    cluster.node(2).wipe()?;
    cluster.node(2).join()?;
    cluster.node(2).stop()?;
    let mut rng = Rng::with_seed(options.seed);
    for number in 1..=options.rounds {
        let state = JoinerState::ALL[(number as usize - 1) % JoinerState::ALL.len()];
        let began = Instant::now();
        let round = join(&cluster, &foreign, state, options, &mut rng);
        let round = round.with_context(|| format!("round {number}, joiner {state:?}"))?;
        println!(
            "{number:3} {:8} joined in {:5.1} s, longest wait of a commit {:6.0} ms, {:4} DDL, {:5.0} tps; equal ({:.0} s)",
            format!("{:?}", round.state),
            round.joined.as_secs_f64(),
            round.longest.as_secs_f64() * 1000.0,
            round.ddl,
            round.tps,
            began.elapsed().as_secs_f64(),
        );
    }
    println!("{} joins, all equal", options.rounds);
    Ok(())
}

fn join(
    cluster: &Cluster,
    foreign: &Foreign,
    state: JoinerState,
    options: &Options,
    rng: &mut Rng,
) -> Result<Round> {
    let (donor, joiner, other) = (cluster.node(1), cluster.node(2), cluster.node(3));
    joiner.prepare(state, foreign, rng)?;
    for table in TABLES + 1..=TABLES + COLD {
        let row = rng.u32(0..1000);
        donor.exec(&[&format!("UPDATE sbtest.sbtest{table} SET c = UUID() WHERE id % 1000 = {row}")])?;
    }
    let others_mark = other.log_mark();
    let every = Duration::from_millis(options.ddl_every);
    let repertoire = Repertoire::Alone { sysbench_tables: TABLES };
    let storm = Storm { seed: rng.u64(..), every, repertoire }.start(other)?;
    let sysbench = Sysbench::start(donor, TABLES, options.rows, 2)?;
    // One more connection measures how long commits wait.
    let probe = Intensity { threads: 1, tables: TABLES, rows: options.rows, pause: Duration::from_millis(5) };
    let load = Load::start(donor, probe)?;
    let (mark, donors_mark) = (joiner.log_mark(), donor.log_mark());
    let joined = joiner.join();
    let (tps, load, storm) = (sysbench.stop(), load.stop()?, storm.stop()?);
    let joined = joined?;
    ensure!(storm.done > 0, "no DDL succeeded: {:?}", storm.last_error);
    ensure!(load.commits > 0, "nothing was committed: {:?}", load.last_error);
    ensure!(
        joiner.log_since(mark).contains(&format!("Running: 'wsrep_sst_{}", options.method)),
        "the joiner did not ask for an SST"
    );
    let said = donor.log_since(donors_mark);
    let told = |what: &str| {
        said.lines().find_map(|line| line.split_once(what)).map_or("", |(_, rest)| rest).to_owned()
    };
    println!("    snapshot: {}; at{}", told("snapshot: "), told("the consistency point is at"));
    let installed = joiner.log_since(mark);
    if let Some((_, files)) = installed.lines().find_map(|line| line.split_once("installing: ")) {
        println!("    {files}");
    }
    compare::assert_equal(donor, joiner)?;
    let errors = joiner.unexpected_errors(&[APPLIER_ERROR]);
    ensure!(errors.is_empty(), "errors in the joiner's log:\n{}", errors.join("\n"));
    // The storm also runs what cannot work.
    let sent = FailedDdl::of(&other.log_since(others_mark));
    let objection = sent.objection(&FailedDdl::of(&joiner.log_since(mark)), false);
    ensure!(objection.is_none(), "{} and {}: {}", other.name(), joiner.name(), objection.unwrap_or_default());
    joiner.stop()?;
    Ok(Round { state, joined, longest: load.longest, ddl: storm.done, tps: tps? })
}
