//! One table: its definition, its columns, and how its rows are divided into ranges that are read in parallel.
use protocol::logical::{Content, Rows, Table};

use super::error::ReadError;
use super::part::RAW_BYTES;
use crate::snapshot::declined::Declined;
use crate::sql::Session;
use crate::sql::reading::{Column, Extent, Listed, rest, select};

/// Most ranges of one table.
const RANGES_MAX: i128 = 100_000;

/// A table whose rows are read.
#[derive(Clone, Debug)]
pub(super) struct Described {
    /// As the joiner will know it; its rows are counted later.
    pub table: Table,
    /// What is read of each row.
    select: String,
    /// The columns of its primary key.
    key: Vec<String>,
    /// The first of them has whole numbers.
    whole_numbers: bool,
    /// It has rows that were valid before.
    history: bool,
    /// How much there is.
    pub extent: Extent,
}

/// A part of a table's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    /// Its number among those of the table, which does not change while other rows come and go.
    pub number: i128,
    /// The first and the last value of the key; none for the whole table.
    pub values: Option<(i128, i128)>,
}

impl Described {
    /// What is read for a range.
    pub fn query(&self, range: Range) -> (&str, String) {
        let Table { database, name, .. } = &self.table;
        (&self.select, rest(database, name, self.history, &self.key, range.values))
    }

    /// Its rows, to be counted.
    pub fn rows_mut(&mut self) -> Option<&mut Rows> {
        match &mut self.table.content {
            Content::Rows(rows) => Some(rows),
            Content::Nothing | Content::Discarded | Content::Sequence(_) => None,
        }
    }

    /// The ranges in which it is read.
    ///
    /// # Errors
    /// From the server.
    pub fn ranges(&self, session: &mut Session) -> Result<Vec<Range>, ReadError> {
        let whole = vec![Range { number: 0, values: None }];
        let Some(first) = self.key.first().filter(|_| self.whole_numbers && !self.history) else {
            return Ok(whole);
        };
        if self.extent.bytes <= 2 * RAW_BYTES {
            return Ok(whole);
        }
        let ends = session.least_and_greatest(&self.table.database, &self.table.name, first)?;
        Ok(ends.map_or(whole, |ends| divide(ends, self.extent)))
    }
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
        .map(|number| {
            let from = number * width;
            Range { number, values: Some((from.max(least), (from + width - 1).min(greatest))) }
        })
        .collect()
}

/// Describes a table.
///
/// # Errors
/// From the server; it is versioned in a way that cannot be taken along.
pub(super) fn describe(session: &mut Session, listed: &Listed) -> Result<Described, ReadError> {
    let (database, name) = (listed.database.as_str(), listed.name.as_str());
    let create = session.definition(database, name)?;
    let columns = session.columns(database, name)?;
    let history = listed.kind == "SYSTEM VERSIONED";
    let key = session.primary_key(database, name)?;
    let extent = session.extent(database, name)?;
    let period = |column: &&Column| matches!(column.generated.as_deref(), Some("ROW START" | "ROW END"));
    if let Some(of_transactions) = columns.iter().filter(period).find(|column| column.data_type == "bigint") {
        let text = format!(
            "the table {database}.{name} has its history by numbers of transactions ({}), which mean nothing on another server",
            of_transactions.name
        );
        return Err(Declined::Layout(text).into());
    }
    let mut read: Vec<Column> =
        columns.iter().filter(|column| column.generated.is_none() || period(column)).cloned().collect();
    if history && !columns.iter().any(|column| period(&column)) {
        read.extend(["row_start", "row_end"].map(|name| Column {
            name: name.to_owned(),
            data_type: "timestamp".to_owned(),
            unsigned: false,
            generated: None,
        }));
    }
    let lenient =
        |column: &&Column| column.data_type == "enum" || column.generated.is_some() && !period(column);
    let lenient = columns.iter().filter(lenient).map(|column| column.name.clone()).collect();
    let is_text = |column: &&Column| matches!(column.data_type.as_str(), "uuid" | "inet6" | "inet4");
    let texts = read.iter().filter(is_text).map(|column| column.name.clone()).collect();
    let whole_number = |column: &Column| {
        matches!(column.data_type.as_str(), "tinyint" | "smallint" | "mediumint" | "int" | "bigint")
    };
    let first = key.first().and_then(|first| columns.iter().find(|column| column.name == *first));
    let whole_numbers = first.is_some_and(whole_number);
    let ends = |column: &&Column| column.generated.as_deref() == Some("ROW END");
    let until = columns.iter().find(ends).map_or_else(|| "row_end".to_owned(), |column| column.name.clone());
    let until = history.then_some(until);
    let (names, select) = select(&read.iter().collect::<Vec<_>>(), until.as_deref());
    let rows =
        Rows { columns: names, history, until, bytes: extent.bytes, lenient, texts, ..Rows::default() };
    let table =
        Table { database: database.to_owned(), name: name.to_owned(), create, content: Content::Rows(rows) };
    Ok(Described { table, select, key, whole_numbers, history, extent })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_same_rows_are_divided_alike_when_others_come() {
        let extent = Extent { rows: 1000, bytes: 10 * RAW_BYTES };
        let (before, after) = (divide((1, 1000), extent), divide((-20, 1010), extent));
        assert!(before.len() >= 8, "{before:?}");
        let inner = |ranges: &[Range]| {
            ranges
                .iter()
                .filter(|r| r.values.is_some_and(|(a, b)| a >= 128 && b < 896))
                .copied()
                .collect::<Vec<_>>()
        };
        assert_eq!(inner(&before), inner(&after));
    }

    proptest! {
        #[test]
        fn every_value_is_in_one_range(least in any::<i64>(), more in any::<u64>(), bytes in 0..(1u64 << 45)) {
            let greatest = i128::from(least) + i128::from(more);
            let ranges = divide((i128::from(least), greatest), Extent { rows: 1, bytes });
            prop_assert!(ranges.len() as i128 <= 2 * RANGES_MAX + 2);
            let mut next = i128::from(least);
            for range in ranges {
                let (from, to) = range.values.unwrap();
                prop_assert!(from == next && to >= from);
                next = to + 1;
            }
            prop_assert_eq!(next, greatest + 1);
        }
    }
}
