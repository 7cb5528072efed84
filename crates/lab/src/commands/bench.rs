//! `lab bench`: the same transfer by each method, side by side, beside what the machine itself can do.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use rejoin_lab::data;

mod by_rows;
pub(super) mod ceilings;
mod contender;
pub(super) mod fixture;
pub(super) mod limit;
pub(super) mod machine;
mod plot;
pub(super) mod results;
mod rows;
pub(super) mod samples;
mod svg;
mod table;
mod trial;

use super::link::LinkOptions;
use ceilings::Ceilings;
use contender::{Case, Contender};
use fixture::Fixture;
use results::{Results, TrialRecord};
use trial::{Trial, Turn};

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// Megabytes of sysbench tables.
    #[arg(long, default_value_t = 2500)]
    megabytes: u64,
    /// How many times each method takes its turn in each case.
    #[arg(long, default_value_t = 3)]
    repeat: u32,
    /// Connections that write to the donor under load; one more writes to the other node.
    #[arg(long, default_value_t = 2)]
    writers: u32,
    /// The cases; may be given again, separated by commas. All when not given.
    #[arg(long, value_enum, value_delimiter = ',')]
    case: Vec<Case>,
    /// The methods, separated by commas; all of them by default.
    #[arg(long, value_enum, value_delimiter = ',')]
    method: Vec<Contender>,
    /// A line for `[sst]` of all nodes; may be given again.
    #[arg(long)]
    sst: Vec<String>,
    /// The page cache has nothing of the nodes' files, as beside servers that read and write past it.
    #[arg(long)]
    cold: bool,
    #[command(flatten)]
    link: LinkOptions,
    /// Writes what was measured to this file too, as JSON (its keys: docs/figures.md).
    #[arg(long, conflicts_with = "by_rows")]
    json: Option<PathBuf>,
    /// Draws the seconds of all methods to this file, as SVG.
    #[arg(long, conflicts_with = "by_rows")]
    svg: Option<PathBuf>,
    /// Definitions and rows instead of files: snapshot=logical beside the method mysqldump, mariadb-dump, and what a server can load
    /// at all. Cases, methods and writers do not count then.
    #[arg(long)]
    by_rows: bool,
    /// Another build of the program, which takes turns with this one.
    #[arg(long, requires = "by_rows")]
    against: Option<PathBuf>,
}

impl Options {
    /// `all`, or those of `all` that were asked for.
    fn chosen<T: Copy + PartialEq>(all: &[T], asked: &[T]) -> Vec<T> {
        all.iter().copied().filter(|one| asked.is_empty() || asked.contains(one)).collect()
    }
}

/// Runs it. What was measured before a failure is shown and written as well.
pub fn run(options: &Options) -> Result<()> {
    ensure!(options.repeat > 0, "nothing to measure");
    let link = options.link.link()?;
    if options.by_rows {
        ensure!(link.is_none(), "with --by-rows transfers pass loopback: give no --link");
        return by_rows::run(options);
    }
    // A run takes long: a file that cannot be written is found out now.
    for path in options.json.iter().chain(&options.svg) {
        fs::write(path, "").with_context(|| path.display().to_string())?;
    }
    let contenders = Options::chosen(&Contender::ALL, &options.method);
    let cases = Options::chosen(&Case::ALL, &options.case);
    let takes_part = |one: &Contender| cases.iter().any(|case| one.takes_part(*case));
    ensure!(contenders.iter().any(takes_part), "none of these methods takes part in these cases");
    println!("loading {} MB ...", options.megabytes);
    let fixture = Fixture::make(options)?;
    let ceilings = fixture.ceilings(link)?;
    println!("{ceilings}");
    let mut trials = Vec::new();
    let measured = measure(options, &fixture, &ceilings, &contenders, &mut trials);
    if !trials.is_empty() {
        report(options, &fixture, &ceilings, &contenders, &trials)?;
    }
    measured
}

fn measure(
    options: &Options,
    fixture: &Fixture,
    ceilings: &Ceilings,
    contenders: &[Contender],
    trials: &mut Vec<Trial>,
) -> Result<()> {
    println!("one join that does not count ...");
    let turn = Turn { contender: contenders[0], case: Case::Full, repetition: 0, ceilings, cat: None };
    Trial::run(fixture, turn).context("the first join")?;
    // Before clients have written: files must have been left alone to be remembered.
    let cases = [Case::Same, Case::Changed, Case::Full, Case::Loaded];
    for case in Options::chosen(&cases, &options.case) {
        if case == Case::Changed {
            fixture.make_same(false).context("the same files")?;
        }
        for repetition in 1..=options.repeat {
            let cat = (case == Case::Same).then(|| same(fixture)).transpose()?;
            for &contender in contenders.iter().filter(|contender| contender.takes_part(case)) {
                let what = format!("{} {repetition}, {}", contender.name(), case.name());
                let turn = Turn { contender, case, repetition, ceilings, cat };
                let trial = Trial::run(fixture, turn).with_context(|| what.clone())?;
                println!(
                    "  {what}: {:.1} s; transfer {:.1} s: {}",
                    trial.observed.took.as_secs_f64(),
                    trial.transfer.seconds,
                    trial.transfer_nearness()
                );
                trials.push(trial);
            }
        }
    }
    Ok(())
}

/// Gives the joiner the donor's files.
fn same(fixture: &Fixture) -> Result<fixture::Cat> {
    println!("giving the joiner the same files, once the donor's have been left alone for two minutes ...");
    fixture.make_same(true).context("the same files")?;
    let cat = fixture.cat()?;
    println!(
        "  cat of the data files: donor {:.2} s, joiner {:.2} s, both at once {:.2} s",
        cat.donor, cat.joiner, cat.both
    );
    Ok(cat)
}

fn report(
    options: &Options,
    fixture: &Fixture,
    ceilings: &Ceilings,
    contenders: &[Contender],
    trials: &[Trial],
) -> Result<()> {
    let machine = machine::line()?;
    println!(
        "\nSST of a datadir of {:.2} GB, {:.2} GB of it data.",
        data::disk_bytes(&fixture.donor().datadir())? as f64 / 1e9,
        fixture.data_bytes()? as f64 / 1e9
    );
    println!("{machine}; {}.", fixture::SETTINGS.join(", "));
    println!("Ceilings: {ceilings}.");
    let cached = if options.cold { "nothing" } else { "all" };
    println!("The page cache had {cached} of the nodes' files before each join.\n");
    println!("{}\n{}", table::table(trials, contenders), table::NOTES);
    print!("{}", table::goals(trials, options.cold));
    if let Some(path) = fixture.path() {
        println!("{}", path.report()?);
    }
    let settings = fixture::SETTINGS.iter().map(ToString::to_string).chain(options.sst.iter().cloned());
    let mut results =
        Results::new(machine, settings.collect(), fixture.data_bytes()?, options.cold, ceilings);
    results.trials = trials.iter().map(TrialRecord::of).collect();
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&results).context("as JSON")?;
        fs::write(path, text + "\n").with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &options.svg {
        let svg = plot::plot(&results, contenders).svg();
        fs::write(path, svg).with_context(|| path.display().to_string())?;
    }
    Ok(())
}
