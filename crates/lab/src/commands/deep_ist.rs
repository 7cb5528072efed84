//! `lab deep-ist`: what an archive of write-sets costs a node, and what it gains one that was away, each as a ratio of two
//! things that take turns in one run.
//!
//! n1 has a small cache, and an archive; n2 has a cache that holds everything. n3 is the node that was away: its IST passes
//! through our relay. n4 has the same data and no relay.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use rejoin_lab::archiver::Archiver;
use rejoin_lab::load::{Intensity, Load};
use rejoin_lab::{Cluster, LogMark, Node, Snapshot, compare, data, process};

use super::bench::{fixture, machine};
use super::median;

mod ways;

const TABLES: u32 = 4;
/// A starved archiver must not lose the race with the ring: what it costs is measured, not what it misses.
const CACHE: &str = "128M";
/// How long nodes are waited for.
const PATIENCE: Duration = Duration::from_secs(900);
/// How long clients write before they are looked at.
const WARM: Duration = Duration::from_secs(2);
/// How often a joiner's log is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// Megabytes of sysbench tables.
    #[arg(long, default_value_t = 100)]
    megabytes: u64,
    /// Connections that write to the node that archives.
    #[arg(long, default_value_t = 4)]
    writers: u32,
    /// Seconds of writing, each time, with and without an archiver.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Transactions that are applied by each kind of IST.
    #[arg(long, default_value_t = 60_000)]
    events: u64,
    /// Percent of the rows that are changed in an outage.
    #[arg(long, value_delimiter = ',', default_value = "1,10,100")]
    changed: Vec<f64>,
    /// How many times all take their turn.
    #[arg(long, default_value_t = 3)]
    repeat: u32,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    ensure!(options.repeat > 0 && options.writers > 0, "nothing to measure");
    println!("{}; {}.\n", machine::line()?, fixture::SETTINGS.join(", "));
    let mut bench = Bench::make(options)?;
    bench.cost(options).context("the cost of archiving")?;
    bench.leave()?;
    bench.rates(options).context("the rates of IST")?;
    bench.leave_again()?;
    ways::compare(&bench, options).context("the ways back")
}

struct Bench {
    cluster: Cluster,
    archiver: Option<Archiver>,
    rows: u32,
    /// The data of the node that is away.
    old: Option<Snapshot>,
}

impl Bench {
    fn make(options: &Options) -> Result<Bench> {
        let relayed = |builder: rejoin_lab::Builder, n: usize| {
            builder.provider_of(n, "ist.recv_addr", "127.0.0.2").provider_of(n, "ist.recv_bind", "127.0.0.1")
        };
        let builder =
            fixture::builder(4, &[]).provider("gcache.size", CACHE).provider_of(2, "gcache.size", "2G");
        let cluster = relayed(builder, 3).sst_of(1, "ist=always").build()?;
        let rows = data::rows_of(options.megabytes, TABLES)?;
        println!("loading {} MB ...", options.megabytes);
        cluster.node(1).bootstrap()?;
        data::sysbench_tables(cluster.node(1), TABLES, rows)?;
        cluster.node(2).join()?;
        Ok(Bench { cluster, archiver: None, rows, old: None })
    }

    fn archives(&self) -> &Node {
        self.cluster.node(1)
    }

    fn away(&self) -> &Node {
        self.cluster.node(3)
    }

