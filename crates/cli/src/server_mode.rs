//! Run by the server: words to a [`Job`], the job to its role, the outcome to an exit code.
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use formats::wsrep::invocation::{Role, SstArgs};
use node::cancel::Cancel;
use node::failure::kind_of;
use node::job::{self, Job};
use node::server::log;
use node::server::manners;
use node::server::markers::Markers;
use node::server::options::ServerOptions;
use node::server::parent;
use node::server::progress::{Progress, Reporter, STATUS_FILE};
use node::server::report::Report;
use node::settings::Settings;

/// Runs the role the server asks for.
pub fn run(words: &[String]) -> ExitCode {
    let args = SstArgs::parse(words);
    let role = args.effective_role();
    let name = if role == Role::Joiner { "joiner" } else { "donor" };
    let outcome = job::datadir_of(&args).map_err(anyhow::Error::from).and_then(|datadir| {
        begin_log(&datadir, name);
        transfer(args, role, name, &datadir)
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            node::server::log::error(&format!("{name}: state transfer failed: {error:#}"));
            ExitCode::from(kind_of(&error).exit_code())
        }
    }
}

fn begin_log(datadir: &Path, name: &str) {
    if let Err(error) = log::begin(datadir, name) {
        log::begin_without_file();
        log::warning(&format!("no log file for this transfer: {error:#}"));
    }
}

fn transfer(args: SstArgs, role: Role, name: &'static str, datadir: &Path) -> Result<()> {
    manners::be_expendable();
    let cancel = Cancel::new();
    let markers = Markers::none();
    let server = parent::find_server(args.parent);
    let last_words = markers.clone();
    // First of all: also the wait for an earlier transfer ends with our server.
    parent::watch(server, cancel.clone(), move || last_words.remove())?;
    parent::end_with_the_shell();
    markers.set(datadir, role == Role::Joiner, &cancel)?;
    let options = ServerOptions::load(&args)?;
    for problem in options.warnings() {
        log::warning(problem);
    }
    let report = Arc::new(Report::stdout());
    let progress = Progress::new(name);
    let to_server = args.progress.then(|| Arc::clone(&report));
    let reporter = Reporter::start(&progress, datadir.join(STATUS_FILE), to_server);
    let settings = Settings::read(&options)?;
    let job = Job { args, options, settings, datadir: datadir.to_owned(), server, report, progress, cancel };
    let outcome = match role {
        Role::Joiner => node::joiner::run(&job),
        Role::Donor => node::donor::run(&job),
    };
    job.progress.end(&outcome.as_ref().map_or_else(|e| format!("{e:#}"), |()| "ok".to_owned()));
    drop(reporter);
    markers.remove();
    outcome
}
