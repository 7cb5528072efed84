//! Run by an operator: `rejoin VERB`. One file per verb.
mod alone;
mod answer;
mod archive;
mod check;
mod copy_to;
mod fingerprint;
mod finish;
mod gcache;
mod gcache_text;
mod http;
mod metrics;
mod plan;
mod plan_json;
mod release;
mod report;
mod rollback;
mod serve;
mod set;
mod status;
mod verify;
pub(crate) mod version;
mod watch;
mod which;

use std::io::Write as _;
use std::process::ExitCode;

use alone::Common;
use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use transfer::panics::caught;

/// State transfer (SST) for Galera Cluster that sends only what differs
#[derive(Parser)]
#[command(
    name = "rejoin",
    version,
    long_version = version::LONG.as_str(),
    arg_required_else_help = true,
    term_width = 80
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Put back the files that the last install replaced
    ///
    /// The server must be stopped. Files that the install had put in their place are removed.
    #[command(after_long_help = "Example:\n  rejoin rollback --datadir /var/lib/mysql")]
    Rollback(Common),
    /// Finish an install that a crash interrupted
    ///
    /// Does nothing when there is no such install, so it may run before every start of the server. Refuses to
    /// run while a server uses the datadir.
    #[command(
        after_long_help = "Example, in the unit of the server:\n  ExecStartPre=-/usr/bin/rejoin finish --let-join --datadir /var/lib/mysql"
    )]
    Finish(finish::Options),
    /// Remove the previous state, and leftovers of unfinished transfers
    ///
    /// The server must be stopped, or report that it is Synced. rejoin removes the previous state by itself
    /// once the node is Synced, unless keep-previous=always is set. Prints how many files and MiB were
    /// removed.
    #[command(after_long_help = "Example:\n  rejoin release --datadir /var/lib/mysql")]
    Release(Common),
    /// Show the progress of a transfer, and what it left in the datadir
    ///
    /// With --watch, follows the running transfer, or waits for the next one and follows that. You can start
    /// it in a second terminal before you start the server.
    ///
    /// With --probe, prints nothing; exit code: 0 a transfer is running and makes progress, 1 it has stalled,
    /// 3 no transfer is running.
    #[command(after_long_help = "Example:\n  rejoin status --watch")]
    Status(status::Options),
    /// Make one HTML page of the last transfers
    ///
    /// Each transfer leaves a record beside its log. Where the records of both hosts are given, they are shown
    /// side by side: phases, throughput, what was sent of each table, the plan and the outcome. The page needs
    /// no network. Without arguments: the transfers of this node.
    #[command(
        after_long_help = "Example:\n  rejoin report -o report.html /var/lib/mysql /tmp/records-of-the-donor"
    )]
    Report(report::Options),
    /// Find problems that the next transfer of this node would have
    ///
    /// Works on a running or a stopped server, and changes nothing. Each problem comes with a remedy. When
    /// run by root, it becomes the server's user first. Exit code: 0 nothing wrong, 1 warnings, 2 errors, 3
    /// the check could not be made.
    #[command(after_long_help = "Example:\n  rejoin check --quiet")]
    Check(check::Options),
    /// Predict how a stopped node comes back: donor, IST or SST, size
    ///
    /// Changes nothing. Name the members to ask with --donor. Without it no member is asked: the last state
    /// of the group that this node saw is shown, and the answer is "not known". When run by root, it becomes
    /// the server's user first. Exit code: 0 by IST, or nothing is missing; 1 by SST; 2 no member can be the
    /// donor now; 3 not known.
    #[command(after_long_help = "Example:\n  rejoin plan --donor 10.0.0.1 --donor 10.0.0.2")]
    Plan(plan::Options),
    /// Compare two datadirs, page by page
    ///
    /// The first datadir must have no running server. Exit code: 0 the same, 1 different, 2 invalid command
    /// line, 3 they cannot be compared, 4 corrupt pages.
    #[command(
        after_long_help = "Example:\n  rejoin verify --datadir /backup/mysql --with /run/mysqld/mysqld.sock"
    )]
    Verify(verify::Options),
    /// Remember what this node's files contain, so that a transfer does not read them
    ///
    /// Each transfer remembers the fingerprints of the files that it reads or installs: what has not changed is
    /// not read in the next one. This reads the other files, with the lowest priority, on a running or a stopped
    /// server, as the datadir's owner. What changed in the last two minutes is left out. After the host was started
    /// again everything is read.
    #[command(
        after_long_help = "Example, daily by rejoin-fingerprint.timer:\n  rejoin fingerprint --datadir /var/lib/mysql"
    )]
    Fingerprint(Common),
    /// Show which write-sets a node can still serve by IST
    ///
    /// Reads the node's galera.cache. Read-only; the server may be running, stopped or crashed.
    #[command(after_long_help = "Examples:\n  rejoin gcache\n  rejoin gcache size --outage 4h")]
    Gcache(gcache::Options),
    /// Keep the write-sets that the server's cache overwrites, compressed, for as long as the disk allows
    Archive(archive::Options),
    /// Print metrics of the last transfer and the archive for Prometheus
    ///
    /// With --textfile, writes them for the textfile collector of node_exporter, to be run by a timer. Each
    /// transfer writes its own metrics while it runs if metrics-dir is set under [sst]. Reads the provider's
    /// write-set cache as a whole.
    #[command(after_long_help = "Example:\n  rejoin metrics --textfile /var/lib/prometheus/node-exporter")]
    Metrics(metrics::Options),
    /// Change the limits of the transfer that this node is donating
    ///
    /// Run it on the donor. The values are those of the options under [sst]; they count for the running
    /// transfer only, within about a second.
    ///
    /// rlimit=SIZE: bytes per second that may be sent, 0 for no limit.
    /// adaptive-throttle=0|1: read more slowly while the server is strained.
    #[command(
        after_long_help = "Examples:\n  rejoin set rlimit=50M\n  rejoin set rlimit=0 adaptive-throttle=0"
    )]
    Set(set::Options),
    /// Serve metrics and probes over HTTP, also while the server answers no client
    ///
    /// GET /metrics: the metrics for Prometheus. GET /healthz: 200 while a transfer makes progress, otherwise
    /// 503. GET /livez: 503 if a transfer has stalled, otherwise 200. Reads only, as the owner of the datadir;
    /// has no TLS of its own. Ends on SIGTERM.
    #[command(after_long_help = "Example:\n  rejoin serve --listen 127.0.0.1:4570 --datadir /var/lib/mysql")]
    Serve(serve::Options),
    /// Copy this program to a directory
    ///
    /// For an init container that brings the program to the server's container: an image that contains
    /// nothing but this program has no other command.
    #[command(after_long_help = "Example:\n  rejoin copy-to /programs")]
    CopyTo(copy_to::Options),
    /// Started by the program itself after a transfer
    #[command(name = transfer::cleanup::VERB, hide = true, disable_help_flag = true)]
    KeepUntilSynced {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Started by the program itself before a transfer
    #[command(name = transfer::writesets::ist::relay::VERB, hide = true, disable_help_flag = true)]
    RelayIst {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

/// Returns the definition of the command line, for the manual pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Reads the command line and runs the verb.
pub fn run() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Check(options) => return or_unknown(caught(|| check::run(&options))),
        Verb::Verify(options) => return or_unknown(caught(|| verify::run(&options))),
        Verb::Plan(options) => return or_unknown(caught(|| plan::run(&options))),
        // A probe that failed must not look like one that found no transfer.
        Verb::Status(options) if options.is_probe() => match caught(|| status::probe(&options)) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        verb => caught(|| done(verb)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::from(transfer::failure::kind_of(&error).exit_code())
        }
    }
}

fn done(verb: Verb) -> Result<()> {
    match verb {
        Verb::Check(_) | Verb::Verify(_) | Verb::Plan(_) => Ok(()),
        Verb::Rollback(options) => rollback::run(&options),
        Verb::Finish(options) => finish::run(&options),
        Verb::Release(options) => release::run(&options),
        Verb::Status(options) => status::run(&options),
        Verb::Report(options) => report::run(&options),
        Verb::Fingerprint(options) => fingerprint::run(&options),
        Verb::Gcache(options) => gcache::run(&options),
        Verb::Archive(options) => archive::run(&options),
        Verb::Set(options) => set::run(&options),
        Verb::Metrics(options) => metrics::run(&options),
        Verb::Serve(options) => serve::run(&options),
        Verb::CopyTo(options) => copy_to::run(&options),
        Verb::KeepUntilSynced { words } => transfer::cleanup::run(&words),
        Verb::RelayIst { words } => transfer::writesets::ist::passage::run(&words),
    }
}

/// For verbs whose exit code is a result: a failure has an exit code of its own.
fn or_unknown(outcome: Result<ExitCode>) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        complain(&format!("{error:#}"));
        ExitCode::from(which::UNKNOWN)
    })
}

fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "rejoin: {text}");
}
