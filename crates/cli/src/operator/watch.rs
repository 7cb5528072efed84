//! `rejoin status --watch`: a progress bar that follows a transfer to its end.
use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use transfer::human::{seconds, size};
use transfer::server::health::is_running;
use transfer::server::status::Status;

use super::complain;
use super::status::read;

/// How often the status file is read. It is written half as often.
const EVERY: Duration = Duration::from_millis(250);
/// No rate is shown before this much time has passed.
const RATE_OVER_MS: u64 = 1000;
/// The rate is measured over this window.
const RATE_WINDOW_MS: u64 = 5000;

/// Follows the running transfer, or the next one if none is running.
///
/// # Errors
/// The status file cannot be read.
pub fn watch(path: &Path, datadir: &Path) -> Result<()> {
    let before = read(path)?;
    let mut status = before.clone();
    if !before.as_ref().is_some_and(|status| is_running(status, datadir)) {
        complain("no transfer is running; waiting for the next one (Ctrl-C to quit)");
        while status == before || status.is_none() {
            std::thread::sleep(EVERY);
            status = read(path)?;
        }
    }
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {bytes}/{total_bytes} {msg}");
    let bar = ProgressBar::new(0).with_style(style.context("progress bar")?);
    let mut pace = Pace::default();
    while let Some(now) = &status {
        bar.set_length(now.total_bytes);
        bar.set_position(now.done_bytes);
        bar.set_prefix(now.phase.clone());
        bar.set_message(pace.at(now));
        if !is_running(now, datadir) {
            break;
        }
        std::thread::sleep(EVERY);
        status = read(path)?;
    }
    bar.finish_and_clear();
    Ok(())
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
