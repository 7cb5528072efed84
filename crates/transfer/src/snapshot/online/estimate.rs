//! The cost of redo, and of a newer checkpoint, both in seconds until the joiner is Synced.
//!
//! The constants are rough, but they only have to show which way is cheaper; a joiner's disk that is slower than they
//! assume is measured (decision 0052). Redo is sent and applied, page by page of
//! the joiner's disk and tablespace by tablespace. A newer checkpoint makes the donor's server write pages, and those
//! that were copied before are sent again.
use std::time::Duration;

use super::dirty::Touched;

/// Assumed speed of the link in bytes per second, until it is measured.
const LINK: f64 = 117e6;
/// Bytes of redo per second that a server parses.
const PARSE: f64 = 200e6;
/// Seconds per page that recovery reads, changes and writes, on a fast disk or one that is not known.
const APPLY_PAGE: f64 = 60e-6;
/// What recovery does to the disk for a page, in reads of one.
const APPLY_READS: u32 = 2;
/// The longest that counts for a read.
const READ_MAX: Duration = Duration::from_secs(1);
/// Seconds per tablespace that recovery opens and syncs.
const APPLY_SPACE: f64 = 800e-6;
/// Seconds per page that the donor's server writes for a checkpoint.
const WRITE_PAGE: f64 = 55e-6;
/// Seconds per file that is opened to read pages of it again.
const OPEN: f64 = 200e-6;
/// A saving must be at least this many seconds, and this part of the whole.
const LEAST: f64 = 0.1;
const LEAST_PART: f64 = 0.1;

/// Redo that the joiner's server would replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redo {
    /// Bytes of redo.
    pub bytes: u64,
    /// What it touches.
    pub touched: Touched,
}

/// Pages that would be read and sent again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Again {
    /// Bytes of these pages.
    pub bytes: u64,
    /// Number of files that contain them.
    pub files: u64,
}

/// Costs on this donor and link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prices {
    /// Bytes per second that can be sent.
    link: f64,
    /// Bytes of files per second that can be read and sent.
    pages: f64,
    /// Bytes of redo per second that the server writes.
    pub written: f64,
    /// Seconds per page of the joiner's recovery.
    apply_page: f64,
}

impl Prices {
    /// `link`: measured speed in bytes per second, if it is known; `limit`: bytes per second that may be sent.
    pub fn new(link: Option<u64>, limit: Option<u64>, written: f64) -> Prices {
        let link = link.map_or(LINK, |link| link.max(1) as f64);
        let link = limit.map_or(link, |limit| link.min(limit.max(1) as f64));
        Prices { link, pages: link, written, apply_page: APPLY_PAGE }
    }

    /// The same while files are read at most at `rate` bytes per second.
    pub fn reading_at(self, rate: Option<u64>) -> Prices {
        Prices { pages: rate.map_or(self.pages, |rate| self.pages.min(rate.max(1) as f64)), ..self }
    }

    /// The same where a read of a page takes the joiner's disk so long; `None` if that was not measured.
    pub fn recovering_at(self, page_time: Option<Duration>) -> Prices {
        let page = page_time.map_or(0.0, |time| (time.min(READ_MAX) * APPLY_READS).as_secs_f64());
        Prices { apply_page: self.apply_page.max(page), ..self }
    }

    /// How long that read takes, if the joiner's disk is slower than is assumed without a measurement.
    pub fn slow_page(&self) -> Option<Duration> {
        (self.apply_page > APPLY_PAGE).then(|| Duration::from_secs_f64(self.apply_page) / APPLY_READS)
    }

    /// Bytes per second that can be sent.
    pub fn link(&self) -> f64 {
        self.link
    }

    /// Seconds to send redo and to replay it.
    pub fn redo(&self, redo: Redo) -> f64 {
        redo.bytes as f64 / self.link + self.recovery(redo)
    }

    /// Seconds to replay redo that has arrived.
    pub fn recovery(&self, redo: Redo) -> f64 {
        let Touched { pages, spaces } = redo.touched;
        redo.bytes as f64 / PARSE + pages as f64 * self.apply_page + spaces as f64 * APPLY_SPACE
    }

    /// Seconds to move recovery to an existing newer checkpoint: pages are sent again, and so are the rest of the redo
    /// and what is written meanwhile.
    pub fn round(&self, again: Again, rest: Redo) -> f64 {
        let sending = again.bytes as f64 / self.pages + again.files as f64 * OPEN;
        let written = (sending * self.written).min(1e15) as u64;
        sending + self.redo(Redo { bytes: rest.bytes + written, ..rest })
    }

