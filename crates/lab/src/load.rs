//! Writing in the background while something else happens, and how long commits had to wait meanwhile.

use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use mysql::Conn;
use mysql::prelude::Queryable;
use rustix::process::Signal;

use crate::node::Node;
use crate::{data, process, sql};

/// A load at a rate makes up for delays up to this long.
const NOT_MADE_UP: Duration = Duration::from_secs(1);

/// Threads that run the write transaction of sysbench (`oltp_write_only`) and measure each.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Measured>>,
}

/// How hard to write.
#[derive(Debug, Clone, Copy)]
pub struct Intensity {
    /// Connections.
    pub threads: u32,
    /// Tables `sbtest1`, ... to write to.
    pub tables: u32,
    /// Rows each of them has.
    pub rows: u32,
    /// Rest of each connection between two transactions.
    pub pause: Duration,
}

/// What a load saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Transactions committed.
    pub commits: u64,
    /// Transactions that failed and were given up (deadlocks, refusals).
    pub errors: u64,
    /// The last error.
    pub last_error: Option<String>,
    /// The longest a transaction took.
    pub longest: Duration,
    /// Half of them took no longer.
    pub p50: Duration,
    /// 99 of 100 took no longer.
    pub p99: Duration,
    /// When each began, and how long it took.
    all: Vec<(Instant, Duration)>,
}

impl LoadReport {
    /// How long the one that waited longest did so between two instants.
    pub fn longest_within(&self, from: Instant, to: Instant) -> Duration {
        let within = |(began, took): &(Instant, Duration)| {
            (*began + *took).min(to).saturating_duration_since((*began).max(from))
        };
        self.all.iter().map(within).max().unwrap_or_default()
    }

    /// How many were committed a second, of those that ended between two instants.
    pub fn rate_within(&self, from: Instant, to: Instant) -> f64 {
        let ended = self.all.iter().filter(|(began, took)| (from..=to).contains(&(*began + *took))).count();
        ended as f64 / to.saturating_duration_since(from).as_secs_f64().max(1e-3)
    }

    /// Of those that began between two instants 99 of 100 took no longer.
    pub fn p99_within(&self, from: Instant, to: Instant) -> Duration {
        let within = self.all.iter().filter(|(began, _)| (from..=to).contains(began));
        percentile(&sorted(within), 99)
    }
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    commits: AtomicU64,
    errors: AtomicU64,
}

#[derive(Debug, Default)]
struct Measured {
    all: Vec<(Instant, Duration)>,
    last_error: Option<String>,
}

impl Load {
    /// Starts writing to `node`, whose sysbench tables exist.
    pub fn start(node: &Node, intensity: Intensity) -> Result<Self> {
        Self::start_every(node, intensity, None)
    }

    /// As [`Load::start`], with so many transactions a second of all connections together, as long as the node keeps up. The
    /// intensity's rest does not count then.
    pub fn start_at_rate(node: &Node, intensity: Intensity, per_second: f64) -> Result<Self> {
        let every = Duration::from_secs_f64(f64::from(intensity.threads) / per_second.max(0.1));
        Self::start_every(node, intensity, Some(every))
    }

    fn start_every(node: &Node, intensity: Intensity, every: Option<Duration>) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        // Loads of two nodes that rolled the same dice would meet at every row.
        let own: u64 = node.name().bytes().map(u64::from).sum();
        let threads = (0..intensity.threads).map(|n| {
            let (shared, socket) = (Arc::clone(&shared), node.socket());
            let work = move || write(&shared, &socket, intensity, every, own * 1000 + u64::from(n));
            std::thread::Builder::new().name(format!("load-{n}")).spawn(work).context("a thread of the load")
        });
        let threads = threads.collect::<Result<_>>()?;
        Ok(Self { shared, threads })
    }

    /// Transactions committed so far.
    pub fn commits(&self) -> u64 {
        self.shared.commits.load(Relaxed)
    }

    /// Stops writing.
    pub fn stop(mut self) -> Result<LoadReport> {
        self.shared.stop.store(true, Relaxed);
        let mut all = Measured::default();
        for thread in self.threads.drain(..) {
            let measured = thread.join().map_err(|_| anyhow!("a thread of the load panicked"))?;
            all.all.extend(measured.all);
            all.last_error = measured.last_error.or(all.last_error);
        }
        let took = sorted(all.all.iter());
        Ok(LoadReport {
            commits: self.commits(),
            errors: self.shared.errors.load(Relaxed),
            last_error: all.last_error,
            longest: took.last().copied().unwrap_or_default(),
            p50: percentile(&took, 50),
            p99: percentile(&took, 99),
            all: all.all,
        })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
    }
}

/// How long transactions took, ascending.
fn sorted<'a>(all: impl Iterator<Item = &'a (Instant, Duration)>) -> Vec<Duration> {
    let mut took: Vec<Duration> = all.map(|(_, took)| *took).collect();
    took.sort_unstable();
    took
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}

