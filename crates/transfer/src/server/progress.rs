//! The progress of a transfer: phases with their durations in the log, a status file, progress lines for the
//! server.
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use formats::wsrep::report::ReportLine;
use serde::{Deserialize, Serialize};

use super::report::Report;
use crate::human::size;
use crate::threads::{self, Thread};

/// Name of the status file in the datadir; `rejoin status` reads it.
pub const STATUS_FILE: &str = "rejoin-status.json";
/// How often the status file is rewritten.
const STATUS_EVERY: Duration = Duration::from_millis(500);
/// How often a line about a running transfer goes to the log.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// A total that includes redo changes in steps: one part in so many of it, and no smaller ones than this.
const REDO_STEPS: u64 = 50;
const REDO_STEP_LEAST: u64 = 1 << 20;

/// What `status.json` holds; `rejoin status` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// `joiner` or `donor`.
    pub role: String,
    /// The current phase.
    pub phase: String,
    /// Bytes of files that are complete.
    pub done_bytes: u64,
    /// Bytes of all files; 0 while unknown.
    pub total_bytes: u64,
    /// Bytes sent and received over the network, with the overhead of encryption.
    pub wire_bytes: u64,
    /// Milliseconds since the transfer began.
    pub elapsed_ms: u64,
    /// Process id of the program.
    pub pid: u32,
    /// `ok` or the reason of the failure, once the transfer has ended.
    pub outcome: Option<String>,
}

/// Counters that all threads of a transfer share.
#[derive(Debug)]
pub struct Progress {
    role: &'static str,
    began: Instant,
    phase: Mutex<(String, Instant)>,
    /// What the transfer waits for, if it waits.
    waits: Mutex<Option<String>>,
    /// Lines that the other host has not received yet.
    told: Mutex<Vec<String>>,
    outcome: Mutex<Option<String>>,
    /// Bytes of files that are complete.
    pub done_bytes: AtomicU64,
    /// Bytes of all files; 0 while unknown.
    pub total_bytes: AtomicU64,
    /// Bytes of redo in that, as far as is known.
    redo_bytes: AtomicU64,
    /// What counts the bytes of each connection.
    connections: Mutex<Vec<Counter>>,
    ended: AtomicBool,
}

/// Reports the bytes of a connection.
struct Counter(Box<dyn Fn() -> u64 + Send>);

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Counter").field(&(self.0)()).finish()
    }
}

impl Progress {
    /// Starts the clock of a transfer.
    pub fn new(role: &'static str) -> Arc<Progress> {
        Arc::new(Progress {
            role,
            began: Instant::now(),
            phase: Mutex::new(("starting".to_owned(), Instant::now())),
            waits: Mutex::new(None),
            told: Mutex::default(),
            outcome: Mutex::new(None),
            done_bytes: AtomicU64::new(0),
            total_bytes: AtomicU64::new(0),
            redo_bytes: AtomicU64::new(0),
            connections: Mutex::default(),
            ended: AtomicBool::new(false),
        })
    }

    /// Begins the next phase: the previous one is logged with its duration and `counts`.
    pub fn phase(&self, next: &str, counts: &str) {
        let mut phase = self.phase.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let seconds = phase.1.elapsed().as_secs_f64();
        let counts = if counts.is_empty() { String::new() } else { format!(": {counts}") };
        tracing::debug!("phase \"{}\" took {seconds:.3} s{counts}", phase.0);
        *phase = (next.to_owned(), Instant::now());
    }

    /// Sets what the transfer waits for, or that it no longer waits. Returns whether that is new.
    pub fn wait_for(&self, whom: Option<&str>) -> bool {
        let mut waits = self.waits.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let new = waits.is_some() != whom.is_some();
        *waits = whom.map(str::to_owned);
        new
    }

