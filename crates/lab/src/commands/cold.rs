//! `lab cold`: a node comes back to a cluster of which most tables have not changed. With what both hosts remember, without
//! it, and by rsync: bytes that each host read, and seconds, at one size or several with the same table that changes. What that
//! table costs alone stands beside it.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use rejoin_lab::page_cache::forget_all;
use rejoin_lab::{Cluster, compare, data};

use super::bench::fixture::builder;
use super::bench::machine;
use super::observed::Observed;
use super::record::Counted;
use super::{SETTLED, median};

/// Tables that do not change, of each size: with the one that does, twenty.
const OTHERS: u64 = 19;

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// Megabytes in twenty tables: one of sysbench, which is written to, and others of random bytes. Further, larger numbers
    /// (5000,10000,20000) add tables that do not change.
    #[arg(long, value_delimiter = ',', default_value = "2000")]
    megabytes: Vec<u64>,
    /// Megabytes of the table that is written to, whatever the others have. A twentieth of the first size when not given.
    #[arg(long)]
    hot_megabytes: Option<u64>,
    /// Turns at each size.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// A line for `[sst]` of both nodes; may be given again.
    #[arg(long)]
    sst: Vec<String>,
}

/// What one join took.
struct Took {
    /// From the start of the joiner's program to what it tells its server.
    seconds: f64,
    /// Of the donor's and the joiner's program; `None` of another method.
    bytes: Option<[Counted; 2]>,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    let hot = options.hot_megabytes.unwrap_or(options.megabytes[0] / (OTHERS + 1));
    let sizes = [&[hot], &options.megabytes[..]].concat();
    ensure!(
        sizes.is_sorted_by(|a, b| a < b),
        "sizes must ascend from {hot} MB, of the table that is written to"
    );
    println!("{}.\n", machine::line()?);
    let cluster = builder(2, &options.sst).build()?;
    let donor = cluster.node(1);
    donor.bootstrap()?;
    data::sysbench_tables(donor, 1, data::rows_of(hot, 1)?)?;
    cluster.node(2).wipe()?;
    println!("{HEAD}");
    let mut run = Run { cluster: &cluster, repeat: options.repeat, changes: 0, alone: None };
    run.hot_alone()?;
    let mut by_size = Vec::new();
    for step in sizes.windows(2) {
        run.grow(step[0], step[1])?;
        by_size.push(run.turns()?);
    }
    println!("{NOTES}");
    if let [smallest, .., largest] = by_size[..] {
        println!(
            "With the same table that changes, the largest size takes {:.2} of the smallest one's seconds.",
            largest / smallest
        );
    }
    Ok(())
}

const HEAD: &str = "\
| MB on disk | turn | | transfer (SST), s | of reading everything | of the table that changes alone | MB read, donor | joiner | MB remembered, donor | joiner |
|---:|---|---|---:|---:|---:|---:|---:|---:|---:|";

const NOTES: &str = "
Nothing of either datadir is in the page cache before a transfer. MB are of the hosts' own files. The table that changes alone:
by the median of its turns, before there were others.";

/// One pair of nodes, and what was found so far.
struct Run<'a> {
    cluster: &'a Cluster,
    repeat: u32,
    /// How often the table was changed.
    changes: u32,
    /// Seconds for the table that changes, without others.
    alone: Option<f64>,
}

impl Run<'_> {
    /// The table that changes, as long as there is no other: both hosts read all of it.
    fn hot_alone(&mut self) -> Result<()> {
        self.join("rejoin", 0)?;
        let mut all = Vec::new();
        for turn in 1..=self.repeat {
            let took = self.join("rejoin", 0)?;
            self.row(turn, "the table that changes, alone", &took, None)?;
            all.push(took.seconds);
        }
        self.alone = Some(median(all));
        Ok(())
    }

    /// Adds tables that do not change, and gives the joiner everything once the donor's files are settled on the disk.
    fn grow(&mut self, from: u64, to: u64) -> Result<()> {
        let (donor, joiner) = (self.cluster.node(1), self.cluster.node(2));
        joiner.wait_tidy()?;
        joiner.stop()?;
        (1..=OTHERS)
            .try_for_each(|n| data::filler(donor, &format!("filler{to}_{n}"), (to - from) / OTHERS))?;
        donor.write_pages()?;
        std::thread::sleep(SETTLED);
        joiner.wipe()?;
        let full = self.join("rejoin", 1)?;
        self.row(0, "rejoin, to an empty node", &full, None)
    }

    /// Answers the median of what it takes with what is remembered.
    fn turns(&mut self) -> Result<f64> {
        let mut remembering = Vec::new();
        for turn in 1..=self.repeat {
            let reading = self.join("rejoin", 0)?;
            self.row(turn, "rejoin, remember-fingerprints=0", &reading, Some(reading.seconds))?;
            let took = self.join("rejoin", 1)?;
            self.row(turn, "rejoin", &took, Some(reading.seconds))?;
            remembering.push(took.seconds);
            if turn == self.repeat {
                // The last one: it writes all files of the joiner.
                let rsync = self.join("rsync", 1)?;
                self.row(turn, "rsync", &rsync, Some(reading.seconds))?;
            }
        }
        Ok(median(remembering))
    }

    fn row(&self, turn: u32, name: &str, took: &Took, reading: Option<f64>) -> Result<()> {
        let mb = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
        let figures = match took.bytes {
            None => "| | | |".to_owned(),
            Some([donor, joiner]) => format!(
                "{} | {} | {} | {} |",
                mb(donor.read),
                mb(joiner.read),
                mb(donor.remembered),
                mb(joiner.remembered)
            ),
        };
        let part = |of: Option<f64>| of.map_or_else(String::new, |of| format!("{:.2}", took.seconds / of));
        let disk = data::disk_bytes(&self.cluster.node(1).datadir())? as f64 / 1e6;
        println!(
            "| {disk:.0} | {turn} | {name} | {:.2} | {} | {} | {figures}",
            took.seconds,
            part(reading),
            part(self.alone)
        );
        Ok(())
    }

    /// Stops the joiner, changes some rows of one table, and lets it come back.
    fn join(&mut self, method: &str, remembers: u32) -> Result<Took> {
        let (donor, joiner) = (self.cluster.node(1), self.cluster.node(2));
        if joiner.is_alive() {
            joiner.wait_tidy()?;
            joiner.stop()?;
        }
        self.changes += 1;
        let change = self.changes;
        donor.exec(&[
            &format!("UPDATE sbtest.sbtest1 SET c = 'changed by {change}' WHERE id % 7 = {}", change % 7),
            &format!("SET GLOBAL wsrep_sst_method='{method}'"),
        ])?;
        let line = format!("remember-fingerprints={remembers}");
        [donor, joiner].into_iter().try_for_each(|node| node.add_options("sst", &[&line]))?;
        compare::wait_purged(donor, 50, Duration::from_secs(600))?;
        donor.checkpoint()?;
        rustix::fs::sync();
        [donor, joiner].into_iter().try_for_each(|node| forget_all(&node.datadir()))?;
        joiner.remove_grastate()?;
        let observed = Observed::join(donor, joiner, &[&format!("--wsrep-sst-method={method}")])?;
        observed.ran(method)?;
        compare::assert_equal(donor, joiner)?;
        let bytes = match method {
            "rejoin" => Some([Counted::on(donor)?, Counted::on(joiner)?]),
            _ => None,
        };
        Ok(Took { seconds: observed.sst()?.as_secs_f64(), bytes })
    }
}