    /// Commits a second of clients that never rest, with an archiver and without. Which of the two comes first changes from
    /// turn to turn: on its own, the rate rises for minutes (5 % between two halves that were both without an archiver).
    fn cost(&mut self, options: &Options) -> Result<()> {
        let (mut with, mut without, mut used) = (Vec::new(), Vec::new(), (0.0, 0.0));
        let intensity =
            Intensity { threads: options.writers, tables: TABLES, rows: self.rows, pause: Duration::ZERO };
        let load = Load::start(self.archives(), intensity)?;
        for turn in 0..2 * options.repeat {
            // With, without; without, with.
            if matches!(turn % 4, 0 | 3) {
                let mut archiver = Archiver::start(self.archives())?;
                archiver.wait_until_it_follows()?;
                // It has everything that was there before: what follows is what archiving costs.
                archiver.wait_for(self.archives().status("wsrep_last_committed")?.parse()?)?;
                let (gaps, before) = (archiver.gaps()?, archiver.used()?);
                with.push(span(options));
                let after = archiver.used()?;
                ensure!(archiver.gaps()? == gaps, "it did not keep up: {}", archiver.log());
                used = (used.0 + after.0 - before.0, used.1 + after.1 - before.1);
                archiver.stop()?;
            } else {
                without.push(span(options));
            }
        }
        let work = load.stop()?;
        let rates = |spans: Vec<(Instant, Instant)>| -> Vec<f64> {
            spans.into_iter().map(|(from, to)| work.rate_within(from, to)).collect()
        };
        let (with, without) = (rates(with), rates(without));
        let lost: Vec<f64> =
            with.iter().zip(&without).map(|(with, without)| 100.0 * (1.0 - with / without)).collect();
        let (lost, error) = mean(&lost);
        println!(
            "Commits a second on the node that archives: {:.0} with the archiver, {:.0} without it: {lost:.1} % lost \
             ({error:.1} standard error, {} pairs; goal: at most 2 %).",
            median(with),
            median(without.iter().copied()),
            without.len()
        );
        println!(
            "The archiver used {:.1} ms of processor time for each MB of write-sets.",
            1e9 * used.0 / used.1
        );
        Ok(())
    }

    /// The third node gets the data, and leaves; from here on everything is archived.
    fn leave(&mut self) -> Result<()> {
        let away = self.away();
        away.join()?;
        away.stop()?;
        self.old = Some(away.snapshot("old")?);
        let mut archiver = Archiver::start(self.archives())?;
        archiver.wait_until_it_follows()?;
        self.archiver = Some(archiver);
        Ok(())
    }

    /// A new outage begins, of the third node with what the others have.
    fn leave_again(&mut self) -> Result<()> {
        let away = self.away();
        if !away.is_alive() {
            away.join()?;
        }
        compare::wait_caught_up(self.archives(), away, PATIENCE)?;
        away.stop()?;
        self.old = Some(away.snapshot("older")?);
        Ok(())
    }

