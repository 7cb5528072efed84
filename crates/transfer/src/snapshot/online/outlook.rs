//! A prediction of the redo of a transfer, made before any of it is read: bytes to send, checkpoints on the way, and
//! how long the joiner's recovery takes. It uses [`super::estimate`] with what the server's status says.
use std::time::{Duration, Instant};

use formats::Lsn;

use super::dirty::Touched;
use super::estimate::{Again, Prices, Redo};
use crate::human::{size, span};
use crate::sql::{Answer, Session};

/// Below this many bytes of redo only its size is reported.
const WORTH_WORDS: u64 = 1 << 20;
/// The rate at which redo is written is measured for at least so long.
const MEASURED_FOR: Duration = Duration::from_millis(100);
/// Fewest bytes of redo that the change of a page takes.
const LEAST_RECORD: u64 = 4;

/// What the server's status says about its redo log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// Bytes of redo since its last checkpoint.
    pub bytes: u64,
    /// Pages that it has changed and not yet written to its files: recovery would change them.
    pub pages: u64,
    /// Tablespaces that there are. How many of them the redo changes is known only when it has been read.
    pub tablespaces: u64,
    /// Our account may ask for a checkpoint (`SUPER`).
    pub asks: bool,
    /// Bytes of redo that it writes in a second.
    pub written: u64,
    /// Bytes that its redo log has room for; `None` if it does not tell.
    pub capacity: Option<u64>,
}

/// Where the end of a server's redo was, and when: the beginning of a measurement.
#[derive(Clone, Copy, Debug)]
pub struct RedoClock {
    at: Instant,
    end: Lsn,
}

impl RedoClock {
    /// Begins to measure.
    ///
    /// # Errors
    /// From the server.
    pub fn start(session: &mut Session) -> Answer<RedoClock> {
        Ok(RedoClock { end: session.log_position()?.current, at: Instant::now() })
    }

    /// Bytes of redo per second since then. Waits if that was only just.
    ///
    /// # Errors
    /// From the server.
    pub fn rate(self, session: &mut Session) -> Answer<u64> {
        std::thread::sleep(MEASURED_FOR.saturating_sub(self.at.elapsed()));
        let end = session.log_position()?.current;
        Ok((end.0.saturating_sub(self.end.0) as f64 / self.at.elapsed().as_secs_f64()) as u64)
    }
}

/// What is expected of a transfer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Bytes of redo that are sent, with those that are written while files are copied.
    pub bytes: u64,
    /// Newer checkpoints that are taken.
    pub rounds: u32,
    /// How long the joiner's server takes to replay it.
    pub recovery: Duration,
}

impl Outlook {
    /// What a server with so many tablespaces says now; `None` when it does not tell.
    ///
    /// # Errors
    /// From the server.
    pub fn of(session: &mut Session, tablespaces: u64) -> Answer<Option<Outlook>> {
        let Some(bytes) = session.redo_since_checkpoint()? else { return Ok(None) };
        let pages = session.dirty_pages()?.unwrap_or(0);
        let capacity = session.variable("innodb_log_file_size")?.and_then(|size| size.parse().ok());
        let asks = session.may_make_checkpoints()?;
        Ok(Some(Outlook { bytes, pages, tablespaces, asks, written: 0, capacity }))
    }

    /// The expected transfer of so many bytes of files at these prices.
    pub fn expect(&self, prices: &Prices, files: u64) -> Expected {
        let written = self.meanwhile(prices, files);
        let replayed = recovery(prices, Redo { bytes: written, touched: Touched::default() });
        let [least, most] = self.redo();
        match self.asks && asks_early(least, prices) {
            true => Expected { bytes: written, rounds: 1, recovery: replayed },
            false => Expected {
                bytes: self.bytes.saturating_add(written),
                rounds: 0,
                recovery: recovery(prices, if self.asks { least } else { most }).saturating_add(replayed),
            },
        }
    }

    /// Bytes of redo that are written while so many bytes of files are sent. Never more than the log has room for: before it is
    /// full, the server makes a checkpoint, from which recovery then starts.
    fn meanwhile(&self, prices: &Prices, files: u64) -> u64 {
        let bytes = self.written as f64 * (files as f64 / prices.link());
        (bytes as u64).min(self.capacity.unwrap_or(u64::MAX))
    }

