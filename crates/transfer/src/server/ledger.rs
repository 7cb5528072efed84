//! Collects what the record of a transfer says, while the transfer runs. `docs/report.md` documents the record.
use std::sync::Mutex;
use std::time::{Duration, Instant};

use formats::wsrep::state_id::StateId;
use protocol::inventory::{FileEntry, FileId};
use protocol::message::SnapshotKind;
use report::record::{
    self, ATTEMPTS_MAX, CHANGES_MAX, Change, Method, PHASES_MAX, Pause, Peer, Phase, Record, SAMPLES_MAX,
    Sample, Table,
};

use super::tables::Tables;
use crate::threads::lock;

/// The beginning of the line in which the donor tells its plan.
const PLAN: &str = "plan: ";
/// The beginning of the line in which the donor tells why it sends no write-sets of its archive.
pub const NO_DEEP_IST: &str = "no deep IST: ";

/// What a record is made from. All threads of a transfer share it.
#[derive(Debug)]
pub struct Ledger {
    began: Instant,
    began_ms: u64,
    record: Mutex<Record>,
    tables: Mutex<Tables>,
}

impl Ledger {
    pub(super) fn new(role: &str, began: Instant, began_ms: u64) -> Ledger {
        let record = Record {
            schema: record::SCHEMA,
            program: concat!("rejoin ", env!("CARGO_PKG_VERSION")).to_owned(),
            role: role.to_owned(),
            began_ms,
            ..Record::default()
        };
        let ledger = Ledger { began, began_ms, record: Mutex::new(record), tables: Mutex::default() };
        ledger.phase("starting");
        ledger
    }

    /// The time of day. It never goes back during a transfer, whatever happens to the clock.
    fn now_ms(&self) -> u64 {
        self.began_ms.saturating_add(self.began.elapsed().as_millis() as u64)
    }

    /// Changes the record.
    pub fn update(&self, fill: impl FnOnce(&mut Record)) {
        fill(&mut lock(&self.record));
    }

    /// Notes who is at the other end of the control connection that was just made.
    pub fn connected(&self, address: &str, program: &str) {
        let (address, program) = (address.to_owned(), program.to_owned());
        let now = self.now_ms();
        self.update(|record| {
            let name = record.peer.take().and_then(|peer| peer.name);
            record.peer = Some(Peer { name, address, program });
            record.connected_ms = Some(now);
        });
    }

    /// Records a line that the donor sent, if it is its plan, or why its archive of write-sets does not help.
    pub fn donor_says(&self, line: &str) {
        if line.starts_with(PLAN) {
            self.update(|record| record.plan.get_or_insert_default().words = line.to_owned());
        } else if line.starts_with(NO_DEEP_IST) {
            self.update(|record| record.no_deep_ist = Some(line.to_owned()));
        }
    }

    /// A new attempt begins. Nothing of an earlier one counts.
    pub fn attempt(&self, kind: SnapshotKind, reason: &str) {
        lock(&self.tables).begin_again();
        let began_ms = self.now_ms();
        self.update(|record| {
            record.method = Some(Method::Files);
            record.plan = None;
            if record.attempts.len() < ATTEMPTS_MAX {
                let (snapshot, reason) = (kind.name().to_owned(), reason.to_owned());
                record.attempts.push(record::Attempt { began_ms, snapshot, reason });
            }
        });
    }

    /// No data is sent: IST follows from this position.
    pub fn ist_follows(&self, position: StateId) {
        let position = position.to_string();
        self.update(|record| (record.method, record.position.after) = (Some(Method::Ist), Some(position)));
    }

    /// The donor's server stood still until now. `what`: its replication or its writes.
    pub fn paused(&self, what: &str, took: Duration) {
        let (what, ended_ms, took_us) = (what.to_owned(), self.now_ms(), took.as_micros() as u64);
        self.update(|record| {
            if record.pauses.len() < ATTEMPTS_MAX {
                record.pauses.push(Pause { what, ended_ms, took_us });
            }
        });
    }

    /// An operator has changed an option of the transfer: `NAME=VALUE`, and the user's id.
    pub fn changed(&self, set: String, user: u32) {
        let at_ms = self.now_ms();
        self.update(|record| {
            if record.changes.len() < CHANGES_MAX {
                record.changes.push(Change { at_ms, set, user });
            }
        });
    }

    /// A table whose rows are sent without a file will be counted under this number.
    pub fn begin_table(&self, number: FileId, name: &str, size: u64) {
        lock(&self.tables).begin_named(number, name, size);
    }

    /// A file will be counted.
    pub fn begin_file(&self, entry: &FileEntry) {
        lock(&self.tables).begin(entry);
    }

    /// Counts bytes of a file.
    pub fn count(&self, file: FileId, bytes: &Table) {
        lock(&self.tables).add(file, bytes);
    }

