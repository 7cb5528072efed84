//! The consistency point: DDL and then commits are held and the provider is paused; files without redo are read, the
//! end of the redo and the position are noted, and everything is released.
//!
//! As much as possible is done before: all files have been listed and copied once, so that only later changes are read
//! here. A try that is not granted its locks releases everything at once; [`super::wait`] decides when the next one is
//! made.
use std::time::{Duration, Instant};

use super::catalog::{Catalog, Todo};
use super::checks;
use super::consistency_point::ConsistencyPoint;
use super::dirty::Dirty;
use super::holders::{LONG_DDL_MS, is_ddl};
use super::lister::Lister;
use super::listing::{self, Roots};
use super::stage::Stage;
use super::tail::TailState;
use crate::cancel::Cancel;
use crate::snapshot::copy::files::CopyFiles;
use crate::snapshot::copy::pages::Copier;
use crate::snapshot::declined::{Declined, SnapshotError};
use crate::sql::Login;
use crate::sql::{Session, SqlError};

/// How long one try may take, from its login to the release of the locks.
const TRY_MAX: Duration = Duration::from_secs(60);
/// How long to wait for an instant without any DDL.
const QUIET: Duration = Duration::from_millis(700);

/// What a try needs.
pub struct Settle<'a, 'r> {
    /// For the session that takes the locks.
    pub login: &'a Login,
    /// For queries while the session with the locks is busy.
    pub observer: &'a mut Session,
    /// Where files are.
    pub roots: &'a Roots,
    /// Lists them.
    pub(super) lister: &'a mut Lister<'r>,
    /// What was copied.
    pub catalog: &'a mut Catalog,
    /// Copies new and changed files.
    pub copy: &'a CopyFiles<'a>,
    /// Pages that the redo changes.
    pub dirty: &'a Dirty,
    /// Is told where to end.
    pub tail: &'a TailState,
    /// The server is a cluster member.
    pub galera: bool,
    /// `wsrep_desync_count` if no other session has desynced the provider.
    pub desynced: i64,
    /// It writes a binary log.
    pub log_bin: bool,
    /// Its redo log is encrypted: page numbers in it cannot be relied on, so imports are not looked for.
    pub encrypted: bool,
    /// The session of an earlier try that still waits for the provider.
    pub hanging: &'a mut Option<u32>,
    /// Ends the transfer.
    pub cancel: &'a Cancel,
}

/// Why another try is needed.
#[derive(Debug)]
pub enum Again {
    /// Another session holds a lock, or is about to.
    Held(Held),
    /// The session with the locks was lost, and the locks with it.
    Lost(SqlError),
    /// The consistency point was not valid.
    Discarded(Declined),
    /// The locks would have been held for longer than a try may take.
    TooLong {
        /// How long they were held.
        held: Duration,
    },
}

/// What prevents the locks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Another session holds a lock; this is the server's refusal.
    Lock(SqlError),
    /// Another session has paused or desynced the provider.
    Paused,
    /// A DDL statement is running: pausing now would hold all commits until it ends.
    Ddl,
}

/// The result of a try. No lock is held afterwards.
#[derive(Debug)]
pub enum Tried {
    /// The consistency point is complete.
    Done(Box<ConsistencyPoint>),
    /// The try failed; the provider may have been paused for this long.
    Again(Again, Duration),
}

enum TryError {
    Again(Again),
    Over(SnapshotError),
}

impl TryFrom<SqlError> for Again {
    type Error = Declined;

    /// Fails for an error that would occur again in the next try.
    fn try_from(e: SqlError) -> Result<Again, Declined> {
        match e {
            e if e.is_lock_wait() => Ok(Again::Held(Held::Lock(e))),
            e if e.is_hanging() => Ok(Again::Held(Held::Paused)),
            e if e.is_over() => Ok(Again::TooLong { held: TRY_MAX }),
            e if e.is_lost() || e.is_no_stage() => Ok(Again::Lost(e)),
            e => Err(Declined::SessionLost(e.to_string())),
        }
    }
}

impl From<SqlError> for TryError {
    fn from(e: SqlError) -> Self {
        match Again::try_from(e) {
            Ok(again) => TryError::Again(again),
            Err(declined) => declined.into(),
        }
    }
}

impl From<Declined> for TryError {
    fn from(e: Declined) -> Self {
        TryError::Over(e.into())
    }
}

impl From<anyhow::Error> for TryError {
    /// The copy ends early if the locks are lost.
    fn from(e: anyhow::Error) -> Self {
        match e.chain().find_map(|cause| cause.downcast_ref::<SqlError>()) {
            Some(lost) => lost.clone().into(),
            None => TryError::Over(e.into()),
        }
    }
}

