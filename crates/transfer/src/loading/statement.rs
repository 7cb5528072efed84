//! One statement that loads rows: its rows go through a pipe, and what the server says of them is judged.
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use protocol::logical::Rows;
use protocol::policy::series;

use super::parts;
use super::pipe::Pipe;
use super::tables::{Loader, refused};
use crate::failure::{Failure, Kind};
use crate::sql::loading::{Load, Warning};
use crate::sql::{Answer, Session, SqlError};
use crate::threads::{Thread, scoped};

/// The end of time of a TIMESTAMP before and since 11.5 (MDEV-32188), on 64 bits.
const END_OF_TIME: (&str, &str) = ("2038-01-19 03:14:07.999999", "2106-02-07 06:28:15.999999");
const LONGER_TIME_SINCE: (u32, u32) = (11, 5);
/// What a server says of the expression of a generated column without naming the column: ER_TRUNCATED_WRONG_VALUE,
/// ER_INVALID_CHARACTER_STRING, ER_WARN_ALLOWED_PACKET_OVERFLOWED, ER_DIVISION_BY_ZERO, ER_WRONG_VALUE_FOR_TYPE,
/// ER_DATETIME_FUNCTION_OVERFLOW.
const OF_EXPRESSIONS: [u16; 6] = [1292, 1300, 1301, 1365, 1411, 1441];
/// From ER_JSON_BAD_CHR to ER_JSON_PATH_ARRAY.
const OF_JSON: std::ops::RangeInclusive<u16> = 4035..=4045;

/// Rows that one statement loads.
#[derive(Clone, Copy)]
pub(super) struct Statement<'a> {
    /// Database of the table.
    pub database: &'a str,
    /// The table.
    pub table: &'a str,
    /// All its rows.
    pub rows: &'a Rows,
    /// Files of the parts that this statement loads.
    pub parts: &'a [PathBuf],
    /// Columns of the rows; `None` for one that the table has not.
    pub columns: &'a [Option<String>],
    /// Of the pipe.
    pub number: usize,
}

impl Statement<'_> {
    fn what(&self) -> String {
        rows_of(self.database, self.table)
    }

    /// Fails unless all rows of the table were loaded.
    ///
    /// # Errors
    /// `loaded` is another number.
    pub fn check_count(&self, loaded: u64) -> Result<(), Failure> {
        check_count(&self.what(), self.rows, loaded)
    }

    /// Loads the rows.
    ///
    /// # Errors
    /// A row does not arrive as it was sent.
    pub fn run(&self, loader: &Loader<'_>, session: &mut Session) -> Result<Loaded> {
        if self.parts.is_empty() {
            return Ok(Loaded::default());
        }
        let what = self.what();
        let refuses = |e: &SqlError| refused(&what, e);
        let version = if self.rows.history { session.variable("version")? } else { None };
        let load = load_of((self.database, self.table), self.rows, self.columns, version.as_deref());
        as_they_were(session, self.rows, &refuses, |session| self.feed(loader, session, load))
    }

    /// Runs the statement while its parts are unpacked into its pipe. Returns the server's answer.
    fn feed(
        &self,
        loader: &Loader<'_>,
        session: &mut Session,
        load: Load<'_>,
    ) -> Result<Answer<(u64, Vec<Warning>)>> {
        let pipe = Pipe::make(&loader.homes.tmp, &format!("rows-{}", self.number))?;
        let over = AtomicBool::new(false);
        let (loaded, fed) = std::thread::scope(|scope| {
            let feeder = scoped(scope, Thread::RowFeeder, || {
                let sources = self.parts.iter().map(|part| parts::open(part));
                let fed = pipe.feed(sources, &|| over.load(Ordering::Acquire), loader.cancel);
                // The server would wait for us, or take an end for the end of the rows.
                fed.inspect_err(|_| loader.server.kill())
            });
            let loaded = session.load_rows(pipe.path(), load);
            over.store(true, Ordering::Release);
            (loaded, feeder.join())
        });
        fed?;
        Ok(loaded)
    }
}

/// What a statement has loaded.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// Number of rows.
    pub rows: u64,
    /// What the server warned of that is expected.
    pub expected: Vec<Warning>,
}

/// Loads rows with `load`, which returns the server's answer. Returns what it has loaded, if each row is as it was on the donor. `refuses`: how a
/// refusal is named.
///
/// # Errors
/// From `load`; the server refuses a row, or changes one.
pub(crate) fn as_they_were(
    session: &mut Session,
    rows: &Rows,
    refuses: &dyn Fn(&SqlError) -> Failure,
    load: impl FnOnce(&mut Session) -> Result<Answer<(u64, Vec<Warning>)>>,
) -> Result<Loaded> {
    if rows.history {
        session.insert_history(true).map_err(|e| refuses(&e))?;
    }
    let (count, warnings) = load(session)?.map_err(|e| refuses(&e))?;
    if rows.history {
        session.insert_history(false).map_err(|e| refuses(&e))?;
    }
    match unexpected(&warnings, rows) {
        Some(error) => Err(refuses(&error).into()),
        None => Ok(Loaded { rows: count, expected: warnings }),
    }
}