    /// Bytes of files, redo and write-sets so far, in all attempts.
    pub(super) fn moved(&self) -> Table {
        let mut moved = lock(&self.tables).moved();
        moved.sent = moved.sent.saturating_add(lock(&self.record).bytes.write_sets);
        moved
    }

    pub(super) fn phase(&self, name: &str) {
        let now = self.now_ms();
        self.update(|record| {
            end_last(&mut record.phases, now);
            // A transfer that tries for hours goes through the same phases again and again.
            let full = record.phases.len() >= PHASES_MAX;
            match record.phases.last_mut().filter(|_| full) {
                Some(last) => "(later phases)".clone_into(&mut last.name),
                None => record.phases.push(Phase { name: name.to_owned(), began_ms: now, ended_ms: now }),
            }
        });
    }

    /// `for_whom`: `None` ends a wait.
    pub(super) fn wait(&self, for_whom: Option<&str>) {
        let now = self.now_ms();
        // What is said of a wait may change while it lasts: the session that holds a lock, for how long.
        self.update(|record| note(&mut record.waits, now, for_whom, |was, is| subject(was) == subject(is)));
    }

    /// `why`: `None` if files are read at full speed. The reason may change while they are not.
    pub(super) fn slowed(&self, why: Option<&str>) {
        let now = self.now_ms();
        self.update(|record| note(&mut record.slowed, now, why, |_, _| true));
    }

    /// Notes the counts at this time. Every second one is dropped when there are too many, so that they cover the whole
    /// transfer.
    pub(super) fn sample(&self, network: u64, done: u64) {
        let ms = self.began.elapsed().as_millis() as u64;
        self.update(|record| add_sample(&mut record.samples, Sample { ms, network, done }));
    }

    pub(super) fn end(&self, outcome: &str) {
        let now = self.now_ms();
        self.update(|record| {
            record.outcome = Some(outcome.to_owned());
            record.ended_ms = Some(now);
        });
    }

    /// The record as it is now. `total` and `network` are the counts of the transfer.
    pub(super) fn record(&self, total: u64, network: u64) -> Record {
        let mut record = lock(&self.record).clone();
        let now = record.ended_ms.unwrap_or_else(|| self.now_ms());
        // After a failure nothing is left to do, and the total is 0.
        let total = record.plan.as_ref().filter(|_| total == 0).map_or(total, |plan| plan.total);
        record.written_ms = self.now_ms();
        end_last(&mut record.phases, now);
        let noted = record.waits.iter_mut().chain(&mut record.slowed);
        noted.filter(|noted| noted.ended_ms == 0).for_each(|noted| noted.ended_ms = now);
        let tables = lock(&self.tables);
        let (named, others, sum) = tables.sums();
        (record.tables, record.other_tables) = (named, others);
        let Table { sent, reused, rebuilt, zero, .. } = sum;
        let (redo, write_sets) = (tables.redo_sent(), record.bytes.write_sets);
        record.bytes =
            record::Bytes { total, sent, reused, rebuilt, zero, redo, network, write_sets, ..record.bytes };
        record
    }
}

/// Notes what begins, goes on (`same`) or ends now. The last one lasts while it has no end.
fn note(noted: &mut Vec<Phase>, now: u64, what: Option<&str>, same: impl Fn(&str, &str) -> bool) {
    match (noted.last_mut().filter(|last| last.ended_ms == 0), what) {
        (Some(last), Some(what)) if same(&last.name, what) => return what.clone_into(&mut last.name),
        (Some(last), _) => last.ended_ms = now,
        (None, _) => {}
    }
    if let Some(what) = what
        && noted.len() < PHASES_MAX
    {
        noted.push(Phase { name: what.to_owned(), began_ms: now, ended_ms: 0 });
    }
}

fn subject(wait: &str) -> &str {
    wait.split(':').next().unwrap_or_default()
}

fn end_last(phases: &mut [Phase], now: u64) {
    if let Some(last) = phases.last_mut() {
        last.ended_ms = now;
    }
}

