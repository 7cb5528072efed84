//! Statistics of a write-set cache: its content, how fast it fills, and whether its checksums are right.
use std::collections::HashMap;
use std::time::Duration;

use anyhow::Result;
use formats::galera::conf_change::ConfChange;
use formats::galera::gcache::Action;
use formats::galera::write_set::WriteSet;
use formats::mariadb::binlog_events;
use formats::{Seqno, Uuid};

use super::{Entry, Gcache, Payload, Source, Visited};
use crate::failure::{Failure, Kind};
use crate::writesets::store::WriteSetStore;

/// At most this many configuration changes are in a report: the newest ones.
const CHANGES: usize = 100;
/// More writers than any history has. It bounds the memory that damaged bytes can cost.
const WRITERS: usize = 4096;

/// The content of a node's cache.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Write-sets in the range.
    pub write_sets: u64,
    /// Configuration changes in the range.
    pub conf_changes: u64,
    /// Other actions in the range.
    pub others: u64,
    /// Entries that the server may overwrite.
    pub released: u64,
    /// Write-sets that failed certification or were voted out.
    pub skipped: u64,
    /// Bytes of all entries, with their headers.
    pub bytes: u64,
    /// The largest entry: its seqno and bytes.
    pub largest: Option<(Seqno, u64)>,
    /// How fast the history grew.
    pub rate: Option<Rate>,
    /// The newest configuration changes, oldest first.
    pub changes: Vec<ConfChange>,
    /// Buffers that were skipped during the visit.
    pub visited: Visited,
}

/// A write rate, measured with the clock of one writer, because the clocks of several writers do not compare.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Bytes in the cache per second, of all writers.
    pub bytes_per_second: f64,
    /// Actions per second, of all writers.
    pub actions_per_second: f64,
    /// Time between the writer's first and last write-set.
    pub span: Duration,
    /// The writer whose clock it is: the one with the longest span.
    pub writer: Uuid,
}

impl Rate {
    /// How long `bytes` last at this rate.
    pub fn lasts(&self, bytes: u64) -> Duration {
        let seconds = bytes as f64 / self.bytes_per_second.max(f64::MIN_POSITIVE);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

impl Report {
    /// Reads all headers of the history, and the configuration changes in it.
    ///
    /// # Errors
    /// Reading failed.
    pub fn of(cache: &Gcache) -> Result<Report> {
        let mut report = Report::default();
        let mut clocks = Clocks::default();
        report.visited = cache.visit(&mut |entry, source| {
            report.take(entry, source)?;
            if let Some(head) = source.head(entry)? {
                clocks.take(head.source, head.written_ns, entry.seqno);
            }
            Ok(true)
        })?;
        report.changes.sort_by_key(|change| change.state.seqno);
        report.rate = clocks.rate(&report);
        Ok(report)
    }

    /// Entries seen.
    pub fn entries(&self) -> u64 {
        self.write_sets + self.conf_changes + self.others
    }

    fn take(&mut self, entry: &Entry, source: &Source<'_>) -> Result<()> {
        let size = u64::from(entry.header.size);
        self.bytes += size;
        self.released += u64::from(entry.header.released);
        self.skipped += u64::from(entry.header.skipped);
        if self.largest.is_none_or(|(_, largest)| size > largest) {
            self.largest = Some((entry.seqno, size));
        }
        match entry.header.action {
            Action::WriteSet => self.write_sets += 1,
            Action::Other(_) => self.others += 1,
            Action::ConfChange => {
                self.conf_changes += 1;
                if let Payload::Valid(bytes) = source.payload(entry)?
                    && let Ok(change) = ConfChange::parse(&bytes)
                {
                    self.changes.push(change);
                    if self.changes.len() > CHANGES {
                        self.changes.remove(0);
                    }
                }
            }
        }
        Ok(())
    }
}

/// The first and the last write-set of each writer: its clock in nanoseconds, and the seqno.
#[derive(Default)]
struct Clocks(HashMap<Uuid, [(u64, Seqno); 2]>);

impl Clocks {
    fn take(&mut self, writer: Uuid, at: u64, seqno: Seqno) {
        if self.0.len() >= WRITERS && !self.0.contains_key(&writer) {
            return;
        }
        let [first, last] = self.0.entry(writer).or_insert([(at, seqno); 2]);
        if seqno < first.1 {
            *first = (at, seqno);
        }
        if seqno > last.1 {
            *last = (at, seqno);
        }
    }

    /// The rate by the clock with the longest span: the number of actions in that span, at the mean size of
    /// an entry.
    fn rate(&self, report: &Report) -> Option<Rate> {
        let spans = self.0.iter().filter_map(|(writer, [first, last])| {
            let span = last.0.checked_sub(first.0).filter(|&ns| ns > 0)?;
            Some((span, *writer, last.1.0.abs_diff(first.1.0)))
        });
        let (ns, writer, actions) = spans.max()?;
        let span = Duration::from_nanos(ns);
        let actions_per_second = actions as f64 / span.as_secs_f64();
        let mean = report.bytes as f64 / report.entries().max(1) as f64;
        Some(Rate { bytes_per_second: actions_per_second * mean, actions_per_second, span, writer })
    }
}

/// An entry with a wrong checksum or content.
#[derive(Debug, Clone)]
pub struct Bad {
    /// Its seqno.
    pub seqno: Seqno,
    /// Where its header is, in bytes from the start of its file.
    pub at: u64,
    /// What is wrong.
    pub what: String,
}

/// Verifies every checksum of the history. Returns the number of correct entries, and passes each other one
/// to `bad`.
///
/// # Errors
/// A file cannot be read.
pub fn verify(cache: &Gcache, bad: &mut impl FnMut(Bad)) -> Result<u64> {
    let mut sound = 0;
    cache.visit(&mut |entry, source| {
        match source.payload(entry)? {
            Payload::Valid(_) => sound += 1,
            Payload::Bad(what) => bad(Bad { seqno: entry.seqno, at: entry.at, what }),
            Payload::Overwritten => {}
        }
        Ok(true)
    })?;
    Ok(sound)
}

/// The events of a write-set as a file that `mariadb-binlog` reads.
///
/// # Errors
/// There is no such write-set, it is damaged, or it has no rows.
pub fn events_of(store: &dyn WriteSetStore, seqno: Seqno) -> Result<Vec<u8>> {
    let refuse = |text: String| Failure::new(Kind::Configuration, text);
    let range = store.range();
    if range.is_none_or(|(first, last)| !(first..=last).contains(&seqno)) {
        let range = range.map_or("nothing".to_owned(), |(first, last)| format!("{first} to {last}"));
        return Err(refuse(format!("no seqno {seqno} here; there is {range}")).into());
    }
    let mut found = None;
    store.read(seqno, seqno, &mut |action| {
        found = Some(action);
        Ok(false)
    })?;
    let Some(action) = found.filter(|action| action.action == Action::WriteSet) else {
        return Err(refuse(format!("{seqno} is not a write-set and has no events")).into());
    };
    let set = WriteSet::parse(&action.bytes)?;
    let data = set.data.map(|data| data.records).unwrap_or_default();
    if data.is_empty() {
        return Err(refuse(format!("write-set {seqno} has no events")).into());
    }
    Ok([binlog_events::file_head(data), data.to_vec()].concat())
}
