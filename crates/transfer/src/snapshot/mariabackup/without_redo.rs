//! Files of tables that have no redo (definitions, and tables of Aria, MyISAM and the like): what the datadir has while
//! mariadb-backup holds DDL counts, not what is in its stream.
//!
//! mariadb-backup 10.11.19 copies such tables while DDL runs and afterwards goes through the server's list of the DDL statements
//! meanwhile. It goes wrong with tables that were dropped and created again: it removes what it has just copied, and may keep an
//! earlier table of the same name. So it is stopped as soon as it has `BLOCK_DDL`. The files are listed, and those of each table
//! that DDL has touched since the backup began are read into memory. They are sent after its stream, instead of its copies.
//!
//! At `BLOCK_DDL` this is sound for the same reason as mariadb-backup's own copies of that moment (the server's `sql/backup.cc`):
//! statements that write to tables without transactions have ended, these tables are flushed, and DDL waits until the backup
//! ends. Tables of Aria with a log may still be written. Their log is copied to its end later, at `BLOCK_COMMIT`, and `--prepare`
//! applies it, as after a crash.
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use protocol::entries::Entries;
use protocol::inventory::{FileEntry, FileRole};
use protocol::limits::RANGE_BYTES;

use super::names::Names;
use super::unpack::Unpacked;
use crate::cancel::Cancel;
use crate::datadir::database::table_of;
use crate::datadir::layout::Layout;
use crate::datadir::scan::{self, ScannedFile, Skipped};
use crate::disk::identity::{Look, look};
use crate::snapshot::declined::{Declined, SnapshotError};
use crate::snapshot::sink::SnapshotSink;

/// So many bytes are read under the locks at most. They are kept in memory.
const READ_BYTES_MAX: u64 = 64 << 20;
/// No further table is read after this time: replication is paused.
const READS_FOR: Duration = Duration::from_secs(5);
/// A file that differs each time it is read is being written.
const READS_MAX: usize = 5;
/// Tables of the server that are written until `BLOCK_COMMIT`: only mariadb-backup copies them after that.
const WRITTEN_LONGER: [&str; 5] =
    ["mysql/general_log", "mysql/slow_log", "mysql/table_stats", "mysql/column_stats", "mysql/index_stats"];

/// Whether a file is of a table and has no redo: its name in the stream is its final one.
pub(super) fn has_no_redo(path: &str, role: &FileRole) -> bool {
    let of_table = matches!(role, FileRole::Table | FileRole::Link { .. });
    of_table && !path.ends_with(".ibd") && !path.ends_with(".isl")
}

/// What the files were before the backup began.
pub(super) struct Before<'a>(HashMap<&'a str, &'a Look>);

impl<'a> Before<'a> {
    pub fn of(listed: &'a [ScannedFile]) -> Before<'a> {
        let files = listed.iter().filter(|file| has_no_redo(&file.entry.path, &file.entry.role));
        Before(files.map(|file| (file.entry.path.as_str(), &file.look)).collect())
    }

    /// Whether no DDL has touched it since. Every statement that renames, replaces or alters a table changes its definition.
    fn has(&self, path: &str, now: &Look) -> bool {
        self.0.get(path).is_some_and(|before| {
            let unchanged = !path.ends_with(".frm") || before.signature == now.signature;
            before.identity == now.identity && unchanged
        })
    }
}

/// What counts of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Counts {
    /// mariadb-backup's copy: DDL has not touched the table.
    Theirs,
    /// These bytes, which were read while DDL was held.
    Ours(Vec<u8>),
    /// Its table was touched, and was too large to be read: mariadb-backup's copy, if it has this length.
    TheirsOf(u64),
}

/// The files at the moment when DDL was held.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub files: BTreeMap<String, Counts>,
    /// Whether mariadb-backup held DDL all that time and had not begun with what comes after it.
    pub in_time: bool,
}

/// Lists the files, and reads those of tables that DDL has touched. Called while mariadb-backup holds DDL.
///
/// # Errors
/// From the system, or cancelled.
pub(super) fn list(
    layout: &Layout,
    skipped: &Skipped,
    before: &Before<'_>,
    cancel: &Cancel,
) -> Result<BTreeMap<String, Counts>> {
    let began = Instant::now();
    let (mut files, mut touched) = (BTreeMap::new(), HashSet::new());
    let mut take = |file: ScannedFile| {
        let path = file.entry.path;
        if has_no_redo(&path, &file.entry.role) {
            let table = table(&path);
            if !before.has(&path, &file.look) && !WRITTEN_LONGER.contains(&table.as_str()) {
                touched.insert(table);
            }
            files.insert(path, Counts::Theirs);
        }
    };
    scan::list(layout, skipped, &mut |_, _| {}, &mut take)?;
    let mut left = READ_BYTES_MAX;
    for (bytes, table) in smallest_first(&mut files, &touched, &layout.datadir)? {
        cancel.check()?;
        if bytes <= left && began.elapsed() < READS_FOR {
            left -= bytes;
            read(&mut files, &table, &layout.datadir)?;
        }
    }
    Ok(files)
}

/// A table, with the names of its files.
type Table = (u64, Vec<String>);

/// The tables that were touched, each with its length. None of their files counts until it is read.
fn smallest_first(
    files: &mut BTreeMap<String, Counts>,
    touched: &HashSet<String>,
    datadir: &Path,
) -> Result<Vec<Table>> {
    let mut tables: HashMap<String, Table> = HashMap::new();
    for (path, counts) in files {
        let table = table(path);
        if touched.contains(&table) {
            let found = look(&datadir.join(path)).with_context(|| format!("cannot look at {path}"))?;
            let size = found.map_or(0, |look| look.signature.size);
            *counts = Counts::TheirsOf(size);
            let (bytes, paths) = tables.entry(table).or_default();
            *bytes += size;
            paths.push(path.clone());
        }
    }
    let mut tables: Vec<Table> = tables.into_values().collect();
    tables.sort();
    Ok(tables)
}

