//! The redo that would be sent if the copy were complete now: in the progress, and in the logs of both hosts if more is
//! written than can be sent.
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Checkpoints, LOOK};
use crate::snapshot::online::stall::{Left, Sends};
use crate::threads::lock;

impl Checkpoints<'_> {
    /// The loop of a thread that only tells this, until [`Checkpoints::stop`]: recovery starts at the first checkpoint.
    pub fn tell(&self) {
        while !self.stop.load(Ordering::Acquire) && self.cancel.check().is_ok() {
            self.tell_redo();
            std::thread::sleep(LOOK);
        }
    }

    /// Nothing more is told once the copy is complete: then the rounds do.
    pub(super) fn tell_redo(&self) {
        if self.out.is_fixed() {
            return;
        }
        let newest = self.newest.load(Ordering::Acquire);
        let end = self.tail.current();
        let redo = end.0.saturating_sub(newest);
        self.sink.expect_redo(redo, false);
        let mut stall = lock(&self.stall);
        if !stall.is_due(Instant::now()) || end.0 == 0 {
            return;
        }
        let Some(bytes) = self.sink.left() else { return };
        let (rate, speeds) = (self.prices().link(), self.sink.rate());
        let limited = speeds.limit.is_some_and(|limit| speeds.link.is_none_or(|link| limit <= link));
        let sends = Sends { rate, limited, cannot_ask: self.lock().figures.refused.is_some() };
        // Redo that is sent while it is written is no longer left.
        let left = Left { bytes, redo: redo.min(bytes), end };
        if let Some(words) = stall.look(left, sends, Instant::now()) {
            self.sink.tell(&words);
        }
    }
}
