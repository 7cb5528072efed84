//! Reports the progress of a transfer: status file, record, metrics, log lines, and progress lines for the server.
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use formats::wsrep::report::ReportLine;

use super::local_work::Sign;
use super::metrics::{self, Metrics};
use super::progress::Progress;
use super::recorder::Recorder;
use super::remaining::{Remaining, left_of, may_be_told};
use super::report::Report;
use super::status::{Status, write_status};
use crate::human::size;
use crate::threads::{self, Thread};

/// How often the counts are noted for the record.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);
/// How often the status file is rewritten.
const STATUS_EVERY: Duration = Duration::from_millis(500);
/// How often the record is rewritten, beside each change of the phase.
const RECORD_EVERY: Duration = Duration::from_secs(10);
/// How often a line about a running transfer goes to the log.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Writes the status file and the progress lines until dropped.
pub struct Reporter {
    progress: Arc<Progress>,
    thread: Option<JoinHandle<()>>,
}

impl Reporter {
    /// `to_server`: the server asked for `total` and `complete` lines.
    pub fn start(progress: &Arc<Progress>, places: Places, to_server: Option<Arc<Report>>) -> Reporter {
        progress.follow(Status::read(&places.status_file));
        let shared = Arc::clone(progress);
        let body = move || report_until_end(&shared, &places, to_server.as_deref());
        let thread = threads::spawn(Thread::Progress, body).ok();
        Reporter { progress: Arc::clone(progress), thread }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.progress.ended.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// Since when nothing has changed.
#[derive(Default)]
struct Stillness {
    seen: (String, (String, Option<u8>), u64, u64, Sign),
    since_ms: u64,
}

impl Stillness {
    /// Milliseconds, with this as the newest look. `wire`: the steps of the connections.
    fn after(&mut self, status: &Status, wire: u64, local: Sign) -> u64 {
        let (own, peer) = (status.phase.clone(), (status.peer_phase.clone(), status.peer_percent));
        let seen = (own, peer, status.done_bytes, wire, local);
        if seen != self.seen {
            self.seen = seen;
            self.since_ms = status.elapsed_ms;
        }
        status.elapsed_ms.saturating_sub(self.since_ms)
    }
}

/// Where the progress is written to.
pub struct Places {
    /// The status file.
    pub status_file: PathBuf,
    /// The record of the transfer.
    pub recorder: Recorder,
    /// The directory for metrics, if the operator wants them.
    pub metrics_dir: Option<PathBuf>,
}

fn report_until_end(progress: &Progress, places: &Places, to_server: Option<&Report>) {
    let mut last_log = Instant::now();
    let mut last_status: Option<Instant> = None;
    let mut recorded: Option<(Instant, String)> = None;
    let mut warned = false;
    let mut stillness = Stillness::default();
    let mut remaining = Remaining::default();
    let mut said = (0, 0);
    loop {
        let ended = progress.ended.load(Ordering::Acquire);
        progress.sample();
        if !ended && last_status.is_some_and(|last| last.elapsed() < STATUS_EVERY) {
            thread::park_timeout(SAMPLE_EVERY);
            continue;
        }
        last_status = Some(Instant::now());
        let mut status = progress.status();
        status.idle_ms = stillness.after(&status, progress.wire_steps(), progress.local.sign());
        remaining.begin(&status);
        write_status(&places.status_file, &status);
        let is_new = |(at, phase): &(Instant, String)| at.elapsed() >= RECORD_EVERY || *phase != status.phase;
        if recorded.as_ref().is_none_or(is_new) {
            places.recorder.write();
            recorded = Some((Instant::now(), status.phase.clone()));
        }
        if let Some(dir) = &places.metrics_dir
            && let Err(error) = metrics::write(dir, progress.role, &metrics_of(&status, !ended))
            && !std::mem::replace(&mut warned, true)
        {
            tracing::warn!("metrics cannot be written to {}: {error:#}", dir.display());
        }
        if let Some(report) = to_server {
            said = report_to_server(report, &status, said);
        }
        if ended {
            return;
        }
        if last_log.elapsed() > LOG_EVERY && status.total_bytes > 0 {
            let left_ms = remaining.after(&status);
            tracing::info!("{}", text_of(&status, left_ms));
            last_log = Instant::now();
        }
        thread::park_timeout(SAMPLE_EVERY);
    }
}

/// Of this role alone: the other one has a file of its own.
fn metrics_of(status: &Status, runs: bool) -> String {
    let mut metrics = Metrics::default();
    metrics::of_transfer(&mut metrics, status, runs);
    metrics::of_history(&mut metrics, status, &status.role);
    metrics.text()
}

/// `total` starts a stage, and `complete` must grow within it, so each is sent only when it changed.
fn report_to_server(report: &Report, status: &Status, said: (u64, u64)) -> (u64, u64) {
    if status.total_bytes == 0 {
        return said;
    }
    if status.total_bytes != said.0 {
        report.print_if_possible(&ReportLine::Total(status.total_bytes));
    }
    if status.done_bytes > said.1 {
        report.print_if_possible(&ReportLine::Complete(status.done_bytes));
    }
    (status.total_bytes, status.done_bytes)
}

/// The line about a running transfer. The remaining time is omitted while no end is in sight, while it depends on another
/// program, and while more work follows than was known.
pub(super) fn text_of(status: &Status, left_ms: Option<u64>) -> String {
    let Status { phase, done_bytes: done, total_bytes: total, .. } = status;
    let left = left_of(status);
    let percent = if left == 0 { 99 } else { (done * 100 / total.max(&1)).min(99) };
    let so_far =
        format!("{phase}: {percent} % of {}, {} on the network", size(*total), size(status.wire_bytes));
    match left_ms.filter(|_| may_be_told(status)) {
        // Never 0 s: something is left.
        Some(left_ms) => format!("{so_far}, about {} s left", left_ms.div_ceil(1000).max(1)),
        None => so_far,
    }
}

#[cfg(test)]
mod tests {
    use super::super::local_work::LocalWork;
    use super::*;

    #[test]
    fn a_transfer_is_idle_since_its_last_byte_or_phase() {
        let status = |phase: &str, elapsed_ms| Status {
            phase: phase.to_owned(),
            // Pings have bytes, too.
            wire_bytes: elapsed_ms,
            elapsed_ms,
            ..Status::default()
        };
        let mut stillness = Stillness::default();
        let idle =
            [("a", 0, 100), ("a", 0, 600), ("a", 9, 900), ("a", 9, 1900), ("b", 9, 2000), ("b", 9, 2300)]
                .map(|(phase, wire, ms)| stillness.after(&status(phase, ms), wire, Sign::default()));
        assert_eq!(idle, [0, 500, 0, 1000, 0, 300]);
    }

    /// A `base-command` of 20 minutes counted as stalled, and a liveness probe killed its pod each time.
    #[test]
    fn a_program_that_may_run_for_hours_is_no_standstill() {
        let at = |elapsed_ms| Status { elapsed_ms, ..Status::default() };
        let (mut stillness, work) = (Stillness::default(), LocalWork::default());
        let counts = work.until_limit(Some(Duration::from_secs(4 * 3600)));
        assert_eq!(stillness.after(&at(1000), 0, work.sign()), 0);
        assert_eq!(stillness.after(&at(1_201_000), 0, work.sign()), 0);
        drop(counts);
        assert_eq!(stillness.after(&at(1_202_000), 0, work.sign()), 0);
        assert_eq!(stillness.after(&at(2_000_000), 0, work.sign()), 798_000);
    }

    /// After so many seconds, with so many MiB done and in all.
    fn at(phase: &str, seconds: u64, done: u64, total: u64) -> Status {
        Status {
            phase: phase.to_owned(),
            done_bytes: done << 20,
            total_bytes: total << 20,
            wire_bytes: 7 << 20,
            elapsed_ms: seconds * 1000,
            ..Status::default()
        }
    }

    #[test]
    fn a_line_promises_nothing_that_is_not_known() {
        let text = |phase: &str, done, left_ms| text_of(&at(phase, 5, done, 100), left_ms);
        let so_far = "of 100.0 MiB, 7.0 MiB on the network";
        assert_eq!(text("sending", 50, Some(5000)), format!("sending: 50 % {so_far}, about 5 s left"));
        assert_eq!(text("sending", 50, None), format!("sending: 50 % {so_far}"));
        assert_eq!(text("sending", 100, Some(0)), format!("sending: 99 % {so_far}"));
        assert_eq!(text("waiting for X", 50, Some(5000)), format!("waiting for X: 50 % {so_far}"));
        // Something is left, so some time is.
        assert_eq!(text("sending", 99, Some(3)), format!("sending: 99 % {so_far}, about 1 s left"));
        assert_eq!(text("sending", 99, Some(0)), format!("sending: 99 % {so_far}, about 1 s left"));
    }
}