/// Reads all files of a table, or none if one of them does not stand still.
fn read(files: &mut BTreeMap<String, Counts>, paths: &[String], datadir: &Path) -> Result<()> {
    let read = |path: &String| read_still(&datadir.join(path)).with_context(|| format!("cannot read {path}"));
    let contents: Option<Vec<Vec<u8>>> = paths.iter().map(read).collect::<Result<_>>()?;
    for (path, bytes) in paths.iter().zip(contents.into_iter().flatten()) {
        files.insert(path.clone(), Counts::Ours(bytes));
    }
    Ok(())
}

/// The server may be writing a page of Aria at this moment, and half of a page is worth nothing.
fn read_still(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = None;
    for _ in 0..READS_MAX {
        let again = match fs::read(path) {
            Ok(again) => again,
            // Only if DDL is not held any more.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if bytes.as_ref() == Some(&again) {
            return Ok(bytes);
        }
        bytes = Some(again);
    }
    Ok(None)
}

/// Database and name of the table that a file belongs to.
fn table(path: &str) -> String {
    let (database, name) = path.split_once('/').unwrap_or(("", path));
    format!("{database}/{}", table_of(name))
}

/// What becomes of a backup.
#[derive(Debug, Default, PartialEq, Eq)]
struct Decision {
    /// Sent besides what is in the stream.
    ours: Vec<(String, Vec<u8>)>,
    /// How many of these mariadb-backup has lost.
    lost: usize,
    /// Of the stream, not in the datadir.
    dropped: BTreeSet<String>,
}

/// Decides from the files without redo of the stream, with their lengths, and those of the datadir.
///
/// # Errors
/// Why another backup has to be made.
fn decide(sent: &BTreeMap<String, u64>, held: Held) -> Result<Decision, String> {
    let dropped = sent.keys().filter(|path| !held.files.contains_key(*path)).cloned();
    let mut decision = Decision { dropped: dropped.collect(), ..Decision::default() };
    for (path, counts) in held.files {
        let theirs = sent.get(&path);
        match counts {
            Counts::Theirs if theirs.is_none() => return Err(format!("its backup lacks {path}")),
            Counts::TheirsOf(size) if theirs != Some(&size) => {
                return Err(format!(
                    "its backup has {path} with another length than the datadir, or not at all"
                ));
            }
            Counts::Theirs | Counts::TheirsOf(_) => {}
            Counts::Ours(bytes) => {
                decision.lost += usize::from(theirs.is_none());
                decision.ours.push((path, bytes));
            }
        }
    }
    let differs = decision.ours.first().map(|(path, _)| path).or(decision.dropped.first());
    match differs.filter(|_| !held.in_time) {
        Some(path) => {
            Err(format!("DDL has changed {path}, and it held its locks too short a time for us to look"))
        }
        None => Ok(decision),
    }
}

/// Makes the files without redo of a backup those of the datadir. Returns what was done, if anything was.
///
/// # Errors
/// [`Declined::BackupFailed`] if another backup has to be made; from the sink, or cancelled.
pub(super) fn take_from_datadir(
    unpacked: &mut Unpacked,
    held: Held,
    names: &mut Names<'_>,
    sink: &dyn SnapshotSink,
    cancel: &Cancel,
) -> Result<Option<String>, SnapshotError> {
    let of_tables = unpacked.files.iter().filter(|entry| has_no_redo(&entry.path, &entry.role));
    let sent = of_tables.map(|entry| (entry.path, entry.size)).collect();
    let decision = decide(&sent, held).map_err(Declined::BackupFailed)?;
    let Decision { ours, lost, dropped } = decision;
    if ours.is_empty() && dropped.is_empty() {
        return Ok(None);
    }
    let bytes: usize = ours.iter().map(|(_, bytes)| bytes.len()).sum();
    let said = format!(
        "DDL ran during the backup: {} files without redo ({} KiB) were read under its locks, and {} that are gone are left \
         out; mariadb-backup had lost {lost}",
        ours.len(),
        bytes.div_ceil(1024),
        dropped.len()
    );
    let replaced: HashSet<&str> = ours.iter().map(|(path, _)| path.as_str()).collect();
    let mut files = Entries::default();
    for entry in unpacked.files.iter() {
        if !dropped.contains(&entry.path) && !replaced.contains(entry.path.as_str()) {
            files.insert(&entry);
        }
    }
    for (path, bytes) in &ours {
        cancel.check().map_err(anyhow::Error::from)?;
        files.insert(&hand_over(path, bytes, names, sink)?);
    }
    unpacked.files = files;
    Ok(Some(said))
}

/// Sends a file as if it were in the stream.
fn hand_over(path: &str, bytes: &[u8], names: &mut Names<'_>, sink: &dyn SnapshotSink) -> Result<FileEntry> {
    let (_, entry) = names.of(path);
    sink.announce(&entry)?;
    for (at, range) in (0..).step_by(RANGE_BYTES as usize).zip(bytes.chunks(RANGE_BYTES as usize)) {
        sink.write(entry.id, at, range)?;
    }
    let size = bytes.len() as u64;
    let allocated = if entry.size == size { entry.allocated } else { size };
    Ok(FileEntry { size, allocated, ..entry })
}

#[cfg(test)]
#[path = "without_redo_tests.rs"]
mod tests;
