//! The progress of a transfer: phases with their durations in the log, a status file, progress lines for the
//! server.
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use report::Record;

use super::changes::ADAPTIVE_THROTTLE;
use super::connections::Connections;
pub use super::connections::Moved;
use super::ledger::Ledger;
use super::local_work::LocalWork;
use super::status::{OK, Status, Totals};
use crate::clock::now_ms;
use crate::threads::lock;

/// A total that includes redo changes in steps: one part in so many of it, and no smaller ones than this.
const REDO_STEPS: u64 = 50;
const REDO_STEP_LEAST: u64 = 1 << 20;

/// Counters that all threads of a transfer share.
#[derive(Debug)]
pub struct Progress {
    pub(super) role: &'static str,
    began: Instant,
    began_ms: u64,
    phase: Mutex<(String, Instant)>,
    /// Phases that are over, with their milliseconds. Each name is there once: a transfer that waits for hours goes through
    /// the same ones again and again.
    phases: Mutex<Vec<(String, u64)>>,
    last_success_ms: Mutex<BTreeMap<String, u64>>,
    /// How many transfers of each role have failed since.
    failures: Mutex<BTreeMap<String, u64>>,
    /// What the transfers of each role came to, without this one.
    earlier: Mutex<BTreeMap<String, Totals>>,
    /// Bytes of this host's files that were read, to be sent or compared.
    pub read_bytes: AtomicU64,
    /// Bytes of this host's files that were not read, because their fingerprints were remembered.
    pub remembered_bytes: AtomicU64,
    attempts: AtomicU64,
    /// Microseconds for which replication was paused.
    paused_us: AtomicU64,
    corrupt_pages: AtomicU64,
    /// What the transfer waits for, if it waits.
    waits: Mutex<Option<String>>,
    /// Lines that the other host has not received yet.
    told: Mutex<Vec<String>>,
    outcome: Mutex<Option<String>>,
    /// The other side, for the operator.
    peer: Mutex<Option<String>>,
    /// `rlimit` and `adaptive-throttle` of a donor; the second one does not exist where it cannot give way.
    limits: Mutex<Option<(Option<u64>, Option<bool>)>>,
    /// Whether the donor reads more slowly than it could.
    slowed: Mutex<Option<Slowed>>,
    /// Bytes of files that are complete.
    pub done_bytes: AtomicU64,
    /// Bytes of all files; 0 while unknown.
    pub total_bytes: AtomicU64,
    /// Bytes of redo in that, as far as is known.
    redo_bytes: AtomicU64,
    connections: Connections,
    /// What the other host is doing, as far as it told, and how much of it is done.
    peer_phase: Mutex<(String, Option<u8>)>,
    /// What the record of the transfer is made from.
    pub ledger: Ledger,
    /// Work for which nothing travels.
    pub local: Arc<LocalWork>,
    pub(super) ended: AtomicBool,
}

/// The donor reads more slowly than it could, for its server's sake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slowed {
    /// Bytes of files per second.
    pub reading_limit: u64,
    /// Why.
    pub reason: String,
}

impl Progress {
    /// Starts the clock of a transfer.
    pub fn new(role: &'static str) -> Arc<Progress> {
        let (began, began_ms) = (Instant::now(), now_ms());
        Arc::new(Progress {
            role,
            began,
            began_ms,
            peer_phase: Mutex::default(),
            ledger: Ledger::new(role, began, began_ms),
            local: Arc::default(),
            phases: Mutex::default(),
            last_success_ms: Mutex::default(),
            failures: Mutex::default(),
            earlier: Mutex::default(),
            read_bytes: AtomicU64::new(0),
            remembered_bytes: AtomicU64::new(0),
            attempts: AtomicU64::new(0),
            paused_us: AtomicU64::new(0),
            corrupt_pages: AtomicU64::new(0),
            phase: Mutex::new(("starting".to_owned(), Instant::now())),
            waits: Mutex::new(None),
            told: Mutex::default(),
            outcome: Mutex::new(None),
            peer: Mutex::new(None),
            limits: Mutex::new(None),
            slowed: Mutex::new(None),
            done_bytes: AtomicU64::new(0),
            total_bytes: AtomicU64::new(0),
            redo_bytes: AtomicU64::new(0),
            connections: Connections::default(),
            ended: AtomicBool::new(false),
        })
    }

    /// Begins the next phase: the previous one is logged with its duration and `counts`.
    pub fn phase(&self, next: &str, counts: &str) {
        let mut phase = lock(&self.phase);
        let took = phase.1.elapsed();
        let seconds = took.as_secs_f64();
        add_phase(&mut lock(&self.phases), &phase.0, took);
        let counts = if counts.is_empty() { String::new() } else { format!(": {counts}") };
        tracing::debug!("phase \"{}\" took {seconds:.3} s{counts}", phase.0);
        *phase = (next.to_owned(), Instant::now());
        self.ledger.phase(next);
    }

