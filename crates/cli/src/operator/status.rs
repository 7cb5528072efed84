//! `rejoin status`: the progress of a transfer, and what transfers left in the datadir.
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use transfer::datadir::owner::become_owner_of;
use transfer::datadir::recognise::require_datadir;
use transfer::datadir::{own_position, server_on};
use transfer::disk::small_file;
use transfer::failure::{Failure, Kind};
use transfer::human::{printable, size};
use transfer::install::files::Disk;
use transfer::install::kept;
use transfer::install::unfinished::Unfinished;
use transfer::server::health::{Health, is_running};
use transfer::server::status::{OK, STATUS_BYTES_MAX, STATUS_FILE, Status};
use transfer::settings::{KeepPrevious, Settings};

use super::answer::say;
use super::watch::watch;
use super::which::{UNKNOWN, Which};

/// How many seconds a transfer may go without progress, unless the operator says otherwise.
pub const STALLED_AFTER: u64 = 600;

/// What to show.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    node: Which,
    /// Follow the running transfer, or the next one, until it ends
    #[arg(long)]
    watch: bool,
    /// Print the status file (JSON)
    #[arg(long)]
    json: bool,
    /// Only tell by the exit code whether a transfer makes progress
    #[arg(long, conflicts_with_all = ["watch", "json"])]
    probe: bool,
    /// With --probe: a transfer has stalled after this long without progress
    #[arg(long, value_name = "SECONDS", default_value_t = STALLED_AFTER, requires = "probe")]
    stalled_after: u64,
}

impl Options {
    /// Whether the exit code is the answer.
    pub fn is_probe(&self) -> bool {
        self.probe
    }
}

/// For the liveness probe of a container: the server does not answer while it receives its data.
pub fn probe(options: &Options) -> Result<ExitCode> {
    let datadir = options.node.wanted()?.layout()?.datadir;
    become_owner_of(&datadir)?;
    require_datadir(&datadir)?;
    let status = read(&datadir.join(STATUS_FILE))?;
    let stalled_after = Duration::from_secs(options.stalled_after);
    Ok(match Health::of(status.as_ref(), &datadir, stalled_after) {
        Health::NoTransfer => ExitCode::from(UNKNOWN),
        Health::Progress => ExitCode::SUCCESS,
        Health::Stalled => ExitCode::FAILURE,
    })
}

/// Prints it.
pub fn run(options: &Options) -> Result<()> {
    let wanted = options.node.wanted()?;
    let datadir = wanted.layout()?.datadir;
    // The server's user wrote these files, so only that user's permissions are used to read them.
    become_owner_of(&datadir)?;
    require_datadir(&datadir)?;
    let path = datadir.join(STATUS_FILE);
    if options.watch {
        // With --json, stdout has nothing but JSON.
        watch(&path, &datadir, !options.json)?;
    }
    if options.json {
        let Some(text) = text_of(&path)? else {
            let text = format!("no transfer is recorded in {}", datadir.display());
            bail!(
                Failure::new(Kind::Configuration, text)
                    .hint("rejoin writes its first status when a transfer begins")
            );
        };
        say(&text);
        return Ok(());
    }
    let status = read(&path)?;
    let running = status.as_ref().is_some_and(|status| is_running(status, &datadir));
    say(&match &status {
        Some(status) => line(status, running),
        None => format!("no transfer is recorded in {}", datadir.display()),
    });
    let settings = wanted.options().and_then(|options| Settings::read(&options));
    let always = settings.is_ok_and(|settings| settings.keep_previous == KeepPrevious::Always);
    let left = kept::status(&Disk, &datadir, kept::allocated)?;
    say(&left_in(&left, always));
    // The files of an install that was interrupted are complete.
    let joined = status.is_none_or(|status| status.role != "joiner" || status.outcome.as_deref() == Some(OK));
    let old = matches!(
        left,
        kept::Status::Nothing | kept::Status::Staging { .. } | kept::Status::InstalledKept { .. }
    );
    let layout = wanted.layout()?;
    let own = own_position::position_in_files(&layout).ok().flatten().map(|position| position.state);
    let is_ahead = |unfinished: &Unfinished| unfinished.is_ahead_of(own);
    let stopped = !running && matches!(server_on::server_on(&layout), Ok(None));
    if let Some(unfinished) =
        Unfinished::read(&datadir).filter(|record| old && !joined && stopped && is_ahead(record))
    {
        say(&format!(
            "this node's own files are older than what it was to receive ({} was at {}): do not bootstrap a cluster from it as \
             long as another node has more",
            printable(&unfinished.donor),
            printable(&unfinished.position)
        ));
    }
    Ok(())
}

