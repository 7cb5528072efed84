//! What redo costs, and what a newer checkpoint would: both in seconds until the joiner is Synced.
//!
//! The figures of a machine are rough; what counts is their order. Redo travels and is applied, page by page of the joiner's
//! disk and tablespace by tablespace; a newer checkpoint makes the donor's server write pages, and those that were copied
//! before are sent again.
use std::time::Duration;

use super::dirty::Touched;

/// Bytes a second of a link of which nothing is known yet.
const LINK: f64 = 117e6;
/// Bytes a second of redo that a server parses.
const PARSE: f64 = 200e6;
/// Seconds for a page that recovery reads, changes and writes.
const APPLY_PAGE: f64 = 60e-6;
/// Seconds for a tablespace that recovery opens and syncs.
const APPLY_SPACE: f64 = 800e-6;
/// Seconds for a page that the donor's server writes for a checkpoint.
const WRITE_PAGE: f64 = 55e-6;
/// Seconds for a file that is opened to read pages of it again.
const OPEN: f64 = 200e-6;
/// What is saved must be worth the trouble, in seconds, and as a part of all.
const LEAST: f64 = 0.1;
const LEAST_PART: f64 = 0.1;

/// Redo that the joiner's server would replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redo {
    /// Bytes of it.
    pub bytes: u64,
    /// What it touches.
    pub touched: Touched,
}

/// Pages that would be read and sent again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Again {
    /// Bytes of them.
    pub bytes: u64,
    /// Files that they are in.
    pub files: u64,
}

/// What things cost here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prices {
    /// Bytes a second that can be sent.
    link: f64,
    /// Bytes a second of redo that the server writes.
    pub written: f64,
}

impl Prices {
    /// `link`: bytes a second that it carries, as far as that is known; `limit`: that may be sent.
    pub fn new(link: Option<u64>, limit: Option<u64>, written: f64) -> Prices {
        let link = link.map_or(LINK, |link| link.max(1) as f64);
        Prices { link: limit.map_or(link, |limit| link.min(limit.max(1) as f64)), written }
    }

    /// Bytes a second that can be sent.
    pub fn link(&self) -> f64 {
        self.link
    }

    /// To send redo and to replay it.
    pub fn redo(&self, redo: Redo) -> f64 {
        let Touched { pages, spaces } = redo.touched;
        let bytes = redo.bytes as f64;
        bytes / self.link + bytes / PARSE + pages as f64 * APPLY_PAGE + spaces as f64 * APPLY_SPACE
    }

    /// To start at a newer checkpoint that is there: pages are sent again, the rest of the redo too, and what is written
    /// meanwhile.
    pub fn round(&self, again: Again, rest: Redo) -> f64 {
        let sending = again.bytes as f64 / self.link + again.files as f64 * OPEN;
        let written = (sending * self.written).min(1e15) as u64;
        sending + self.redo(Redo { bytes: rest.bytes + written, ..rest })
    }

    /// To have the server make a checkpoint: the pages it writes.
    pub fn checkpoint(&self, touched: Touched) -> f64 {
        touched.pages as f64 * WRITE_PAGE
    }

    /// Whether to ask for a checkpoint while files are copied, so that this redo need not be sent; how long the pages that it
    /// writes are better not read until then.
    pub fn ask_early(&self, redo: Redo) -> Option<Duration> {
        let saved = self.redo(redo);
        pays(saved, self.checkpoint(redo.touched)).then(|| Duration::from_secs_f64(saved.min(60.0)))
    }
}

/// Whether something that costs `instead` saves enough of `now`.
pub fn pays(now: f64, instead: f64) -> bool {
    now - instead >= LEAST && instead <= now * (1.0 - LEAST_PART)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    fn redo(megabytes: u64, pages: u64, spaces: u64) -> Redo {
        Redo { bytes: megabytes * MB, touched: Touched { pages, spaces } }
    }

    #[test]
    fn much_redo_is_worth_a_checkpoint_and_little_is_not() {
        let fast = Prices::new(Some(500 * MB), None, 0.0);
        assert!(fast.ask_early(redo(741, 47_000, 4)).is_some());
        assert!(fast.ask_early(redo(2, 100, 10)).is_none());
        // Little redo over very many tablespaces.
        assert!(fast.ask_early(redo(33, 9_000, 7_000)).is_some());
        // The slower the link, the less of it.
        let slow = Prices::new(Some(500 * MB), Some(MB), 0.0);
        assert!(slow.ask_early(redo(2, 100, 10)).is_some());
        assert_eq!(slow.link(), MB as f64);
    }

    #[test]
    fn a_round_pays_while_it_makes_the_rest_smaller() {
        // 2 MB/s can be sent and 20 are written, all over 218 MB: sending them again takes as long as it did.
        let hot = Prices::new(None, Some(2 * MB), 20.0 * MB as f64);
        let stay = hot.redo(redo(2180, 13_000, 4));
        let all = Again { bytes: 218 * MB, files: 4 };
        assert!(!pays(stay, hot.round(all, redo(10, 500, 4))));
        // The same, but it is 10 MB that are changed over and over.
        let few = Again { bytes: 10 * MB, files: 4 };
        assert!(pays(stay, hot.round(few, redo(10, 500, 4))));
        // And again, until there is nothing to gain.
        let stay = hot.redo(redo(110, 600, 4));
        assert!(!pays(stay, hot.round(few, redo(10, 500, 4))));
    }

    #[test]
    fn what_must_be_sent_again_counts() {
        let prices = Prices::new(None, None, 0.0);
        let (now, rest) = (prices.redo(redo(100, 6_000, 4)), redo(1, 10, 4));
        assert!(pays(now, prices.round(Again { bytes: 20 * MB, files: 4 }, rest)));
        assert!(!pays(now, prices.round(Again { bytes: 900 * MB, files: 4 }, rest)));
    }
}
