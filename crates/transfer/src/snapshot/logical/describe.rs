//! One table: its definition, its columns, and what is read of its rows.
use protocol::logical::{Content, Rows, Table};

use super::error::ReadError;
use super::refusing::{check_history, check_members, check_zone, is_period};
use crate::sql::Session;
use crate::sql::definitions::{Column, Extent, Listed};
use crate::sql::keys::{Between, Key};
use crate::sql::reading::{rest, select};

/// A table whose rows are read.
#[derive(Clone, Debug)]
pub(super) struct Described {
    /// As the joiner will know it; its rows are counted later.
    pub table: Table,
    /// What is read of each row.
    select: String,
    /// In whose order they are read.
    pub key: Key,
    /// It has rows that were valid before.
    pub history: bool,
    /// How much there is.
    pub extent: Extent,
}

impl Described {
    /// What is read of some rows.
    pub fn query(&self, between: &Between) -> (&str, String) {
        let Table { database, name, .. } = &self.table;
        (&self.select, rest(database, name, self.history, &self.key, between))
    }

    /// Its rows, to be counted.
    pub fn rows_mut(&mut self) -> Option<&mut Rows> {
        match &mut self.table.content {
            Content::Rows(rows) => Some(rows),
            Content::Nothing | Content::Discarded | Content::Sequence(_) => None,
        }
    }
}

/// Describes a table.
///
/// # Errors
/// From the server; its rows could not be the same on the joiner.
pub(super) fn describe(session: &mut Session, listed: &Listed) -> Result<Described, ReadError> {
    let (database, name) = (listed.database.as_str(), listed.name.as_str());
    let create = session.definition(database, name)?;
    let columns = session.columns(database, name)?;
    let history = listed.kind == "SYSTEM VERSIONED";
    let key = session.key(database, name, &columns)?;
    let extent = session.extent(database, name)?;
    let ends = |column: &&Column| column.generated.as_deref() == Some("ROW END");
    let until = columns.iter().find(ends).map_or_else(|| "row_end".to_owned(), |column| column.name.clone());
    let until = history.then_some(until);
    check_history(session, listed, &create, &columns, until.as_deref())?;
    check_members(session, listed, &columns, history)?;
    check_zone(session, listed, &create, &columns, history)?;
    let mut read: Vec<Column> =
        columns.iter().filter(|column| column.generated.is_none() || is_period(column)).cloned().collect();
    if history && !columns.iter().any(is_period) {
        read.extend(["row_start", "row_end"].map(|name| Column {
            name: name.to_owned(),
            data_type: "timestamp".to_owned(),
            ..Column::default()
        }));
    }
    let lenient =
        |column: &&Column| column.data_type == "enum" || column.generated.is_some() && !is_period(column);
    let lenient = columns.iter().filter(lenient).map(|column| column.name.clone()).collect();
    let is_text = |column: &&Column| matches!(column.data_type.as_str(), "uuid" | "inet6" | "inet4");
    let texts = read.iter().filter(is_text).map(|column| column.name.clone()).collect();
    let (names, select) = select(&read.iter().collect::<Vec<_>>(), until.as_deref());
    let rows =
        Rows { columns: names, history, until, bytes: extent.bytes, lenient, texts, ..Rows::default() };
    let table =
        Table { database: database.to_owned(), name: name.to_owned(), create, content: Content::Rows(rows) };
    Ok(Described { table, select, key, history, extent })
}
