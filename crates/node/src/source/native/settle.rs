//! The settled moment: DDL, then commits, are held and the provider is paused; what has no redo is read, the end of
//! the redo and the position are noted, and everything goes on.
//!
//! Everything that can be done before is done before: the sessions are open, all files have been listed and copied
//! once, so that only what changed since is read here.
use std::time::{Duration, Instant};

use formats::Lsn;

use super::catalog::Catalog;
use super::checks::{self, Written};
use super::dirty::Dirty;
use super::listing::{self, Roots};
use super::sql::{Running, Session, SqlError};
use super::stage::Stage;
use super::tail::TailState;
use super::watchdog::Watchdog;
use crate::cancel::Cancel;
use crate::source::copy::files::CopyFiles;
use crate::source::declined::{Declined, SnapshotError};

/// Pause between two tries: long enough for what held the lock to end, different each time.
const AGAIN: [u64; 5] = [100, 170, 130, 290, 210];
/// A statement of DDL that has run this long is waited for before the provider is paused: pausing in front of it
/// would hold all commits for as long as it takes.
const LONG_MS: u64 = 300;

/// Moments that were not what they must be: a server that does not pause will not pause the next time either.
const DISCARDED_MAX: u32 = 4;
/// How long an instant without any DDL is waited for.
const QUIET: Duration = Duration::from_millis(700);

/// What the moment established and what it cost.
#[derive(Debug)]
pub struct Moment {
    /// End of the log when files were listed: file operations from here on concern a name that was listed.
    pub list_lsn: Lsn,
    /// Where the copy ends.
    pub end: Lsn,
    /// End of the log when the locks were let go.
    pub max: Lsn,
    /// The cluster's last committed write-set.
    pub seqno: Option<i64>,
    /// `gtid_binlog_state`, when there is a binary log.
    pub binlog_state: Option<String>,
    /// How long DDL was held and the provider paused.
    pub ddl_held: Duration,
    /// Of that, how long the server took to pause the provider and grant the lock.
    pub granting: Duration,
    /// How long commits of this server alone were held.
    pub commits_held: Duration,
    /// Time the listing took in it.
    pub listing: Duration,
    /// What may have been imported, to be looked at later.
    pub written: Vec<Written>,
    /// Files copied in it.
    pub files: usize,
    /// Tries it took.
    pub tries: u32,
    /// What failed tries held the provider for, together.
    pub failed_held: Duration,
}

/// Everything a moment needs.
pub struct Settle<'a> {
    /// Holds START.
    pub stage: &'a mut Stage,
    /// For questions while the other session is busy.
    pub observer: &'a mut Session,
    /// Where files are.
    pub roots: &'a Roots,
    /// What was copied.
    pub catalog: &'a mut Catalog,
    /// Copies what is new.
    pub copy: &'a CopyFiles<'a>,
    /// Pages that the redo changes.
    pub dirty: &'a Dirty,
    /// Told where to end.
    pub tail: &'a TailState,
    /// The server is a cluster member.
    pub galera: bool,
    /// It writes a binary log.
    pub log_bin: bool,
    /// Its redo log is encrypted: the page numbers in it cannot be relied on, so nobody asks for imports.
    pub encrypted: bool,
    /// How long to try.
    pub budget: Duration,
    /// Ends the transfer.
    pub cancel: &'a Cancel,
}

/// Why a try is made again.
enum Again {
    /// A lock was not granted, or the session was lost.
    Sql(SqlError),
    /// The moment was not what it must be.
    Discarded(Declined),
}

enum TryError {
    Again(Again),
    Over(SnapshotError),
}

impl From<SqlError> for TryError {
    fn from(e: SqlError) -> Self {
        TryError::Again(Again::Sql(e))
    }
}

impl From<anyhow::Error> for TryError {
    fn from(e: anyhow::Error) -> Self {
        TryError::Over(e.into())
    }
}