    /// The same in words, for the operator.
    pub fn in_words(&self, prices: &Prices, files: u64) -> String {
        let (now, meanwhile) = (self.now_in_words(prices), self.meanwhile(prices, files));
        if meanwhile < WORTH_WORDS {
            return now;
        }
        let took = Duration::try_from_secs_f64(files as f64 / prices.link()).unwrap_or(Duration::MAX);
        let room = if Some(meanwhile) == self.capacity { " (the size of its log)" } else { "" };
        format!(
            "{now}; the donor writes {}/s of redo, which is up to {} more{room} to send if files take {}",
            size(self.written),
            size(meanwhile),
            span(took)
        )
    }

    fn now_in_words(&self, prices: &Prices) -> String {
        let (waits, pages) = (size(self.bytes), self.pages);
        if self.bytes < WORTH_WORDS {
            return format!("redo: {waits} to send, recovery in under 1 s");
        }
        let [least, most] = self.redo();
        let replay = between(recovery(prices, least), recovery(prices, most));
        let disk = prices.slow_page().map_or(String::new(), |took| {
            format!("; its disk takes {:.1} ms to read one", took.as_secs_f64() * 1e3)
        });
        let dear = format!(
            "redo: {waits} to send, {replay} of recovery on the joiner ({pages} changed pages{disk})"
        );
        if !self.asks {
            return format!(
                "{dear}; the donor's account lacks SUPER, so it cannot ask its server for a newer checkpoint, which would make \
                 this redo needless"
            );
        }
        match (asks_early(least, prices), asks_early(most, prices)) {
            (true, _) => format!(
                "redo: only what is written from now on, recovery in about 1 s; the donor will ask its server for a checkpoint \
                 (1 round), which makes {waits} of redo needless ({replay} of recovery on the joiner: {pages} changed pages{disk})"
            ),
            (false, true) => format!(
                "{dear}; the donor will ask its server for a checkpoint if they are in many of its {} tablespaces",
                self.tablespaces
            ),
            (false, false) => format!("{dear}; a newer checkpoint would save less than it costs"),
        }
    }

    /// With all changed pages in one tablespace, and in as many as possible.
    fn redo(&self) -> [Redo; 2] {
        [1, self.tablespaces.max(1)].map(|spaces| {
            let touched = Touched { pages: self.pages, spaces: spaces.min(self.pages) };
            Redo { bytes: self.bytes, touched }
        })
    }
}

fn asks_early(redo: Redo, prices: &Prices) -> bool {
    prices.ask_early(redo, Again::default()).is_some()
}

/// A time that is between two others, in words.
fn between(least: Duration, most: Duration) -> String {
    match (span(least), span(most)) {
        (least, most) if least == most => format!("about {least}"),
        (least, most) => format!("{least} to {most}"),
    }
}

/// How long a server takes to replay redo that has arrived.
pub fn recovery(prices: &Prices, redo: Redo) -> Duration {
    Duration::try_from_secs_f64(prices.recovery(redo)).unwrap_or(Duration::MAX)
}

