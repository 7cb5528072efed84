//! `rejoin status`: how far a transfer is, live when asked, and what transfers left in the datadir.
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use node::server::progress::{STATUS_FILE, Status};
use node::sink::files::Disk;
use node::sink::kept;

use super::say;

/// What to show.
#[derive(clap::Args)]
pub struct Options {
    /// The server's data directory
    #[arg(long, value_name = "DIR")]
    datadir: std::path::PathBuf,
    /// Follow the transfer with a progress bar until it ends
    #[arg(long)]
    watch: bool,
    /// Print the status file as it is (JSON)
    #[arg(long)]
    json: bool,
}

/// Shows it.
pub fn run(options: &Options) -> Result<()> {
    let path = options.datadir.join(STATUS_FILE);
    if options.json {
        say(&std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?);
        return Ok(());
    }
    if options.watch {
        watch(&path)?;
    }
    match read(&path) {
        Ok(status) => say(&line(&status)),
        Err(_) => say("no transfer is recorded here"),
    }
    say(&left_in(&options.datadir)?);
    Ok(())
}

/// What `.rejoin/` says, in a sentence.
fn left_in(datadir: &Path) -> Result<String> {
    Ok(match kept::status(&Disk, &std::path::absolute(datadir)?, kept::allocated)? {
        kept::Status::Nothing => "no files of transfers are kept".to_owned(),
        kept::Status::Staging { files } => {
            format!("{files} files of an unfinished transfer; the datadir is as it was")
        }
        kept::Status::InstallInterrupted { purpose, position } => {
            format!("an interrupted {purpose:?} of {position}: run rejoin finish, or start the server")
        }
        kept::Status::InstalledKept { bytes, position, .. } => {
            format!(
                "installed {position}; {} MB of replaced files are kept until the node is Synced",
                bytes >> 20
            )
        }
        kept::Status::InPlaceBroken => {
            "a transfer in place did not finish: the datadir is not complete".to_owned()
        }
    })
}

fn read(path: &Path) -> Result<Status> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not a status file", path.display()))
}

fn line(status: &Status) -> String {
    let seconds = status.elapsed_ms as f64 / 1000.0;
    let state = match &status.outcome {
        Some(outcome) => format!("ended after {seconds:.1} s: {outcome}"),
        None if running(status.pid) => format!("{}, since {seconds:.1} s", status.phase),
        None => format!("died in \"{}\" after {seconds:.1} s", status.phase),
    };
    let (done, total) = (status.done_bytes >> 20, status.total_bytes >> 20);
    format!("{}: {state}; {done} of {total} MB, {} MB on the network", status.role, status.wire_bytes >> 20)
}

fn running(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn watch(path: &Path) -> Result<()> {
    let style =
        ProgressStyle::with_template("{msg:<32} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    let bar = ProgressBar::new(0).with_style(style.context("progress bar")?);
    while let Ok(status) = read(path) {
        bar.set_length(status.total_bytes);
        bar.set_position(status.done_bytes);
        bar.set_message(status.phase.clone());
        if status.outcome.is_some() || !running(status.pid) {
            break;
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    bar.finish_and_clear();
    Ok(())
}