    /// What was written so far is in the smaller caches no more. A hundred of these transactions fill less than half of the
    /// ring, because the provider holds so many back until they are final, and what is overwritten then cannot be archived.
    fn overwrite_caches(&self) -> Result<()> {
        let n1 = self.archives();
        let position = self.archives().status("wsrep_last_committed")?.parse::<i64>()?;
        n1.exec(&[
            "CREATE TABLE IF NOT EXISTS sbtest.filler (id INT AUTO_INCREMENT PRIMARY KEY, pad LONGTEXT)",
        ])?;
        let deadline = Instant::now() + PATIENCE;
        while n1.cached_downto()? <= position {
            ensure!(Instant::now() < deadline, "the cache still holds {position}");
            n1.exec(&["INSERT INTO sbtest.filler (pad) VALUES (REPEAT(MD5(RAND()), 2000))"])?;
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// A node has the data of the one that is away.
    fn restore(&self, node: &Node) -> Result<()> {
        if node.is_alive() {
            node.stop()?;
        }
        node.restore(self.old.as_ref().context("nobody is away")?)?;
        // The record of the last install names another node's datadir.
        let _ = std::fs::remove_dir_all(node.datadir().join("#sql-rejoin"));
        rustix::fs::sync();
        Ok(())
    }

    /// Transactions of sysbench on the node that archives; all of them are in the archive, or about to be.
    fn write(&self, events: u64) -> Result<()> {
        let mut command = data::sysbench(self.archives(), "oltp_write_only", TABLES, self.rows)?;
        // By default sysbench writes the same few rows again and again.
        command.args(["--rand-type=uniform", "--threads=4", "--time=0", &format!("--events={events}")]);
        command.args(["--mysql-ignore-errors=all", "run"]);
        process::run(command, PATIENCE).context("sysbench").map(drop)
    }

    /// Events a second that the server applies: by the other member's IST with the relay and without it, and by ours.
    fn rates(&mut self, options: &Options) -> Result<()> {
        self.write(options.events)?;
        compare::wait_caught_up(self.archives(), self.cluster.node(2), PATIENCE)?;
        self.overwrite_caches()?;
        self.sizes()?;
        let n2 = self.cluster.node(2);
        let (mut relayed, mut plain, mut deep) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..options.repeat {
            relayed.push(self.applied(self.away(), "IST follows from")?);
            plain.push(self.applied(self.cluster.node(4), "IST follows from")?);
            self.cluster.node(4).stop()?;
            n2.stop()?;
            deep.push(self.applied(self.away(), "deep IST: inserted the write-sets")?);
            self.away().stop()?;
            n2.join()?;
        }
        let (relayed, plain, deep) = (median(relayed), median(plain), median(deep));
        println!("Events a second that a server applies of the same {} transactions:", options.events);
        println!(
            "  {plain:.0} by IST of another member; {relayed:.0} through the relay: {:.2} (goal: 0.95)",
            relayed / plain
        );
        println!("  {deep:.0} by deep IST: {:.2} of IST (goal: 0.9)", deep / plain);
        Ok(())
    }

    /// Bytes of a write-set in the archive and in the cache.
    fn sizes(&mut self) -> Result<()> {
        let newest = self.archives().status("wsrep_last_committed")?.parse::<i64>()?;
        let archiver = self.archiver.as_mut().context("no archiver")?;
        // Some hundred are not final.
        archiver.wait_for(newest - 1000)?;
        let status = archiver.status().context("no status of the archive")?;
        let number = |name: &str| status[name].as_f64().with_context(|| format!("no {name}"));
        let ranges = status["ranges"].as_array().context("no ranges")?;
        let actions: i64 =
            ranges.iter().filter_map(|r| Some(r["last"].as_i64()? - r["first"].as_i64()? + 1)).sum();
        // A buffer of the cache has a header of 24 bytes.
        let (ours, cache) = (number("bytes")?, number("action_bytes")? + 24.0 * actions as f64);
        println!(
            "A write-set takes {:.0} bytes in the cache, {:.0} in the archive: {:.2} ({actions} of them).",
            cache / actions as f64,
            ours / actions as f64,
            ours / cache
        );
        Ok(())
    }

    /// How many events a second a node applies that comes back in this way.
    fn applied(&self, node: &Node, says: &str) -> Result<f64> {
        self.restore(node)?;
        let from = node.grastate()?.seqno;
        let to: i64 = self.archives().status("wsrep_last_committed")?.parse()?;
        let (mark, over) = (node.log_mark(), AtomicBool::new(false));
        let took = std::thread::scope(|scope| {
            let looking = scope.spawn(|| watch(node, mark, &over));
            let joined = node.join();
            over.store(true, Ordering::Release);
            let took = looking.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
            joined.and(took)
        })?;
        let rate = (to - from) as f64 / took.as_secs_f64();
        let log = node.log_since_start();
        ensure!(log.contains(says), "{} does not say {says:?}:\n{log}", node.name());
        println!("  {says} ...: {rate:.0} events a second");
        Ok(rate)
    }
}

/// The mean, and its standard error.
fn mean(of: &[f64]) -> (f64, f64) {
    let count = of.len() as f64;
    let mean = of.iter().sum::<f64>() / count;
    let squares: f64 = of.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0).max(1.0) / count).sqrt())
}

/// When it began and ended to be measured, once the server has got used to what is new.
fn span(options: &Options) -> (Instant, Instant) {
    std::thread::sleep(WARM);
    let from = Instant::now();
    std::thread::sleep(Duration::from_secs(options.seconds));
    (from, Instant::now())
}

/// How long the provider takes from the end of its state transfer to that of its IST.
fn watch(node: &Node, mark: LogMark, over: &AtomicBool) -> Result<Duration> {
    let mut began = None;
    loop {
        let last = over.load(Ordering::Acquire);
        let log = node.log_since(mark);
        match began {
            None if log.contains("WSREP: SST received") => began = Some(Instant::now()),
            Some(began) if log.contains("WSREP: IST received") => return Ok(Instant::elapsed(&began)),
            _ => ensure!(!last, "its log does not say that it received IST"),
        }
        std::thread::sleep(LOOK);
    }
}
