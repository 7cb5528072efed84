//! `lab`: clusters on this machine, by hand. See `lab --help`.
#![expect(clippy::print_stdout, reason = "what a scenario found is its output")]

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod commands;

use commands::filesystem::Filesystem;

/// Real MariaDB Galera clusters on this machine, for demonstrations and scenarios.
#[derive(Parser)]
struct Cli {
    /// All nodes are on a filesystem of this kind, in a file behind a loop device, instead of the temporary directory's. Needs root.
    #[arg(long, global = true, value_enum)]
    filesystem: Option<Filesystem>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Two nodes; the second joins under write load; shows progress, times and whether both are equal.
    Demo(commands::demo::Options),
    /// Many joins in a row, from every state a joiner may be in, under load and DDL.
    Joins(commands::joins::Options),
    /// Full transfers while two nodes write and change tables: is every joiner equal to both?
    Storm(commands::storm::Options),
    /// At a random instant of a join something is killed, stopped, cut off or full; is the cluster fine, and the joiner equal?
    Chaos(commands::chaos::Options),
    /// What an archive of write-sets costs a node and gains one that was away: ratios.
    DeepIst(commands::deep_ist::Options),
    /// Nodes that were away longer than any cache reaches return by an archive under a storm: are they equal?
    Outages(commands::outages::Options),
    /// Full transfers while many clients connect to the joiner's port again and again, and all processors are busy.
    Strangers(commands::strangers::Options),
    /// The same transfer by each method, side by side, with what limited each: a table, JSON and a picture.
    Bench(commands::bench::Options),
    /// What a node that was away receives, by how much was changed since and before, beside the server's own methods.
    Figures(commands::figures::Options),
    /// What neither host reads because it has not changed: bytes and seconds, with and without memory, and by rsync.
    Cold(commands::cold::Options),
    /// What many tables and a large MyISAM table cost in the consistency point.
    Moment(commands::moment::Options),
    /// What the number of tables and the bytes cost: pause of replication, memory, processor time and seconds beside those with ten tables.
    Scale(commands::scale::Options),
    /// What redo costs on the wire and in recovery, with rsync and mariabackup beside it; transfers below a limit.
    RedoTable(commands::redo_table::Options),
    /// What clients of a busy donor feel of a transfer, with and without adaptive-throttle, and what that costs.
    Throttle(commands::throttle::Options),
    /// Starts nodes and keeps them until Enter or the end of the input.
    Cluster(commands::cluster::Options),
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    // After the clusters that are on it.
    let _filesystem = cli.filesystem.map(Filesystem::make).transpose()?;
    if let Some(filesystem) = cli.filesystem {
        println!("All nodes are on {}, in a file behind a loop device.", filesystem.name());
    }
    match cli.command {
        Command::Demo(options) => commands::demo::run(&options),
        Command::Joins(options) => commands::joins::run(&options),
        Command::Storm(options) => commands::storm::run(&options),
        Command::Chaos(options) => commands::chaos::run(&options),
        Command::DeepIst(options) => commands::deep_ist::run(&options),
        Command::Outages(options) => commands::outages::run(&options),
        Command::Strangers(options) => commands::strangers::run(&options),
        Command::Bench(options) => commands::bench::run(&options),
        Command::Figures(options) => commands::figures::run(&options),
        Command::Cold(options) => commands::cold::run(&options),
        Command::Moment(options) => commands::moment::run(&options),
        Command::Scale(options) => commands::scale::run(&options),
        Command::RedoTable(options) => commands::redo_table::run(&options),
        Command::Throttle(options) => commands::throttle::run(&options),
        Command::Cluster(options) => commands::cluster::run(&options),
    }
}
