//! Makes databases, sequences and tables on the private server and loads their rows, several tables at a time.
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::Result;
use formats::mariadb::show_create::{Deferred, defer_keys, without_counter};
use protocol::logical::{Content, Contents, Rows, Table};
use protocol::policy::series;

use super::in_words;
use super::parts::Parts;
use super::pipe::Pipe;
use crate::cancel::{Cancel, LOOK_EVERY};
use crate::failure::{Failure, Kind};
use crate::private_server::PrivateServer;
use crate::private_server::homes::Homes;
use crate::server::progress::Progress;
use crate::sql::loading::{Load, Warning};
use crate::sql::{Session, SqlError};
use crate::threads::{Thread, in_threads, lock, scoped};

/// Tables with more bytes get their secondary keys after their rows: sorted at once that is faster than row by row.
pub(crate) const DEFER_FROM: u64 = 8 << 20;
/// The end of time of a TIMESTAMP before and since 11.5 (MDEV-32188), on 64 bits.
const END_OF_TIME: (&str, &str) = ("2038-01-19 03:14:07.999999", "2106-02-07 06:28:15.999999");
const LONGER_TIME_SINCE: (u32, u32) = (11, 5);
/// WARN_DATA_TRUNCATED.
const TRUNCATED: u16 = 1265;
/// Warnings about definitions that are logged.
const WARNINGS_LOGGED: u64 = 20;

/// What loading needs.
pub struct Loader<'a> {
    /// Where.
    pub server: &'a PrivateServer,
    /// What.
    pub parts: &'a Parts,
    /// The private server's directories.
    pub homes: &'a Homes,
    /// Tables at a time.
    pub threads: usize,
    /// For the operator.
    pub progress: &'a Progress,
    /// Ends it.
    pub cancel: &'a Cancel,
}

/// A failure of the server to take something.
pub(super) fn refused(what: &str, error: &SqlError) -> Failure {
    let text = format!("this node's server does not take {what}: {error}");
    Failure::new(Kind::Refused, text)
        .hint("change it on the donor, or give this node the donor's settings and version")
}

/// How the rows of a table are loaded by a server of this version.
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

impl Loader<'_> {
    /// A session that loads.
    pub(super) fn session(&self) -> Result<Session> {
        let mut session = self.server.session()?;
        session.set_loading()?;
        Ok(session)
    }

    /// Makes everything and loads all rows. Returns how many.
    ///
    /// # Errors
    /// The server refuses something, a row does not arrive as it was sent, or cancelled.
    pub fn all(&self, contents: &Contents) -> Result<u64> {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // A statement cannot be cancelled: its server is.
            scoped(scope, Thread::LoadWatch, || {
                while !over.load(Ordering::Acquire) {
                    if self.cancel.check().is_err() {
                        self.server.kill();
                        break;
                    }
                    std::thread::sleep(LOOK_EVERY.min(std::time::Duration::from_millis(50)));
                }
                Ok(())
            });
            let loaded = crate::panics::caught(|| self.everything(contents));
            over.store(true, Ordering::Release);
            // What fails because the server was ended fails for the reason of that.
            self.cancel.check()?;
            loaded
        })
    }

    fn everything(&self, contents: &Contents) -> Result<u64> {
        self.progress.phase("loading rows", "");
        let mut session = self.session()?;
        for database in &contents.databases {
            session
                .create_database(database)
                .map_err(|e| refused(&format!("the database {database}"), &e))?;
        }
        let (sequences, mut tables): (Vec<&Table>, Vec<&Table>) =
            contents.tables.iter().partition(|table| matches!(table.content, Content::Sequence(_)));
        // A default can be the next value of a sequence.
        for table in sequences {
            self.table(&mut session, table, 0, contents)?;
        }
        let bytes = |table: &&Table| match &table.content {
            Content::Rows(rows) => rows.bytes,
            Content::Nothing | Content::Discarded | Content::Sequence(_) => 0,
        };
        // The largest first, so that the last ones end together.
        tables.sort_by_key(|table| std::cmp::Reverse(bytes(table)));
        let (queue, rows) = (Mutex::new((1..).zip(tables)), AtomicU64::new(0));
        let next = || lock(&queue).next();
        in_threads(Thread::Loader, self.threads.max(1), &|| {
            let mut session = self.session()?;
            while let Some((number, table)) = next() {
                self.cancel.check()?;
                match self.table(&mut session, table, number, contents) {
                    Ok(loaded) => drop(rows.fetch_add(loaded, Ordering::Relaxed)),
                    Err(error) => {
                        // Leave nothing to the other threads.
                        lock(&queue).by_ref().for_each(drop);
                        return Err(error);
                    }
                }
            }
            Ok(())
        })?;
        Ok(rows.into_inner())
    }

    /// Makes one table with its rows. Returns how many.
    fn table(&self, session: &mut Session, table: &Table, number: u64, contents: &Contents) -> Result<u64> {
        let refuses = |e: &SqlError| refused(&in_words(table), e);
        let (database, name) = (table.database.as_str(), table.name.as_str());
        if matches!(database, "mysql" | "sys") {
            session.drop_table(database, name).map_err(|e| refuses(&e))?;
        }
        let whole = || Deferred { create: table.create.clone(), add: Vec::new() };
        let deferred = match &table.content {
            Content::Rows(rows) if rows.bytes >= DEFER_FROM => defer_keys(&table.create),
            _ => whole(),
        };
        let warnings = session.define(database, &deferred.create).map_err(|e| refuses(&e))?;
        log_warnings(table, &warnings);
        let mut loaded = 0;
        match &table.content {
            Content::Nothing => {}
            Content::Discarded => session.discard(database, name).map_err(|e| refuses(&e))?,
            Content::Sequence(values) => {
                session.set_sequence(database, name, values).map_err(|e| refuses(&e))?;
            }
            Content::Rows(rows) => {
                let columns: Vec<Option<String>> = rows.columns.iter().cloned().map(Some).collect();
                loaded = self.rows(session, database, name, rows, &columns, number)?;
                if !deferred.add.is_empty() {
                    session.add_keys(database, name, &deferred.add).map_err(|e| refuses(&e))?;
                }
            }
        }
        check_definition(session, database, table, contents)?;
        Ok(loaded)
    }

    /// Loads the rows of one table. `number`: of the pipe.
    ///
    /// # Errors
    /// A row does not arrive as it was sent.
    pub(super) fn rows(
        &self,
        session: &mut Session,
        database: &str,
        table: &str,
        rows: &Rows,
        columns: &[Option<String>],
        number: u64,
    ) -> Result<u64> {
        if rows.parts.is_empty() {
            return Ok(0);
        }
        let what = format!("rows of {database}.{table}");
        let refuses = |e: &SqlError| refused(&what, e);
        if rows.history {
            session.insert_history(true).map_err(|e| refuses(&e))?;
        }
        let pipe = Pipe::make(&self.homes.tmp, &format!("rows-{number}"))?;
        let (over, path) = (AtomicBool::new(false), pipe.path());
        let version = if rows.history { session.variable("version")? } else { None };
        let load = load_of((database, table), rows, columns, version.as_deref());
        let (loaded, fed) = std::thread::scope(|scope| {
            let feeder = scoped(scope, Thread::RowFeeder, || {
                let sources = rows.parts.iter().map(|part| self.parts.open(part));
                let fed = pipe.feed(sources, &|| over.load(Ordering::Acquire), self.cancel);
                // The server would wait for us, or take an end for the end of the rows.
                fed.inspect_err(|_| self.server.kill())
            });
            let loaded = session.load_rows(path, load);
            over.store(true, Ordering::Release);
            (loaded, feeder.join())
        });
        fed?;
        let (count, warnings) = loaded.map_err(|e| refuses(&e))?;
        if rows.history {
            session.insert_history(false).map_err(|e| refuses(&e))?;
        }
        if let Some(error) = unexpected(&warnings, rows) {
            return Err(refuses(&error).into());
        }
        if count != rows.count {
            let text = format!("{} of {} {what} were loaded", count, rows.count);
            return Err(Failure::new(Kind::Server, text).into());
        }
        Ok(count)
    }
}

