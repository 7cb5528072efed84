//! Whether the server is asked for a checkpoint now: what the redo since the last one costs, and what a newer one would cost.
use std::sync::atomic::Ordering;
use std::time::Instant;

use formats::Lsn;

use super::{Checkpoints, ESTIMATE_EVERY};
use crate::human::size;
use crate::snapshot::online::dirty::Touched;
use crate::snapshot::online::estimate::{Again, Prices, Redo};
use crate::snapshot::online::holding::worth_holding;
use crate::snapshot::online::outlook::recovery_in_words;

/// From this many bytes of redo on, both hosts are told why no checkpoint is requested.
const WORTH_TELLING: u64 = 4 << 20;

impl Checkpoints<'_> {
    /// The reason to ask for a checkpoint now, if there is one.
    pub(super) fn is_due(&self) -> Option<String> {
        let mut state = self.lock();
        if state.figures.refused.is_some() {
            return None;
        }
        let strained = self.sink.is_strained();
        if state.wanted && !strained {
            state.wanted = false;
            return Some("the copy is complete".to_owned());
        }
        // Nothing is asked of the server while it holds locks for us.
        if self.out.is_fixed() || state.estimated.elapsed() < ESTIMATE_EVERY {
            return None;
        }
        state.estimated = Instant::now();
        let copied = self.copied.load(Ordering::Relaxed);
        let left = state.all.saturating_sub(copied) as f64;
        let left = left * state.copy_began.elapsed().as_secs_f64() / copied.max(1) as f64;
        let nearly_done = copied > 0 && left <= state.figures.took.as_secs_f64() * 1.5 + 0.2;
        let first = state.figures.made == 0;
        let done = copied as f64 / state.all.max(copied).max(1) as f64;
        drop(state);
        if !first && !nearly_done && !self.spool.is_nearly_full() {
            return None;
        }
        let newest = Lsn(self.newest.load(Ordering::Acquire));
        let redo = self.redo_from(newest);
        // The server has said how much redo exists before the tail has read it.
        let end = self.tail.current().max(self.began_at);
        let redo = Redo { bytes: redo.bytes.max(end.0.saturating_sub(newest.0)), ..redo };
        let known = self.dirty.noted() >= self.began_at;
        let prices = self.prices();
        // Pages that this redo changes are not copied before the first estimate. Where the spool has no more room, they are
        // read again in any case.
        let none = self.undecided.load(Ordering::Acquire) || self.spool.is_nearly_full();
        let again = if none { Again::default() } else { self.copied_before(redo, done) };
        let Some(worth) = prices.ask_early(redo, again) else {
            if first && known {
                self.tell_that_it_costs_more(&prices, redo);
            }
            return None;
        };
        if strained {
            self.tell_of_strain();
            return None;
        }
        if first {
            self.lock().hold_until = Instant::now() + worth_holding(prices, redo, self.page_size);
        }
        Some(format!(
            "{} of redo since the last one{} would take about {:.1} s to send and to replay",
            size(redo.bytes),
            // The pages are not known until the tail has read the redo.
            if known { format!(" ({})", recovery_in_words(&prices, redo)) } else { String::new() },
            worth.as_secs_f64()
        ))
    }

    fn tell_that_it_costs_more(&self, prices: &Prices, redo: Redo) {
        if redo.bytes >= WORTH_TELLING && !std::mem::replace(&mut self.lock().told, true) {
            self.sink.tell(&format!(
                "redo: {} since the donor's last checkpoint ({}): a newer one would save less than it costs",
                size(redo.bytes),
                recovery_in_words(prices, redo)
            ));
        }
    }

    fn tell_of_strain(&self) {
        if !std::mem::replace(&mut self.lock().told_of_strain, true) {
            self.sink.tell(
                "redo: a newer checkpoint would save more than it costs, but the donor's server is strained: it is asked for one \
                 once it is calm",
            );
        }
    }

    /// What would be read again if this part of the files has been copied.
    fn copied_before(&self, redo: Redo, part: f64) -> Again {
        let of = |number: u64| (number as f64 * part) as u64;
        let Touched { pages, spaces } = redo.touched;
        Again { bytes: of(pages * u64::from(self.page_size)), files: of(spaces) }
    }
}