impl Settle<'_> {
    /// Tries until one moment was right or the budget is spent. No lock is held afterwards.
    ///
    /// # Errors
    /// A [`Declined`] reason, or the transfer is over.
    pub fn run(&mut self) -> Result<Moment, SnapshotError> {
        let deadline = Instant::now() + self.budget;
        let (mut tries, mut discarded) = (0, 0);
        let mut failed_held = Duration::ZERO;
        loop {
            tries += 1;
            self.cancel.check().map_err(anyhow::Error::from)?;
            self.wait_for_long_ddl(deadline)?;
            let watchdog = Watchdog::start(self.stage, self.observer, deadline);
            let result = self.once();
            self.copy.copier.sink.end_moment();
            // Whatever happened: the locks go first, everything else later.
            let ended = self.stage.end();
            drop(watchdog);
            let again = match (result, ended) {
                (Ok(moment), Ok(held)) => return Ok(Moment { ddl_held: held, tries, failed_held, ..moment }),
                (Ok(_), Err(e)) => Again::Sql(e),
                (Err(TryError::Over(e)), _) => return Err(e),
                (Err(TryError::Again(again)), ended) => {
                    failed_held += ended.unwrap_or_default();
                    again
                }
            };
            self.tail.go_on();
            discarded += u32::from(matches!(again, Again::Discarded(_)));
            if Instant::now() > deadline || discarded >= DISCARDED_MAX {
                return Err(self.give_up(again, tries).into());
            }
            self.prepare_again(&again, tries, deadline)?;
        }
    }

    /// One try. The caller ends the stage.
    fn once(&mut self) -> Result<Moment, TryError> {
        self.copy.copier.sink.begin_moment()?;
        self.stage.flush()?;
        self.wait_for_quiet();
        let before = self.desyncs()?;
        let asked = Instant::now();
        self.stage.block_ddl()?;
        let granting = asked.elapsed();
        let seqno = self.committed()?;
        self.check_paused(before)?;
        let list_lsn = self.stage.session().log_position()?.current;

        let listing_began = Instant::now();
        let listed = listing::list(self.roots)?;
        let listing = listing_began.elapsed();
        let todo = self.catalog.update(listed);
        let written =
            if self.encrypted { Vec::new() } else { checks::open_written(self.catalog, self.dirty) };
        let mut files = todo.pages.len() + todo.small.len();
        self.copy.pages(self.catalog, &todo.pages)?;
        self.copy.small(self.catalog, &todo.small)?;

        let commits_since = Instant::now();
        self.stage.block_commit()?;
        let todo = self.catalog.update_late(listing::list_late(self.roots)?);
        files += todo.late.len();
        self.copy.small(self.catalog, &todo.late)?;
        self.tail.hold();
        let end = self.stage.session().log_position()?.current;
        self.tail.end_at(end);
        let binlog_state = if self.log_bin { Some(self.stage.session().gtid_binlog_state()?) } else { None };
        let after = self.committed()?;
        let max = self.stage.session().log_position()?.current;
        if let (Some(before), Some(after)) = (seqno, after)
            && before != after
            && !cfg!(feature = "unpaused")
        {
            return Err(TryError::Again(Again::Discarded(Declined::PositionMoved { before, after })));
        }
        let commits_held = commits_since.elapsed();
        let (ddl_held, failed_held) = (Duration::ZERO, Duration::ZERO);
        Ok(Moment {
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

    fn desyncs(&mut self) -> Result<Option<i64>, SqlError> {
        if self.galera { self.stage.session().status_number("wsrep_desync_count") } else { Ok(None) }
    }

    fn committed(&mut self) -> Result<Option<i64>, SqlError> {
        if self.galera { self.stage.session().status_number("wsrep_last_committed") } else { Ok(None) }
    }

    /// The proof that the server paused the provider for us: it desyncs by one when it does.
    fn check_paused(&mut self, before: Option<i64>) -> Result<(), TryError> {
        let after = self.desyncs()?;
        match (before, after) {
            (Some(before), Some(after)) if after != before + 1 && !cfg!(feature = "unpaused") => {
                let (before, after) = (before.max(0) as u64, after.max(0) as u64);
                Err(TryError::Again(Again::Discarded(Declined::NotPaused { before, after })))
            }
            _ => Ok(()),
        }
    }

    fn wait_for_long_ddl(&mut self, deadline: Instant) -> Result<(), SnapshotError> {
        let began = Instant::now();
        while Instant::now() < deadline {
            let running = self.observer.running().unwrap_or_default();
            let Some(long) = running.iter().find(|r| r.for_ms > LONG_MS && is_ddl(r)) else { break };
            tracing::debug!("waiting for {}", describe(long));
            self.cancel.sleep(Duration::from_millis(100)).map_err(anyhow::Error::from)?;
        }
        if began.elapsed() > Duration::from_secs(1) {
            tracing::info!("waited {:.1} s for a long DDL statement to end", began.elapsed().as_secs_f64());
        }
        Ok(())
    }

    /// Pausing the provider waits for DDL that runs, and holds commits meanwhile: better to begin where none does.
    fn wait_for_quiet(&mut self) {
        let until = Instant::now() + QUIET;
        while Instant::now() < until {
            let running = self.observer.running().unwrap_or_default();
            if !running.iter().any(is_ddl) {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn prepare_again(&mut self, again: &Again, tries: u32, deadline: Instant) -> Result<(), SnapshotError> {
        match again {
            Again::Sql(e) if e.is_lock_wait() => {}
            Again::Sql(e) if e.is_lost() => {
                tracing::warn!("the session with the backup locks was lost ({e}); a new one is opened");
                self.stage.reopen()?;
            }
            Again::Sql(e) => return Err(Declined::SessionLost(e.to_string()).into()),
            Again::Discarded(why) => tracing::info!("settled moment discarded: {why}"),
        }
        let pause = AGAIN[tries as usize % AGAIN.len()];
        self.cancel.sleep(Duration::from_millis(pause)).map_err(anyhow::Error::from)?;
        let started = self.stage.start(deadline, self.cancel).map_err(anyhow::Error::from)?;
        match started {
            Err(e) if e.is_lock_wait() => Err(self.no_moment(tries).into()),
            Err(e) => Err(Declined::SessionLost(e.to_string()).into()),
            Ok(()) => Ok(()),
        }
    }

    fn give_up(&mut self, again: Again, tries: u32) -> Declined {
        match again {
            Again::Discarded(why) => why,
            Again::Sql(_) => self.no_moment(tries),
        }
    }

    fn no_moment(&mut self, tries: u32) -> Declined {
        let holder = holder(&self.observer.running().unwrap_or_default());
        Declined::NoSettledMoment { budget: self.budget, tries, holder }
    }
}

/// What most likely holds the lock, in words.
pub fn holder(running: &[Running]) -> String {
    match running.iter().find(|r| is_ddl(r)).or(running.first()) {
        Some(found) => format!("held by {}", describe(found)),
        None => {
            "no statement was seen that holds it (the PROCESS privilege shows those of others)".to_owned()
        }
    }
}

fn describe(running: &Running) -> String {
    let Running { session, user, for_ms, state, statement } = running;
    format!("session {session} of {user}, for {:.1} s, {state:?}: {statement}", *for_ms as f64 / 1000.0)
}

fn is_ddl(running: &Running) -> bool {
    let word = running.statement.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    let words = ["ALTER", "OPTIMIZE", "CREATE", "DROP", "TRUNCATE", "RENAME", "REPAIR", "ANALYZE", "FLUSH"];
    // One that waits itself, perhaps for us, will not end by being waited for.
    words.contains(&word.as_str()) && !running.state.starts_with("Waiting for")
}
