//! Waiting for the redo up to the consistency point.
use std::time::{Duration, Instant};

use super::consistency_point::ConsistencyPoint;
use super::snapshot::Work;
use super::sql_checks;
use crate::snapshot::declined::{Declined, SnapshotError};

/// How long the server may take to write its log up to the end of the snapshot.
const LOG_PATIENCE: Duration = Duration::from_secs(30);

impl Work<'_> {
    /// Waits until the redo up to the end of the snapshot has been written to the sink.
    pub(super) fn reach(&mut self, point: &ConsistencyPoint) -> Result<(), SnapshotError> {
        self.copy.copier.sink.expect_redo(point.end.0.saturating_sub(self.out.from().lsn.0), true);
        self.out.release();
        let mut last = (self.state.reached(), Instant::now());
        while self.out.written() < point.end {
            self.cancel.check().map_err(anyhow::Error::from)?;
            (self.copy.copier.pace)()?;
            if self.state.reached() < point.end {
                let flushed = self.observer.flush_engine_logs();
                if flushed.is_ok() && self.facts.log_follows_flush {
                    self.state.is_written(point.end);
                }
                // The tail may be waiting for room in the spool, which waits for the link.
                let reached = self.state.reached();
                if reached > last.0 || self.out.is_full() {
                    last = (reached, Instant::now());
                }
                let waited = last.1.elapsed();
                if waited > LOG_PATIENCE {
                    if sql_checks::archives_redo(&mut self.observer).unwrap_or(false) {
                        return Err(Declined::RedoArchived.into());
                    }
                    return Err(Declined::RedoNotWritten { wanted: point.end, reached, waited }.into());
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}
