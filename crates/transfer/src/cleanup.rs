//! Removes the previous state, and the count of failed joins, once the node has been Synced.
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cancel::Cancel;
use crate::datadir::layout::Layout;
use crate::disk::lock::DatadirLock;
use crate::install::files::Disk;
use crate::install::kept::{self, Status};
use crate::install::record_check;
use crate::install::tidy;
use crate::install::unfinished::Unfinished;
use crate::job::{self, Job};
use crate::server::companion::{self, Companion};
use crate::server::retries;
use crate::server::synced::{self, Witness};
use crate::settings::{KeepPrevious, Settings};

/// How long we wait for another process that works on the datadir. The previous state can be removed later.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// The verb of the waiting process; not meant for operators.
pub const VERB: &str = "keep-until-synced";

/// Starts the process that waits until the node is Synced, if there is a previous state to remove, or joins that failed were
/// counted.
///
/// It must outlive us, because the server waits for our end before it opens its engines. If it cannot be started, the
/// previous state stays until the node is a donor or until `rejoin release`.
pub fn start_if_needed(job: &Job) {
    if !previous_state_must_go(&job.datadir, &job.settings) && !retries::are_counted(&job.datadir) {
        return;
    }
    if let Err(error) = start(job) {
        tracing::warn!("the previous state is kept until you run `rejoin release`: {error:#}");
    }
}

fn start(job: &Job) -> Result<()> {
    companion::command(job.server, VERB)?
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start the process that waits for Synced")?;
    Ok(())
}

/// The waiting process: `words` are the server's process id and the arguments the server had given the joiner.
pub fn run(words: &[String]) -> Result<()> {
    let companion = Companion::begin(words)?;
    let Companion { args, options, cancel } = &companion;
    let datadir = job::datadir_of(args)?;
    let settings = Settings::read(options)?;
    let (socket, account) = companion.login(&datadir);
    let witness = synced::wait_until_synced(&socket, account.as_ref(), cancel)?;
    match witness {
        Witness::Status => tracing::info!("the node is Synced"),
        Witness::Greeting => {
            tracing::info!(
                "the server accepts clients; assuming that the node is Synced, because without a login its state is unknown"
            )
        }
    }
    let layout = || Layout::resolve(args, options);
    release(&datadir, &settings, "the cleanup after a transfer", layout, cancel)
}

/// A donor has been Synced, so the previous state of an earlier install is no longer needed.
pub fn release_as_donor(job: &Job) {
    let layout = || Layout::resolve(&job.args, &job.options);
    if let Err(error) = release(&job.datadir, &job.settings, "a donor", layout, &job.cancel) {
        tracing::warn!("the previous state of an earlier transfer could not be removed: {error:#}");
    }
}

/// Removes everything that is needed only until the node is Synced. The server may run meanwhile, but no other process may work on
/// the datadir.
fn release(
    datadir: &Path,
    settings: &Settings,
    role: &str,
    layout: impl FnOnce() -> Result<Layout>,
    cancel: &Cancel,
) -> Result<()> {
    if !previous_state_must_go(datadir, settings)
        && !retries::are_counted(datadir)
        && Unfinished::read(datadir).is_none()
    {
        return Ok(());
    }
    let _lock = DatadirLock::take(datadir, role, LOCK_PATIENCE, cancel)?;
    retries::reset(datadir)?;
    Unfinished::remove(datadir)?;
    if !previous_state_must_go(datadir, settings) {
        return Ok(());
    }
    record_check::check(datadir, layout)?;
    tidy::remove_everything(&Disk, datadir)?;
    tracing::info!("removed the previous state");
    Ok(())
}

fn previous_state_must_go(datadir: &Path, settings: &Settings) -> bool {
    settings.keep_previous != KeepPrevious::Always && something_is_kept(datadir)
}

fn something_is_kept(datadir: &Path) -> bool {
    matches!(kept::status(&Disk, datadir, |_| Ok(0)), Ok(Status::InstalledKept { .. }))
}