    /// Sets what the transfer waits for, or that it no longer waits. Returns whether that is new.
    pub fn wait_for(&self, whom: Option<&str>) -> bool {
        let mut waits = lock(&self.waits);
        let new = waits.is_some() != whom.is_some();
        *waits = whom.map(str::to_owned);
        self.ledger.wait(whom);
        new
    }

    /// What the transfer waits for, if it waits.
    pub fn waits(&self) -> Option<String> {
        lock(&self.waits).clone()
    }

    /// Logs a line here, and on the other host as soon as the control connection can send it.
    pub fn tell(&self, text: &str) {
        tracing::info!("{text}");
        lock(&self.told).push(text.to_owned());
    }

    /// Names the other side.
    pub fn set_peer(&self, name: String) {
        *lock(&self.peer) = Some(name);
    }

    /// Bytes per second that the donor may send (`None` = no limit), and whether it gives way to its server (`None`: this transfer
    /// cannot).
    pub fn set_limits(&self, rlimit: Option<u64>, adaptive_throttle: Option<bool>) {
        *lock(&self.limits) = Some((rlimit, adaptive_throttle));
    }

    /// Whether the donor reads more slowly than it could, and why.
    pub fn set_slowed(&self, slowed: Option<Slowed>) {
        self.ledger.slowed(slowed.as_ref().map(|slowed| slowed.reason.as_str()));
        *lock(&self.slowed) = slowed;
    }

