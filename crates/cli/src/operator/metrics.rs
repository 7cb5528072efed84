//! `rejoin metrics`: what is known of a node's transfers and archive, for Prometheus.
use std::path::{Path, PathBuf};

use anyhow::Result;
use transfer::datadir::owner::become_owner_of;
use transfer::datadir::recognise::require_datadir;
use transfer::install::files::Disk;
use transfer::install::kept;
use transfer::server::metrics::{self, Metrics, in_seconds};
use transfer::server::status::STATUS_FILE;
use transfer::writesets::archive::{self, default_dir};

use super::answer::say;
use super::status::{read, runs};
use super::which::Which;

/// Where they go.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    node: Which,
    /// Archive of write-sets; default: DATADIR-archive
    #[arg(long, value_name = "DIR")]
    archive: Option<PathBuf>,
    /// Write DIR/rejoin_node.prom instead of printing
    #[arg(long, value_name = "DIR")]
    textfile: Option<PathBuf>,
}

/// Prints or writes them.
pub fn run(options: &Options) -> Result<()> {
    let datadir = options.node.wanted()?.layout()?.datadir;
    become_owner_of(&datadir)?;
    require_datadir(&datadir)?;
    let mut text = String::new();
    if let Some(status) = read(&datadir.join(STATUS_FILE))? {
        text += &metrics::of_transfer(&status, runs(&status, &datadir));
        text += &metrics::last_success(&status, None);
    }
    text += &of_previous_state(&datadir)?;
    let archive = options.archive.clone().unwrap_or_else(|| default_dir(&datadir));
    if let Some(status) = archive::Status::read(&archive) {
        text += &of_archive(&status);
    }
    match &options.textfile {
        Some(dir) => metrics::write(dir, "node", &text),
        None => {
            say(text.trim_end());
            Ok(())
        }
    }
}

fn of_previous_state(datadir: &Path) -> Result<String> {
    let bytes = match kept::status(&Disk, datadir, kept::allocated)? {
        kept::Status::InstalledKept { bytes, .. } => bytes,
        _ => 0,
    };
    let mut metrics = Metrics::default();
    let help = "Disk space of the previous state that is kept for a rollback.";
    metrics.single("rejoin_previous_state_bytes", help, bytes as f64);
    Ok(metrics.text())
}

fn of_archive(status: &archive::Status) -> String {
    let mut metrics = Metrics::default();
    metrics.single(
        "rejoin_archive_size_bytes",
        "Disk space of the archive of write-sets.",
        status.bytes as f64,
    );
    metrics.single(
        "rejoin_archive_gaps",
        "Ranges of write-sets that the archive does not hold.",
        status.gaps.len() as f64,
    );
    metrics.single(
        "rejoin_archive_updated_time_seconds",
        "When the archiver last reported, in seconds since 1970.",
        in_seconds(status.updated_ms),
    );
    if let Some(newest) = status.ranges.last() {
        let mut seqno = |name: &str, help: &str, value: i64| metrics.single(name, help, value as f64);
        seqno("rejoin_archive_first_seqno", "First seqno of the archive's newest range.", newest.first);
        seqno("rejoin_archive_last_seqno", "Last seqno of the archive's newest range.", newest.last);
        if let Some(provider) = status.provider_newest {
            let lag = provider.saturating_sub(newest.last).max(0);
            seqno(
                "rejoin_archive_lag_write_sets",
                "Write-sets that the server has and the archive has not.",
                lag,
            );
        }
    }
    metrics.text()
}
