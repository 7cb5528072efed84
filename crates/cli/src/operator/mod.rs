//! Run by an operator: `rejoin VERB`. One file per verb.
mod check;
mod finish;
mod gcache;
mod gcache_text;
mod plan;
mod release;
mod rollback;
mod status;
mod verify;
mod which;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

/// A Galera node comes back by receiving a verified copy, staged beside its old datadir.
#[derive(Parser)]
#[command(name = "rejoin", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Put back the files that the last install replaced
    ///
    /// The server must be stopped. What the install had put in their place is removed.
    Rollback(rollback::Options),
    /// Finish an install that a crash interrupted
    ///
    /// Does nothing when there is none, so it may be run before every start of the server
    /// (systemd: ExecStartPre=-/usr/bin/rejoin finish --datadir /var/lib/mysql).
    Finish(Datadir),
    /// Remove the replaced files that are still kept
    Release(Datadir),
    /// Show how far a transfer is, and what it left in the datadir
    Status(status::Options),
    /// Look for what would go wrong in the next transfer of this node, and say how to mend it
    ///
    /// For a server that runs or is stopped; changes nothing. Exit code: 0 nothing wrong, 1 warnings, 2 errors,
    /// 3 the check could not be made. As root it is made as the server's user.
    Check(check::Options),
    /// Predict how a node that is down would come back: which donor, by IST or SST, how much, and what would be better
    ///
    /// Reads only. Exit code: 0 by IST, 1 by SST, 2 nobody gives now, 3 it cannot be told. As root it is made as the
    /// server's user.
    Plan(plan::Options),
    /// Compare two datadirs, page by page
    ///
    /// Exit code: 0 the same, 1 different, 2 damaged pages, 3 they cannot be compared.
    Verify(verify::Options),
    /// Show which write-sets a node can still serve by IST, read from its galera.cache
    ///
    /// Strictly read-only, for a server that is stopped, that crashed, or that runs.
    Gcache(gcache::Options),
    /// Started by the program itself after a transfer
    #[command(name = node::keeper::VERB, hide = true, disable_help_flag = true)]
    KeepUntilSynced {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

/// Which datadir.
#[derive(Args)]
struct Datadir {
    /// The server's data directory
    #[arg(long, value_name = "DIR")]
    datadir: PathBuf,
}

/// Reads the command line and runs the verb.
pub fn run() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Check(options) => return or_unknown(check::run(&options)),
        Verb::Verify(options) => return or_unknown(verify::run(&options)),
        Verb::Plan(options) => return or_unknown(plan::run(&options)),
        Verb::Rollback(options) => rollback::run(&options),
        Verb::Finish(at) => finish::run(&at.datadir),
        Verb::Release(at) => release::run(&at.datadir),
        Verb::Status(options) => status::run(&options),
        Verb::Gcache(options) => gcache::run(&options),
        Verb::KeepUntilSynced { words } => node::keeper::run(&words),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::from(node::failure::kind_of(&error).exit_code())
        }
    }
}

/// Of verbs whose exit code is an answer: a failure needs one of its own.
fn or_unknown(outcome: Result<ExitCode>) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        complain(&format!("{error:#}"));
        ExitCode::from(which::UNKNOWN)
    })
}

/// An answer to the operator.
#[expect(
    clippy::print_stdout,
    reason = "an operator's command answers on stdout; only the server mode must not"
)]
fn say(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "an operator's command complains on stderr")]
fn complain(text: &str) {
    eprintln!("rejoin: {text}");
}
