//! From the copy to the consistency point: the barrier before the copy, the tries, and copying while other sessions
//! hold the locks.
use std::time::{Duration, Instant};

use super::barrier::barrier;
use super::catalog::Catalog;
use super::consistency_point::ConsistencyPoint;
use super::listing;
use super::locking::{Locking, Tried};
use super::rounds::Rounds;
use super::settle::Settle;
use super::snapshot::{ANSWER, Work};
use super::wait::Wait;
use crate::snapshot::declined::SnapshotError;
use crate::sql::Session;

/// How often new and changed files are copied while the consistency point is waited for.
const KEEP_UP_EVERY: Duration = Duration::from_secs(15);

impl Work<'_> {
    /// The consistency point. It is waited for as long as another session holds what it needs.
    pub(super) fn settle(&mut self, catalog: &mut Catalog) -> Result<ConsistencyPoint, SnapshotError> {
        let mut wait = Wait::new(self.options.budget, self.cancel, self.copy.copier.sink);
        let mut kept_up = Instant::now();
        loop {
            wait.tries += 1;
            if self.observer.ping().is_err() {
                self.observer = Session::open(&self.options.login, ANSWER)?;
            }
            let (again, held) = match self.attempt(catalog)? {
                Tried::Done(point) => {
                    let (tries, failed_held) = (wait.tries, wait.failed_held);
                    return Ok(ConsistencyPoint { tries, failed_held, ..*point });
                }
                Tried::Again(again, held) => (again, held),
            };
            let ours = [Some(self.state.session()), self.hanging].into_iter().flatten().collect();
            wait.after(again, held, &mut self.observer, ours)?;
            if kept_up.elapsed() >= KEEP_UP_EVERY {
                self.keep_up(catalog)?;
                kept_up = Instant::now();
            }
        }
    }

    fn attempt(&mut self, catalog: &mut Catalog) -> Result<Tried, SnapshotError> {
        if !self.barrier {
            if let Some(again) = barrier(&self.options.login, self.cancel)? {
                return Ok(Tried::Again(again, Duration::ZERO));
            }
            self.barrier = true;
            self.copy_again_what_was_written(catalog)?;
        }
        Settle {
            locking: Locking {
                login: &self.options.login,
                observer: &mut self.observer,
                sink: self.copy.copier.sink,
                galera: self.facts.galera,
                desynced: self.options.desynced,
                hanging: &mut self.hanging,
                cancel: self.cancel,
            },
            roots: &self.options.roots,
            lister: &mut self.lister,
            catalog,
            copy: self.copy,
            dirty: self.dirty,
            tail: self.state,
            log_bin: self.facts.log_bin,
            encrypted: self.encrypted,
        }
        .attempt()
    }

    /// Copies tables again because the copy began without the barrier: a table may have been imported into a file of
    /// which a part was copied before and a part after.
    fn copy_again_what_was_written(&mut self, catalog: &mut Catalog) -> Result<(), SnapshotError> {
        catalog.update(listing::list(&self.options.roots)?);
        let files = catalog.again_written();
        tracing::info!(
            "{files} tables were written to before BACKUP STAGE START was granted and are copied again"
        );
        self.passes(catalog).map(drop)
    }

    /// Used while the consistency point is waited for: copies new and changed files, and bounds the redo to replay,
    /// with checkpoints that the server makes by itself.
    fn keep_up(&mut self, catalog: &mut Catalog) -> Result<(), SnapshotError> {
        self.passes(catalog)?;
        if let Some(checkpoints) = self.checkpoints {
            let rounds = Rounds { asks: false, ..self.redo_rounds(checkpoints) };
            rounds.run(catalog)?;
        }
        Ok(())
    }
}
