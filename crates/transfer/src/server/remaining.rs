//! How long a transfer will still take, for its log and for whoever watches it.
use super::status::Status;

/// A look at a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Milliseconds since it began.
    pub at_ms: u64,
    /// Bytes that were left.
    pub left: u64,
}

impl Look {
    /// At this status.
    pub fn at(status: &Status) -> Look {
        Look { at_ms: status.elapsed_ms, left: left_of(status) }
    }

    /// Milliseconds until nothing is left, if it goes on as since an earlier look. `None` if no end is in sight: what is left has
    /// not become less, because a busy server writes as much redo as is sent, or because nothing is sent.
    pub fn time_left_since(self, earlier: Look) -> Option<u64> {
        let less = earlier.left.checked_sub(self.left).filter(|less| *less > 0)?;
        self.left.saturating_mul(self.at_ms.saturating_sub(earlier.at_ms)).checked_div(less)
    }
}

/// Bytes that are still to be handled.
pub fn left_of(status: &Status) -> u64 {
    status.total_bytes.saturating_sub(status.done_bytes)
}

/// Whether a time that is left can be told: not while the transfer depends on another program, and not while more work follows than
/// was known.
pub fn may_be_told(status: &Status) -> bool {
    left_of(status) > 0 && !status.phase.starts_with("waiting for ")
}

/// How fast what is left gets less, from one line of the log to the next.
#[derive(Default)]
pub(super) struct Remaining {
    before: Option<Look>,
}

impl Remaining {
    /// The first look, as soon as it is known how many bytes there are.
    pub fn begin(&mut self, status: &Status) {
        if self.before.is_none() && status.total_bytes > 0 {
            self.before = Some(Look::at(status));
        }
    }

    /// Milliseconds until nothing is left, if it goes on as since the last look.
    pub fn after(&mut self, status: &Status) -> Option<u64> {
        let now = Look::at(status);
        now.time_left_since(self.before.replace(now)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With `rlimit` below the redo's rate the lines said `about 0 s left` for minutes: 98 % were done, and that remained so.
    #[test]
    fn no_time_is_named_while_no_end_is_in_sight() {
        let at = |seconds: u64, done: u64, total: u64| Status {
            done_bytes: done << 20,
            total_bytes: total << 20,
            elapsed_ms: seconds * 1000,
            ..Status::default()
        };
        let mut remaining = Remaining::default();
        remaining.begin(&at(0, 0, 0));
        let mut left = |seconds, done, total| {
            let status = at(seconds, done, total);
            remaining.begin(&status);
            remaining.after(&status)
        };
        // The first line has nothing to compare with.
        assert_eq!(left(1, 0, 1000), None);
        assert_eq!(left(11, 500, 1000), Some(10_000));
        // Redo grows as fast as it is sent, or faster.
        assert_eq!(left(21, 980, 1000), Some(416));
        assert_eq!(left(31, 1180, 1200), None);
        assert_eq!(left(41, 1280, 1310), None);
        // Nothing is sent.
        assert_eq!(left(51, 1280, 1310), None);
        // More is sent than comes.
        assert_eq!(left(61, 1400, 1420), Some(20_000));
        assert_eq!(left(71, 1420, 1420), Some(0));
    }
}