/// Adds a sample unless it follows the last one too soon: they are as far apart as the first two.
fn add_sample(samples: &mut Vec<Sample>, sample: Sample) {
    let apart = samples.get(1).zip(samples.first()).map_or(0, |(second, first)| second.ms - first.ms);
    if samples.last().is_some_and(|last| sample.ms.saturating_sub(last.ms) < apart / 4 * 3) {
        return;
    }
    if samples.len() >= SAMPLES_MAX {
        let mut number = 0;
        samples.retain(|_| {
            number += 1;
            number % 2 == 1
        });
    }
    samples.push(sample);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        Ledger::new("donor", Instant::now(), 1_000_000)
    }

    #[test]
    fn phases_follow_each_other_and_are_bounded() {
        let ledger = ledger();
        for round in 0..3 * PHASES_MAX {
            ledger.phase(if round % 2 == 0 { "sending" } else { "waiting for the donor" });
        }
        let record = ledger.record(0, 0);
        assert_eq!(record.phases.len(), PHASES_MAX);
        assert!(record.phases.windows(2).all(|two| two[0].ended_ms == two[1].began_ms));
        let names: Vec<&str> = record.phases.iter().map(|phase| phase.name.as_str()).collect();
        assert_eq!((names[0], names[1], names[PHASES_MAX - 1]), ("starting", "sending", "(later phases)"));
    }

    #[test]
    fn a_wait_ends_when_it_is_over_and_its_reason_may_change() {
        let ledger = ledger();
        ledger.wait(Some("a: x"));
        ledger.wait(Some("a: y"));
        ledger.wait(Some("b"));
        ledger.wait(None);
        ledger.wait(None);
        ledger.wait(Some("c"));
        let record = ledger.record(0, 0);
        let names: Vec<&str> = record.waits.iter().map(|wait| wait.name.as_str()).collect();
        assert_eq!(names, ["a: y", "b", "c"]);
        assert!(record.waits.iter().all(|wait| wait.ended_ms >= wait.began_ms));
    }

    #[test]
    fn slowed_times_are_one_until_the_speed_is_full_again() {
        let ledger = ledger();
        for why in
            [Some("a log write takes 9 ms"), Some("a log write takes 14 ms"), None, None, Some("the disk")]
        {
            ledger.slowed(why);
        }
        let slowed = ledger.record(0, 0).slowed;
        let names: Vec<&str> = slowed.iter().map(|slowed| slowed.name.as_str()).collect();
        assert_eq!(names, ["a log write takes 14 ms", "the disk"]);
        assert!(slowed.iter().all(|slowed| slowed.ended_ms >= slowed.began_ms));
    }

    #[test]
    fn changes_have_their_times_and_are_bounded() {
        let ledger = ledger();
        ledger.changed("rlimit=5".to_owned(), 7);
        let changes = ledger.record(0, 0).changes;
        assert_eq!((changes[0].set.as_str(), changes[0].user), ("rlimit=5", 7));
        assert!(changes[0].at_ms >= 1_000_000, "{changes:?}");
        (0..2 * CHANGES_MAX).for_each(|_| ledger.changed("rlimit=0".to_owned(), 7));
        assert_eq!(ledger.record(0, 0).changes.len(), CHANGES_MAX);
    }

    #[test]
    fn rows_without_a_file_count_by_table() {
        let ledger = ledger();
        ledger.begin_table(FileId(0), "d.t", 10);
        ledger.count(FileId(0), &Table { sent: 5, ..Table::default() });
        ledger.count(FileId(0), &Table { sent: 6, ..Table::default() });
        let record = ledger.record(9, 7);
        assert_eq!(
            (record.tables[0].name.as_str(), record.tables[0].sent, record.bytes.sent),
            ("d.t", 11, 11)
        );
    }

    #[test]
    fn samples_are_thinned_over_the_whole_time() {
        let mut samples = Vec::new();
        for ms in 0..20_000u64 {
            add_sample(&mut samples, Sample { ms, network: ms, done: 0 });
        }
        assert!(samples.len() <= SAMPLES_MAX && samples.len() > SAMPLES_MAX / 4, "{}", samples.len());
        assert_eq!(samples[0].ms, 0);
        assert!(samples.last().expect("some").ms > 19_900);
        let widest = samples.windows(2).map(|two| two[1].ms - two[0].ms).max();
        assert!(widest.expect("some") <= 64, "{widest:?}");
    }

    #[test]
    fn an_attempt_voids_the_one_before() {
        let ledger = ledger();
        ledger.attempt(SnapshotKind::Online, "");
        ledger.count(FileId(1), &Table { sent: 5, ..Table::default() });
        ledger.donor_says("plan: incremental, about 5 B");
        ledger.donor_says("the consistency point is at");
        ledger.donor_says("no deep IST: it would cost more");
        assert_eq!(ledger.record(9, 7).no_deep_ist.as_deref(), Some("no deep IST: it would cost more"));
        assert_eq!(ledger.record(9, 7).plan.expect("a plan").words, "plan: incremental, about 5 B");
        ledger.attempt(SnapshotKind::Blocking, "no login");
        ledger.count(FileId(2), &Table { sent: 3, ..Table::default() });
        ledger.end(record::OK);
        let record = ledger.record(9, 7);
        assert_eq!((record.bytes.sent, record.bytes.total, record.bytes.network), (3, 9, 7));
        assert_eq!(ledger.moved().sent, 8, "what was given up was sent too");
        assert_eq!((record.attempts.len(), record.attempts[1].reason.as_str()), (2, "no login"));
        assert!(record.plan.is_none() && record.is_ok() && record.ended_ms.is_some());
    }
}