impl Settle<'_, '_> {
    /// Makes one try.
    ///
    /// # Errors
    /// A [`Declined`] reason, or the transfer is over.
    pub fn attempt(&mut self) -> Result<Tried, SnapshotError> {
        self.cancel.check().map_err(anyhow::Error::from)?;
        if self.has_long_ddl() {
            return Ok(Tried::Again(Again::Held(Held::Ddl), Duration::ZERO));
        }
        if self.still_hangs() {
            return Ok(Tried::Again(Again::Held(Held::Paused), Duration::ZERO));
        }
        self.catch_up()?;
        let mut stage = Stage::open(self.login, TRY_MAX, self.cancel)?;
        let result = self.once(&mut stage);
        self.copy.copier.sink.end_consistency_point();
        // Whatever happened, the locks are released before anything else.
        let ended = stage.end();
        let held = stage.paused_for();
        if !held.is_zero() {
            self.copy.copier.sink.paused("replication", held);
        }
        let again = match (result, ended) {
            // END succeeded, so the locks were held without a gap.
            (Ok(point), Ok(())) => {
                return Ok(Tried::Done(Box::new(ConsistencyPoint { ddl_held: held, ..point })));
            }
            (Ok(_), Err(e)) => e.into(),
            (Err(e), _) => e,
        };
        self.tail.go_on();
        // A cancelled transfer loses its session too; the cancellation is the reason to report.
        self.cancel.check().map_err(anyhow::Error::from)?;
        match again {
            TryError::Over(e) => Err(e),
            TryError::Again(again) => {
                if matches!(again, Again::TooLong { .. } | Again::Held(Held::Paused)) {
                    // The session may be waiting in the provider. The server ends it as soon as the provider returns.
                    let killed = self.observer.kill(stage.id());
                    tracing::debug!("the session {} with the backup locks is killed: {killed:?}", stage.id());
                    *self.hanging = Some(stage.id());
                }
                Ok(Tried::Again(again, held))
            }
        }
    }

    /// Copies what changed since the last listing, without a lock, so that little is left for the consistency point.
    fn catch_up(&mut self) -> anyhow::Result<()> {
        let todo = self.lister.refresh(self.catalog)?;
        self.copy.pages(self.catalog, &todo.pages)?;
        self.copy.small(self.catalog, &todo.small)?;
        self.copy.small(self.catalog, &todo.late)?;
        if !self.encrypted {
            checks::look_ahead(self.catalog, self.dirty, self.copy.copier.threads)?;
        }
        Ok(())
    }

    /// The steps of a try. The caller ends the stage.
    fn once(&mut self, stage: &mut Stage) -> Result<ConsistencyPoint, TryError> {
        self.copy.copier.sink.begin_consistency_point()?;
        stage.start()?;
        stage.flush()?;
        self.wait_for_quiet();
        let before = self.desyncs(stage)?;
        let asked = Instant::now();
        stage.block_ddl()?;
        let granting = asked.elapsed();
        let seqno = self.committed(stage)?;
        self.check_paused(before, stage)?;
        self.check_member(seqno, stage)?;
        let list_lsn = stage.ask(Session::log_position)?.current;

        let listing_began = Instant::now();
        let todo = self.lister.refresh(self.catalog)?;
        let listing = listing_began.elapsed();
        let written =
            if self.encrypted { Vec::new() } else { checks::open_written(self.catalog, self.dirty) };
        let mut files = todo.pages.len() + todo.small.len();
        self.copy_under_locks(stage, &todo)?;

        let commits_since = Instant::now();
        stage.block_commit()?;
        let todo = self.catalog.update_late(listing::list_late(self.roots)?);
        files += todo.late.len();
        let late = Todo { small: todo.late, ..Todo::default() };
        self.copy_under_locks(stage, &late)?;
        self.tail.hold();
        let end = stage.ask(Session::log_position)?.current;
        self.tail.end_at(end);
        let binlog_state = if self.log_bin { Some(stage.ask(Session::gtid_binlog_state)?) } else { None };
        let after = self.committed(stage)?;
        let max = stage.ask(Session::log_position)?.current;
        if let (Some(before), Some(after)) = (seqno, after)
            && before != after
            && !cfg!(feature = "unpaused")
        {
            return Err(TryError::Again(Again::Discarded(Declined::PositionMoved { before, after })));
        }
        self.check_member(after, stage)?;
        let commits_held = commits_since.elapsed();
        let (ddl_held, failed_held) = (Duration::ZERO, Duration::ZERO);
        Ok(ConsistencyPoint {
            list_lsn,
            end,
            max,
            seqno,
            binlog_state,
            ddl_held,
            granting,
            commits_held,
            listing,
            written,
            files,
            tries: 0,
            failed_held,
        })
    }

