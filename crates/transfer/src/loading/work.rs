//! Which statements load which rows: several for a large table, each a range of its key, and all threads take the next one.
//!
//! InnoDB takes rows from several statements at once as fast as from one, because each of them fills pages of its own. A statement
//! is one transaction, so it also bounds what InnoDB keeps to undo it: files do not shrink again.
use std::ops::{Range, RangeInclusive};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use anyhow::Result;
use protocol::logical::{Content, Table};

use crate::threads::lock;

/// Statements for each thread, if there are enough rows: who is done first has something left to do.
const FOR_EACH_THREAD: usize = 4;
/// Parts of rows that one statement loads, of a table that has more: the beginning and the end of a statement cost little beside
/// so many, and what is kept to undo them stays small.
const PARTS: RangeInclusive<usize> = 4..=32;

/// Some rows of a table.
pub(super) struct Piece {
    /// Its number among all.
    pub number: usize,
    /// The number of its table.
    table: usize,
    /// The parts that have them.
    pub parts: Range<usize>,
}

/// A table that is being made.
pub(super) struct Making<'a> {
    /// The table.
    pub table: &'a Table,
    /// Statements that load its rows.
    pieces: usize,
    /// What makes the keys that are added after its rows, once it is made.
    add: OnceLock<Vec<u8>>,
    /// Held while it is made; true if that has failed.
    failed: Mutex<bool>,
    /// Statements that have not ended.
    left: AtomicUsize,
    rows: AtomicU64,
}

/// All tables, and the statements that nobody has begun.
pub(super) struct Work<'a> {
    tables: Vec<Making<'a>>,
    pieces: Vec<Piece>,
    begun: AtomicUsize,
    stopped: AtomicBool,
}

