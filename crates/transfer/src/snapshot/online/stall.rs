//! While files are copied: whether what is left to send becomes less, and what both hosts are told if it does not because the
//! donor writes more than can be sent.
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use formats::Lsn;

use crate::human::{size, span};

/// How long what is left may fail to become less before both hosts are told. They are told again each time that has doubled.
const TELL_FROM: Duration = Duration::from_secs(10);
/// The rate at which redo is written is that of so many last seconds.
const WINDOW: Duration = Duration::from_secs(10);
/// How often what is left is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What is left to send, at one time.
#[derive(Clone, Copy, Debug)]
pub struct Left {
    /// Bytes of files, and of redo if the copy were complete now.
    pub bytes: u64,
    /// Bytes of that redo.
    pub redo: u64,
    /// End of the donor's redo.
    pub end: Lsn,
}

/// What can be sent, and what would help if that is not enough.
#[derive(Clone, Copy, Debug)]
pub struct Sends {
    /// Bytes per second.
    pub rate: f64,
    /// It is `rlimit` that permits no more.
    pub limited: bool,
    /// The donor's account lacks the right to ask for checkpoints.
    pub cannot_ask: bool,
}

/// What is left to send, from look to look.
#[derive(Debug)]
pub struct Stall {
    /// The least that was left at any look, and when.
    least: Option<(u64, Instant)>,
    /// Ends of the redo, oldest first.
    ends: VecDeque<(Instant, Lsn)>,
    /// How long it may go on before both hosts are told the next time.
    tell_after: Duration,
}

impl Default for Stall {
    fn default() -> Stall {
        Stall { least: None, ends: VecDeque::new(), tell_after: TELL_FROM }
    }
}

impl Stall {
    /// Whether it is time for another look.
    pub fn is_due(&self, now: Instant) -> bool {
        self.ends.back().is_none_or(|(last, _)| now.saturating_duration_since(*last) >= LOOK_EVERY)
    }

    /// Takes a look. Returns what both hosts are told, if anything.
    pub fn look(&mut self, left: Left, sends: Sends, now: Instant) -> Option<String> {
        let written = self.written(left.end, now);
        let since = match self.least {
            Some((least, since)) if left.bytes >= least => since,
            _ => {
                self.least = Some((left.bytes, now));
                self.tell_after = TELL_FROM;
                return None;
            }
        };
        let stuck = now.saturating_duration_since(since);
        if stuck < self.tell_after || written <= sends.rate {
            return None;
        }
        self.tell_after = stuck * 2;
        Some(in_words(left, sends, written, stuck))
    }

    /// Bytes of redo per second that were written lately.
    fn written(&mut self, end: Lsn, now: Instant) -> f64 {
        self.ends.push_back((now, end));
        let age = |(at, _): &(Instant, Lsn)| now.saturating_duration_since(*at);
        while self.ends.get(1).is_some_and(|next| age(next) >= WINDOW) {
            self.ends.pop_front();
        }
        let Some(first) = self.ends.front() else { return 0.0 };
        let seconds = age(first).as_secs_f64();
        if seconds > 0.0 { end.0.saturating_sub(first.1.0) as f64 / seconds } else { 0.0 }
    }
}

fn in_words(left: Left, sends: Sends, written: f64, stuck: Duration) -> String {
    let rate = |bytes: f64| bytes / 1e6;
    let files = left.bytes.saturating_sub(left.redo) as f64 / sends.rate;
    let redo = (left.redo as f64 + written * files) / sends.rate;
    let seconds = |seconds: f64| span(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
    let mut helps = vec![match sends.limited {
        true => "a higher rlimit (rejoin set rlimit=... on the donor)",
        false => "a faster link",
    }];
    if sends.cannot_ask {
        helps.push("SUPER for the donor's account");
    }
    format!(
        "the donor writes {:.1} MB/s of redo and {:.1} MB/s can be sent: pages become dirty faster than they are sent, and for {} \
         what is left to send has not become less ({}, {} of it redo). At these rates the files take at most {} more, and the \
         redo of that moment at most {} (hint: {} or less load on the donor would help; max-time limits a transfer)",
        rate(written),
        rate(sends.rate),
        span(stuck),
        size(left.bytes),
        size(left.redo),
        seconds(files),
        seconds(redo),
        helps.join(", "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;
    const LIMIT: Sends = Sends { rate: 2e6, limited: true, cannot_ask: false };

    /// A donor that writes so many MB/s while files of 200 MB are sent at `sends`: when what was said, in seconds.
    fn told(writes: u64, sends: Sends, seconds: u64) -> Vec<(u64, String)> {
        let (began, mut stall) = (Instant::now(), Stall::default());
        let mut all = Vec::new();
        for second in 0..seconds {
            let (redo, sent) = (writes * second * MB, sends.rate as u64 * second);
            let left = Left { bytes: 200 * MB - sent + redo, redo, end: Lsn(5000 + redo) };
            let words = stall.look(left, sends, began + Duration::from_secs(second));
            all.extend(words.map(|words| (second, words)));
        }
        all
    }

    /// A donor wrote 20 MB/s with `rlimit=2M`, and nothing was said before all files were copied.
    #[test]
    fn it_is_said_while_files_are_copied() {
        let told = told(20, LIMIT, 45);
        assert_eq!(told.iter().map(|(second, _)| *second).collect::<Vec<_>>(), [10, 20, 40]);
        assert_eq!(
            told[0].1,
            "the donor writes 20.0 MB/s of redo and 2.0 MB/s can be sent: pages become dirty faster than they are sent, and for \
             10.0 s what is left to send has not become less (362.4 MiB, 190.7 MiB of it redo). At these rates the files take at \
             most 90.0 s more, and the redo of that moment at most 16 min 40 s (hint: a higher rlimit (rejoin set rlimit=... on \
             the donor) or less load on the donor would help; max-time limits a transfer)"
        );
        let link = Sends { limited: false, cannot_ask: true, ..LIMIT };
        let words = in_words(Left { bytes: MB, redo: 0, end: Lsn(1) }, link, 20e6, TELL_FROM);
        assert!(words.contains("hint: a faster link, SUPER for the donor's account or"), "{words}");
    }

    #[test]
    fn nothing_is_said_while_an_end_comes_nearer() {
        assert_eq!(told(1, LIMIT, 90), []);
        assert_eq!(told(0, LIMIT, 90), []);
        // Nothing comes nearer, but the donor's writing is not the reason.
        let (began, mut stall) = (Instant::now(), Stall::default());
        for second in 0..60 {
            let left = Left { bytes: 200 * MB, redo: 0, end: Lsn(5000) };
            assert_eq!(stall.look(left, LIMIT, began + Duration::from_secs(second)), None);
        }
    }

    /// A newer checkpoint makes redo needless, and the rate is that of the last seconds.
    #[test]
    fn what_is_over_is_no_longer_said() {
        let (began, mut stall) = (Instant::now(), Stall::default());
        let mut look = |second: u64, bytes: u64, written: u64| {
            let left = Left { bytes: bytes * MB, redo: 0, end: Lsn(5000 + written * MB) };
            stall.look(left, LIMIT, began + Duration::from_secs(second)).is_some()
        };
        assert!(!look(0, 200, 0) && look(10, 300, 200));
        assert!(!look(11, 150, 220), "less is left than ever before");
        assert!(!look(20, 160, 400) && look(21, 160, 420));
        assert!(!look(40, 160, 421) && !look(80, 160, 422), "nothing is written any more");
    }
}
