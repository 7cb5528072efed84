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
use super::lister::Lister;
use super::listing::{self, Roots};
use super::locking::{Again, Locking, TRY_MAX, Tried, TryError};
use super::stage::Stage;
use super::tail::TailState;
use crate::snapshot::copy::files::CopyFiles;
use crate::snapshot::copy::pages::Copier;
use crate::snapshot::declined::SnapshotError;
use crate::sql::Session;

/// What a try needs.
pub struct Settle<'a, 'r> {
    /// The locks.
    pub locking: Locking<'a>,
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
    /// It writes a binary log.
    pub log_bin: bool,
    /// Its redo log is encrypted: page numbers in it cannot be relied on, so imports are not looked for.
    pub encrypted: bool,
}

impl Settle<'_, '_> {
    /// Makes one try.
    ///
    /// # Errors
    /// A [`Declined`](crate::snapshot::declined::Declined) reason, or the transfer is over.
    pub fn attempt(&mut self) -> Result<Tried, SnapshotError> {
        if let Some(held) = self.locking.hindrance()? {
            return Ok(Tried::Again(Again::Held(held), Duration::ZERO));
        }
        self.catch_up()?;
        let mut stage = Stage::open(self.locking.login, TRY_MAX, self.locking.cancel)?;
        let result = self.once(&mut stage);
        // Whatever happened, the locks are released before anything else.
        match self.locking.release(&mut stage, result) {
            (Ok(point), held) => Ok(Tried::Done(Box::new(ConsistencyPoint { ddl_held: held, ..point }))),
            (Err(error), held) => {
                self.tail.go_on();
                Ok(Tried::Again(self.locking.again(error, &stage)?, held))
            }
        }
    }

    /// Copies what changed since the last listing, without a lock, so that little is left for the consistency point.
    fn catch_up(&mut self) -> anyhow::Result<()> {
        let todo = self.lister.refresh(self.catalog)?;
        self.copy.pages(self.catalog, &todo.pages, || Ok(()))?;
        self.copy.small(self.catalog, &todo.small)?;
        self.copy.small(self.catalog, &todo.late)?;
        if !self.encrypted {
            checks::look_ahead(self.catalog, self.dirty, self.copy.copier.threads)?;
        }
        Ok(())
    }

    /// The steps of a try. The caller ends the stage.
    fn once(&mut self, stage: &mut Stage) -> Result<ConsistencyPoint, TryError> {
        let (granting, seqno) = self.locking.hold(stage)?;
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
        self.locking.check_unmoved(seqno, stage)?;
        let max = stage.ask(Session::log_position)?.current;
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
        let copied = copy.pages(self.catalog, &todo.pages, || Ok(()));
        let copied = copied.and_then(|()| copy.small(self.catalog, &todo.small));
        outer.take_damaged(copy);
        copied
    }
}
