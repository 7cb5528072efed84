//! What an archiver says of itself, in a small file that other programs read.
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::read::{Gap, Run};
use crate::disk::small_file;

/// Its name in the archive's directory.
pub const STATUS_FILE: &str = "status.json";
/// The newest gaps and runs that it names.
const NAMED_MAX: usize = 100;
/// More than any status has.
const BYTES_MAX: u64 = 1 << 20;
/// The state of an archiver that waits for disk space begins with this.
pub(super) const STOPPED: &str = "stopped archiving";
/// The state of one that has ended.
pub(super) const ENDED: &str = "ended";

/// What the file holds. Times are milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The archiver's process.
    pub pid: u32,
    /// What it does: `following`, `waiting for the server`, or why it stopped archiving.
    pub state: String,
    /// When this was written.
    pub updated_ms: u64,
    /// The datadir whose server it follows.
    pub datadir: String,
    /// How IST reaches this node's server.
    pub ist: Option<String>,
    /// The history that it follows.
    pub history: Option<String>,
    /// The newest seqno in the provider's files.
    pub provider_newest: Option<i64>,
    /// Runs without a gap, the newest last.
    pub ranges: Vec<RangeStatus>,
    /// Gaps between them, the newest last.
    pub gaps: Vec<GapStatus>,
    /// How many gaps there are. An archiver of an earlier build does not say it, nor the next two.
    #[serde(default)]
    pub gap_count: u64,
    /// Actions that are missing in all of them.
    #[serde(default)]
    pub missing: u64,
    /// When the newest one was found; 0 if none was recorded.
    #[serde(default)]
    pub newest_gap_ms: u64,
    /// Bytes of the archive on disk.
    pub bytes: u64,
    /// Bytes of its actions before they were compressed.
    pub action_bytes: u64,
    /// Segments.
    pub segments: u64,
    /// Actions archived a second, over the last minute at most.
    pub actions_per_second: f64,
    /// Bytes the archive grew by a second, over the last minute at most.
    pub bytes_per_second: f64,
}

/// Actions without a gap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeStatus {
    /// The history.
    pub history: String,
    /// The first seqno.
    pub first: i64,
    /// The last one.
    pub last: i64,
    /// When the first actions were archived.
    pub first_ms: u64,
    /// When the last ones were.
    pub last_ms: u64,
}

/// What is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapStatus {
    /// The history.
    pub history: String,
    /// The first missing seqno.
    pub first: i64,
    /// The last one; less than the first when none is known to be missing.
    pub last: i64,
    /// Why.
    pub reason: String,
    /// When it was found.
    pub at_ms: u64,
}

impl Status {
    /// Names these runs and gaps.
    pub fn name(&mut self, runs: &[Run], gaps: &[Gap]) {
        let newest = |len: usize| len.saturating_sub(NAMED_MAX);
        self.ranges = runs[newest(runs.len())..].iter().map(RangeStatus::of).collect();
        self.gaps = gaps[newest(gaps.len())..].iter().map(GapStatus::of).collect();
        self.gap_count = gaps.len() as u64;
        self.missing = gaps.iter().map(|gap| missing(gap.first.0, gap.last.0)).sum();
        self.newest_gap_ms = gaps.iter().map(|gap| gap.reason().1).max().unwrap_or_default();
    }

    /// Replaces the file. It is not made durable: after a power loss the archive itself says what it holds.
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(STATUS_FILE);
        let temporary = dir.join(format!("{STATUS_FILE}.new"));
        let text = serde_json::to_vec_pretty(self).context("the status as JSON")?;
        fs::write(&temporary, text)
            .and_then(|()| fs::rename(&temporary, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// What the archiver of this archive said last; `None` when there is nothing, or nothing that can be read.
    pub fn read(dir: &Path) -> Option<Status> {
        serde_json::from_slice(&small_file::read(&dir.join(STATUS_FILE), BYTES_MAX).ok()??).ok()
    }
}

impl Status {
    /// Whether the archiver still runs.
    pub fn is_running(&self) -> bool {
        self.state != ENDED && Path::new(&format!("/proc/{}", self.pid)).exists()
    }

    /// How many gaps there are, and how many actions are missing in them. An archiver of an earlier build says that of the gaps
    /// that it names only.
    pub fn gaps(&self) -> (u64, u64) {
        let named = self.gaps.iter().map(|gap| missing(gap.first, gap.last)).sum();
        (self.gap_count.max(self.gaps.len() as u64), self.missing.max(named))
    }

    /// When the newest gap was found; `None` if none was recorded.
    pub fn newest_gap_ms(&self) -> Option<u64> {
        let named = self.gaps.iter().map(|gap| gap.at_ms).max().unwrap_or_default();
        Some(self.newest_gap_ms.max(named)).filter(|at| *at > 0)
    }

    /// Whether it waits for disk space.
    pub fn is_out_of_space(&self) -> bool {
        self.state.starts_with(STOPPED)
    }
}

/// Actions that are missing from `first` to `last`.
fn missing(first: i64, last: i64) -> u64 {
    u64::try_from(last.saturating_sub(first).saturating_add(1)).unwrap_or_default()
}

impl RangeStatus {
    fn of(run: &Run) -> RangeStatus {
        let Run { history, first, last, first_ms, last_ms, .. } = *run;
        RangeStatus { history: history.to_string(), first: first.0, last: last.0, first_ms, last_ms }
    }
}

impl GapStatus {
    fn of(gap: &Gap) -> GapStatus {
        let (reason, at_ms) = gap.reason();
        GapStatus { history: gap.history.to_string(), first: gap.first.0, last: gap.last.0, reason, at_ms }
    }
}

#[cfg(test)]
mod tests {
    use formats::{Seqno, Uuid};

    use super::*;

    /// An alert compares the count with that of an hour ago, so it must grow with each gap.
    #[test]
    fn all_gaps_count_although_only_the_newest_are_named() {
        let gap = |n: i64| Gap {
            history: Uuid::NIL,
            first: Seqno(10 * n),
            last: Seqno(10 * n + 4),
            recorded: Some(("overwritten".to_owned(), n as u64 * 1000)),
        };
        let gaps: Vec<Gap> = (1..=250).map(gap).collect();
        let mut status = Status::default();
        status.name(&[], &gaps);
        assert_eq!((status.gaps.len(), status.gaps()), (NAMED_MAX, (250, 1250)));
        assert_eq!(status.newest_gap_ms(), Some(250_000));
        status.name(&[], &[Gap { recorded: None, ..gap(1) }]);
        assert_eq!(
            (status.gaps(), status.newest_gap_ms()),
            ((1, 5), None),
            "it is damaged: nobody recorded when"
        );
        // Of an archiver of an earlier build.
        let mut said = serde_json::to_value(&status).unwrap();
        let fields = said.as_object_mut().unwrap();
        ["gap_count", "missing", "newest_gap_ms"]
            .iter()
            .for_each(|field| drop(fields.remove(*field).unwrap()));
        let read: Status = serde_json::from_value(said).unwrap();
        assert_eq!(read.gaps(), (1, 5));
    }
}
