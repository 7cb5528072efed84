//! Reports the progress of a transfer: status file, record, metrics, log lines, and progress lines for the server.
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use formats::wsrep::report::ReportLine;

use super::metrics::{self, Metrics};
use super::progress::Progress;
use super::recorder::Recorder;
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
    seen: (String, u64, u64),
    since_ms: u64,
}

impl Stillness {
    /// Milliseconds, with this as the newest look.
    fn after(&mut self, status: &Status) -> u64 {
        let seen = (status.phase.clone(), status.done_bytes, status.wire_bytes);
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
        status.idle_ms = stillness.after(&status);
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
            log_line(&status);
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

fn log_line(status: &Status) {
    tracing::info!("{}", text_of(status));
}

/// The remaining time is omitted while it depends on another program, and while more work follows than was
/// known.
pub(super) fn text_of(status: &Status) -> String {
    let Status { phase, done_bytes: done, total_bytes: total, .. } = status;
    let left = total.saturating_sub(*done);
    let percent = if left == 0 { 99 } else { (done * 100 / total.max(&1)).min(99) };
    let so_far =
        format!("{phase}: {percent} % of {}, {} on the network", size(*total), size(status.wire_bytes));
    let known = left > 0 && !phase.starts_with("waiting for ");
    let left = left.saturating_mul(status.elapsed_ms).checked_div(*done).filter(|_| known);
    left.map_or_else(|| so_far.clone(), |left| format!("{so_far}, about {} s left", left / 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_is_idle_since_its_last_byte_or_phase() {
        let status = |phase: &str, wire_bytes, elapsed_ms| Status {
            phase: phase.to_owned(),
            wire_bytes,
            elapsed_ms,
            ..Status::default()
        };
        let mut stillness = Stillness::default();
        let idle =
            [("a", 0, 100), ("a", 0, 600), ("a", 9, 900), ("a", 9, 1900), ("b", 9, 2000), ("b", 9, 2300)]
                .map(|(phase, wire, ms)| stillness.after(&status(phase, wire, ms)));
        assert_eq!(idle, [0, 500, 0, 1000, 0, 300]);
    }

    #[test]
    fn a_line_promises_nothing_that_is_not_known() {
        let status = |phase: &str, done: u64| Status {
            phase: phase.to_owned(),
            done_bytes: done << 20,
            total_bytes: 100 << 20,
            wire_bytes: 7 << 20,
            elapsed_ms: 5000,
            ..Status::default()
        };
        let so_far = "of 100.0 MiB, 7.0 MiB on the network";
        assert_eq!(text_of(&status("sending", 50)), format!("sending: 50 % {so_far}, about 5 s left"));
        assert_eq!(text_of(&status("sending", 0)), format!("sending: 0 % {so_far}"));
        assert_eq!(text_of(&status("sending", 100)), format!("sending: 99 % {so_far}"));
        assert_eq!(text_of(&status("waiting for X", 50)), format!("waiting for X: 50 % {so_far}"));
    }
}
