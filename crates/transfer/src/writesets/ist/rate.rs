//! How fast this node's server applied the write-sets of its last deep IST: a small file in the datadir. A donor that estimates
//! what the next one would take is told of it.
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use protocol::message::ReplayRate;

use crate::disk::{durable, small_file};

/// Its name.
pub const REPLAY_FILE: &str = "rejoin-replay.json";
/// Bytes that are read of it at most.
const BYTES_MAX: u64 = 4096;
/// When a server is Synced is known to a second. What took less than this says too little.
const MEASURED_OVER: Duration = Duration::from_secs(5);

fn path(datadir: &Path) -> PathBuf {
    datadir.join(REPLAY_FILE)
}

/// What is remembered here. A file that holds no possible rate counts as none.
pub fn remembered(datadir: &Path) -> Option<ReplayRate> {
    let content = small_file::read(&path(datadir), BYTES_MAX).ok()??;
    serde_json::from_slice(&content).ok().filter(ReplayRate::is_possible)
}

/// The rate at which so many write-sets of so many bytes each were applied within a time, if that was long enough to tell.
pub(super) fn measured(write_sets: u64, bytes_each: f64, took: Duration) -> Option<ReplayRate> {
    let per_second = write_sets as f64 / took.as_secs_f64();
    let rate = ReplayRate { write_sets: per_second as u64, bytes: (per_second * bytes_each) as u64 };
    Some(rate).filter(|rate| took >= MEASURED_OVER && rate.is_possible())
}

/// Remembers it.
///
/// # Errors
/// From the disk.
pub(super) fn remember(datadir: &Path, rate: ReplayRate) -> Result<()> {
    let text = serde_json::to_vec(&rate).context("a rate as JSON")?;
    durable::write_atomically(&path(datadir), &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_is_remembered_and_nothing_else_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(remembered(dir.path()), None);
        let rate = measured(60_000, 500.0, Duration::from_secs(6)).unwrap();
        assert_eq!(rate, ReplayRate { write_sets: 10_000, bytes: 5_000_000 });
        remember(dir.path(), rate).unwrap();
        assert_eq!(remembered(dir.path()), Some(rate));
        for content in [
            "",
            "{}",
            "[1]",
            r#"{"write_sets":0,"bytes":5000000}"#,
            r#"{"write_sets":10000,"bytes":-1}"#,
            r#"{"write_sets":1e300,"bytes":1}"#,
            r#"{"write_sets":18446744073709551615,"bytes":1}"#,
            &format!("{{\"write_sets\":10000,\"bytes\":5000000}}{}", " ".repeat(5000)),
        ] {
            std::fs::write(path(dir.path()), content).unwrap();
            assert_eq!(remembered(dir.path()), None, "{content:?}");
        }
        std::fs::remove_file(path(dir.path())).unwrap();
        std::os::unix::fs::symlink("/dev/zero", path(dir.path())).unwrap();
        assert_eq!(remembered(dir.path()), None);
    }

    #[test]
    fn what_was_too_short_or_nothing_is_no_measurement() {
        assert_eq!(measured(60_000, 500.0, Duration::from_secs(4)), None);
        assert_eq!(measured(0, 500.0, Duration::from_secs(60)), None);
        assert_eq!(measured(60_000, 0.0, Duration::from_secs(60)), None);
        assert_eq!(measured(60_000, f64::NAN, Duration::from_secs(60)), None);
    }
}
