//! `rejoin verify`: two datadirs, file by file and page by page.
//!
//! What is equal in bytes is equal. The reverse does not hold: two nodes with the same rows write their pages each in its
//! own way (LSN, transaction numbers, places of rows), so a difference between nodes that lived their own lives says little,
//! and one right after a transfer says much. Pages are read as a donor reads them: checked, read again when a server writes
//! them; the doublewrite area counts as zeros, and so does a damaged page that is free.
//!
//! | module | owns |
//! |---|---|
//! | `side` | one datadir: its files, what was not looked at |
//! | `reader` | one file, its pages checked |
//! | `pair` | what differs between two files |
mod pair;
mod reader;
mod side;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use serde::Serialize;

use self::pair::{Found, Pair};
use self::side::Listed;
pub use self::side::Side;
use crate::datadir::own_position::server_using;
use crate::failure::{Failure, Kind};
use crate::threads::in_threads;

/// Page numbers that are named of one file, and damaged pages of all.
const NAMED: usize = 20;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Files on both sides.
    pub files: u64,
    /// Bytes of them, of the first side.
    pub bytes: u64,
    /// Files of tables that only the first side has.
    pub only_first: Vec<String>,
    /// Files of tables that only the second side has.
    pub only_second: Vec<String>,
    /// Files that differ.
    pub different: Vec<Different>,
    /// Damaged pages, with the path of their file; the first few.
    pub damaged: Vec<String>,
    /// How many there are.
    pub damaged_pages: u64,
    /// A server runs on the second side: what it has in memory only was not seen.
    pub running: bool,
    /// What else was not seen, as sentences: changes that are in a redo log only, files that do not travel.
    pub unseen: Vec<String>,
    /// Pages of either side may be older than its state, which is in a redo log that is not the same.
    pub state_in_redo: bool,
}

/// A file that is not the same on both sides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Different {
    /// Its place and path.
    pub file: String,
    /// Of each node's own life (redo, undo, what the system tablespace keeps for the server): expected on nodes that ran.
    pub own_life: bool,
    /// Lengths in bytes; 0 where it is not there.
    pub sizes: (u64, u64),
    /// Pages that differ, of a file that has pages; else parts of 1 MiB.
    pub pages: u64,
    /// Those of them that differ in checksum and LSN only.
    pub headers_only: u64,
    /// The first of them.
    pub first: Vec<u64>,
}

impl Report {
    /// Nothing that counts differs, and nothing is known to be somewhere else than in what was compared.
    pub fn is_same(&self) -> bool {
        !self.state_in_redo
            && self.only_first.is_empty()
            && self.only_second.is_empty()
            && self.different.iter().all(|d| d.own_life)
    }

    fn take(&mut self, pair: &Pair, found: Found) {
        self.state_in_redo |= pair.is_redo() && found.different.is_some();
        match (&pair.files, found.different) {
            ([Some(_), None], Some(different)) if !different.own_life => {
                self.only_first.push(different.file);
            }
            ([None, Some(_)], Some(different)) if !different.own_life => {
                self.only_second.push(different.file);
            }
            (_, different) => self.different.extend(different),
        }
        self.damaged_pages += found.damage.len() as u64;
        let room = NAMED.saturating_sub(self.damaged.len());
        self.damaged.extend(found.damage.into_iter().take(room));
    }

    fn sort(&mut self) {
        self.only_first.sort();
        self.only_second.sort();
        self.damaged.sort();
        self.different.sort_by(|a, b| a.file.cmp(&b.file));
    }
}

/// Compares. No server may run on the `first` side; one on the `second` is said in the report.
///
/// # Errors
/// A server runs on the first side, a side is no datadir, or files cannot be read.
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
    // Of servers that were shut down it differs, and holds nothing that counts.
    report.state_in_redo &= in_redo;
    report.sort();
    // Nor did one start meanwhile.
    refuse_running(first)?;
    report.running |= server_using(&second.layout)?.is_some();
    Ok(report)
}

fn refuse_running(side: &Side) -> Result<()> {
    let Some(server) = server_using(&side.layout)? else { return Ok(()) };
    let pid = server.pid.map_or(String::new(), |pid| format!(" (process {pid})"));
    let text = format!("a server{pid} runs on {}", side.layout.datadir.display());
    Err(Failure::new(Kind::Server, text).hint("stop it first, or compare the other way round").into())
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
            let found = pair::compare(pair, &mut buffers)?;
            report.lock().unwrap_or_else(PoisonError::into_inner).take(pair, found);
        }
        Ok(())
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    in_threads(threads, &work)?;
    Ok(report.into_inner().unwrap_or_else(PoisonError::into_inner))
}
