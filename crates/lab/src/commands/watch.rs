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

/// A join that came to its end.
pub struct Joined {
    /// From the server's start to Synced.
    pub took: Duration,
    /// The most bytes on the network either side told of.
    pub wire_bytes: Option<u64>,
}

/// Waits until `joiner`, which was started, is Synced, and shows how it goes. `expected`: bytes of its donor's data.
pub fn until_synced(joiner: &Node, donor: &Node, expected: u64, timeout: Duration) -> Result<Joined> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let shown = scope.spawn(|| show(joiner, donor, expected, &over));
        let took = joiner.wait_synced(timeout);
        over.store(true, Relaxed);
        let wire_bytes = shown.join().unwrap_or(None);
        Ok(Joined { took: took?, wire_bytes })
    })
}

fn show(joiner: &Node, donor: &Node, expected: u64, over: &AtomicBool) -> Option<u64> {
    let (at_joiner, at_donor) = (StatusReader::of(joiner), StatusReader::of(donor));
    let mut display = Display::new();
    let mut wire: Option<u64> = None;
    // A file left by the transfer before says nothing of this one.
    let stale = (at_joiner.read(), at_donor.read());
    while !over.load(Relaxed) {
        let now = (at_joiner.read(), at_donor.read());
        let told =
            |now: Option<Status>, before: &Option<Status>| now.filter(|now| Some(now) != before.as_ref());
        let (mine, its) = (told(now.0, &stale.0), told(now.1, &stale.1));
        wire = [&mine, &its].into_iter().flatten().filter_map(|status| status.wire_bytes).chain(wire).max();
        display.update(&mine.unwrap_or_else(|| seen_from_outside(joiner, expected)));
        std::thread::sleep(EVERY);
    }
    display.finish();
    wire
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
