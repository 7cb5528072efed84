//! `rejoin status --watch`: follows a transfer to its end. On a terminal with a bar; otherwise by lines, for a log or a pipe.
use std::collections::VecDeque;
use std::io::IsTerminal as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use transfer::human::{seconds, size};
use transfer::server::health::is_running;
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
        true => View::bar()?,
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
    /// Three lines that are drawn again and again.
    Bar(ProgressBar),
    /// A line whenever there is news: the last one, and when it was printed.
    Lines(Option<(String, Instant)>),
    /// Not at all.
    Nothing,
}

impl View {
    fn bar() -> Result<View> {
        let style = ProgressStyle::with_template("{prefix}\n{wide_bar} {bytes}/{total_bytes}\n{msg}");
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stdout());
        Ok(View::Bar(bar.with_style(style.context("progress bar")?)))
    }

    fn lines() -> View {
        View::Lines(None)
    }

    fn show(&mut self, status: &Status, pace: &str) {
        match self {
            View::Nothing => {}
            View::Bar(bar) => {
                bar.set_length(status.total_bytes);
                bar.set_position(status.done_bytes);
                bar.set_prefix(both_phases(status));
                bar.set_message(figures(status, pace).join("; "));
            }
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
        if let View::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// What each side does, as far as it is known.
fn both_phases(status: &Status) -> String {
    let Status { role, phase, peer_phase, .. } = status;
    let peer = if role == "donor" { "joiner" } else { "donor" };
    match peer_phase.as_str() {
        // The joiner shows what the donor waits for as its own phase.
        peer_phase if peer_phase.is_empty() || peer_phase == phase => format!("{role}: {phase}"),
        peer_phase => format!("{role}: {phase}; {peer}: {peer_phase}"),
    }
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

/// The rate of a transfer, from its latest progress.
#[derive(Default)]
struct Pace(VecDeque<(u64, u64)>);

impl Pace {
    /// Formats the rate and the time left, once there is a second of progress to compute them from.
    fn at(&mut self, status: &Status) -> String {
        let (ms, done) = (status.elapsed_ms, status.done_bytes);
        // A new attempt begins at zero.
        if self.0.back().is_some_and(|(_, before)| done < *before) {
            self.0.clear();
        }
        self.0.push_back((ms, done));
        while self.0.front().is_some_and(|(then, _)| then + RATE_WINDOW_MS < ms) {
            self.0.pop_front();
        }
        let Some((then, before)) = self.0.front() else { return String::new() };
        let (time, bytes) = (ms.saturating_sub(*then), done - before);
        if ms < RATE_OVER_MS || time < RATE_OVER_MS || bytes == 0 {
            return String::new();
        }
        let rate = bytes as f64 * 1000.0 / time as f64;
        let left = status.total_bytes.saturating_sub(done) as f64 / rate;
        format!("{}/s, {} left", size(rate as u64), seconds(left))
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
}
