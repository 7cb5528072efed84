//! How far a transfer is: phases with their durations in the log, a status file, progress lines for the server.
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use formats::wsrep::report::ReportLine;
use serde::{Deserialize, Serialize};

use super::report::Report;

/// Name of the status file in the datadir; `rejoin status` reads it.
pub const STATUS_FILE: &str = "rejoin-status.json";
/// How often the status file is rewritten.
const STATUS_EVERY: Duration = Duration::from_millis(500);
/// How often a line about a running transfer goes to the log.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// What `status.json` holds; `rejoin status` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// `joiner` or `donor`.
    pub role: String,
    /// What is being done now.
    pub phase: String,
    /// Bytes of files that are done.
    pub done_bytes: u64,
    /// Bytes of all files; 0 while unknown.
    pub total_bytes: u64,
    /// Bytes that went over the network, in both directions and with everything that encryption adds.
    pub wire_bytes: u64,
    /// Milliseconds since the transfer began.
    pub elapsed_ms: u64,
    /// Process id of the program.
    pub pid: u32,
    /// How it ended, when it ended: `ok` or the reason of the failure.
    pub outcome: Option<String>,
}

/// Counters that all threads of a transfer share.
#[derive(Debug)]
pub struct Progress {
    role: &'static str,
    began: Instant,
    phase: Mutex<(String, Instant)>,
    outcome: Mutex<Option<String>>,
    /// Bytes of files that are done.
    pub done_bytes: AtomicU64,
    /// Bytes of all files; 0 while unknown.
    pub total_bytes: AtomicU64,
    /// What counts the bytes of each connection.
    connections: Mutex<Vec<Counter>>,
    ended: AtomicBool,
}

/// Tells the bytes of a connection.
struct Counter(Box<dyn Fn() -> u64 + Send>);

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Counter").field(&(self.0)()).finish()
    }
}

impl Progress {
    /// The transfer begins now.
    pub fn new(role: &'static str) -> Arc<Progress> {
        Arc::new(Progress {
            role,
            began: Instant::now(),
            phase: Mutex::new(("starting".to_owned(), Instant::now())),
            outcome: Mutex::new(None),
            done_bytes: AtomicU64::new(0),
            total_bytes: AtomicU64::new(0),
            connections: Mutex::default(),
            ended: AtomicBool::new(false),
        })
    }

    /// The next phase begins: the one that ends is logged with its duration and with `counts` about it.
    pub fn phase(&self, next: &str, counts: &str) {
        let mut phase = self.phase.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let seconds = phase.1.elapsed().as_secs_f64();
        let counts = if counts.is_empty() { String::new() } else { format!(": {counts}") };
        tracing::debug!("phase \"{}\" took {seconds:.3} s{counts}", phase.0);
        *phase = (next.to_owned(), Instant::now());
    }

    /// What is being done now.
    pub fn current_phase(&self) -> String {
        self.phase.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).0.clone()
    }

    /// One more connection, whose bytes count from its beginning to the end of the transfer.
    pub fn count(&self, connection: impl Fn() -> u64 + Send + 'static) {
        let connection = Counter(Box::new(connection));
        self.connections.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(connection);
    }

    /// Bytes that went over the network, in both directions and with everything that encryption adds.
    pub fn wire_bytes(&self) -> u64 {
        let connections = self.connections.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        connections.iter().map(|Counter(bytes)| bytes()).sum()
    }

    /// Time since the transfer began.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Notes how the transfer ended.
    pub fn end(&self, outcome: &str) {
        *self.outcome.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(outcome.to_owned());
    }

    fn status(&self) -> Status {
        Status {
            role: self.role.to_owned(),
            phase: self.current_phase(),
            done_bytes: self.done_bytes.load(Ordering::Relaxed),
            total_bytes: self.total_bytes.load(Ordering::Relaxed),
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
        let thread = thread::Builder::new().name("progress".into()).spawn(body).ok();
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

/// Readers get the old or the new file; it need not survive a power loss.
fn write_status(path: &Path, status: &Status) {
    let temporary = path.with_extension("json.tmp");
    let Ok(text) = serde_json::to_string(status) else { return };
    if std::fs::write(&temporary, text).is_ok() {
        let _ = std::fs::rename(&temporary, path);
    }
}

/// `total` starts a stage and `complete` must grow within it, so each is said only when it changed.
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
    let percent = status.done_bytes * 100 / status.total_bytes.max(1);
    let left = status.total_bytes.saturating_sub(status.done_bytes);
    let milliseconds = left.saturating_mul(status.elapsed_ms).checked_div(status.done_bytes);
    let eta = milliseconds.map_or_else(|| "unknown".to_owned(), |left| format!("{} s", left / 1000));
    tracing::info!(
        "{}: {percent} % of {} MB, {} MB on the network, {eta} left",
        status.phase,
        status.total_bytes >> 20,
        status.wire_bytes >> 20
    );
}