/// `every`: when the next transaction begins, after the last one did.
fn write(
    shared: &Shared,
    socket: &std::path::Path,
    intensity: Intensity,
    every: Option<Duration>,
    seed: u64,
) -> Measured {
    let mut due = Instant::now();
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut measured = Measured::default();
    let mut conn: Option<Conn> = None;
    while !shared.stop.load(Relaxed) {
        let start = Instant::now();
        match transaction(&mut conn, socket, intensity, &mut rng) {
            Ok(()) => {
                shared.commits.fetch_add(1, Relaxed);
            }
            Err(error) => {
                shared.errors.fetch_add(1, Relaxed);
                measured.last_error = Some(format!("{error:#}"));
                conn = None;
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        // A transaction that failed after waiting was delayed just the same.
        measured.all.push((start, start.elapsed()));
        let rest = match every {
            None => intensity.pause,
            Some(every) => {
                // What a node does not keep up with for long is not made up for.
                due = (due + every).max(Instant::now().checked_sub(NOT_MADE_UP).unwrap_or(due));
                due.saturating_duration_since(Instant::now())
            }
        };
        std::thread::sleep(rest);
    }
    measured
}

/// The statements of sysbench's `oltp_write_only`.
fn transaction(
    conn: &mut Option<Conn>,
    socket: &std::path::Path,
    intensity: Intensity,
    rng: &mut fastrand::Rng,
) -> Result<()> {
    let conn = match conn {
        Some(conn) => conn,
        None => conn.insert(sql::connect(socket, sql::STATEMENT_TIMEOUT)?),
    };
    let table = format!("{}.sbtest{}", data::DATABASE, rng.u32(1..=intensity.tables));
    let (a, b, gone) =
        (rng.u32(1..=intensity.rows), rng.u32(1..=intensity.rows), rng.u32(1..=intensity.rows));
    let k = rng.u32(1..=intensity.rows);
    let text: String = (0..119).map(|_| rng.digit(10)).collect();
    conn.query_drop("BEGIN")?;
    conn.query_drop(format!("UPDATE {table} SET k=k+1 WHERE id={a}"))?;
    conn.query_drop(format!("UPDATE {table} SET c='{text}' WHERE id={b}"))?;
    conn.query_drop(format!("DELETE FROM {table} WHERE id={gone}"))?;
    conn.query_drop(format!("INSERT INTO {table} (id,k,c,pad) VALUES ({gone},{k},'{text}','pad')"))?;
    conn.query_drop("COMMIT")?;
    Ok(())
}

/// The sysbench program itself, writing until it is stopped.
#[derive(Debug)]
pub struct Sysbench {
    child: Child,
    output: std::path::PathBuf,
}

impl Sysbench {
    /// Starts `oltp_write_only` against `node`. Errors of the server (deadlocks, refusals) do not end it.
    pub fn start(node: &Node, tables: u32, rows: u32, threads: u32) -> Result<Self> {
        let output = node.dir().join("sysbench.log");
        let file = std::fs::File::create(&output).context("sysbench's output")?;
        let mut command = data::sysbench(node, "oltp_write_only", tables, rows)?;
        command.args([&format!("--threads={threads}"), "--time=0", "--report-interval=1"]);
        // Not --skip-trx, and one transaction after the other as fast as they go.
        command.args(["--mysql-ignore-errors=all", "run"]);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = process::spawn(command).context("starting sysbench")?;
        Ok(Self { child, output })
    }

    /// Ends it and answers how many transactions it reported per second on average; an error when it had died.
    pub fn stop(mut self) -> Result<f64> {
        let died = self.child.try_wait()?;
        process::signal(self.child.id(), Signal::KILL);
        self.child.wait().ok();
        let text = std::fs::read_to_string(&self.output).unwrap_or_default();
        anyhow::ensure!(died.is_none(), "sysbench ended by itself:\n{}", process::tail(&text, 10));
        Ok(average_tps(&text))
    }
}

impl Drop for Sysbench {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

fn average_tps(text: &str) -> f64 {
    let rate = |line: &str| line.split_once(" tps: ")?.1.split_whitespace().next()?.parse::<f64>().ok();
    let rates: Vec<f64> = text.lines().filter_map(rate).collect();
    rates.iter().sum::<f64>() / rates.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_few_and_none() {
        assert_eq!(percentile(&[], 99), Duration::ZERO);
        assert_eq!(percentile(&[Duration::from_micros(7)], 99), Duration::from_micros(7));
        let hundred: Vec<Duration> = (1..=100).map(Duration::from_micros).collect();
        assert_eq!(percentile(&hundred, 50), Duration::from_micros(51));
    }

    #[test]
    fn the_rates_sysbench_reports_are_averaged() {
        let text = "[ 1s ] thds: 2 tps: 10.00 qps: 60.0\nnoise\n[ 2s ] thds: 2 tps: 20.00 qps: 1\n";
        assert!((average_tps(text) - 15.0).abs() < 1e-9);
    }
}