    /// Takes the lines that the other host has not received yet.
    pub fn take_told(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.told))
    }

    /// What the transfer waits for, or otherwise the current phase.
    pub fn current_phase(&self) -> String {
        let phase = || lock(&self.phase).0.clone();
        self.waits().unwrap_or_else(phase)
    }

    /// What this host is doing, for the other one.
    pub fn own_phase(&self) -> String {
        lock(&self.phase).0.clone()
    }

    /// What the other host says it is doing, and how many percent of the bytes it says are done.
    pub fn peer_does(&self, what: &str, percent: Option<u8>) {
        *lock(&self.peer_phase) = (what.to_owned(), percent.map(|percent| percent.min(100)));
    }

    /// How many percent of the bytes are done; `None` before there are any, and when all are.
    pub fn percent(&self) -> Option<u8> {
        let (done, total) = (self.done_bytes.load(Ordering::Relaxed), self.total());
        let percent = done.saturating_mul(100).checked_div(total).filter(|_| done < total)?;
        u8::try_from(percent).ok()
    }

    /// Adds a connection, whose bytes count from its start to the end of the transfer.
    pub fn count(&self, connection: impl Fn() -> Moved + Send + 'static) {
        self.connections.add(connection);
    }

    /// Grows while the connections make progress.
    pub(super) fn wire_steps(&self) -> u64 {
        self.connections.moved().steps
    }

    /// Bytes sent and received over the network, with the overhead of encryption.
    pub fn wire_bytes(&self) -> u64 {
        self.connections.moved().bytes
    }

    /// Begins an attempt to copy this many bytes.
    pub fn attempt(&self, bytes: u64) {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        self.copies(bytes);
    }

    /// No file is copied, or none any more.
    pub fn copies_nothing(&self) {
        self.copies(0);
    }

    /// So many bytes are about to be sent instead, as far as is known.
    pub fn copies(&self, bytes: u64) {
        for counter in [&self.done_bytes, &self.read_bytes, &self.remembered_bytes, &self.corrupt_pages] {
            counter.store(0, Ordering::Relaxed);
        }
        self.total_bytes.store(bytes, Ordering::Relaxed);
        self.redo_bytes.store(0, Ordering::Relaxed);
    }

    /// So many bytes are sent in all. Where that is more than was expected, the total grows with it.
    pub fn has_sent(&self, bytes: u64) {
        self.total_bytes.fetch_max(bytes, Ordering::Relaxed);
        self.done_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Everything is copied. Files that were dropped during the copy, or were never needed, no longer count
    /// as remaining.
    pub fn all_is_copied(&self) {
        self.done_bytes.store(self.total_bytes.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Replication was paused for this long.
    pub fn paused(&self, time: Duration) {
        self.paused_us.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }

    /// So many pages of the files of this attempt are corrupt.
    pub fn found_corrupt_pages(&self, pages: u64) {
        self.corrupt_pages.fetch_add(pages, Ordering::Relaxed);
    }

    /// Time since the transfer began.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Records how the transfer ended.
    pub fn end(&self, outcome: &str) {
        if outcome == OK {
            lock(&self.last_success_ms).insert(self.role.to_owned(), now_ms());
            lock(&self.failures).remove(self.role);
        } else {
            *lock(&self.failures).entry(self.role.to_owned()).or_default() += 1;
        }
        *lock(&self.outcome) = Some(outcome.to_owned());
        self.ledger.end(outcome);
    }

    /// Whether [`Progress::end`] was called.
    pub fn has_ended(&self) -> bool {
        lock(&self.outcome).is_some()
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
        // Other threads add to the total meanwhile.
        let before = self.redo_bytes.swap(bytes, Ordering::Relaxed);
        let change = |total: u64| Some(total.saturating_add(bytes).saturating_sub(before));
        let _ = self.total_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
    }

    /// The donor says how many bytes there are in all.
    pub fn total_is(&self, bytes: u64) {
        self.total_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Bytes of all files and of the redo beside them; 0 while unknown.
    pub fn total(&self) -> u64 {
        self.total_bytes.load(Ordering::Relaxed)
    }

    /// Notes the counts for the record.
    pub(super) fn sample(&self) {
        self.ledger.sample(self.wire_bytes(), self.done_bytes.load(Ordering::Relaxed));
    }

    /// The record of the transfer, as it is now.
    pub fn record(&self) -> Record {
        let mut record = self.ledger.record(self.total(), self.wire_bytes());
        record.bytes.read = self.read_bytes.load(Ordering::Relaxed);
        record.bytes.remembered = self.remembered_bytes.load(Ordering::Relaxed);
        record
    }

    /// Goes on with what the last transfer noted.
    pub(super) fn follow(&self, last: Option<Status>) {
        let Some(mut last) = last else { return };
        if last.outcome.is_none() {
            // Its program was killed.
            *last.failures.entry(last.role.clone()).or_default() += 1;
            last.totals.entry(last.role).or_default().failed += 1;
        }
        *lock(&self.earlier) = last.totals;
        *lock(&self.last_success_ms) = last.last_success_ms;
        *lock(&self.failures) = last.failures;
    }

    /// What the transfers of each role came to, with this one as it is now.
    fn totals(&self) -> BTreeMap<String, Totals> {
        let moved = self.ledger.moved();
        let ended = lock(&self.outcome).as_ref().map(|outcome| outcome == OK);
        let mut totals = lock(&self.earlier).clone();
        totals.entry(self.role.to_owned()).or_default().add(Totals {
            sent_bytes: moved.sent,
            reused_bytes: moved.reused,
            rebuilt_bytes: moved.rebuilt,
            network_bytes: self.wire_bytes(),
            succeeded: u64::from(ended == Some(true)),
            failed: u64::from(ended == Some(false)),
        });
        totals
    }

    pub(super) fn status(&self) -> Status {
        let total_bytes = self.total();
        let mut phases = lock(&self.phases).clone();
        let (phase, since) = lock(&self.phase).clone();
        add_phase(&mut phases, &phase, since.elapsed());
        let limits = *lock(&self.limits);
        let (peer_phase, peer_percent) = lock(&self.peer_phase).clone();
        let (reading_limit, slowed_by) =
            lock(&self.slowed).clone().map(|slowed| (slowed.reading_limit, slowed.reason)).unzip();
        Status {
            role: self.role.to_owned(),
            phase: self.current_phase(),
            peer_phase,
            peer_percent,
            // Files that were copied again because they changed, and files created during the copy, count
            // more than once.
            done_bytes: self.done_bytes.load(Ordering::Relaxed).min(total_bytes),
            total_bytes,
            wire_bytes: self.wire_bytes(),
            read_bytes: self.read_bytes.load(Ordering::Relaxed),
            remembered_bytes: self.remembered_bytes.load(Ordering::Relaxed),
            attempts: self.attempts.load(Ordering::Relaxed),
            paused_us: self.paused_us.load(Ordering::Relaxed),
            corrupt_pages: self.corrupt_pages.load(Ordering::Relaxed),
            began_ms: self.began_ms,
            phases,
            idle_ms: 0,
            last_success_ms: lock(&self.last_success_ms).clone(),
            failures: lock(&self.failures).clone(),
            totals: self.totals(),
            elapsed_ms: self.began.elapsed().as_millis() as u64,
            pid: std::process::id(),
            outcome: lock(&self.outcome).clone(),
            peer: lock(&self.peer).clone(),
            rlimit: limits.and_then(|(rlimit, _)| rlimit),
            adaptive_throttle: limits.and_then(|(_, adaptive)| adaptive),
            fixed_options: match limits {
                Some((_, None)) => vec![ADAPTIVE_THROTTLE.to_owned()],
                _ => Vec::new(),
            },
            reading_limit,
            slowed_by,
        }
    }
}

fn add_phase(phases: &mut Vec<(String, u64)>, name: &str, took: Duration) {
    let ms = took.as_millis() as u64;
    match phases.iter_mut().find(|(known, _)| known == name) {
        Some((_, sum)) => *sum += ms,
        None => phases.push((name.to_owned(), ms)),
    }
}

#[cfg(test)]
#[path = "progress_tests.rs"]
mod tests;