impl<'a> Work<'a> {
    /// Divides the rows of these tables among so many threads.
    pub fn of(mut tables: Vec<&'a Table>, threads: usize) -> Work<'a> {
        // The largest first, so that the last ones end together.
        tables.sort_by_key(|table| std::cmp::Reverse(bytes(table)));
        let all: usize = tables.iter().map(|table| parts(table)).sum();
        let each = (all / (threads.max(1) * FOR_EACH_THREAD)).clamp(*PARTS.start(), *PARTS.end());
        let tables = tables.into_iter().map(|table| Making::of(table, statements(table, each)));
        let tables: Vec<Making<'_>> = tables.collect();
        let ranges = tables.iter().enumerate().flat_map(|(number, making)| {
            divide(parts(making.table), making.pieces).map(move |parts| (number, parts))
        });
        let pieces = ranges.enumerate().map(|(number, (table, parts))| Piece { number, table, parts });
        let pieces = pieces.collect();
        Work { tables, pieces, begun: AtomicUsize::new(0), stopped: AtomicBool::new(false) }
    }

    /// The next statement, and its table.
    pub fn next(&self) -> Option<(&Piece, &Making<'a>)> {
        if self.stopped.load(Ordering::Acquire) {
            return None;
        }
        let piece = self.pieces.get(self.begun.fetch_add(1, Ordering::Relaxed))?;
        Some((piece, self.tables.get(piece.table)?))
    }

    /// Leaves nothing to do.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }
}

impl<'a> Making<'a> {
    fn of(table: &'a Table, pieces: usize) -> Making<'a> {
        Making {
            table,
            pieces,
            add: OnceLock::new(),
            failed: Mutex::new(false),
            left: AtomicUsize::new(pieces),
            rows: AtomicU64::new(0),
        }
    }

    /// What `make` has returned, who ever was the first to ask; none if it has failed for another.
    ///
    /// # Errors
    /// From `make`.
    pub fn made(&self, make: impl FnOnce() -> Result<Vec<u8>>) -> Result<Option<&[u8]>> {
        let mut failed = lock(&self.failed);
        if self.add.get().is_none() && !*failed {
            let add = make().inspect_err(|_| *failed = true)?;
            let _ = self.add.set(add);
        }
        Ok(self.add.get().map(Vec::as_slice))
    }

    /// One of its statements has loaded so many rows. Returns how many all of them have, if this was the last.
    pub fn loaded(&self, rows: u64) -> Option<u64> {
        self.rows.fetch_add(rows, Ordering::AcqRel);
        (self.left.fetch_sub(1, Ordering::AcqRel) == 1).then(|| self.rows.load(Ordering::Acquire))
    }
}

fn bytes(table: &Table) -> u64 {
    match &table.content {
        Content::Rows(rows) => rows.bytes,
        Content::Nothing | Content::Discarded | Content::Sequence(_) => 0,
    }
}

fn parts(table: &Table) -> usize {
    match &table.content {
        Content::Rows(rows) => rows.parts.len(),
        Content::Nothing | Content::Discarded | Content::Sequence(_) => 0,
    }
}

/// How many statements load a table, of so many parts each.
fn statements(table: &Table, each: usize) -> usize {
    if is_divisible(table) { parts(table).div_ceil(each).max(1) } else { 1 }
}

/// InnoDB takes rows from several statements at once; other engines lock the table.
fn is_divisible(table: &Table) -> bool {
    const ENGINE: &[u8] = b"\n) ENGINE=InnoDB";
    table.create.windows(ENGINE.len()).any(|window| window == ENGINE)
}

/// Divides so many parts into ranges of about the same number; one, if there are none.
fn divide(parts: usize, pieces: usize) -> impl Iterator<Item = Range<usize>> {
    let at = move |number: usize| parts * number / pieces.max(1);
    (0..pieces.max(1)).map(move |number| at(number)..at(number + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocol::logical::Rows;

    use super::*;

    fn table(name: &str, megabytes: u64) -> Table {
        let parts = (0..megabytes / 8).map(|n| format!("{name}/{n}")).collect();
        let rows = Rows { bytes: megabytes << 20, parts, ..Rows::default() };
        Table {
            database: "d".to_owned(),
            name: name.to_owned(),
            create: b"CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB DEFAULT CHARSET=latin1".to_vec(),
            content: Content::Rows(rows),
        }
    }

    fn pieces(tables: &[Table], threads: usize) -> Vec<usize> {
        let work = Work::of(tables.iter().collect(), threads);
        work.tables.iter().map(|making| making.pieces).collect()
    }

    #[test]
    fn large_tables_are_divided_among_threads() {
        let of = |sizes: &[u64], threads| {
            pieces(&sizes.iter().map(|size| table("t", *size)).collect::<Vec<_>>(), threads)
        };
        assert_eq!(of(&[800, 400, 400], 4), [9, 5, 5]);
        assert_eq!(of(&[80_000], 2), [313]);
        assert_eq!(of(&[80, 24], 16), [3, 1]);
        assert_eq!(of(&[0, 8], 4), [1, 1]);
        let other = Table { create: b"CREATE TABLE `t` (\n) ENGINE=MyISAM".to_vec(), ..table("t", 800) };
        assert_eq!(pieces(&[other], 4), [1]);
    }

    #[test]
    fn a_table_is_made_once_and_complete_after_its_last_rows() {
        let table = table("t", 800);
        let making = Making::of(&table, 2);
        assert_eq!(making.made(|| Ok(b"ADD KEY".to_vec())).unwrap(), Some(&b"ADD KEY"[..]));
        assert_eq!(making.made(|| panic!("again")).unwrap(), Some(&b"ADD KEY"[..]));
        assert_eq!((making.loaded(3), making.loaded(4)), (None, Some(7)));
        let making = Making::of(&table, 2);
        assert!(making.made(|| anyhow::bail!("refused")).is_err());
        assert_eq!(making.made(|| panic!("again")).unwrap(), None);
    }

    #[test]
    fn nothing_is_begun_after_a_failure() {
        let tables = [table("a", 8), table("b", 8)];
        let work = Work::of(tables.iter().collect(), 1);
        assert!(work.next().is_some());
        work.stop();
        assert!(work.next().is_none());
    }

    proptest! {
        #[test]
        fn every_part_is_in_one_piece(sizes in prop::collection::vec(0u64..5000, 0..6), threads in 1usize..17) {
            let tables: Vec<Table> = sizes.iter().map(|size| table("t", *size)).collect();
            let work = Work::of(tables.iter().collect(), threads);
            let mut all: Vec<Vec<usize>> = work.tables.iter().map(|_| Vec::new()).collect();
            let mut number = 0;
            while let Some((piece, _)) = work.next() {
                prop_assert_eq!(piece.number, number);
                number += 1;
                all[piece.table].extend(piece.parts.clone());
            }
            for (making, found) in work.tables.iter().zip(all) {
                prop_assert_eq!(found, (0..parts(making.table)).collect::<Vec<_>>());
            }
        }
    }
}
