//! Run by the server: arguments become a [`Job`], the job runs its role, the outcome becomes an exit code.
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use formats::wsrep::invocation::{Role, SstArgs};
use transfer::cancel::Cancel;
use transfer::disk::lock::DatadirLock;
use transfer::failure::{Kind, kind_of};
use transfer::job::{self, Job};
use transfer::panics::{self, caught};
use transfer::running_joiner;
use transfer::server::log;
use transfer::server::markers::{EARLIER_TRANSFER, Markers};
use transfer::server::niceness;
use transfer::server::options::ServerOptions;
use transfer::server::parent;
use transfer::server::progress::Progress;
use transfer::server::recorder::Recorder;
use transfer::server::report::Report;
use transfer::server::reporter::{Places, Reporter};
use transfer::server::shutdown::ClientSocket;
use transfer::server::status::{OK, STATUS_FILE};
use transfer::settings::{Settings, metrics_dir};

use crate::operator::version;

/// Printed for a user who runs the server's program by hand.
const ABOUT: &str = "\
wsrep_sst_rejoin is the state transfer (SST) method \"rejoin\" of MariaDB Galera Cluster.
The server runs it with its own arguments (--role joiner or --role donor) when its
option file contains

    [mysqld]
    wsrep_sst_method = rejoin

It is not meant to be run by hand. Operators run the same program under the name rejoin:

    rejoin check     find problems that the next transfer of this node would have
    rejoin --help    list all commands";

/// Whether a user asks what this program is. The server never passes these arguments, and never passes none.
pub fn is_question(words: &[String]) -> bool {
    words.first().is_none_or(|first| ["--help", "-h", "--version", "-V"].contains(&first.as_str()))
}

/// Prints what this program is. Without any argument that is an error.
pub fn about(words: &[String]) -> ExitCode {
    let mut out = std::io::stdout();
    // The reader may close its end early.
    let _ = match words.first().map(String::as_str) {
        Some("--version") => writeln!(out, "rejoin {}", *version::LONG),
        Some("-V") => writeln!(out, "rejoin {}", env!("CARGO_PKG_VERSION")),
        _ => writeln!(out, "{ABOUT}"),
    };
    if words.is_empty() { ExitCode::from(Kind::Configuration.exit_code()) } else { ExitCode::SUCCESS }
}

/// The SST method, which the server names by the program that it runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    /// Both nodes run this program.
    TwoPrograms,
    /// The joiner's server runs already, and the donor's program logs in to it.
    RunningJoiner,
}

/// Runs the role that the server asks for, which calls us by the name `program`.
pub fn run(program: &str, words: &[String]) -> ExitCode {
    let method = if program == running_joiner::PROGRAM { Method::RunningJoiner } else { Method::TwoPrograms };
    let args = SstArgs::parse(words);
    let role = args.effective_role();
    let name = if role == Role::Joiner { "joiner" } else { "donor" };
    let outcome = job::datadir_of(&args).map_err(anyhow::Error::from).and_then(|datadir| {
        let log = begin_log(&datadir, name);
        let progress = Progress::new(name);
        let recorder = Recorder::beside(log.as_deref(), &progress);
        let outcome = caught(|| transfer(args, (role, method), &datadir, &progress, &recorder));
        recorder.end(&outcome_text(&outcome));
        outcome
    });
    let code = match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            transfer::server::log::error(&format!("{name}: state transfer failed: {error:#}"));
            ExitCode::from(kind_of(&error).exit_code())
        }
    };
    panics::finish();
    code
}

fn begin_log(datadir: &Path, name: &str) -> Option<PathBuf> {
    let begun = log::begin(datadir, name);
    begun
        .inspect_err(|error| {
            log::begin_without_file();
            log::warning(&format!("cannot create a log file for this transfer: {error:#}"));
        })
        .ok()
}

fn outcome_text(outcome: &Result<()>) -> String {
    outcome.as_ref().map_or_else(|error| format!("{error:#}"), |()| OK.to_owned())
}

fn transfer(
    args: SstArgs,
    (role, method): (Role, Method),
    datadir: &Path,
    progress: &Arc<Progress>,
    recorder: &Recorder,
) -> Result<()> {
    niceness::be_expendable();
    let cancel = Cancel::new();
    let markers = Markers::none();
    let server = parent::find_server(args.parent);
    // For an end at which no destructors run.
    let on_abrupt_end = || {
        let (markers, recorder, cancel) = (markers.clone(), recorder.clone(), cancel.clone());
        move || {
            markers.remove();
            if let Err(reason) = cancel.check() {
                recorder.end(&reason.to_string());
            }
        }
    };
    panics::end_transfer(&cancel, on_abrupt_end());
    // A joiner's server has no socket before it has its data.
    let socket = match role {
        Role::Donor => ClientSocket::find(args.socket.as_deref(), datadir),
        Role::Joiner => None,
    };
    // The watch starts before anything that may wait: waiting for an earlier transfer must also end with our server.
    parent::watch(server, role, socket, cancel.clone(), on_abrupt_end())?;
    parent::end_with_the_shell();
    // A joiner holds the lock from its start to its end; a donor takes it only while it removes something.
    let lock =
        (role == Role::Joiner).then(|| DatadirLock::take(datadir, "a joiner", EARLIER_TRANSFER, &cancel));
    let lock = lock.transpose()?;
    markers.set(datadir, role == Role::Joiner, &cancel)?;
    let options = ServerOptions::load(&args)?;
    for problem in options.warnings() {
        log::warning(problem);
    }
    let report = Arc::new(Report::stdout());
    let to_server = args.progress.then(|| Arc::clone(&report));
    let (status_file, recorder) = (datadir.join(STATUS_FILE), recorder.clone());
    let places = Places { status_file, recorder, metrics_dir: metrics_dir(&options) };
    let reporter = Reporter::start(progress, places, to_server);
    let settings = Settings::read(&options).inspect_err(|error| progress.end(&format!("{error:#}")))?;
    let (datadir, progress) = (datadir.to_owned(), Arc::clone(progress));
    let job = Job { args, options, settings, datadir, server, report, progress, cancel };
    let outcome = caught(|| match (method, role) {
        (Method::RunningJoiner, _) => running_joiner::run(&job),
        (Method::TwoPrograms, Role::Joiner) => transfer::joiner::run(&job),
        (Method::TwoPrograms, Role::Donor) => transfer::donor::run(&job),
    });
    job.progress.end(&outcome_text(&outcome));
    drop(reporter);
    markers.remove();
    drop(lock);
    outcome
}
