//! Asks the server for a checkpoint, and holds pages back until it is there.
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use formats::Lsn;

use super::{Checkpoints, ESTIMATE_EVERY, LOOK};
use crate::snapshot::online::holding::{Holding, worth_holding};
use crate::snapshot::online::sql_checks::grant_of;
use crate::sql::Session;
use crate::threads::{Thread, scoped};

/// How long the server may take to write a checkpoint.
const CHECKPOINT_PATIENCE: Duration = Duration::from_secs(120);

impl Checkpoints<'_> {
    /// Asks the server for a checkpoint, in a session of its own that is killed when the checkpoint is there: under
    /// load the end of the log runs ahead of the checkpoints, and the statement tries again and again
    /// (`checkpoint_now_set`, handler/ha_innodb.cc, MariaDB 10.11). A missing privilege or a timeout is reported and
    /// does no harm.
    pub(super) fn ask(&self, why: &str) {
        let began = Instant::now();
        self.lock().asking = true;
        let asked = self.try_ask(why);
        self.hold_for.store(0, Ordering::Release);
        let mut state = self.lock();
        state.asking = false;
        state.hold_until = Instant::now();
        match asked {
            Ok(()) => {
                state.figures.made += 1;
                state.figures.took = began.elapsed();
                tracing::info!("a checkpoint took {:.1} s", began.elapsed().as_secs_f64());
            }
            Err(e) => {
                self.sink.tell(&format!("cannot request a checkpoint: {e}; {why}"));
                state.figures.refused = Some(e);
            }
        }
    }

    /// Renews the estimate of how long pages are held: since the request the tail has read more redo, and the server
    /// has written pages.
    fn hold_on(&self, holding: &Holding, dirty_pages: Option<u64>) {
        let mut redo = self.redo_from(Lsn(self.newest.load(Ordering::Acquire)));
        // Until the tail has read the redo, only the server knows how many pages it changes.
        redo.touched.pages = redo.touched.pages.max(dirty_pages.unwrap_or(0));
        let worth = worth_holding(self.prices(), redo, self.page_size);
        let until = holding.until(Instant::now(), dirty_pages, worth);
        let mut state = self.lock();
        if state.figures.made == 0 {
            state.hold_until = state.hold_until.max(until);
        }
    }

    fn try_ask(&self, why: &str) -> Result<(), String> {
        let began = Instant::now();
        let mut observer = Session::open(self.login, CHECKPOINT_PATIENCE).map_err(|e| e.to_string())?;
        let mut session = Session::open(self.login, CHECKPOINT_PATIENCE).map_err(|e| e.to_string())?;
        let id = session.id();
        let target = observer.log_position().map_err(|e| e.to_string())?.current;
        let dirty_pages = observer.dirty_pages().map_err(|e| e.to_string())?;
        let holding = Holding::new(began, dirty_pages);
        self.sink.tell(&format!("the server is asked for a checkpoint: {why}"));
        self.dirty.cut();
        self.hold_for.store(target.0, Ordering::Release);
        self.hold_on(&holding, dirty_pages);
        self.undecided.store(false, Ordering::Release);
        let over = || {
            self.newest.load(Ordering::Acquire) >= target.0
                || self.stop.load(Ordering::Acquire)
                || self.cancel.check().is_err()
                || began.elapsed() > CHECKPOINT_PATIENCE
        };
        std::thread::scope(|scope| {
            let asked = scoped(scope, Thread::Checkpoint, move || Ok(session.checkpoint_now()));
            let mut estimated = began;
            while !asked.is_finished() && !over() {
                std::thread::sleep(LOOK);
                if estimated.elapsed() >= ESTIMATE_EVERY {
                    estimated = Instant::now();
                    let dirty_pages = observer.dirty_pages().ok().flatten();
                    self.hold_on(&holding, dirty_pages);
                }
                self.look();
                // An error is ignored here: the loop in `watch` tries again and reports it.
                let _ = self.make_room();
                self.tell_redo();
            }
            if !asked.is_finished()
                && let Err(e) = observer.kill(id)
            {
                tracing::debug!("the session that makes a checkpoint cannot be ended: {e}");
            }
            match asked.join() {
                Ok(Err(e)) if e.is_denied() => {
                    let account = observer.current_user().unwrap_or_default();
                    Err(format!(
                        "{e}; with {} the redo since the last one need not be sent",
                        grant_of(&account, &["SUPER"])
                    ))
                }
                Ok(Err(e)) if !e.is_lost() => Err(e.to_string()),
                Err(e) => Err(format!("{e:#}")),
                Ok(_) => {
                    self.look();
                    Ok(())
                }
            }
        })
    }
}