    /// Copies files, and stops if the locks are lost.
    fn copy_under_locks(&mut self, stage: &Stage, todo: &Todo) -> anyhow::Result<()> {
        let (watch, outer) = (stage.watch(), self.copy);
        let pace = || (outer.copier.pace)().and_then(|()| Ok(watch.check()?));
        let copier = Copier { pace: &pace, ..outer.copier };
        let copy = CopyFiles { copier, system_files: outer.system_files, damaged: Default::default() };
        let copied = copy.pages(self.catalog, &todo.pages);
        let copied = copied.and_then(|()| copy.small(self.catalog, &todo.small));
        outer.take_damaged(copy);
        copied
    }

    /// `wsrep_desync_count`, if the server is in a cluster. Fails if another session has desynced the provider: that
    /// session may have paused it too, and our pause would wait for it without a timeout.
    fn desyncs(&mut self, stage: &mut Stage) -> Result<Option<i64>, TryError> {
        if !self.galera {
            return Ok(None);
        }
        let count = self.desync_count(stage)?;
        let by_operator = stage.ask(|session| session.variable("wsrep_desync"))?.as_deref() == Some("ON");
        if count > self.desynced + i64::from(by_operator) && !cfg!(feature = "unpaused") {
            return Err(TryError::Again(Again::Held(Held::Paused)));
        }
        Ok(Some(count))
    }

    fn desync_count(&self, stage: &mut Stage) -> Result<i64, TryError> {
        self.number(stage, "wsrep_desync_count")
    }

    fn committed(&mut self, stage: &mut Stage) -> Result<Option<i64>, TryError> {
        if self.galera { Ok(Some(self.number(stage, "wsrep_last_committed")?)) } else { Ok(None) }
    }

    /// A status variable that every cluster member has: without it nothing is proved.
    fn number(&self, stage: &mut Stage, name: &'static str) -> Result<i64, TryError> {
        let number = stage.ask(move |session| session.status_number(name))?;
        number.ok_or_else(|| TryError::Again(Again::Discarded(Declined::NoStatus(name.to_owned()))))
    }

    /// Proves that the server paused the provider for us: it desyncs once more when it does.
    fn check_paused(&mut self, before: Option<i64>, stage: &mut Stage) -> Result<(), TryError> {
        let Some(before) = before else { return Ok(()) };
        let after = self.desync_count(stage)?;
        if after != before + 1 && !cfg!(feature = "unpaused") {
            let (before, after) = (before.max(0) as u64, after.max(0) as u64);
            return Err(TryError::Again(Again::Discarded(Declined::NotPaused { before, after })));
        }
        Ok(())
    }

    /// A position is valid only in the primary component, and -1 is no position.
    fn check_member(&mut self, seqno: Option<i64>, stage: &mut Stage) -> Result<(), TryError> {
        if !self.galera {
            return Ok(());
        }
        let status = stage.ask(|session| session.status("wsrep_cluster_status"))?.unwrap_or_default();
        let why = match seqno.unwrap_or(-1) {
            _ if status != "Primary" => Declined::OutsidePrimary { status },
            seqno @ ..0 => Declined::NoPosition { shown: format!("wsrep_last_committed is {seqno}") },
            _ => return Ok(()),
        };
        Err(TryError::Again(Again::Discarded(why)))
    }

    /// True while the killed session of an earlier try still exists: a further try would only wait behind it.
    fn still_hangs(&mut self) -> bool {
        let Some(id) = *self.hanging else { return false };
        let others = self.observer.others().unwrap_or_default();
        let there = others.iter().any(|other| other.session == u64::from(id));
        *self.hanging = Some(id).filter(|_| there);
        there
    }

    /// True if a DDL statement has been running for long: pausing the provider would wait for it and hold commits
    /// meanwhile.
    fn has_long_ddl(&mut self) -> bool {
        let others = self.observer.others().unwrap_or_default();
        others.iter().any(|other| other.for_ms > LONG_DDL_MS && is_ddl(other))
    }

    /// Waits briefly for an instant without any DDL.
    fn wait_for_quiet(&mut self) {
        let until = Instant::now() + QUIET;
        while Instant::now() < until {
            let others = self.observer.others().unwrap_or_default();
            if !others.iter().any(is_ddl) {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
