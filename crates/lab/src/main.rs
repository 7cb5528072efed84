//! `lab`: clusters on this machine, by hand. See `lab --help`.
#![expect(clippy::print_stdout, reason = "what a scenario found is its output")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod commands;

/// Real MariaDB Galera clusters on this machine, for demonstrations and scenarios.
#[derive(Parser)]
struct Cli {
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
    /// The same full transfer by each method, side by side, as a table.
    Bench(commands::bench::Options),
    /// What a node that was away receives, by how much was changed since and before, beside the server's own methods.
    Figures(commands::figures::Options),
    /// What many tables and a large MyISAM table cost in the settled moment.
    Moment(commands::moment::Options),
    /// Starts nodes and keeps them until Enter or the end of the input.
    Cluster(commands::cluster::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo(options) => commands::demo::run(&options),
        Command::Joins(options) => commands::joins::run(&options),
        Command::Storm(options) => commands::storm::run(&options),
        Command::Bench(options) => commands::bench::run(&options),
        Command::Figures(options) => commands::figures::run(&options),
        Command::Moment(options) => commands::moment::run(&options),
        Command::Cluster(options) => commands::cluster::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}
