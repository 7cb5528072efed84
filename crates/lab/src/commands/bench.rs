//! `lab bench`: the same full transfer by each method, side by side.

use anyhow::{Context, Result, ensure};
use clap::Args;
use rejoin_lab::data;

mod by_rows;
mod contender;
pub(super) mod fixture;
pub(super) mod machine;
mod table;
mod trial;

use contender::Contender;
use fixture::Fixture;
use trial::Trial;

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// Megabytes of sysbench tables.
    #[arg(long, default_value_t = 2500)]
    megabytes: u64,
    /// How many times each method takes its turn, idle and under load.
    #[arg(long, default_value_t = 3)]
    repeat: u32,
    /// Connections that write to the donor under load; one more writes to the other node.
    #[arg(long, default_value_t = 2)]
    writers: u32,
    /// The methods; may be given again, separated by commas. All when not given.
    #[arg(long, value_enum, value_delimiter = ',')]
    method: Vec<Contender>,
    /// A line for `[sst]` of all nodes; may be given again.
    #[arg(long)]
    sst: Vec<String>,
    /// The page cache has nothing of the donor's files, as beside a server that reads and writes past it.
    #[arg(long)]
    cold: bool,
    /// Definitions and rows instead of files: snapshot=logical beside the method mysqldump, mariadb-dump, and what a server can load
    /// at all. Methods and writers do not count then.
    #[arg(long)]
    by_rows: bool,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    ensure!(options.repeat > 0, "nothing to measure");
    if options.by_rows {
        return by_rows::run(options);
    }
    let contenders = if options.method.is_empty() { Contender::ALL.to_vec() } else { options.method.clone() };
    println!("loading {} MB ...", options.megabytes);
    let fixture = Fixture::make(options)?;
    println!("one join that does not count ...");
    Trial::run(&fixture, contenders[0], 0, false).context("the first join")?;
    let mut trials = Vec::new();
    for repetition in 1..=options.repeat {
        for loaded in [false, true] {
            for &contender in &contenders {
                let what =
                    format!("{} {repetition}, {}", contender.name(), if loaded { "loaded" } else { "idle" });
                let trial = Trial::run(&fixture, contender, repetition, loaded).context(what.clone())?;
                println!("  {what}: {:.1} s", trial.observed.took.as_secs_f64());
                trials.push(trial);
            }
        }
    }
    println!(
        "\nFull SST of a datadir of {:.2} GB to an empty node.",
        data::disk_bytes(&fixture.donor().datadir())? as f64 / 1e9
    );
    println!("{}; {}.", machine::line()?, fixture::SETTINGS.join(", "));
    let cached = if options.cold { "nothing" } else { "all" };
    println!("The page cache had {cached} of the donor's files before each join.\n");
    println!("{}\n{}", table::table(&trials, &contenders), table::NOTES);
    Ok(())
}