    /// What the transfer waits for, if it waits.
    pub fn waits(&self) -> Option<String> {
        self.waits.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Logs a line here, and on the other host as soon as the control connection can send it.
    pub fn tell(&self, text: &str) {
        tracing::info!("{text}");
        self.told.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(text.to_owned());
    }

    /// Takes the lines that the other host has not received yet.
    pub fn take_told(&self) -> Vec<String> {
        std::mem::take(&mut *self.told.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    /// What the transfer waits for, or otherwise the current phase.
    pub fn current_phase(&self) -> String {
        let phase = || self.phase.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).0.clone();
        self.waits().unwrap_or_else(phase)
    }

    /// Adds a connection, whose bytes count from its start to the end of the transfer.
    pub fn count(&self, connection: impl Fn() -> u64 + Send + 'static) {
        let connection = Counter(Box::new(connection));
        self.connections.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(connection);
    }

    /// Bytes sent and received over the network, with the overhead of encryption.
    pub fn wire_bytes(&self) -> u64 {
        let connections = self.connections.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        connections.iter().map(|Counter(bytes)| bytes()).sum()
    }

    /// Begins an attempt to copy this many bytes.
    pub fn attempt(&self, bytes: u64) {
        self.done_bytes.store(0, Ordering::Relaxed);
        self.total_bytes.store(bytes, Ordering::Relaxed);
        self.redo_bytes.store(0, Ordering::Relaxed);
    }

    /// Everything is copied. Files that were dropped during the copy, or were never needed, no longer count
    /// as remaining.
    pub fn all_is_copied(&self) {
        self.done_bytes.store(self.total_bytes.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Time since the transfer began.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Records how the transfer ended.
    pub fn end(&self, outcome: &str) {
        *self.outcome.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(outcome.to_owned());
    }

    /// Adds bytes that turned out to be needed.
    pub fn more(&self, bytes: u64) {
        self.total_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many bytes of redo are to be sent beside the files, as far as is known now. While that is not `exact` small
    /// changes are left out: a server takes each new total for another stage.
    pub fn expect_redo(&self, bytes: u64, exact: bool) {
        let before = self.redo_bytes.load(Ordering::Relaxed);
        let total = self.total_bytes.load(Ordering::Relaxed);
        if bytes == before || (!exact && bytes.abs_diff(before) < (total / REDO_STEPS).max(REDO_STEP_LEAST)) {
            return;
        }
        self.redo_bytes.store(bytes, Ordering::Relaxed);
        self.total_bytes.store(total.saturating_sub(before).saturating_add(bytes), Ordering::Relaxed);
    }

    /// The donor says how many bytes there are in all.
    pub fn total_is(&self, bytes: u64) {
        self.total_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Bytes of all files and of the redo beside them; 0 while unknown.
    pub fn total(&self) -> u64 {
        self.total_bytes.load(Ordering::Relaxed)
    }

    fn status(&self) -> Status {
        let total_bytes = self.total();
        Status {
            role: self.role.to_owned(),
            phase: self.current_phase(),
            // Files that were copied again because they changed, and files created during the copy, count
            // more than once.
            done_bytes: self.done_bytes.load(Ordering::Relaxed).min(total_bytes),
            total_bytes,
            wire_bytes: self.wire_bytes(),
            elapsed_ms: self.began.elapsed().as_millis() as u64,
            pid: std::process::id(),
            outcome: self.outcome.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone(),
        }
    }
}

/// Writes the status file and the progress lines until dropped.
pub struct Reporter {
    progress: Arc<Progress>,
    thread: Option<JoinHandle<()>>,
}

impl Reporter {
    /// `to_server`: the server asked for `total` and `complete` lines.
    pub fn start(progress: &Arc<Progress>, status_file: PathBuf, to_server: Option<Arc<Report>>) -> Reporter {
        let shared = Arc::clone(progress);
        let body = move || report_until_end(&shared, &status_file, to_server.as_deref());
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

fn report_until_end(progress: &Progress, status_file: &Path, to_server: Option<&Report>) {
    let mut last_log = Instant::now();
    let mut said = (0, 0);
    loop {
        let ended = progress.ended.load(Ordering::Acquire);
        let status = progress.status();
        write_status(status_file, &status);
        if let Some(report) = to_server {
            said = say_to_server(report, &status, said);
        }
        if ended {
            return;
        }
        if last_log.elapsed() > LOG_EVERY && status.total_bytes > 0 {
            log_line(&status);
            last_log = Instant::now();
        }
        thread::park_timeout(STATUS_EVERY);
    }
}

/// Readers get the old or the new file. It need not survive a power loss.
fn write_status(path: &Path, status: &Status) {
    let temporary = path.with_extension("json.tmp");
    let Ok(text) = serde_json::to_string(status) else { return };
    if std::fs::write(&temporary, text).is_ok() {
        let _ = std::fs::rename(&temporary, path);
    }
}

/// `total` starts a stage, and `complete` must grow within it, so each is sent only when it changed.
fn say_to_server(report: &Report, status: &Status, said: (u64, u64)) -> (u64, u64) {
    if status.total_bytes == 0 {
        return said;
    }
    if status.total_bytes != said.0 {
        report.say_if_possible(&ReportLine::Total(status.total_bytes));
    }
    if status.done_bytes > said.1 {
        report.say_if_possible(&ReportLine::Complete(status.done_bytes));
    }
    (status.total_bytes, status.done_bytes)
}

fn log_line(status: &Status) {
    tracing::info!("{}", text_of(status));
}

/// The remaining time is omitted while it depends on another program, and while more work follows than was
/// known.
fn text_of(status: &Status) -> String {
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
    fn progress_ends_at_all_of_it_and_never_beyond() {
        let progress = Progress::new("joiner");
        // Nothing counts as done before the total is known.
        progress.done_bytes.fetch_add(7, Ordering::Relaxed);
        assert_eq!((progress.status().done_bytes, progress.status().total_bytes), (0, 0));
        progress.attempt(100);
        assert_eq!(progress.status().done_bytes, 0);
        progress.done_bytes.fetch_add(140, Ordering::Relaxed);
        assert_eq!((progress.status().done_bytes, progress.status().total_bytes), (100, 100));
        progress.attempt(200);
        progress.done_bytes.fetch_add(60, Ordering::Relaxed);
        progress.all_is_copied();
        assert_eq!(progress.status().done_bytes, 200);
    }

    #[test]
    fn redo_is_a_part_of_the_total_and_changes_it_in_steps() {
        const MIB: u64 = 1 << 20;
        let progress = Progress::new("donor");
        progress.attempt(1000 * MIB);
        progress.expect_redo(700 * MIB, false);
        assert_eq!(progress.total(), 1700 * MIB);
        progress.expect_redo(710 * MIB, false);
        assert_eq!(progress.total(), 1700 * MIB, "not worth another stage");
        // A newer checkpoint is taken, and pages are read again.
        progress.more(5 * MIB);
        progress.expect_redo(3 * MIB, true);
        assert_eq!(progress.total(), 1008 * MIB);
        // Another attempt knows nothing of the redo of this one.
        progress.attempt(900 * MIB);
        progress.expect_redo(2 * MIB, true);
        assert_eq!(progress.total(), 902 * MIB);
        // The joiner has the donor's word, whatever that is.
        progress.total_is(u64::MAX);
        progress.expect_redo(1, true);
        assert!(progress.status().total_bytes > 0 && text_of(&progress.status()).contains(": 0 % of "));
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
