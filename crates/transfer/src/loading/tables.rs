//! Makes databases, sequences and tables on the private server and loads their rows as they arrive: by several statements at a time,
//! of one table or of several.
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use formats::mariadb::deferred::{Deferred, PlainKeys, defer_keys};
use protocol::logical::{Content, Table};

use super::arriving::{Arriving, Begun};
use super::schedule::Step;
use super::statement::{Statement, check_count, rows_of};
use super::{definition, in_words};
use crate::cancel::Cancel;
use crate::failure::{Failure, Kind};
use crate::private_server::PrivateServer;
use crate::private_server::homes::Homes;
use crate::server::progress::Progress;
use crate::sql::{Session, SqlError};
use crate::threads::{Thread, in_threads, lock, scoped};

/// Tables with more bytes get their secondary keys after their rows: sorted at once that is faster than row by row.
const DEFER_FROM: u64 = 8 << 20;

/// How often it is looked whether loading must end.
const WATCH_EVERY: Duration = Duration::from_millis(50);

/// What loading needs.
pub(super) struct Loader<'a> {
    /// Where.
    pub server: &'a PrivateServer,
    /// What.
    pub begun: &'a Begun,
    /// All that has arrived of it.
    pub arriving: &'a Arriving<'a>,
    /// The private server's directories.
    pub homes: &'a Homes,
    /// Statements at a time.
    pub threads: usize,
    /// For the operator.
    pub progress: &'a Progress,
    /// Ends it.
    pub cancel: &'a Cancel,
}

/// A failure of the server to take something.
pub(super) fn refused(what: &str, error: &SqlError) -> Failure {
    let text = format!("this node's server refused {what}: {error}");
    Failure::new(Kind::Refused, text)
        .hint("change it on the donor, or give this node the donor's settings and version")
}

/// The definition `create` of a table without what is made after its rows. `referenced`: columns whose keys other tables need at once.
pub(crate) fn without_later_keys(create: &[u8], content: &Content, referenced: &[String]) -> Deferred {
    match content {
        Content::Rows(rows) if rows.bytes >= DEFER_FROM => {
            defer_keys(create, PlainKeys::WaitExcept(referenced))
        }
        Content::Rows(_) => defer_keys(create, PlainKeys::Stay),
        Content::Nothing | Content::Discarded | Content::Sequence(_) => {
            Deferred { create: create.to_vec(), add: Vec::new() }
        }
    }
}

impl Loader<'_> {
    /// A session that loads.
    pub(super) fn session(&self) -> Result<Session> {
        let mut session = self.server.session()?;
        session.set_loading()?;
        Ok(session)
    }

    /// Does `work` with the server, which is ended if the transfer is cancelled or the snapshot is void: a statement cannot be.
    ///
    /// # Errors
    /// From `work`, or cancelled.
    pub(super) fn watched<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scoped(scope, Thread::LoadWatch, || {
                while !over.load(Ordering::Acquire) {
                    if self.cancel.check().is_err() || self.arriving.check(self.begun.number).is_err() {
                        self.server.kill();
                        break;
                    }
                    std::thread::sleep(WATCH_EVERY);
                }
                Ok(())
            });
            let done = crate::panics::caught(work);
            over.store(true, Ordering::Release);
            // What fails because the server was ended fails for the reason of that.
            self.cancel.check()?;
            done
        })
    }

    /// Makes everything and loads all rows, as they arrive, until there are no more.
    ///
    /// # Errors
    /// The server refuses something, a row does not arrive as it was sent, the snapshot is void, or cancelled.
    pub(super) fn all(&self) -> Result<()> {
        let (mut session, contents) = (self.session()?, &self.begun.contents);
        for database in &contents.databases {
            session
                .create_database(database)
                .map_err(|e| refused(&format!("the database {database}"), &e))?;
        }
        // These are sequences. A default of a table can be the next value of one.
        for sequence in &contents.tables {
            self.make(&mut session, sequence)?;
        }
        drop(session);
        let (failed, over) = (Mutex::new(None), AtomicBool::new(false));
        in_threads(Thread::Loader, self.threads.max(1), &|| {
            if let Err(error) = self.steps(&over) {
                lock(&failed).get_or_insert(error);
                // The other threads may be loading the largest table, for nothing. Killing the server ends their statements.
                over.store(true, Ordering::Release);
                self.server.kill();
            }
            Ok(())
        })?;
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// Does what nobody else does, until there is no more.
    fn steps(&self, over: &AtomicBool) -> Result<()> {
        let (mut session, number) = (self.session()?, self.begun.number);
        while let Some(step) = self.arriving.next(number, over, self.cancel)? {
            match step {
                Step::Make(at, table) => {
                    let add = self.make(&mut session, &table)?;
                    self.arriving.done(number, |schedule| schedule.made(at, add))?;
                }
                Step::Load(at, table, parts, statement) => {
                    let rows = self.rows(&mut session, &table, &parts, statement)?;
                    self.arriving.done(number, |schedule| schedule.loaded(at, parts.len(), rows))?;
                }
                Step::Finish(at, table, rows, add) => {
                    self.finish(&mut session, &table, rows, &add)?;
                    self.arriving.done(number, |schedule| schedule.finished(at))?;
                }
            }
        }
        Ok(())
    }

    /// Makes a table without rows, or a sequence. Returns what makes the keys that it does not have yet.
    fn make(&self, session: &mut Session, table: &Table) -> Result<Vec<Vec<u8>>> {
        let refuses = |e: &SqlError| refused(&in_words(table), e);
        let (database, name) = (table.database.as_str(), table.name.as_str());
        if matches!(database, "mysql" | "sys") {
            session.drop_table(database, name).map_err(|e| refuses(&e))?;
        }
        let deferred = without_later_keys(&table.create, &table.content, self.begun.referenced.of(table));
        let warnings = session.define(database, &deferred.create).map_err(|e| refuses(&e))?;
        definition::log_warnings(table, &warnings);
        if let Content::Sequence(values) = &table.content {
            session.set_sequence(database, name, values).map_err(|e| refuses(&e))?;
        }
        if deferred.add.is_empty() {
            definition::check(session, database, table, &self.begun.contents)?;
        }
        Ok(deferred.add)
    }

    /// Loads some rows of a table. Returns how many.
    fn rows(&self, session: &mut Session, table: &Table, parts: &[PathBuf], statement: usize) -> Result<u64> {
        let Content::Rows(rows) = &table.content else { return Ok(0) };
        let columns: Vec<Option<String>> = rows.columns.iter().cloned().map(Some).collect();
        let (database, table) = (table.database.as_str(), table.name.as_str());
        let statement = Statement { database, table, rows, parts, columns: &columns, number: statement };
        Ok(statement.run(self, session)?.rows)
    }

    /// So many rows of a table were loaded, which is all: adds the keys that it does not have yet.
    fn finish(&self, session: &mut Session, table: &Table, loaded: u64, add: &[Vec<u8>]) -> Result<()> {
        let refuses = |e: &SqlError| refused(&in_words(table), e);
        let (database, name) = (table.database.as_str(), table.name.as_str());
        if let Content::Rows(rows) = &table.content {
            check_count(&rows_of(database, name), rows, loaded)?;
        }
        for keys in add {
            session.add_keys(database, name, keys).map_err(|e| refuses(&e))?;
        }
        if !add.is_empty() {
            definition::check(session, database, table, &self.begun.contents)?;
        }
        match &table.content {
            Content::Discarded => Ok(session.discard(database, name).map_err(|e| refuses(&e))?),
            Content::Nothing | Content::Rows(_) | Content::Sequence(_) => Ok(()),
        }
    }
}
