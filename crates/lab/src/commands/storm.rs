//! `lab storm`: is a joiner equal to its donor, though two nodes write and change tables while it joins?
//!
//! n1 gives, n2 is the other node that writes, n3 joins with a full transfer each round. It must be able to fail: see
//! `make storm-can-fail`.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use fastrand::Rng;

mod case;
pub mod figures;
mod fixture;
mod judge;
pub mod log_report;
mod old_tables;
mod round;
mod workload;

use case::Case;
use fixture::Fixture;
use judge::Wrong;
use round::Round;

/// What to run.
#[derive(Args)]
pub struct Options {
    /// How many joins; each case gets its share of them.
    #[arg(long, default_value_t = 14)]
    rounds: usize,
    /// SST method.
    #[arg(long, default_value = "rejoin")]
    method: String,
    /// The program to install as rejoin, instead of the one of this build.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// The settings of the nodes and what else the donor does; may be given again, separated by commas. All when not given.
    #[arg(long, value_enum, value_delimiter = ',')]
    case: Vec<Case>,
    /// Milliseconds from one DDL statement of a node to its next; 0 for writes alone.
    #[arg(long, default_value_t = 50)]
    ddl_every: u64,
    /// Rows of each of four sysbench tables.
    #[arg(long, default_value_t = 20_000)]
    rows: u32,
    /// Connections of sysbench on the donor; 0 for those alone that measure, as with few processors for many servers.
    #[arg(long, default_value_t = 1)]
    sysbench_threads: u32,
    /// Decides what DDL runs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A line for `[sst]` of all nodes; may be given again.
    #[arg(long)]
    sst: Vec<String>,
    /// Seconds a join may take until it counts as hung.
    #[arg(long, default_value_t = 90)]
    patience: u64,
    /// Copy the error logs of wrong rounds to this directory.
    #[arg(long)]
    evidence: Option<PathBuf>,
    /// Wrong joiners are what is expected: fail when there is none. A transfer that fails makes no joiner.
    #[arg(long)]
    expect_wrong: bool,
    /// MariaDB 11.8 instead of the machine's server.
    #[arg(long)]
    newer: bool,
}

impl Options {
    fn patience(&self) -> Duration {
        Duration::from_secs(self.patience)
    }

    /// Every round's case: rounds of one case follow each other, for they share a cluster.
    fn plan(&self) -> Vec<Case> {
        let cases = if self.case.is_empty() { Case::ALL.to_vec() } else { self.case.clone() };
        let (each, more) = (self.rounds / cases.len(), self.rounds % cases.len());
        let share = |(i, case): (usize, &Case)| vec![*case; each + usize::from(i < more)];
        cases.iter().enumerate().flat_map(share).collect()
    }
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    let mut rng = Rng::with_seed(options.seed);
    let mut rounds: Vec<Round> = Vec::new();
    let mut fixture: Option<Fixture> = None;
    for (i, case) in options.plan().into_iter().enumerate() {
        let here = match fixture.take().filter(|fixture| fixture.case == case) {
            Some(fixture) => fixture,
            None => Fixture::make(case, options).with_context(|| format!("a cluster for {case:?}"))?,
        };
        let round =
            round::run(&here, options, i + 1, &mut rng).with_context(|| format!("round {}", i + 1))?;
        say(&round.to_string())?;
        // What a wrong joiner did to the others is not asked: the next round gets a new cluster.
        fixture = Some(here).filter(|_| round.wrong.is_none());
        rounds.push(round);
    }
    drop(fixture);
    say(&figures::summary(&rounds))?;
    let wrong = rounds.iter().filter(|round| round.wrong.is_some()).count();
    match options.expect_wrong {
        true => {
            let found = rounds.iter().any(|round| round.wrong.is_some_and(Wrong::is_of_the_joiner));
            ensure!(found, "no joiner of {} rounds came out wrong, which was not expected", rounds.len());
        }
        false => ensure!(wrong == 0, "{wrong} of {} rounds were wrong", rounds.len()),
    }
    Ok(())
}

/// At once, so that a run can be followed in a file.
fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush().context("stdout")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing;

    #[test]
    fn each_case_gets_its_share_of_the_rounds() {
        let plan = |args: &[&str]| testing::options::<Options>(args).unwrap().plan();
        let (a, b) = (Case::Plain, Case::Binlog);
        assert_eq!(plan(&["--rounds", "5", "--case", "plain,binlog"]), [a, a, a, b, b]);
        assert_eq!(plan(&["--rounds", "1", "--case", "binlog", "--case", "plain"]), [b]);
        assert_eq!(plan(&["--rounds", "6"]).len(), 6);
    }
}