    /// Seconds for the server to make a checkpoint: the pages that it writes.
    pub fn checkpoint(&self, touched: Touched) -> f64 {
        touched.pages as f64 * WRITE_PAGE
    }

    /// `Some` if it pays to ask for a checkpoint while files are copied, so that this redo need not be sent. `again`: what
    /// of the pages that the redo changes was copied already and would be sent a second time. The value is the time that
    /// the redo would cost, at most 60 s.
    pub fn ask_early(&self, redo: Redo, again: Again) -> Option<Duration> {
        let saved = self.redo(redo);
        let instead = self.checkpoint(redo.touched) + self.round(again, Redo::default());
        pays(saved, instead).then(|| Duration::from_secs_f64(saved.min(60.0)))
    }
}

/// True if something that costs `instead` seconds saves enough compared with `now` seconds.
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
        let ask = |prices: Prices, redo| prices.ask_early(redo, Again::default()).is_some();
        assert!(ask(fast, redo(741, 47_000, 4)));
        assert!(!ask(fast, redo(2, 100, 10)));
        // Little redo over very many tablespaces.
        assert!(ask(fast, redo(33, 9_000, 7_000)));
        // On a slow link less redo is enough.
        let slow = Prices::new(Some(500 * MB), Some(MB), 0.0);
        assert!(ask(slow, redo(2, 100, 10)));
        assert_eq!(slow.link(), MB as f64);
    }

    /// Little redo over many pages is replayed at once by a fast disk. One that needs milliseconds for each page takes longer
    /// than the donor for a checkpoint, or for sending these pages again.
    #[test]
    fn a_joiner_with_a_slow_disk_is_spared_the_recovery() {
        let fast = Prices::new(Some(200 * MB), None, 0.0);
        let slow = fast.recovering_at(Some(Duration::from_millis(2)));
        let some = redo(4, 3_000, 4);
        let ask = |prices: Prices| prices.ask_early(some, Again::default()).is_some();
        assert!(!ask(fast) && ask(slow));
        let again = Again { bytes: 3_000 * 16_384, files: 4 };
        let takes = |prices: Prices| pays(prices.redo(some), prices.round(again, Redo::default()));
        assert!(!takes(fast) && takes(slow));
        assert!((12.0..12.1).contains(&slow.recovery(some)) && fast.recovery(some) < 0.3);
        // A disk that is as fast as is assumed, or not known, changes nothing; one that never answers has a bound.
        assert_eq!(fast.recovering_at(Some(Duration::from_micros(12))), fast);
        assert_eq!(fast.recovering_at(None), fast);
        assert_eq!([slow.slow_page(), fast.slow_page()], [Some(Duration::from_millis(2)), None]);
        assert_eq!(fast.recovering_at(Some(Duration::MAX)).slow_page(), Some(READ_MAX));
    }

    #[test]
    fn a_round_pays_while_it_makes_the_rest_smaller() {
        // 2 MB/s can be sent and 20 are written, all over 218 MB: sending them again takes as long as it did.
        let hot = Prices::new(None, Some(2 * MB), 20.0 * MB as f64);
        let stay = hot.redo(redo(2180, 13_000, 4));
        let all = Again { bytes: 218 * MB, files: 4 };
        assert!(!pays(stay, hot.round(all, redo(10, 500, 4))));
        // The same rates, but the same 10 MB are changed over and over.
        let few = Again { bytes: 10 * MB, files: 4 };
        assert!(pays(stay, hot.round(few, redo(10, 500, 4))));
        // After that there is nothing left to gain.
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

    /// A donor under load: 38 MB of redo had been written while 2.4 GB were copied, over 370 MB of pages that were copied
    /// before. It was asked for a checkpoint anyway, and these pages were read again at 50 MB/s.
    #[test]
    fn pages_that_were_copied_before_count_when_a_checkpoint_is_asked_for() {
        let prices = Prices::new(Some(500 * MB), None, 0.0);
        let late = redo(38, 23_822, 9);
        let again = Again { bytes: 390 * MB, files: 9 };
        assert!(prices.ask_early(late, Again::default()).is_some());
        assert!(prices.ask_early(late, again).is_none());
        // The same redo over few pages.
        let few = redo(500, 600, 9);
        assert!(prices.ask_early(few, Again { bytes: 10 * MB, files: 9 }).is_some());
        // A donor that gives way to its clients reads slowly, whatever the link carries.
        let slow = prices.reading_at(Some(10 * MB));
        assert!(prices.round(again, Redo::default()) < 1.0);
        assert!(slow.round(again, Redo::default()) > 38.0);
        assert_eq!(slow.redo(late), prices.redo(late));
    }
}
