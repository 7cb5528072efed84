//! `lab bench --by-rows`: definitions and rows to an empty node, by each way that there is, beside what a server can load at all.
//!
//! One table has more than half of all bytes; the others have keys of several kinds. Every table has secondary keys.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rejoin_lab::{Builder, Cluster, Node, compare, places};

mod alone;
mod cost;
mod tables;

use super::{Options, machine};
use crate::commands::storm::log_report::{LogReport, SnapshotKind};
use alone::{Alone, Way};
use cost::Cost;

/// The account of the shipped method; it logs in over the network.
const ACCOUNT: [&str; 4] = [
    "CREATE USER sst@'127.0.0.1' IDENTIFIED BY 'x'",
    "GRANT ALL ON *.* TO sst@'127.0.0.1' WITH GRANT OPTION",
    "CREATE USER sst@localhost IDENTIFIED BY 'x'",
    "GRANT ALL ON *.* TO sst@localhost WITH GRANT OPTION",
];
/// A server that is no member.
const NO_MEMBER: [&str; 3] = ["--wsrep-on=OFF", "--wsrep-provider=none", "--wsrep-cluster-address="];

/// One way, measured.
struct Measured {
    way: String,
    seconds: f64,
    /// Processor seconds of everything that took part, where that is known.
    processors: Option<f64>,
    /// What is known of the parts of it.
    parts: String,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    println!("loading {} MB ...", options.megabytes);
    let cluster = builder(options).build()?;
    let (donor, joiner, shipped, alone) =
        (cluster.node(1), cluster.node(2), cluster.node(3), Alone::of(cluster.node(4))?);
    donor.bootstrap()?;
    donor.exec(&ACCOUNT)?;
    tables::make(donor, options.megabytes)?;
    let bytes = tables::bytes(donor)?;
    println!(
        "{}; {:.0} MB in {} tables, keys included\n",
        machine::line()?,
        bytes / 1e6,
        tables::NAMES.len()
    );
    let mut all = Vec::new();
    let mut add = |measured: Measured| {
        println!("  {}: {:.1} s ({})", measured.way, measured.seconds, measured.parts);
        all.push(measured);
    };
    let own = places::rejoin_binary()?;
    let against = options.against.iter().map(|build| ("of --against", build));
    for repetition in 1..=options.repeat {
        for (name, build) in [("", &own)].into_iter().chain(against.clone()) {
            place(&cluster, build)?;
            let what = || format!("snapshot=logical {name}, {repetition}");
            add(logical(donor, joiner, name).with_context(what)?);
        }
    }
    add(mysqldump(donor, shipped).context("the method mysqldump")?);
    add(alone.pipe(donor).context("mariadb-dump | mariadb")?);
    let files = alone.files(donor)?;
    for way in Way::all() {
        add(alone.load(&files, way).with_context(|| way.name())?);
    }
    println!("\n{}", table(&all, bytes));
    Ok(())
}

fn builder(options: &Options) -> Builder {
    let builder = super::fixture::builder(4, &options.sst).mysqld("wsrep_sst_auth=sst:x");
    builder.sst_of(1, "snapshot=logical").mysqld_of(2, "wsrep_sst_donor=n1").provider("gcache.size", "512M")
}

/// Makes this build the program of all nodes. None of them runs it at the moment.
fn place(cluster: &Cluster, build: &Path) -> Result<()> {
    let program = cluster.program_dir().join("rejoin");
    fs::remove_file(&program).with_context(|| program.display().to_string())?;
    fs::copy(build, &program).map(drop).with_context(|| format!("copying {}", build.display()))
}

/// An empty node gets rows from us, by the build of this name.
fn logical(donor: &Node, joiner: &Node, build: &str) -> Result<Measured> {
    joiner.wipe()?;
    let mark = donor.log_mark();
    let (observed, cost) = Cost::of_join(donor, joiner, &[])?;
    let snapshot = LogReport::read(&donor.log_since(mark)).snapshot;
    ensure!(matches!(snapshot, Some(SnapshotKind::Logical(_))), "the snapshot was {snapshot:?}");
    compare::assert_equal(donor, joiner)?;
    let log: Vec<String> = observed.joiner_log_lines().map(str::to_owned).collect();
    let said = |words: &str| {
        log.iter().find_map(|line| Some(line.split_once(words)?.1.split(" (2").next()?.to_owned()))
    };
    let parts = format!(
        "transfer {:.1} s; read {}; private server {}; loaded {}; {}",
        observed.sst()?.as_secs_f64(),
        said(" rows in ").unwrap_or_default(),
        said("a private server runs on a new datadir: ").unwrap_or_default(),
        said("[INFO] loaded ").unwrap_or_default(),
        cost.in_words()
    );
    let seconds = observed.took.as_secs_f64();
    joiner.stop()?;
    donor.wait_synced_again(Duration::from_secs(60))?;
    let way = ["snapshot=logical", build].join(" ").trim_end().to_owned() + ", start to Synced";
    Ok(Measured { way, seconds, processors: Some(cost.all()), parts })
}

/// A new node, whose server is up, gets them from the shipped method.
fn mysqldump(donor: &Node, joiner: &Node) -> Result<Measured> {
    alone::start(joiner, &NO_MEMBER)?;
    joiner.exec(&ACCOUNT)?;
    joiner.stop()?;
    donor.exec(&["SET GLOBAL wsrep_sst_method='mysqldump'"])?;
    let address = format!("--wsrep-sst-receive-address=127.0.0.1:{}", joiner.ports().client());
    let (observed, cost) = Cost::of_join(donor, joiner, &["--wsrep-sst-method=mysqldump", &address])?;
    // The server does not log the command line of this one; the program itself says what it was.
    ensure!(observed.donor_log().contains("mysqldump"), "the donor did not run wsrep_sst_mysqldump");
    let (from, to) = observed.giving()?;
    let rows = tables::rows(joiner)?;
    ensure!(rows == tables::rows(donor)?, "the joiner has {rows:?}");
    donor.exec(&["SET GLOBAL wsrep_sst_method='rejoin'"])?;
    joiner.stop()?;
    Ok(Measured {
        way: "method mysqldump, start to Synced".to_owned(),
        seconds: observed.took.as_secs_f64(),
        processors: Some(cost.all()),
        parts: format!("the donor gave for {:.1} s; {}", (to - from).as_secs_f64(), cost.in_words()),
    })
}

fn table(all: &[Measured], bytes: f64) -> String {
    let best = all.iter().filter(|one| one.way.starts_with("LOAD DATA")).map(|one| one.seconds);
    let best = best.fold(f64::INFINITY, f64::min);
    let shipped = all.iter().find(|one| one.way.starts_with("method")).map_or(0.0, |one| one.seconds);
    let mut text =
        "| way | s | processor s | MB/s | speed : method mysqldump | speed : the fastest LOAD DATA | |\n\
                    |---|---:|---:|---:|---:|---:|---|\n"
            .to_owned();
    for Measured { way, seconds, processors, parts } in all {
        let processors = processors.map(|seconds| format!("{seconds:.1}")).unwrap_or_default();
        text += &format!(
            "| {way} | {seconds:.1} | {processors} | {:.1} | {:.2} | {:.2} | {parts} |\n",
            bytes / 1e6 / seconds,
            shipped / seconds,
            best / seconds
        );
    }
    text
}

/// Seconds since.
fn since(began: Instant) -> f64 {
    began.elapsed().as_secs_f64()
}
