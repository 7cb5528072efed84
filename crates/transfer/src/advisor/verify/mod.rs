//! `rejoin verify`: two datadirs, file by file and page by page.
//!
//! Equal bytes prove equal data. The reverse does not hold: two nodes with the same rows write their own
//! pages (LSN, transaction numbers, places of rows), so a difference between nodes that ran separately proves
//! little, and one right after a transfer much. Pages are read as by a donor: they are verified, and read
//! again while a server writes them. The doublewrite area counts as zeros, and so does a corrupt page that is
//! free.
//!
//! | module | owns |
//! |---|---|
//! | `side` | one datadir: its files, and what is not compared |
//! | `reader` | one file, with verified pages |
//! | `pair` | the differences between two files |
mod difference;
mod pair;
mod reader;
mod report;
mod side;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;

pub use self::difference::Different;
use self::pair::Pair;
pub use self::report::Report;
use self::side::Listed;
pub use self::side::Side;
use crate::datadir::own_position::server_using;
use crate::datadir::server_on::server_on;
use crate::failure::{Failure, Kind};
use crate::threads::{Thread, in_threads};

/// Compares. No server may run on the `first` side; one on the `second` is mentioned in the report.
///
/// # Errors
/// A server runs on the first side, a side is not a datadir, or files cannot be read.
pub fn verify(first: &Side, second: &Side) -> Result<Report> {
    refuse_running(first)?;
    let running = server_using(&second.layout)?.is_some();
    let sides = [Listed::of(first, false)?, Listed::of(second, running)?];
    let mut report = Report { running, ..Report::default() };
    for (name, side) in ["the first", "the second"].iter().zip(&sides) {
        report.unseen.extend(side.unseen.iter().map(|what| format!("{name} {what}")));
    }
    let in_redo = sides.iter().any(|side| side.changes_in_redo);
    let pairs = pairs(sides);
    let both = pairs.iter().filter_map(|pair| pair.files[0].as_ref().filter(|_| pair.files[1].is_some()));
    for file in both {
        report.files += 1;
        report.bytes += file.entry.size;
    }
    let mut report = compare_all(&pairs, report)?;
    // It differs between servers that were shut down, and then contains nothing relevant.
    report.state_in_redo &= in_redo;
    report.sort();
    // No server may have started during the comparison either.
    refuse_running(first)?;
    report.running |= server_using(&second.layout)?.is_some();
    Ok(report)
}

fn refuse_running(side: &Side) -> Result<()> {
    let Some(server) = server_on(&side.layout)? else { return Ok(()) };
    let text = format!("{server} runs on {}", side.layout.datadir.display());
    Err(Failure::new(Kind::Server, text).hint("stop it first, or swap the two sides").into())
}

fn pairs([first, second]: [Listed; 2]) -> Vec<Pair> {
    let mut pairs: BTreeMap<String, Pair> = BTreeMap::new();
    for (side, listed) in [first, second].into_iter().enumerate() {
        for (name, file) in listed.files {
            let pair = pairs.entry(name.clone()).or_insert_with(|| Pair::named(name));
            pair.files[side] = Some(file);
        }
    }
    pairs.into_values().collect()
}

fn compare_all(pairs: &[Pair], report: Report) -> Result<Report> {
    let (next, report) = (AtomicUsize::new(0), Mutex::new(report));
    let work = || -> Result<()> {
        let mut buffers = pair::buffers();
        while let Some(pair) = pairs.get(next.fetch_add(1, Ordering::Relaxed)) {
            // An error stops the other threads: it is reported only after all of them have ended.
            let found = pair::compare(pair, &mut buffers);
            let found = found.inspect_err(|_| next.store(pairs.len(), Ordering::Relaxed))?;
            report.lock().unwrap_or_else(PoisonError::into_inner).take(pair, found);
        }
        Ok(())
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    in_threads(Thread::Comparer, threads, &work)?;
    Ok(report.into_inner().unwrap_or_else(PoisonError::into_inner))
}
