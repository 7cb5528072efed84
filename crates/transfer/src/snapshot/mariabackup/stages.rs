//! How far mariadb-backup is, as it says itself: the backup locks that it holds, and that it is complete.
//!
//! While it holds them from `BLOCK_DDL` on, replication is paused. It waits for that lock as long as the server's
//! `lock_wait_timeout` lets it, a day, and the server pauses replication before it waits: a DDL statement of the donor's own
//! clients that is in its middle then waits for the pause to end, and the pause for the statement. So a backup that waits too
//! long is ended.
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::without_redo::{Counts, Held};
use crate::cancel::Cancel;
use crate::snapshot::sink::SnapshotSink;
use crate::sql::{ANSWER_WITHIN, Login, Session};
use crate::threads::lock;

/// How long it may wait for `BLOCK_DDL`. A statement that is not stuck ends before, as a rule.
const WAITS_AT_MOST: Duration = Duration::from_secs(10);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What it said (10.11.19; older ones have some of these lines).
const OPENED_TWICE: &str = "Attempted to open a previously opened tablespace";
const FLUSHED: &str = "Finished BACKUP STAGE FLUSH";
const BLOCKED: [&str; 2] = ["Acquired locks for BACKUP STAGE BLOCK_DDL", "Finished BACKUP STAGE BLOCK_DDL"];
/// From here on the log of Aria may be copied to its end.
const BLOCKS_COMMIT: &str = "BACKUP STAGE BLOCK_COMMIT";
const RELEASED: &str = "All tables unlocked";
const COMPLETE: &str = "completed OK!";

/// Lists the files without redo that a backup must have; called while no DDL runs.
pub(super) type ListFiles<'a> = &'a (dyn Fn() -> Result<BTreeMap<String, Counts>> + Sync);

/// What mariadb-backup has said so far.
pub(super) struct Stages<'a> {
    sink: &'a dyn SnapshotSink,
    list: ListFiles<'a>,
    /// The files when DDL was held.
    files: Mutex<Option<Result<Held>>>,
    /// When it began to ask for `BLOCK_DDL`.
    asked: Mutex<Option<Instant>>,
    blocked: AtomicBool,
    past: AtomicBool,
    complete: AtomicBool,
    held_up: AtomicBool,
    tripped: AtomicBool,
    over: AtomicBool,
}

impl<'a> Stages<'a> {
    pub fn new(sink: &'a dyn SnapshotSink, list: ListFiles<'a>) -> Stages<'a> {
        let no = || AtomicBool::new(false);
        Stages {
            sink,
            list,
            files: Mutex::default(),
            asked: Mutex::default(),
            blocked: no(),
            past: no(),
            complete: no(),
            held_up: no(),
            tripped: no(),
            over: no(),
        }
    }

    /// A line that it said.
    pub fn line(&self, line: &str) {
        if line.contains(FLUSHED) {
            *lock(&self.asked) = Some(Instant::now());
            self.sink.waits(Some("the backup locks of mariadb-backup"));
        } else if self.blocks_ddl(line) {
            if !self.blocked.swap(true, Ordering::AcqRel) {
                self.sink.waits(None);
            }
        } else if line.contains(BLOCKS_COMMIT) {
            self.past.store(true, Ordering::Release);
        } else if line.contains(RELEASED) {
            self.released();
        } else if line.contains(OPENED_TWICE) {
            self.tripped.store(true, Ordering::Release);
        } else if line.ends_with(COMPLETE) {
            self.complete.store(true, Ordering::Release);
        }
    }

    /// Whether it says that it holds DDL.
    pub fn blocks_ddl(&self, line: &str) -> bool {
        BLOCKED.iter().any(|blocked| line.contains(blocked))
    }

    /// It has said that it holds DDL, and stands still.
    pub fn stands_still(&self) {
        let (began, in_time) = (Instant::now(), !self.past.load(Ordering::Acquire));
        let listed = (self.list)().map(|files| Held { files, in_time });
        tracing::info!(
            "mariadb-backup was stopped for {:.3} s under its locks",
            began.elapsed().as_secs_f64()
        );
        *lock(&self.files) = Some(listed);
    }

    /// The program has ended, in whatever way: its session must not go on waiting for a lock.
    pub fn ended(&self, login: &Login) {
        if !self.blocked.load(Ordering::Acquire) && lock(&self.asked).is_some() && !self.was_held_up() {
            end_session(login);
        }
        self.released();
    }

    /// It holds no lock any more.
    fn released(&self) {
        self.sink.waits(None);
        if let Some(asked) = lock(&self.asked).take() {
            let took = asked.elapsed();
            tracing::info!(
                "mariadb-backup held its backup locks for {:.3} s; replication was paused",
                took.as_secs_f64()
            );
            self.sink.paused("replication", took);
        }
    }

    /// The files that the backup must have; `None` if it did not say when it held its locks, or could not be stopped then.
    pub fn files(&self) -> Option<Result<Held>> {
        lock(&self.files).take()
    }

    /// It said that the backup is complete.
    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// It was ended because it waited for its locks too long.
    pub fn was_held_up(&self) -> bool {
        self.held_up.load(Ordering::Acquire)
    }

    /// It said that it found a table under two names, and did not hold DDL yet.
    pub fn has_tripped(&self) -> bool {
        self.tripped.load(Ordering::Acquire) && !self.blocked.load(Ordering::Acquire)
    }

    /// Nothing more has to be watched.
    pub fn over(&self) {
        self.over.store(true, Ordering::Release);
    }

    /// Ends the backup's session if it waits for its locks too long, which ends the backup.
    pub fn watch(&self, login: &Login, cancel: &Cancel) -> Result<()> {
        while !self.over.load(Ordering::Acquire) && cancel.check().is_ok() {
            std::thread::sleep(LOOK_EVERY);
            let waits = !self.blocked.load(Ordering::Acquire)
                && lock(&self.asked).is_some_and(|asked| asked.elapsed() > WAITS_AT_MOST);
            if waits && !self.held_up.swap(true, Ordering::AcqRel) {
                tracing::warn!(
                    "stopping mariadb-backup: it has waited {} s for its backup locks while replication is paused",
                    WAITS_AT_MOST.as_secs()
                );
                end_session(login);
            }
        }
        Ok(())
    }
}

