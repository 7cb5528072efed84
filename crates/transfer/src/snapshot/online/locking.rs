//! One try to hold DDL and the provider with the backup locks, whatever is read under them.
//!
//! [`super::settle`] reads files and the end of the redo; the logical snapshot opens transactions. What the locks need, what proves
//! that they were held, and what to do if they were not granted is the same.
use std::time::{Duration, Instant};

use super::consistency_point::ConsistencyPoint;
use super::holders::{LONG_DDL_MS, is_ddl};
use super::stage::Stage;
use crate::cancel::Cancel;
use crate::snapshot::declined::{Declined, SnapshotError};
use crate::snapshot::sink::SnapshotSink;
use crate::sql::Login;
use crate::sql::{Session, SqlError};

/// How long one try may take, from its login to the release of the locks.
pub const TRY_MAX: Duration = Duration::from_secs(60);
/// How long to wait for an instant without any DDL.
const QUIET: Duration = Duration::from_millis(700);

/// What a try needs, whatever it reads.
pub struct Locking<'a> {
    /// For the session that takes the locks.
    pub login: &'a Login,
    /// For queries while the session with the locks is busy.
    pub observer: &'a mut Session,
    /// Is told that the consistency point begins and ends.
    pub sink: &'a dyn SnapshotSink,
    /// The server is a cluster member.
    pub galera: bool,
    /// `wsrep_desync_count` if no other session has desynced the provider.
    pub desynced: i64,
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
pub enum Tried<T = ConsistencyPoint> {
    /// The consistency point is complete.
    Done(Box<T>),
    /// The try failed; the provider may have been paused for this long.
    Again(Again, Duration),
}

/// Why a try ends early.
pub enum TryError {
    /// Another try may succeed.
    Again(Again),
    /// None will.
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

impl Locking<'_> {
    /// What makes a try hopeless, before anything is locked.
    ///
    /// # Errors
    /// Cancelled.
    pub fn hindrance(&mut self) -> Result<Option<Held>, SnapshotError> {
        self.cancel.check().map_err(anyhow::Error::from)?;
        Ok(match (self.has_long_ddl(), self.still_hangs()) {
            (true, _) => Some(Held::Ddl),
            (_, true) => Some(Held::Paused),
            _ => None,
        })
    }

    /// Holds DDL and pauses the provider. Returns how long the server took to grant that, and the position.
    ///
    /// # Errors
    /// The locks were not granted, or do not prove anything. The caller releases the stage.
    pub fn hold(&mut self, stage: &mut Stage) -> Result<(Duration, Option<i64>), TryError> {
        self.sink.begin_consistency_point()?;
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
        Ok((granting, seqno))
    }

    /// Fails if the position has moved under the locks.
    ///
    /// # Errors
    /// It has, or it is no position of the cluster.
    pub fn check_unmoved(&mut self, before: Option<i64>, stage: &mut Stage) -> Result<(), TryError> {
        let after = self.committed(stage)?;
        if let (Some(before), Some(after)) = (before, after)
            && before != after
            && !cfg!(feature = "unpaused")
        {
            return Err(TryError::Again(Again::Discarded(Declined::PositionMoved { before, after })));
        }
        self.check_member(after, stage)
    }

    /// Releases the locks, whatever happened under them. Returns how long the provider was paused.
    ///
    /// # Errors
    /// What happened, or the locks were lost before.
    pub fn release<T>(
        &mut self,
        stage: &mut Stage,
        result: Result<T, TryError>,
    ) -> (Result<T, TryError>, Duration) {
        self.sink.end_consistency_point();
        let ended = stage.end();
        let held = stage.paused_for();
        if !held.is_zero() {
            self.sink.paused("replication", held);
        }
        // If END succeeds, the locks were held without a gap.
        (result.and_then(|done| ended.map(|()| done).map_err(TryError::from)), held)
    }

    /// Why another try is needed. A session that may be waiting in the provider is killed.
    ///
    /// # Errors
    /// None will succeed.
    pub fn again(&mut self, error: TryError, stage: &Stage) -> Result<Again, SnapshotError> {
        // A cancelled transfer loses its session too; the cancellation is the reason to report.
        self.cancel.check().map_err(anyhow::Error::from)?;
        match error {
            TryError::Over(e) => Err(e),
            TryError::Again(again) => {
                if matches!(again, Again::TooLong { .. } | Again::Held(Held::Paused)) {
                    // The server ends it as soon as the provider returns.
                    let killed = self.observer.kill(stage.id());
                    tracing::debug!("the session {} with the backup locks is killed: {killed:?}", stage.id());
                    *self.hanging = Some(stage.id());
                }
                Ok(again)
            }
        }
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
