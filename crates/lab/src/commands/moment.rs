//! `lab moment`: what many tables, and a large table without transactions, cost in the consistency point.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use rejoin_lab::load::{Intensity, Load};
use rejoin_lab::repeated::Repeated;
use rejoin_lab::{Cluster, Node, data, sql};

use super::observed::Observed;

const SYSBENCH_TABLES: u32 = 2;
const SYSBENCH_ROWS: u32 = 20_000;
/// Bytes of a row of the large table with its index entry.
const ROW_BYTES: u64 = 1024;
/// How long clients are watched without a join.
const CALM: Duration = Duration::from_secs(5);

const SETTINGS: [&str; 7] = [
    "innodb_buffer_pool_size=512M",
    "innodb_log_file_size=512M",
    "innodb_flush_log_at_trx_commit=2",
    // Enough for what is open at once; neither server ever holds all tables open.
    "table_open_cache=2000",
    "table_definition_cache=2000",
    "innodb_open_files=2000",
    "open_files_limit=16384",
];

/// What to make, and what to measure.
#[derive(Args)]
pub struct Options {
    /// InnoDB tables; 0 leaves them out.
    #[arg(long, default_value_t = 20_000)]
    tables: u32,
    /// Megabytes of one MyISAM table; 0 leaves it out.
    #[arg(long, default_value_t = 1024)]
    myisam_megabytes: u64,
    /// Connections that write to sysbench tables of the donor.
    #[arg(long, default_value_t = 2)]
    writers: u32,
    /// A line for `[sst]` of both nodes; may be given again.
    #[arg(long)]
    sst: Vec<String>,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    let builder = SETTINGS.iter().fold(Cluster::builder().nodes(2), |builder, line| builder.mysqld(line));
    let builder = builder.provider("gcache.size", "128M");
    let cluster = options.sst.iter().fold(builder, |builder, line| builder.sst(line)).build()?;
    let (donor, joiner) = (cluster.node(1), cluster.node(2));
    donor.bootstrap()?;
    data::sysbench_tables(donor, SYSBENCH_TABLES, SYSBENCH_ROWS)?;
    donor.exec(&["CREATE DATABASE moment"])?;
    measure("a few tables", donor, joiner, options)?;
    if options.myisam_megabytes > 0 {
        make_myisam(donor, options.myisam_megabytes)?;
        measure("a MyISAM table nobody writes to", donor, joiner, options)?;
        let writer = write_myisam(donor)?;
        let measured = measure("a MyISAM table written to meanwhile", donor, joiner, options);
        let writes = writer.stop()?;
        measured?;
        ensure!(writes.done > 0, "the MyISAM table was not written to: {:?}", writes.last_error);
        donor.exec(&["DROP TABLE moment.big"])?;
    }
    if options.tables > 0 {
        let began = Instant::now();
        data::small_tables(donor, "moment", options.tables)?;
        println!("{} InnoDB tables made in {:.1} s", options.tables, began.elapsed().as_secs_f64());
        measure(&format!("{} InnoDB tables", options.tables), donor, joiner, options)?;
    }
    Ok(())
}

fn measure(what: &str, donor: &Node, joiner: &Node, options: &Options) -> Result<()> {
    joiner.wipe()?;
    rustix::fs::sync();
    let pause = Duration::from_millis(2);
    let (tables, rows) = (SYSBENCH_TABLES, SYSBENCH_ROWS);
    let load = || Load::start(donor, Intensity { threads: options.writers, tables, rows, pause });
    let before = load()?;
    std::thread::sleep(CALM);
    let before = before.stop()?;
    let during = load()?;
    let observed = Observed::join(donor, joiner, &[]).with_context(|| what.to_owned())?;
    let during = during.stop()?;
    ensure!(during.commits > 0, "nothing was committed: {:?}", during.last_error);
    let (from, to) = observed.giving()?;
    println!("\n{what}: start to Synced {:.1} s", observed.took.as_secs_f64());
    println!(
        "  longest commit on the donor: {:.0} ms without a join, {:.0} ms while it gave, {:.0} ms until Synced",
        ms(before.longest),
        ms(during.longest_within(from, to)),
        ms(during.longest),
    );
    let log = observed.donor_log();
    let telling = ["snapshot: ", "the consistency point is at ", "sent "];
    let told = log.lines().filter_map(|line| line.split_once("WSREP_SST: [INFO] "));
    let told = told.filter(|(_, text)| telling.iter().any(|lead| text.starts_with(lead)));
    told.for_each(|(_, text)| println!("  {text}"));
    joiner.stop()
}

fn make_myisam(node: &Node, megabytes: u64) -> Result<()> {
    let began = Instant::now();
    let rows = megabytes * (1 << 20) / ROW_BYTES;
    // Galera does not replicate the rows of this engine: they are this node's own until it gives them.
    node.exec(&[
        "CREATE TABLE moment.big (id INT PRIMARY KEY, n INT NOT NULL, pad VARCHAR(1000)) ENGINE=MyISAM CHARACTER SET latin1",
        &format!("INSERT INTO moment.big SELECT seq, 0, REPEAT(MD5(seq), 31) FROM moment.seq_1_to_{rows}"),
    ])?;
    let bytes = node.value(
        "SELECT data_length + index_length FROM information_schema.tables WHERE table_schema='moment' AND table_name='big'",
    )?;
    let bytes: u64 = bytes.parse().context("the size of the MyISAM table")?;
    println!("a MyISAM table of {} MiB made in {:.1} s", bytes >> 20, began.elapsed().as_secs_f64());
    Ok(())
}

fn write_myisam(node: &Node) -> Result<Repeated> {
    let mut rng = fastrand::Rng::with_seed(1);
    Repeated::start(node, "myisam", Duration::from_millis(100), move |conn| {
        let id = rng.u32(1..=1000);
        sql::exec(conn, &format!("UPDATE moment.big SET n = n + 1 WHERE id = {id}"))
    })
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