/// Ends the session of a backup that is in the middle of a step. The server does not notice that a client is gone while it waits
/// for a lock.
fn end_session(login: &Login) {
    let end = || -> Result<()> {
        let mut session = Session::open(login, ANSWER_WITHIN)?;
        session.own_backups()?.into_iter().try_for_each(|backup| Ok(session.kill(backup)?))
    };
    if let Err(error) = end() {
        tracing::warn!("the session of mariadb-backup cannot be ended: {error:#}");
    }
}

#[cfg(test)]
mod tests {
    use protocol::inventory::{FileEntry, FileId};

    use super::*;

    #[derive(Default)]
    struct Sink(Mutex<Vec<Duration>>);

    impl SnapshotSink for Sink {
        fn announce(&self, _: &FileEntry) -> Result<()> {
            Ok(())
        }

        fn write(&self, _: FileId, _: u64, _: &[u8]) -> Result<()> {
            Ok(())
        }

        fn paused(&self, what: &str, took: Duration) {
            assert_eq!(what, "replication");
            lock(&self.0).push(took);
        }
    }

    #[test]
    fn the_pause_is_measured_once_and_the_end_is_recognised() {
        let sink = Sink::default();
        let stages = Stages::new(&sink, &|| Ok(BTreeMap::from([("shop/t.frm".to_owned(), Counts::Theirs)])));
        for line in [
            "[00] 2026-11-30 10:00:00 Finished BACKUP STAGE FLUSH",
            "[00] 2026-11-30 10:00:00 Acquired locks for BACKUP STAGE BLOCK_DDL",
            "[00] 2026-11-30 10:00:01 All tables unlocked",
        ] {
            assert!(!stages.is_complete());
            stages.line(line);
            if stages.blocks_ddl(line) {
                stages.stands_still();
            }
        }
        stages.line("[00] 2026-11-30 10:00:01 completed OK!");
        stages.released();
        assert!(stages.is_complete() && !stages.was_held_up());
        let held = stages.files().unwrap().unwrap();
        assert!(held.in_time && held.files.len() == 1);
        assert!(stages.files().is_none());
        assert_eq!(lock(&sink.0).len(), 1);
    }

    #[test]
    fn a_table_that_is_renamed_while_it_lists_them_is_recognised() {
        let (sink, list) = (Sink::default(), || Ok(BTreeMap::new()));
        let stages = Stages::new(&sink, &list);
        stages.line("[00] 2026-11-30 10:00:00 Connecting to MariaDB server host: localhost");
        assert!(!stages.has_tripped());
        let said = "2026-11-30 10:00:01 0 [ERROR] InnoDB: Attempted to open a previously opened tablespace. Previous tablespace: d/a";
        stages.line(said);
        assert!(stages.has_tripped());
        // Later it is another failure, which costs more.
        stages.line("Acquired locks for BACKUP STAGE BLOCK_DDL");
        assert!(!stages.has_tripped());
    }

    #[test]
    fn what_it_said_before_it_stood_still_may_be_too_late() {
        let (sink, list) = (Sink::default(), || Ok(BTreeMap::new()));
        let stages = Stages::new(&sink, &list);
        stages.line("Acquired locks for BACKUP STAGE BLOCK_DDL");
        stages.line("Starting BACKUP STAGE BLOCK_COMMIT");
        stages.stands_still();
        assert!(!stages.files().unwrap().unwrap().in_time);
    }
}
