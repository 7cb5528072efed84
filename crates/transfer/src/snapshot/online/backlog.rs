//! Redo that waits while the donor writes more of it than can be sent: since when that has not become less, and what both
//! hosts are told.
use std::time::Instant;

use super::estimate::Prices;
use crate::human::{size, span};

/// Both hosts are told if sending the redo takes longer than this many seconds and redo is written faster than it can
/// be sent.
const TELL_FROM_S: f64 = 10.0;

/// The redo that waits to be sent, from estimate to estimate.
#[derive(Debug)]
pub struct Backlog {
    /// The fewest bytes that waited at any estimate; `None` before the first one.
    least: Option<u64>,
    /// It has been less than at the estimate before.
    shrank: bool,
    since: Instant,
}

impl Backlog {
    /// Until the first estimate, which is made when the files are copied, it has only grown.
    pub fn new(copy_began: Instant) -> Backlog {
        Backlog { least: None, shrank: false, since: copy_began }
    }

    /// So many bytes wait now.
    pub fn note(&mut self, bytes: u64, now: Instant) {
        if self.least.is_some_and(|least| bytes < least) {
            (self.shrank, self.since) = (true, now);
        }
        self.least = Some(self.least.map_or(bytes, |least| least.min(bytes)));
    }

    /// What both hosts are told if all of it, `bytes`, is sent now. `None` if it is sent faster than it is written, or soon
    /// sent.
    pub fn in_words(&self, prices: Prices, bytes: u64, now: Instant) -> Option<String> {
        let seconds = bytes as f64 / prices.link();
        if prices.written <= prices.link() || seconds <= TELL_FROM_S {
            return None;
        }
        let rate = |bytes: f64| bytes / 1e6;
        let stuck = span(now.saturating_duration_since(self.since));
        let stuck = match self.shrank {
            true => format!("for {stuck}"),
            false => format!("since the copy began {stuck} ago"),
        };
        Some(format!(
            "the donor writes {:.1} MB/s of redo and {:.1} MB/s can be sent: pages become dirty faster than they are sent, and \
             {stuck} the redo that waits has not become less; {} of redo are sent, in about {seconds:.0} s (hint: a higher \
             rlimit, a faster link or less load on the donor would help)",
            rate(prices.written),
            rate(prices.link()),
            size(bytes),
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn it_is_said_since_when_nothing_has_become_less() {
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        let slow = Prices::new(None, Some(10_000_000), 20e6);
        let mut backlog = Backlog::new(began);
        backlog.note(300 * MIB, after(84));
        let words = backlog.in_words(slow, 300 * MIB, after(84)).unwrap();
        assert_eq!(
            words,
            "the donor writes 20.0 MB/s of redo and 10.0 MB/s can be sent: pages become dirty faster than they are sent, and \
             since the copy began 84.0 s ago the redo that waits has not become less; 300.0 MiB of redo are sent, in about 31 s \
             (hint: a higher rlimit, a faster link or less load on the donor would help)"
        );
        // A round made it less, the next ones did not.
        backlog.note(200 * MIB, after(100));
        backlog.note(200 * MIB, after(110));
        backlog.note(250 * MIB, after(115));
        let words = backlog.in_words(slow, 250 * MIB, after(120)).unwrap();
        assert!(
            words.contains("and for 20.0 s the redo that waits has not become less; 250.0 MiB"),
            "{words}"
        );
    }

    #[test]
    fn nothing_is_said_of_what_ends_soon() {
        let backlog = Backlog::new(Instant::now());
        let said = |prices, bytes| backlog.in_words(prices, bytes, Instant::now()).is_some();
        assert!(said(Prices::new(None, Some(10_000_000), 20e6), 300 * MIB));
        assert!(!said(Prices::new(None, Some(10_000_000), 20e6), 90 * MIB), "soon sent");
        assert!(!said(Prices::new(None, Some(10_000_000), 5e6), 300 * MIB), "sent faster than it is written");
    }
}
