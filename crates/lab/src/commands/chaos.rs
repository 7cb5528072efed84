//! `lab chaos`: three real nodes, and at a random instant of a join something is killed, stopped, cut off or full.

mod afterwards;
mod fault;
mod fixture;
mod round;
mod survivors;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;
use fastrand::Rng;

use fault::Fault;
use fixture::Fixture;

/// What to run.
#[derive(Args)]
pub struct Options {
    /// How many rounds, each with one fault.
    #[arg(long, default_value_t = 20)]
    rounds: u64,
    /// Decides everything that is left to chance; round `n` of a seed has the same fault every time.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The first round.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Rows of each of two sysbench tables.
    #[arg(long, default_value_t = 20_000)]
    rows: u32,
    /// Where the logs of rounds that failed are put.
    #[arg(long, default_value = "/tmp/rejoin-chaos")]
    evidence: PathBuf,
    /// MariaDB 11.8 instead of the machine's server.
    #[arg(long)]
    newer: bool,
}

/// How often a round ended in each way.
#[derive(Default)]
struct Tally {
    ended: BTreeMap<String, u64>,
    failed: Vec<String>,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    let mut tally = Tally::default();
    let mut fixture: Option<Fixture> = None;
    let end = options.from + options.rounds;
    for number in options.from..end {
        let mut rng = Rng::with_seed(options.seed.wrapping_mul(1_000_003).wrapping_add(number));
        let fault = Fault::draw(&mut rng);
        let began = Instant::now();
        let here = match fixture.take() {
            Some(here) => here,
            None => Fixture::new(options)?,
        };
        let result = round::run(&here, &fault, number, &mut rng);
        let took = began.elapsed().as_secs_f64();
        match result {
            Ok(said) => {
                println!("{number:4} {fault}: {said} ({took:.0} s)");
                *tally.ended.entry(said.kind()).or_default() += 1;
                fixture = Some(here);
            }
            Err(error) if here.known.get().is_some() => {
                let known = here.known.get().unwrap_or_default();
                println!("{number:4} {fault}: {known} ({took:.0} s): {error:#}");
                *tally.ended.entry(format!("the servers' own: {known}")).or_default() += 1;
            }
            Err(error) => {
                let text = format!("seed {} round {number}, {fault}: {error:#}", options.seed);
                println!("{number:4} FAILED after {took:.0} s: {text}");
                keep_evidence(&here, &options.evidence.join(format!("{}-{number}", options.seed)), &text);
                tally.failed.push(text);
                // The next round starts from a new cluster.
            }
        }
    }
    println!("{} rounds, {} failed", options.rounds, tally.failed.len());
    for (kind, count) in &tally.ended {
        println!("{count:6} {kind}");
    }
    if !tally.failed.is_empty() {
        bail!("{} rounds failed:\n{}", tally.failed.len(), tally.failed.join("\n"));
    }
    Ok(())
}

/// The logs of all nodes, and what lies in the joiner's datadir.
fn keep_evidence(fixture: &Fixture, to: &Path, text: &str) {
    let _ = fs::create_dir_all(to);
    let _ = fs::write(to.join("failure.txt"), text);
    for node in fixture.cluster.nodes() {
        let of = |name: &str| to.join(format!("{}-{name}", node.name()));
        let _ = fs::copy(node.error_log(), of("error.log"));
        let _ = fs::copy(node.option_file(), of("my.cnf"));
        for entry in fs::read_dir(node.datadir()).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("rejoin-") {
                let _ = fs::copy(entry.path(), of(&name));
            }
        }
        let mut list = std::process::Command::new("ls");
        if let Ok(output) = list.arg("-lARn").arg(node.datadir()).output() {
            let _ = fs::write(of("files.txt"), output.stdout);
        }
    }
}