/// Describes the content of `.rejoin/` and `#sql-rejoin/` in a sentence. `always`: the previous state stays until the
/// operator removes it.
fn left_in(left: &kept::Status, always: bool) -> String {
    match left {
        kept::Status::Nothing => "no leftovers of earlier transfers".to_owned(),
        kept::Status::Staging { files } => {
            format!("an unfinished transfer left {files} files for the next one to reuse; the datadir itself is unchanged")
        }
        kept::Status::InstallInterrupted { purpose, position } => {
            format!("an interrupted {purpose} of {position}: run rejoin finish, or start the server")
        }
        kept::Status::InstalledKept { bytes, position, .. } => {
            let until = if always {
                "you run rejoin release"
            } else {
                "the node is Synced (without a working login, until it has served clients for ten minutes)"
            };
            format!("installed {position}; the previous state ({}) is kept until {until}", size(*bytes))
        }
        kept::Status::InPlaceBroken => {
            "a transfer in place did not finish: the datadir is incomplete, and no server may start alone on it".to_owned()
        }
    }
}

/// Reads the status file. Returns `None` when there is none.
///
/// # Errors
/// The file cannot be read.
pub fn read(path: &Path) -> Result<Option<Status>> {
    let Some(text) = text_of(path)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).with_context(|| format!("{} is not a status file", path.display()))
}

fn text_of(path: &Path) -> Result<Option<String>> {
    let cannot = || format!("cannot read {}", path.display());
    let Some(bytes) = small_file::read(path, STATUS_BYTES_MAX).with_context(cannot)? else { return Ok(None) };
    String::from_utf8(bytes).map(Some).with_context(cannot)
}

/// Formats a transfer as one line.
fn line(status: &Status, runs: bool) -> String {
    let seconds = status.elapsed_ms as f64 / 1000.0;
    let state = match &status.outcome {
        Some(outcome) if outcome == "ok" => format!("finished in {seconds:.1} s"),
        Some(outcome) => format!("failed after {seconds:.1} s: {outcome}"),
        None if runs => format!("{}, {seconds:.1} s so far", status.phase),
        None => format!("the program ended unexpectedly after {seconds:.1} s, in phase \"{}\"", status.phase),
    };
    let mut parts = vec![format!("{}: {state}", status.role)];
    if let Some(percent) = (status.done_bytes * 100).checked_div(status.total_bytes) {
        parts.push(format!(
            "{} of {} in place ({percent} %)",
            size(status.done_bytes),
            size(status.total_bytes)
        ));
    }
    if status.wire_bytes > 0 {
        parts.push(format!("{} on the network", size(status.wire_bytes)));
    }
    if status.remembered_bytes > 0 {
        parts.push(format!("{} not read, as remembered", size(status.remembered_bytes)));
    }
    if runs && let Some((rate, why)) = status.reading_limit.zip(status.slowed_by.as_deref()) {
        parts.push(format!("slowed to {}/s of files: {why}", size(rate)));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_no_figures_before_there_are_any() {
        let mut status = Status { role: "joiner".to_owned(), elapsed_ms: 5400, ..Status::default() };
        status.outcome = Some("ok".to_owned());
        assert_eq!(line(&status, false), "joiner: finished in 5.4 s");
        (status.done_bytes, status.total_bytes, status.wire_bytes) = (257 << 20, 257 << 20, 30_803);
        assert_eq!(
            line(&status, false),
            "joiner: finished in 5.4 s; 257.0 MiB of 257.0 MiB in place (100 %); 30.1 KiB on the network"
        );
        (status.outcome, status.phase) = (None, "receiving".to_owned());
        let running = line(&status, true);
        assert!(running.starts_with("joiner: receiving, 5.4 s so far; "), "{running}");
        assert!(line(&status, false).contains("ended unexpectedly"));
        (status.reading_limit, status.slowed_by) = (Some(20 << 20), Some("the disk".to_owned()));
        assert!(line(&status, true).ends_with("; slowed to 20.0 MiB/s of files: the disk"));
        assert!(!line(&status, false).contains("slowed"));
    }
}
