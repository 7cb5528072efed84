//! Which tables were read completely, while others are still read. A table has no more ranges once the first one of a later table is
//! taken; it is complete when those that were taken are read.
use std::collections::{BTreeSet, HashMap};

use super::rows::Done;

/// What was read of each table, by the number of the table.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// How many ranges were taken, and what was read.
    tables: HashMap<usize, (usize, Vec<Done>)>,
    /// Tables that are not known to be complete.
    open: BTreeSet<usize>,
    /// The table whose ranges are taken.
    at: usize,
}

impl Tally {
    /// A range of this table is taken. Tables come in the order of their numbers.
    pub fn begins(&mut self, table: usize) {
        self.at = table;
        self.open.insert(table);
        self.tables.entry(table).or_default().0 += 1;
    }

    /// A range was read. Returns the tables that are complete now and were not before, with everything that was read of them. The last
    /// table is never among them.
    pub fn ends(&mut self, table: usize, done: Done) -> Vec<(usize, Vec<Done>)> {
        self.tables.entry(table).or_default().1.push(done);
        let tables = &self.tables;
        let read = |table: &usize| tables.get(table).filter(|(taken, done)| *taken == done.len());
        let complete: Vec<(usize, Vec<Done>)> = (self.open.iter())
            .filter(|table| **table < self.at)
            .filter_map(|table| Some((*table, read(table)?.1.clone())))
            .collect();
        self.open.retain(|table| complete.iter().all(|(complete, _)| complete != table));
        complete
    }

    /// Everything that was read of a table.
    pub fn take(&mut self, table: usize) -> Vec<Done> {
        self.tables.remove(&table).map(|(_, done)| done).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(at: usize) -> Done {
        Done { at, rows: 1, parts: Vec::new(), discarded: false }
    }

    fn complete(found: Vec<(usize, Vec<Done>)>) -> Vec<(usize, usize)> {
        found.into_iter().map(|(table, done)| (table, done.len())).collect()
    }

    #[test]
    fn a_table_is_complete_once_a_later_one_is_begun_and_all_its_ranges_are_read() {
        let mut tally = Tally::default();
        tally.begins(0);
        tally.begins(0);
        assert_eq!(complete(tally.ends(0, done(0))), []);
        tally.begins(1);
        // Its last range was taken before, and is still read.
        assert_eq!(complete(tally.ends(1, done(0))), []);
        assert_eq!(complete(tally.ends(0, done(1))), [(0, 2)]);
        // All of table 1 was read, but it may have more ranges.
        tally.begins(1);
        assert_eq!(complete(tally.ends(1, done(1))), []);
        tally.begins(2);
        tally.begins(3);
        assert_eq!(complete(tally.ends(2, done(0))), [(1, 2), (2, 1)]);
        assert_eq!(complete(tally.ends(3, done(0))), []);
        assert_eq!([0, 1, 2, 3, 4].map(|table| tally.take(table).len()), [2, 2, 1, 1, 0]);
    }
}
