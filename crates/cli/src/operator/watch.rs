//! `rejoin status --watch`: follows a transfer to its end. On a terminal with a bar for each side; otherwise by lines, for a log or a
//! pipe.
use std::collections::VecDeque;
use std::io::IsTerminal as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use transfer::human::{seconds, size};
use transfer::server::health::is_running;
use transfer::server::remaining::{Look, may_be_told};
use transfer::server::status::Status;

use super::answer::say;
use super::complain;
use super::status::read;

/// How often the status file is read. It is written half as often.
const EVERY: Duration = Duration::from_millis(250);
/// How often a line is printed while neither side's phase changes.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// No rate is shown before this much time has passed.
const RATE_OVER_MS: u64 = 1000;
/// The rate is measured over this window.
const RATE_WINDOW_MS: u64 = 5000;

/// Follows the running transfer, or the next one if none is running. `shown`: on stdout.
///
/// # Errors
/// The status file cannot be read.
pub fn watch(path: &Path, datadir: &Path, shown: bool) -> Result<()> {
    let before = read(path)?;
    let mut status = before.clone();
    if !before.as_ref().is_some_and(|status| is_running(status, datadir)) {
        complain("no transfer is running; waiting for the next one (Ctrl-C to quit)");
        while status == before || status.is_none() {
            std::thread::sleep(EVERY);
            status = read(path)?;
        }
    }
    let mut view = match std::io::stdout().is_terminal() {
        _ if !shown => View::Nothing,
        true => View::Bars(Box::new(Bars::new()?)),
        false => View::lines(),
    };
    let mut pace = Pace::default();
    while let Some(now) = &status {
        let pace = pace.at(now);
        if !is_running(now, datadir) {
            break;
        }
        view.show(now, &pace);
        std::thread::sleep(EVERY);
        status = read(path)?;
    }
    view.end();
    Ok(())
}

/// How progress is shown.
enum View {
    /// A few lines that are drawn again and again.
    Bars(Box<Bars>),
    /// A line whenever there is news: the last one, and when it was printed.
    Lines(Option<(String, Instant)>),
    /// Not at all.
    Nothing,
}

impl View {
    fn lines() -> View {
        View::Lines(None)
    }

    fn show(&mut self, status: &Status, pace: &str) {
        match self {
            View::Nothing => {}
            View::Bars(bars) => bars.show(status, pace),
            View::Lines(last) => {
                let phases = both_phases(status);
                let is_old = |(said, at): &(String, Instant)| *said == phases && at.elapsed() < LINE_EVERY;
                if !last.as_ref().is_some_and(is_old) {
                    say(&line(status, pace));
                    *last = Some((phases, Instant::now()));
                }
            }
        }
    }

    fn end(self) {
        if let View::Bars(bars) = self {
            bars.end();
        }
    }
}

/// A bar of each side: what is complete on this host, and how far the other one says it is.
struct Bars {
    all: MultiProgress,
    own: ProgressBar,
    peer: ProgressBar,
    /// The other side's, with its percentage and while it says none.
    styles: (ProgressStyle, ProgressStyle),
}

impl Bars {
    fn new() -> Result<Bars> {
        let style = |template| ProgressStyle::with_template(template).context("progress bar");
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
        let own = style("{prefix}\n{wide_bar} {bytes}/{total_bytes}")?;
        let styles = (style("{prefix}\n{wide_bar} {pos} %\n{msg}")?, style("{prefix}\n{msg}")?);
        let add = |length, style| all.add(ProgressBar::new(length).with_style(style));
        let (own, peer) = (add(0, own), add(100, styles.1.clone()));
        Ok(Bars { all, own, peer, styles })
    }

    fn show(&self, status: &Status, pace: &str) {
        let [own, peer] = phases(status);
        self.own.set_length(status.total_bytes);
        self.own.set_prefix(own);
        self.own.set_position(status.done_bytes);
        let (with_bar, without) = &self.styles;
        let style = if status.peer_percent.is_some() { with_bar } else { without };
        self.peer.set_style(style.clone());
        self.peer.set_prefix(peer);
        self.peer.set_message(figures(status, pace).join("; "));
        self.peer.set_position(status.peer_percent.unwrap_or_default().into());
    }

    fn end(self) {
        self.own.finish_and_clear();
        self.peer.finish_and_clear();
        let _ = self.all.clear();
    }
}

/// What each side does, as far as it is known.
fn phases(status: &Status) -> [String; 2] {
    let Status { role, phase, peer_phase, .. } = status;
    let peer = if role == "donor" { "joiner" } else { "donor" };
    let peer = match peer_phase.as_str() {
        // The joiner shows what the donor waits for as its own phase.
        peer_phase if peer_phase.is_empty() || peer_phase == phase => String::new(),
        peer_phase => format!("{peer}: {peer_phase}"),
    };
    [format!("{role}: {phase}"), peer]
}

