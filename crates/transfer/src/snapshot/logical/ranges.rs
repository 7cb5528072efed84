//! How the rows of a table are divided into ranges, which are read in parallel. A range is found when it is needed: the borders of
//! a table whose key is not one whole number are looked for in the table, a little ahead of those who read the ranges.
use xxhash_rust::xxh3::xxh3_64;

use super::describe::Described;
use super::error::ReadError;
use super::part::RAW_BYTES;
use crate::sql::definitions::Extent;
use crate::sql::keys::{Between, Values};
use crate::sql::{Answer, Session};

/// Most ranges of one table.
const RANGES_MAX: i128 = 100_000;
/// A key of whole numbers is divided by its values if so many of them have one row at least.
const VALUES_OF_ROW: i128 = 4;

/// A part of a table's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    /// Its place in the order of the table's key.
    pub at: usize,
    /// Its number among those of the table, which does not change while other rows come and go.
    pub number: i128,
    /// Its rows.
    pub between: Between,
}

impl Range {
    /// All rows of a table.
    pub const WHOLE: Range = Range { at: 0, number: 0, between: Between::All };
}

/// The ranges of tables, one after another: each with the number of its table.
pub(super) struct Ranges<'a> {
    session: Session,
    tables: &'a [Described],
    /// Tables that were begun.
    begun: usize,
    open: Open,
}

/// What is left of a table.
enum Open {
    Nothing,
    /// These ranges.
    Known(std::vec::IntoIter<Range>),
    /// Rows from these values on.
    From {
        values: Option<Values>,
        /// Ranges so far.
        found: usize,
        /// One row in so many ends a range.
        every: u64,
    },
}

impl<'a> Ranges<'a> {
    /// Nothing is divided. `session` sees what those see who read.
    pub fn new(session: Session, tables: &'a [Described]) -> Ranges<'a> {
        Ranges { session, tables, begun: 0, open: Open::Nothing }
    }

    fn next_range(&mut self) -> Result<Option<(usize, Range)>, ReadError> {
        loop {
            let range = match &mut self.open {
                Open::Nothing => None,
                Open::Known(ranges) => ranges.next(),
                Open::From { .. } => self.found()?,
            };
            if let Some(range) = range {
                return Ok(Some((self.begun.saturating_sub(1), range)));
            }
            let Some(table) = self.tables.get(self.begun) else { return Ok(None) };
            self.begun += 1;
            self.open = self.divided(table)?;
        }
    }

    /// How a table is divided.
    fn divided(&mut self, table: &Described) -> Result<Open, ReadError> {
        let whole = || Open::Known(vec![Range::WHOLE].into_iter());
        let Extent { rows, bytes } = table.extent;
        if table.history || bytes <= 2 * RAW_BYTES || rows == 0 || table.key.dividing().is_empty() {
            return Ok(whole());
        }
        if let Some(column) = table.key.whole_number() {
            let (database, name) = (&table.table.database, &table.table.name);
            let ends = self.session.least_and_greatest(database, name, column);
            let Some(ends) = of_what_is_there(ends)? else { return Ok(whole()) };
            if is_dense(ends, table.extent) {
                return Ok(Open::Known(divide(ends, table.extent).into_iter()));
            }
        }
        Ok(Open::From { values: None, found: 0, every: rows_of_range(table.extent) })
    }

    /// The next range of a table whose borders are looked for.
    fn found(&mut self) -> Result<Option<Range>, ReadError> {
        let Open::From { values, found, every } = &mut self.open else { return Ok(None) };
        let Some(table) = self.begun.checked_sub(1).and_then(|at| self.tables.get(at)) else {
            return Ok(None);
        };
        let border = match (*found as i128) < RANGES_MAX {
            true => of_what_is_there(self.session.next_border(
                &table.table.database,
                &table.table.name,
                &table.key,
                values.as_ref(),
                *every,
            ))?,
            false => None,
        };
        let from = values.take();
        let range = Range {
            at: *found,
            number: from.as_ref().map_or(0, number_of),
            between: Between::Values(from, border.clone()),
        };
        match border {
            None => self.open = Open::Nothing,
            border => {
                *values = border;
                *found += 1;
            }
        }
        Ok(Some(range))
    }
}

impl Iterator for Ranges<'_> {
    type Item = Result<(usize, Range), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_range().transpose()
    }
}

/// Nothing, of a table without a tablespace: who reads it will find that out.
fn of_what_is_there<T>(answer: Answer<Option<T>>) -> Result<Option<T>, ReadError> {
    match answer.map_err(ReadError::from) {
        Err(ReadError::Discarded) => Ok(None),
        answer => answer,
    }
}