/// The rows of a table in words.
pub(super) fn rows_of(database: &str, table: &str) -> String {
    format!("rows of {database}.{table}")
}

/// Fails unless all rows were loaded. `what`: the rows in words.
///
/// # Errors
/// `loaded` is another number.
pub(crate) fn check_count(what: &str, rows: &Rows, loaded: u64) -> Result<(), Failure> {
    match loaded == rows.count {
        true => Ok(()),
        false => Err(Failure::new(Kind::Server, format!("{loaded} of {} {what} were loaded", rows.count))),
    }
}

/// How the rows of a table are loaded by a server of this version, which is not needed for rows without history.
pub(crate) fn load_of<'a>(
    (database, table): (&'a str, &'a str),
    rows: &'a Rows,
    columns: &'a [Option<String>],
    version: Option<&str>,
) -> Load<'a> {
    let old = series(&version.map(str::to_owned)) < Some(LONGER_TIME_SINCE);
    let end_of_time = if rows.history && old { END_OF_TIME.0 } else { END_OF_TIME.1 };
    Load {
        database,
        table,
        columns,
        until: rows.until.as_deref().map(|until| (until, end_of_time)),
        texts: &rows.texts,
        strict: rows.lenient.is_empty(),
    }
}

/// The first warning about a value that is not as it was on the donor.
fn unexpected(warnings: &[Warning], rows: &Rows) -> Option<SqlError> {
    let warning = warnings.iter().find(|warning| !is_expected(warning, &rows.lenient))?;
    Some(SqlError { code: warning.code, text: format!("{} ({})", warning.text, warning.code) })
}

/// Whether a warning is of a value that is as it was on the donor: the invalid value of an ENUM, which is written as an empty text,
/// and whatever a generated column is computed from.
fn is_expected(warning: &Warning, lenient: &[String]) -> bool {
    match about(&warning.text) {
        About::Column(end) => lenient.iter().any(|column| {
            end.ends_with(&format!("{FOR_COLUMN}'{column}'")) || end.ends_with(&format!(".`{column}`"))
        }),
        About::Expression => {
            let of_expression = OF_EXPRESSIONS.contains(&warning.code) || OF_JSON.contains(&warning.code);
            !lenient.is_empty() && of_expression
        }
        About::Unknown => false,
    }
}

/// What a warning of the server is about, by its English words.
enum About<'a> {
    /// A column, whose name this text ends with, as the server quotes it.
    Column(&'a str),
    /// No column that it names.
    Expression,
    /// It may name one, but not where a name is expected. The server cuts long texts.
    Unknown,
}

/// Before the name of a column in the server's words.
const FOR_COLUMN: &str = " for column ";

/// The values that a warning quotes can have any words, so only its end counts.
fn about(text: &str) -> About<'_> {
    let row = text.rsplit_once(" at row ").filter(|(_, row)| row.bytes().all(|byte| byte.is_ascii_digit()));
    match row {
        Some((end, _)) if end.contains(FOR_COLUMN) => About::Column(end),
        _ if !text.contains(FOR_COLUMN) || text.ends_with('\'') => About::Expression,
        _ => About::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_warnings_about_lenient_columns_are_expected() {
        let of = |code, text: &str| Warning { code, text: text.to_owned() };
        let lenient = ["e".to_owned()];
        assert!(is_expected(&of(1265, "Data truncated for column 'e' at row 1"), &lenient));
        assert!(!is_expected(&of(1265, "Data truncated for column 'f' at row 1"), &lenient));
        assert!(is_expected(
            &of(1366, "Incorrect integer value: 'x' for column `d`.`t`.`e` at row 1"),
            &lenient
        ));
        assert!(!is_expected(
            &of(1366, "Incorrect integer value: 'x' for column `d`.`t`.`f` at row 1"),
            &lenient
        ));
        // The value itself can have the words.
        assert!(!is_expected(
            &of(1292, "Incorrect datetime value: 'x for column 'e' ' for column `d`.`t`.`f` at row 1"),
            &lenient
        ));
        assert!(is_expected(
            &of(1292, "Incorrect datetime value: 'x for column 'f' ' for column `d`.`t`.`e` at row 1"),
            &lenient
        ));
        assert!(is_expected(
            &of(1292, "Truncated incorrect DOUBLE value: 'a for column 'f' at row 1'"),
            &lenient
        ));
        // A text that the server has cut.
        assert!(!is_expected(&of(1292, "Incorrect datetime value: 'x' for column `d`.`t`.`f"), &lenient));
        assert!(is_expected(&of(1292, "Truncated incorrect DOUBLE value: 'x'"), &lenient));
        assert!(!is_expected(&of(1292, "Truncated incorrect DOUBLE value: 'x'"), &[]));
        assert!(is_expected(&of(4038, "Syntax error in JSON text in argument 1"), &lenient));
        // What is lost is not the lenient column's.
        assert!(!is_expected(&of(1048, "Column 'f' cannot be null"), &lenient));
        assert!(!is_expected(
            &of(1262, "Row 7 was truncated; it contained more data than there were input columns"),
            &lenient
        ));
    }
}