/// The same in words, with the number of pages and tablespaces.
pub fn recovery_in_words(prices: &Prices, redo: Redo) -> String {
    // Pages are counted per stretch of the log, so their number may be higher than these bytes can change.
    let pages = redo.touched.pages.min(redo.bytes / LEAST_RECORD);
    let spaces = redo.touched.spaces.min(pages);
    let redo = Redo { touched: Touched { pages, spaces }, ..redo };
    format!("{pages} pages of {spaces} tablespaces, about {} of recovery", span(recovery(prices, redo)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_right_decides_what_much_redo_comes_to() {
        let prices = Prices::new(None, None, 0.0);
        let outlook =
            |asks| Outlook { bytes: 741 * MIB, pages: 24_310, tablespaces: 8, asks, ..Outlook::default() };
        let with = outlook(true).expect(&prices, 0);
        assert_eq!((with.bytes, with.rounds), (0, 1));
        let words = outlook(true).in_words(&prices, 0);
        assert!(
            words.contains("(1 round), which makes 741.0 MiB of redo needless (")
                && words.ends_with(" of recovery on the joiner: 24310 changed pages)"),
            "{words}"
        );
        let without = outlook(false).expect(&prices, 0);
        assert_eq!((without.bytes, without.rounds), (741 * MIB, 0));
        assert!((4..7).contains(&without.recovery.as_secs()), "{without:?}");
        let words = outlook(false).in_words(&prices, 0);
        assert!(
            words.starts_with("redo: 741.0 MiB to send, about ") && words.contains("lacks SUPER"),
            "{words}"
        );
    }

    #[test]
    fn little_redo_is_no_matter() {
        let prices = Prices::new(None, None, 0.0);
        let little = Outlook { bytes: 300_000, pages: 20, tablespaces: 8, asks: true, ..Outlook::default() };
        assert_eq!(little.in_words(&prices, 0), "redo: 293.0 KiB to send, recovery in under 1 s");
        let some = Outlook { bytes: 3 * MIB, pages: 200, tablespaces: 8, asks: true, ..Outlook::default() };
        assert_eq!(some.expect(&prices, 0).bytes, 3 * MIB);
        assert!(some.in_words(&prices, 0).ends_with("a newer checkpoint would save less than it costs"));
        // The slower the link, the sooner it pays.
        assert_eq!(some.expect(&Prices::new(None, Some(1_000_000), 0.0), 0).rounds, 1);
    }

    #[test]
    fn a_slow_disk_of_the_joiner_counts_and_is_named() {
        let prices = Prices::new(None, None, 0.0);
        let outlook =
            Outlook { bytes: 4 * MIB, pages: 3_000, tablespaces: 4, asks: true, ..Outlook::default() };
        assert!(outlook.in_words(&prices, 0).ends_with("a newer checkpoint would save less than it costs"));
        let slow = prices.recovering_at(Some(Duration::from_millis(4)));
        let words = outlook.in_words(&slow, 0);
        assert!(words.ends_with(": 3000 changed pages; its disk takes 4.0 ms to read one)"), "{words}");
        assert_eq!(outlook.expect(&slow, 0).rounds, 1);
        let without = Outlook { asks: false, ..outlook }.expect(&slow, 0);
        assert_eq!(without.recovery.as_secs(), 24);
    }

    #[test]
    fn how_many_tablespaces_are_changed_is_not_known_before() {
        let prices = Prices::new(None, None, 0.0);
        let outlook =
            Outlook { bytes: 2 * MIB, pages: 7_000, tablespaces: 20_000, asks: true, ..Outlook::default() };
        let words = outlook.in_words(&prices, 0);
        assert!(words.starts_with("redo: 2.0 MiB to send, 0.4 s to 6.0 s of recovery"), "{words}");
        assert!(words.ends_with("a checkpoint if they are in many of its 20000 tablespaces"), "{words}");
        assert_eq!(outlook.expect(&prices, 0).rounds, 0);
        let words = Outlook { asks: false, ..outlook }.in_words(&prices, 0);
        assert!(words.contains("0.4 s to 6.0 s of recovery") && words.contains("lacks SUPER"), "{words}");
    }

    /// The plan of a donor that wrote 20 MB/s named none of the redo of the next minutes.
    #[test]
    fn redo_that_is_written_meanwhile_is_expected() {
        let (limit, files) = (Prices::new(None, Some(10_000_000), 20e6), 600_000_000);
        let outlook = Outlook { bytes: 300_000, asks: true, written: 20_000_000, ..Outlook::default() };
        assert_eq!(outlook.expect(&limit, files).bytes, 300_000 + 1_200_000_000);
        assert_eq!(
            outlook.in_words(&limit, files),
            "redo: 293.0 KiB to send, recovery in under 1 s; the donor writes 19.1 MiB/s of redo, which is up to 1.1 GiB more to \
             send if files take 60.0 s"
        );
        // The server makes checkpoints of its own before its log is full.
        let small = Outlook { capacity: Some(96 * MIB), ..outlook };
        assert_eq!(small.expect(&limit, files).bytes, 300_000 + 96 * MIB);
        assert!(small.in_words(&limit, files).contains("up to 96.0 MiB more (the size of its log) to send"));
        // A checkpoint first makes only the older redo needless.
        let older = Outlook { bytes: 741 * MIB, pages: 24_310, tablespaces: 8, ..small };
        let expected = older.expect(&limit, files);
        assert_eq!((expected.bytes, expected.rounds), (96 * MIB, 1));
        assert!(!outlook.in_words(&limit, 400_000).contains("the donor writes"));
    }

    #[test]
    fn tablespaces_count_in_a_recovery() {
        let redo = |spaces| Redo { bytes: 33 * MIB, touched: Touched { pages: 9_000, spaces } };
        let prices = Prices::new(None, None, 0.0);
        assert!(recovery(&prices, redo(7_000)) > recovery(&prices, redo(0)));
        let words = recovery_in_words(&prices, redo(7_000));
        assert!(words.starts_with("9000 pages of 7000 tablespaces, about "), "{words}");
    }
}
