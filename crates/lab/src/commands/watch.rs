//! Showing how a join goes: a bar on a terminal, lines elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use rejoin_lab::progress::{Status, StatusReader};
use rejoin_lab::{Node, data};

const EVERY: Duration = Duration::from_millis(250);
const LINE_EVERY: Duration = Duration::from_secs(2);

/// Waits until `joiner`, which was started, is Synced, and shows how it goes; answers the time from the server's start.
/// `expected`: bytes of its donor's data.
pub fn until_synced(joiner: &Node, expected: u64, timeout: Duration) -> Result<Duration> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| show(joiner, expected, &over));
        let took = joiner.wait_synced(timeout);
        over.store(true, Relaxed);
        took
    })
}

fn show(joiner: &Node, expected: u64, over: &AtomicBool) {
    let reader = StatusReader::of_next(joiner);
    let mut display = Display::new();
    while !over.load(Relaxed) {
        display.update(&reader.read().unwrap_or_else(|| seen_from_outside(joiner, expected)));
        std::thread::sleep(EVERY);
    }
    display.finish();
}

/// Methods that tell nothing are judged by what lies in the datadir.
fn seen_from_outside(joiner: &Node, expected: u64) -> Status {
    let done_bytes = data::disk_bytes(&joiner.datadir()).unwrap_or(0).min(expected);
    let phase = if joiner.sst_processes().is_empty() { "server starts" } else { "SST" };
    Status { phase: phase.to_owned(), done_bytes, total_bytes: expected, wire_bytes: None }
}

enum Display {
    Bar(ProgressBar),
    Lines { phase: String, last: Instant },
}

impl Display {
    fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Lines { phase: String::new(), last: Instant::now() };
        }
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template(
            "{elapsed_precise} {msg:20} {wide_bar} {bytes}/{total_bytes} eta {eta}",
        );
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self::Bar(bar)
    }

    fn update(&mut self, status: &Status) {
        match self {
            Self::Bar(bar) => {
                bar.set_length(status.total_bytes);
                bar.set_position(status.done_bytes);
                bar.set_message(status.phase.clone());
            }
            Self::Lines { phase, last } => {
                if *phase != status.phase || last.elapsed() > LINE_EVERY {
                    let (done, total) = (status.done_bytes >> 20, status.total_bytes >> 20);
                    let _ = writeln!(std::io::stderr(), "  {}: {done} of {total} MiB", status.phase);
                    status.phase.clone_into(phase);
                    *last = Instant::now();
                }
            }
        }
    }

    fn finish(self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