fn both_phases(status: &Status) -> String {
    let [own, peer] = phases(status);
    if peer.is_empty() { own } else { format!("{own}; {peer}") }
}

/// The figures that are known.
fn figures(status: &Status, pace: &str) -> Vec<String> {
    let mut figures = Vec::new();
    if !pace.is_empty() {
        figures.push(pace.to_owned());
    }
    if status.wire_bytes > 0 {
        figures.push(format!("{} on the network", size(status.wire_bytes)));
    }
    figures.push(format!("{} so far", seconds(status.elapsed_ms as f64 / 1000.0)));
    figures
}

fn line(status: &Status, pace: &str) -> String {
    let mut parts = vec![both_phases(status)];
    if let Some(percent) = (status.done_bytes * 100).checked_div(status.total_bytes) {
        parts.push(format!("{} of {} ({percent} %)", size(status.done_bytes), size(status.total_bytes)));
    }
    parts.extend(figures(status, pace));
    parts.join("; ")
}

/// The rate of a transfer, from its latest progress: looks with the bytes that were complete.
#[derive(Default)]
struct Pace(VecDeque<(Look, u64)>);

impl Pace {
    /// Formats the rate, once there is a second of progress to compute it from, and the time left if an end is in sight.
    fn at(&mut self, status: &Status) -> String {
        let (now, done) = (Look::at(status), status.done_bytes);
        // A new attempt begins at zero.
        if self.0.back().is_some_and(|(_, before)| done < *before) {
            self.0.clear();
        }
        self.0.push_back((now, done));
        while self.0.front().is_some_and(|(then, _)| then.at_ms + RATE_WINDOW_MS < now.at_ms) {
            self.0.pop_front();
        }
        let Some((then, before)) = self.0.front() else { return String::new() };
        let (time, bytes) = (now.at_ms.saturating_sub(then.at_ms), done - before);
        if now.at_ms < RATE_OVER_MS || time < RATE_OVER_MS || bytes == 0 {
            return String::new();
        }
        let rate = format!("{}/s", size((bytes as f64 * 1000.0 / time as f64) as u64));
        match now.time_left_since(*then).filter(|_| may_be_told(status)) {
            // Never 0 s: something is left.
            Some(left_ms) => format!("{rate}, {} left", seconds(left_ms.max(1000) as f64 / 1000.0)),
            None => rate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_both_sides_and_only_what_is_known() {
        let mut status = Status {
            role: "joiner".into(),
            phase: "receiving".into(),
            elapsed_ms: 4000,
            ..Status::default()
        };
        assert_eq!(line(&status, ""), "joiner: receiving; 4.0 s so far");
        (status.peer_phase, status.done_bytes, status.total_bytes) = ("sending".into(), 45 << 20, 90 << 20);
        status.wire_bytes = 40 << 20;
        let expected = "joiner: receiving; donor: sending; 45.0 MiB of 90.0 MiB (50 %); 10.0 MiB/s, 4.5 s left; 40.0 MiB on the \
                        network; 4.0 s so far";
        assert_eq!(line(&status, "10.0 MiB/s, 4.5 s left"), expected);
        (status.phase, status.peer_phase) = ("waiting for X".into(), "waiting for X".into());
        assert!(line(&status, "").starts_with("joiner: waiting for X; 45.0 MiB"));
    }

    #[test]
    fn there_is_no_rate_in_the_first_second_and_none_across_attempts() {
        let mut pace = Pace::default();
        let mut at = |elapsed_ms, done_bytes| {
            pace.at(&Status { elapsed_ms, done_bytes, total_bytes: 100 << 20, ..Status::default() })
        };
        assert_eq!(at(0, 0), "");
        assert_eq!(at(500, 70 << 20), "");
        assert_eq!(at(2000, 80 << 20), "40.0 MiB/s, 0.5 s left");
        assert_eq!(at(2250, 1 << 20), "");
        assert_eq!(at(4250, 21 << 20), "10.0 MiB/s, 7.9 s left");
    }

    /// The redo of a busy server grew as fast as it was sent, and the end was named as near for minutes.
    #[test]
    fn no_end_is_named_that_does_not_come() {
        let mut pace = Pace::default();
        let mut at = |seconds: u64, done: u64, total: u64| {
            let (elapsed_ms, done_bytes, total_bytes) = (seconds * 1000, done << 20, total << 20);
            pace.at(&Status { elapsed_ms, done_bytes, total_bytes, ..Status::default() })
        };
        assert_eq!(at(10, 980, 1000), "");
        assert_eq!(at(12, 1000, 1020), "10.0 MiB/s");
        assert_eq!(at(14, 1020, 1042), "10.0 MiB/s");
        assert_eq!(at(16, 1040, 1042), "10.0 MiB/s, 0.4 s left");
    }
}
