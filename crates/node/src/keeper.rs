//! What becomes of the files an install replaced: kept until the node was once Synced, then removed by itself.
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use formats::wsrep::invocation::SstArgs;

use crate::cancel::Cancel;
use crate::job::{self, Job};
use crate::server::credentials;
use crate::server::options::ServerOptions;
use crate::server::parent::{self, ServerProcess};
use crate::server::synced::{self, Witness};
use crate::settings::{KeepOld, Settings};
use crate::sink::files::Disk;
use crate::sink::kept::{self, Status};
use crate::sink::tidy;

/// The verb under which the waiting process is started; not meant for operators.
pub const VERB: &str = "keep-until-synced";

/// Starts the process that waits for the node to be Synced, when there is something to remove then.
///
/// It must outlive us: the server waits for our end before it opens its engines. A node where it cannot be
/// started keeps the old files until it is a donor or until `rejoin release`.
pub fn start_if_needed(job: &Job) {
    if job.settings.keep_old == KeepOld::Always || !something_is_kept(&job.datadir) {
        return;
    }
    if let Err(error) = start(job) {
        tracing::warn!("the replaced files stay until `rejoin release`: {error:#}");
    }
}

fn start(job: &Job) -> Result<()> {
    let program = std::env::current_exe().context("cannot find our own program")?;
    let server = job.server.context("our server's process is not known")?;
    Command::new(program)
        // Whatever the program's file is called: under the server's name it would take itself for a transfer.
        .arg0("rejoin")
        .arg(VERB)
        .arg(server.pid.to_string())
        .args(std::env::args_os().skip(1))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start the process that waits for Synced")?;
    Ok(())
}

/// The waiting process: `words` are the server's process id and the arguments the server had given the joiner.
pub fn run(words: &[String]) -> Result<()> {
    // A session of its own: a signal to the server's process group is not for us, our server's end is.
    let _ = rustix::process::setsid();
    let (pid, words) = words.split_first().context("the server's process id is missing")?;
    let server = ServerProcess { pid: pid.parse().context("the server's process id is no number")? };
    let args = SstArgs::parse(words);
    let datadir = job::datadir_of(&args)?;
    let options = ServerOptions::load(&args)?;
    let settings = Settings::read(&options)?;
    let cancel = Cancel::new();
    parent::watch(Some(server), cancel.clone(), || {})?;
    let socket = synced::socket_path(options.server("socket"), &datadir);
    let account = credentials::collect(&args, &options, false).local;
    let witness = synced::wait_until_synced(&socket, account.as_ref(), &cancel)?;
    match witness {
        Witness::Status => tracing::info!("the node is Synced"),
        Witness::Greeting => tracing::info!("the server takes clients; no login on this node tells more"),
    }
    release(&datadir, &settings)
}

/// A donor has been Synced: what an earlier install kept is needed no more.
pub fn release_as_donor(job: &Job) {
    if let Err(error) = release(&job.datadir, &job.settings) {
        tracing::warn!("files kept by an earlier transfer could not be removed: {error:#}");
    }
}

fn release(datadir: &Path, settings: &Settings) -> Result<()> {
    if settings.keep_old == KeepOld::Always || !something_is_kept(datadir) {
        return Ok(());
    }
    tidy::remove_everything(&Disk, datadir)?;
    tracing::info!("removed the files that the last transfer had replaced");
    Ok(())
}

fn something_is_kept(datadir: &Path) -> bool {
    matches!(kept::status(&Disk, datadir, |_| Ok(0)), Ok(Status::InstalledKept { .. }))
}
