//! `lab demo`: a node is lost, much is written, and it comes back by what changed, from another donor than the one that
//! first fed it, though the transfer breaks off in the middle.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use rejoin_lab::archiver::Archiver;
use rejoin_lab::load::{Intensity, Load};
use rejoin_lab::progress::{StatusReader, sent};
use rejoin_lab::wire::Wire;
use rejoin_lab::{Cluster, Node, compare, data, sample_schema};

use super::watch;

const TABLES: u32 = 4;
/// What the donor may send in a second until the transfer is cut, so that there is a middle.
const SLOW: &str = "rlimit=16M";
const FAST: &str = "rlimit=8G";
/// A cache of write-sets that what is written does not fit into: an IST would be another story.
const GCACHE: &str = "16M";
const PATIENCE: Duration = Duration::from_secs(1800);

/// What to show.
#[derive(Args)]
pub struct Options {
    /// Megabytes of sysbench tables.
    #[arg(long, default_value_t = 400)]
    megabytes: u64,
    /// Connections that write while the node is away.
    #[arg(long, default_value_t = 4)]
    writers: u32,
    /// Seconds that they write.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
}

/// One line of the end.
struct Row {
    what: String,
    wire: u64,
    took: Option<Duration>,
    saved: String,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    let rows = data::rows_of(options.megabytes, TABLES)?;
    let cluster = Cluster::builder().nodes(3).provider("gcache.size", GCACHE).build()?;
    let story = Story { cluster, rows };
    let mut told = vec![story.begin()?];
    let archiver = Archiver::start(story.node(2))?;
    story.away(options)?;
    archiver.stop()?;
    story.ways_back()?;
    told.extend(story.back()?);
    story.is_equal()?;
    for method in ["rsync", "mariabackup"] {
        told.push(story.full_by(method)?);
    }
    report(&told);
    Ok(())
}

/// n1 feeds first, n2 gives later, n3 is lost.
struct Story {
    cluster: Cluster,
    rows: u32,
}

impl Story {
    fn node(&self, n: usize) -> &Node {
        self.cluster.node(n)
    }

    fn begin(&self) -> Result<Row> {
        println!("node 1: Synced after {:.1} s", self.node(1).bootstrap()?.as_secs_f64());
        println!("loading {TABLES} tables of {} rows, and one table of every kind ...", self.rows);
        sample_schema::create(self.node(1))?;
        data::sysbench_tables(self.node(1), TABLES, self.rows)?;
        self.node(2).wipe()?;
        println!("node 2: Synced after {:.1} s", self.node(2).join()?.as_secs_f64());
        self.node(1).wait_synced_again(Duration::from_secs(60))?;
        println!("node 3 is new: everything comes, from node 1 ...");
        self.node(3).wipe()?;
        let (wire, took) = self.join(&["--wsrep-sst-donor=n1"], 1)?;
        Ok(Row {
            what: "first copy, all of it, from node 1".to_owned(),
            wire,
            took: Some(took),
            saved: String::new(),
        })
    }

    /// Bytes and seconds of one start of node 3.
    fn join(&self, args: &[&str], donor: usize) -> Result<(u64, Duration)> {
        let (donor, joiner) = (self.node(donor), self.node(3));
        let wire = Wire::listen(joiner.ports().sst())?;
        joiner.begin(args)?;
        let took = watch::until_synced(joiner, data::disk_bytes(&donor.datadir())?, PATIENCE)?;
        donor.wait_synced_again(Duration::from_secs(60))?;
        println!("node 3: Synced after {:.1} s", took.as_secs_f64());
        Ok((wire.stop()?, took))
    }

    /// What is written goes past all caches of write-sets.
    fn away(&self, options: &Options) -> Result<()> {
        self.node(3).kill();
        let position = self.node(1).status("wsrep_last_committed")?.parse::<i64>()?;
        println!(
            "node 3 is lost (kill -9); {} connections write for {} s ...",
            options.writers, options.seconds
        );
        let pause = Duration::from_millis(1);
        // One table is hot, the others rest, as is usual.
        let hot = |threads| Intensity { threads, tables: 1, rows: self.rows, pause };
        let loads = [Load::start(self.node(1), hot(options.writers))?, Load::start(self.node(2), hot(1))?];
        self.node(2).exec(&[
            "CREATE TABLE sbtest.meanwhile (a INT PRIMARY KEY) SELECT seq a FROM sbtest.seq_1_to_100000",
        ])?;
        let until = Instant::now() + PATIENCE;
        let least = Instant::now() + Duration::from_secs(options.seconds);
        while Instant::now() < least || !self.is_past(position)? {
            ensure!(Instant::now() < until, "the caches of write-sets still reach back");
            std::thread::sleep(Duration::from_millis(200));
        }
        let commits = loads.into_iter().map(|load| Ok(load.stop()?.commits)).sum::<Result<u64>>()?;
        println!("{commits} commits; no member can serve node 3 by IST any more");
        // After seconds most of it is in the redo log only, which comes as a whole; after hours it is in the tables.
        self.node(2).checkpoint()
    }

    fn is_past(&self, position: i64) -> Result<bool> {
        Ok(self.node(1).cached_downto()? > position + 1 && self.node(2).cached_downto()? > position + 1)
    }

