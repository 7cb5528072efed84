//! Metrics of a node between transfers: the previous state that it keeps, the joins that failed, the cache of its provider, the archive of write-sets.
use std::path::Path;

use anyhow::Result;

use crate::install::files::Disk;
use crate::install::kept;
use crate::server::metrics::{Metrics, in_seconds, names};
use crate::server::retries;
use crate::writesets::archive;
use crate::writesets::gcache::sizing::{measured_rate, outage_for};
use crate::writesets::gcache::{Gcache, Report};

/// The previous state of a datadir.
///
/// # Errors
/// A record of an install cannot be read.
pub fn of_previous_state(metrics: &mut Metrics, datadir: &Path) -> Result<()> {
    let status = kept::status(&Disk, datadir, kept::allocated)?;
    let (bytes, since) = match status {
        kept::Status::InstalledKept { bytes, since, .. } => (bytes, Some(since)),
        _ => (0, None),
    };
    metrics.add(names::PREVIOUS_STATE_BYTES, &[], bytes as f64);
    if let Some(since) = since {
        metrics.add(names::PREVIOUS_STATE_TIME, &[], in_seconds(since));
    }
    Ok(())
}

/// The joins that failed, for `retry-limit`.
pub fn of_retries(metrics: &mut Metrics, datadir: &Path) {
    metrics.add(names::FAILED_JOINS, &[], f64::from(retries::failed_joins(datadir)));
    let reached = retries::limit_is_reached(datadir);
    metrics.add(names::RETRY_LIMIT_REACHED, &[], f64::from(u8::from(reached)));
}

/// The archive in a directory, as its archiver said last; nothing if there is none.
pub fn of_archive(metrics: &mut Metrics, dir: &Path) {
    if let Some(status) = archive::Status::read(dir) {
        add_archive(metrics, &status);
    }
}

fn add_archive(metrics: &mut Metrics, status: &archive::Status) {
    let (gaps, missing) = status.gaps();
    let mut one = |metric, value| metrics.add(metric, &[], value);
    one(names::ARCHIVE_SIZE, status.bytes as f64);
    one(names::ARCHIVE_GAPS, gaps as f64);
    one(names::ARCHIVE_MISSING, missing as f64);
    if let Some(at) = status.newest_gap_ms() {
        one(names::ARCHIVE_NEWEST_GAP, in_seconds(at));
    }
    one(names::ARCHIVE_RUNNING, f64::from(u8::from(status.is_running())));
    one(names::ARCHIVE_FULL, f64::from(u8::from(status.is_out_of_space())));
    one(names::ARCHIVE_UPDATED, in_seconds(status.updated_ms));
    let Some(newest) = status.ranges.last() else { return };
    one(names::ARCHIVE_FIRST, newest.first as f64);
    one(names::ARCHIVE_LAST, newest.last as f64);
    one(names::ARCHIVE_FIRST_TIME, in_seconds(newest.first_ms));
    if let Some(provider) = status.provider_newest {
        one(names::ARCHIVE_LAG, provider.saturating_sub(newest.last).max(0) as f64);
    }
}

/// The provider's cache with this ring file. Reads all of the cache once.
///
/// # Errors
/// There is no cache, or it cannot be read.
pub fn of_gcache(metrics: &mut Metrics, ring: &Path) -> Result<()> {
    let cache = Gcache::open(ring)?;
    let report = Report::of(&cache)?;
    let mut one = |metric, value| metrics.add(metric, &[], value);
    one(names::GCACHE_SIZE, cache.ring_bytes() as f64);
    if let Ok(rate) = measured_rate(&report) {
        let largest = report.largest.map_or(0, |(_, bytes)| bytes);
        one(names::GCACHE_FILL, rate.bytes_per_second);
        one(names::GCACHE_WINDOW, outage_for(cache.ring_bytes(), &rate, largest).as_secs_f64());
    }
    let Some((first, last)) = cache.range() else { return Ok(()) };
    one(names::GCACHE_FIRST, first.0 as f64);
    one(names::GCACHE_LAST, last.0 as f64);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::TransferLimits;

    #[test]
    fn failed_joins_are_told_with_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let text = || {
            let mut metrics = Metrics::default();
            of_retries(&mut metrics, dir.path());
            metrics.text()
        };
        assert!(
            text().contains("rejoin_failed_joins 0\n") && text().contains("rejoin_retry_limit_reached 0\n")
        );
        let limits = TransferLimits { retry_limit: Some(1), ..TransferLimits::default() };
        retries::count(dir.path(), &limits).unwrap();
        assert!(
            text().contains("rejoin_failed_joins 1\n") && text().contains("rejoin_retry_limit_reached 0\n")
        );
        retries::permit(dir.path(), &limits).unwrap_err();
        assert!(
            text().contains("rejoin_failed_joins 1\n") && text().contains("rejoin_retry_limit_reached 1\n")
        );
    }

    #[test]
    fn an_archive_with_a_gap() {
        let range = |first, last| archive::RangeStatus {
            history: String::new(),
            first,
            last,
            first_ms: 1_500_000,
            last_ms: 0,
        };
        let gap = |first, last| archive::GapStatus {
            history: String::new(),
            first,
            last,
            reason: String::new(),
            at_ms: 1_600_000,
        };
        let status = archive::Status {
            state: "stopped archiving: 1.0 GiB are free, --free-floor is 2.0 GiB".to_owned(),
            provider_newest: Some(130),
            ranges: vec![range(1, 10), range(21, 100)],
            gaps: vec![gap(11, 20), gap(101, 100)],
            bytes: 4096,
            ..archive::Status::default()
        };
        let mut metrics = Metrics::default();
        add_archive(&mut metrics, &status);
        let text = metrics.text();
        for line in [
            "rejoin_archive_gaps 2",
            "rejoin_archive_missing_write_sets 10",
            "rejoin_archive_newest_gap_time_seconds 1600",
            "rejoin_archive_out_of_space 1",
            "rejoin_archive_first_seqno 21",
            "rejoin_archive_last_seqno 100",
            "rejoin_archive_first_time_seconds 1500",
            "rejoin_archive_lag_write_sets 30",
        ] {
            assert!(text.lines().any(|l| l == line), "{line:?} is not in\n{text}");
        }
    }
}