/// The first warning about a value that is not as it was on the donor.
pub(crate) fn unexpected(warnings: &[Warning], rows: &Rows) -> Option<SqlError> {
    let warning = warnings.iter().find(|warning| !is_expected(warning, &rows.lenient))?;
    Some(SqlError { code: warning.code, text: format!("{} ({})", warning.text, warning.code) })
}

/// Whether a warning is of a value that is as it was on the donor: the invalid value of an ENUM, which is written as an empty text,
/// and whatever a generated column is computed from.
fn is_expected(warning: &Warning, lenient: &[String]) -> bool {
    match warning.text.split_once(" for column ") {
        None => !lenient.is_empty() && warning.code != TRUNCATED,
        Some((_, rest)) => {
            let named = |column: &String| {
                rest.starts_with(&format!("'{column}' ")) || rest.contains(&format!(".`{column}` "))
            };
            lenient.iter().any(named)
        }
    }
}

pub(crate) fn log_warnings(table: &Table, warnings: &[Warning]) {
    static LOGGED: AtomicU64 = AtomicU64::new(0);
    for warning in warnings {
        if LOGGED.fetch_add(1, Ordering::Relaxed) < WARNINGS_LOGGED {
            tracing::warn!("{}: {} ({})", in_words(table), warning.text, warning.code);
        }
    }
}

/// Fails if this server shows another definition than the donor's, which is of the same series. Another series may show the same
/// table in other words. `database`: where the table is now.
pub(crate) fn check_definition(
    session: &mut Session,
    database: &str,
    table: &Table,
    contents: &Contents,
) -> Result<()> {
    let name = table.name.as_str();
    let is_sequence = matches!(table.content, Content::Sequence(_));
    let shown = match is_sequence {
        true => session.sequence_definition(database, name)?,
        false => session.definition(database, name)?,
    };
    if without_counter(&shown) == without_counter(&table.create) {
        return Ok(());
    }
    let version = session.variable("version")?;
    let (theirs, ours) = (String::from_utf8_lossy(&table.create), String::from_utf8_lossy(&shown));
    let other_words = series(&version) != series(&contents.server_version)
        || session.variable("lower_case_table_names")? != Some(contents.lower_case_table_names.to_string())
        || theirs.contains(" DIRECTORY='");
    if other_words {
        tracing::debug!("{} is shown otherwise here: {ours} instead of {theirs}", in_words(table));
        if theirs.contains(" DIRECTORY='") {
            tracing::warn!(
                "{} is in the datadir now, not where DATA DIRECTORY says on the donor",
                in_words(table)
            );
        }
        return Ok(());
    }
    let text =
        format!("{} is defined otherwise than on the donor: {ours} instead of {theirs}", in_words(table));
    Err(Failure::new(Kind::Server, text).into())
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
        assert!(is_expected(&of(1292, "Truncated incorrect DOUBLE value: 'x'"), &lenient));
        assert!(!is_expected(&of(1292, "Truncated incorrect DOUBLE value: 'x'"), &[]));
    }
}