    /// What the program says about node 3 before its start: the ways back, and those that other settings would open.
    fn ways_back(&self) -> Result<()> {
        let (donor, joiner) = (self.node(2), self.node(3));
        joiner.add_options("mysqld", &["wsrep_sst_donor=n2"])?;
        let sockets = [1, 2].map(|n| self.node(n).socket().display().to_string());
        let plan = ["plan", "--donor", &sockets[0], "--donor", &sockets[1]];
        println!("rejoin plan, on node 3, with the archive of write-sets that node 2 has:");
        self.says(&plan, &["way", "sends", "kind", "archive", "deep IST", "cheapest"])?;
        println!("... and with snapshot=logical on node 2, for a node 3 of another series or page size:");
        donor.add_options("sst", &["snapshot=logical"])?;
        self.says(&plan, &["kind"])?;
        donor.add_options("sst", &["snapshot=auto"])?;
        println!("rejoin check, on node 3, with last night's backup as the base of a new node:");
        joiner.add_options("sst", &["base-command=/bin/cp -a /backup/last-night/."])?;
        self.says(&["check"], &["base-command"])?;
        joiner.add_options("sst", &["base-command="])
    }

    /// Shows the lines of an answer about node 3 that have these subjects.
    fn says(&self, args: &[&str], subjects: &[&str]) -> Result<()> {
        let mut command = Command::new(self.cluster.program_dir().join("rejoin"));
        command.args(args).arg("--defaults-file").arg(self.node(3).option_file());
        let out = command.output()?;
        let text = String::from_utf8_lossy(&out.stdout);
        for subject in subjects {
            let about = |line: &&str| line.split("  ").any(|part| part.trim_start().starts_with(subject));
            let line = text.lines().find(about);
            println!("  {}", line.with_context(|| format!("nothing about {subject}: {text}"))?);
        }
        Ok(())
    }

    /// From node 2, cut in the middle, and again.
    fn back(&self) -> Result<Vec<Row>> {
        let (donor, joiner) = (self.node(2), self.node(3));
        println!("node 3 comes back, from node 2; the transfer is cut in the middle ...");
        donor.add_options("sst", &[SLOW])?;
        let wire = Wire::listen(joiner.ports().sst())?;
        let status = StatusReader::of_next(joiner);
        // Not half: how much travels depends on how many commits the machine does. Of most pages only the differing pieces travel.
        let enough = 2 << 20;
        joiner.begin(&["--wsrep-sst-donor=n2"])?;
        let until = Instant::now() + Duration::from_secs(120);
        while status.read().is_none_or(|status| status.wire_bytes < Some(enough)) {
            if joiner.is_synced() {
                bail!("less than {enough} bytes were missing: let more be written (--seconds)");
            }
            ensure!(Instant::now() < until, "the transfer does not get to its middle: {:?}", status.read());
            std::thread::sleep(Duration::from_millis(50));
        }
        joiner.kill();
        donor.wait_synced_again(Duration::from_secs(60))?;
        let cut = Row {
            what: "back: cut in the middle".to_owned(),
            wire: wire.stop()?,
            took: None,
            saved: String::new(),
        };
        donor.add_options("sst", &[FAST])?;
        println!("... and goes on where it was:");
        let (wire, took) = self.join(&["--wsrep-sst-donor=n2"], 2)?;
        let sent = sent(joiner)?;
        ensure!(sent.same > 0, "not incremental");
        let (same, received) = (mib(sent.same), mib(sent.received));
        let saved = format!("{same} were here, {received} of them from the cut transfer");
        Ok(vec![cut, Row { what: "back: the rest, from node 2".to_owned(), wire, took: Some(took), saved }])
    }

    fn is_equal(&self) -> Result<()> {
        println!("comparing every object of node 3 with both ...");
        for other in [1, 2] {
            let differences = compare::compare(self.node(other), self.node(3))?;
            ensure!(
                differences.is_empty(),
                "{} differences from node {other}: {:?}",
                differences.len(),
                differences.first()
            );
        }
        let errors = self.node(3).unexpected_errors(&[]);
        ensure!(errors.is_empty(), "errors in node 3's log:\n{}", errors.join("\n"));
        println!("node 3 is equal to both");
        Ok(())
    }

    /// The shipped methods empty the joiner's datadir first: what is there does not matter to them.
    fn full_by(&self, method: &str) -> Result<Row> {
        println!("the same by {method} ...");
        self.node(3).stop()?;
        self.node(3).remove_grastate()?;
        let set = format!("SET GLOBAL wsrep_sst_method='{method}'");
        [1, 2].iter().try_for_each(|n| self.node(*n).exec(&[&set]))?;
        let method_of_joiner = format!("--wsrep-sst-method={method}");
        let (wire, took) = self.join(&["--wsrep-sst-donor=n2", &method_of_joiner], 2)?;
        Ok(Row { what: format!("the same by {method}"), wire, took: Some(took), saved: String::new() })
    }
}

fn report(told: &[Row]) {
    println!();
    println!("{:<36} {:>14} {:>16}", "node 3", "on the network", "start to Synced");
    for Row { what, wire, took, saved } in told {
        let took = took.map_or("-".to_owned(), |took| format!("{:.1} s", took.as_secs_f64()));
        let line = format!("{what:<36} {:>14} {took:>16}  {saved}", mib(*wire));
        println!("{}", line.trim_end());
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