/// Whether ranges of equal width have about the same number of rows.
fn is_dense((least, greatest): (i128, i128), extent: Extent) -> bool {
    greatest - least < VALUES_OF_ROW * i128::from(extent.rows.max(1))
}

/// Rows that are about one part, or half of one: nearly a power of two, so that it stays the same while the table grows a little;
/// not one, because the remainder by a power of two depends on a few bits alone.
fn rows_of_range(extent: Extent) -> u64 {
    let rows = u128::from(extent.rows.max(1)) * u128::from(RAW_BYTES) / u128::from(extent.bytes.max(1));
    let rows = u64::try_from(rows).unwrap_or(u64::MAX).max(2);
    (1 << rows.ilog2()) - 1
}

/// A number of the range that begins with these values.
fn number_of(values: &Values) -> i128 {
    let mut all = Vec::new();
    for value in values {
        all.extend_from_slice(&(value.len() as u64).to_le_bytes());
        all.extend_from_slice(value);
    }
    xxh3_64(&all).into()
}

/// Divides a key's values into ranges of equal width, each of which has about one part's bytes of rows. The borders are multiples
/// of a power of two, so the next snapshot divides the same rows alike unless the table has grown much.
fn divide((least, greatest): (i128, i128), extent: Extent) -> Vec<Range> {
    let span = greatest - least + 1;
    let parts = i128::from(extent.bytes / RAW_BYTES).clamp(1, RANGES_MAX);
    let width = i128::from((span / parts).clamp(1, i128::from(u64::MAX >> 1)) as u64).max(1);
    let width = (width as u128).next_power_of_two() as i128;
    let (first, last) = (least.div_euclid(width), greatest.div_euclid(width));
    (first..=last)
        .enumerate()
        .map(|(at, number)| {
            let from = number * width;
            let between = Between::Numbers(from.max(least), (from + width - 1).min(greatest));
            Range { at, number, between }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbers(range: &Range) -> (i128, i128) {
        match range.between {
            Between::Numbers(from, to) => (from, to),
            _ => panic!("{range:?}"),
        }
    }

    #[test]
    fn the_same_rows_are_divided_alike_when_others_come() {
        let extent = Extent { rows: 1000, bytes: 10 * RAW_BYTES };
        let (before, after) = (divide((1, 1000), extent), divide((-20, 1010), extent));
        assert!(before.len() >= 8, "{before:?}");
        let inner = |ranges: &[Range]| -> Vec<(i128, (i128, i128))> {
            let all = ranges.iter().map(|range| (range.number, numbers(range)));
            all.filter(|(_, (from, to))| *from >= 128 && *to < 896).collect()
        };
        assert_eq!(inner(&before), inner(&after));
    }

    #[test]
    fn only_dense_numbers_are_divided_by_their_values() {
        let extent = Extent { rows: 1000, bytes: 10 * RAW_BYTES };
        assert!(is_dense((1, 1000), extent) && is_dense((-1000, 1000), extent));
        assert!(!is_dense((1, 1 << 40), extent));
    }

    #[test]
    fn a_border_is_one_row_in_about_as_many_as_fill_a_part() {
        let of = |rows, bytes| rows_of_range(Extent { rows, bytes });
        assert_eq!(of(1000, 10 * RAW_BYTES), 63);
        assert_eq!(of(1100, 11 * RAW_BYTES), 63);
        assert_eq!(of(1, 1 << 60), 1);
        assert!(of(u64::MAX, 1) > 1);
    }

    #[test]
    fn ranges_have_numbers_of_their_own() {
        let of = |values: &[&[u8]]| number_of(&values.iter().map(|value| value.to_vec()).collect());
        assert_ne!(of(&[b"ab", b"c"]), of(&[b"a", b"bc"]));
        assert_eq!(of(&[b"ab"]), of(&[b"ab"]));
    }

    proptest! {
        #[test]
        fn every_value_is_in_one_range(least in any::<i64>(), more in any::<u64>(), bytes in 0..(1u64 << 45)) {
            let greatest = i128::from(least) + i128::from(more);
            let ranges = divide((i128::from(least), greatest), Extent { rows: 1, bytes });
            prop_assert!(ranges.len() as i128 <= 2 * RANGES_MAX + 2);
            let mut next = i128::from(least);
            for (at, range) in ranges.iter().enumerate() {
                let (from, to) = numbers(range);
                prop_assert!(range.at == at && from == next && to >= from);
                next = to + 1;
            }
            prop_assert_eq!(next, greatest + 1);
        }
    }
}
