//! Makes databases, sequences and tables on the private server and loads their rows: by several statements at a time, of one table
//! or of several.
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use formats::mariadb::show_create::{Deferred, defer_keys};
use protocol::logical::{Content, Contents, Table};

use super::parts::Parts;
use super::statement::Statement;
use super::work::{Making, Piece, Work};
use super::{definition, in_words};
use crate::cancel::{Cancel, LOOK_EVERY};
use crate::failure::{Failure, Kind};
use crate::private_server::PrivateServer;
use crate::private_server::homes::Homes;
use crate::server::progress::Progress;
use crate::sql::{Session, SqlError};
use crate::threads::{Thread, in_threads, lock, scoped};

/// Tables with more bytes get their secondary keys after their rows: sorted at once that is faster than row by row.
pub(crate) const DEFER_FROM: u64 = 8 << 20;

/// What loading needs.
pub struct Loader<'a> {
    /// Where.
    pub server: &'a PrivateServer,
    /// What.
    pub parts: &'a Parts,
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
    let text = format!("this node's server does not take {what}: {error}");
    Failure::new(Kind::Refused, text)
        .hint("change it on the donor, or give this node the donor's settings and version")
}

impl Loader<'_> {
    /// A session that loads.
    pub(super) fn session(&self) -> Result<Session> {
        let mut session = self.server.session()?;
        session.set_loading()?;
        Ok(session)
    }

    /// Does `work` with the server, which is ended if the transfer is cancelled: a statement cannot be.
    ///
    /// # Errors
    /// From `work`, or cancelled.
    pub fn watched<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
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
            let done = crate::panics::caught(work);
            over.store(true, Ordering::Release);
            // What fails because the server was ended fails for the reason of that.
            self.cancel.check()?;
            done
        })
    }

    /// Makes everything and loads all rows. Returns how many.
    ///
    /// # Errors
    /// The server refuses something, a row does not arrive as it was sent, or cancelled.
    pub fn all(&self, contents: &Contents) -> Result<u64> {
        self.progress.phase("loading rows", "");
        let mut session = self.session()?;
        for database in &contents.databases {
            session
                .create_database(database)
                .map_err(|e| refused(&format!("the database {database}"), &e))?;
        }
        let (sequences, tables): (Vec<&Table>, Vec<&Table>) =
            contents.tables.iter().partition(|table| matches!(table.content, Content::Sequence(_)));
        // A default can be the next value of a sequence.
        for table in sequences {
            self.create(&mut session, table)?;
            definition::check(&mut session, &table.database, table, contents)?;
        }
        let (work, rows) = (Work::of(tables, self.threads), AtomicU64::new(0));
        let failed = Mutex::new(None);
        in_threads(Thread::Loader, self.threads.max(1), &|| {
            if let Err(error) = self.pieces(&work, &rows, contents) {
                lock(&failed).get_or_insert(error);
                // What the others do is in vain, and may be the largest table: their statements end with the server.
                work.stop();
                self.server.kill();
            }
            Ok(())
        })?;
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(rows.into_inner()),
        }
    }

    /// Loads what nobody else loads, until there is no more.
    fn pieces(&self, work: &Work<'_>, rows: &AtomicU64, contents: &Contents) -> Result<()> {
        let mut session = self.session()?;
        while let Some((piece, making)) = work.next() {
            self.cancel.check()?;
            rows.fetch_add(self.piece(&mut session, piece, making, contents)?, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Loads some rows of a table, which is made before the first of them and complete after the last. Returns how many.
    fn piece(
        &self,
        session: &mut Session,
        piece: &Piece,
        making: &Making<'_>,
        contents: &Contents,
    ) -> Result<u64> {
        let table = making.table;
        let Some(made) = making.made(|| self.create(session, table))? else { return Ok(0) };
        let Content::Rows(rows) = &table.content else {
            definition::check(session, &table.database, table, contents)?;
            return Ok(0);
        };
        let columns: Vec<Option<String>> = rows.columns.iter().cloned().map(Some).collect();
        let statement = Statement {
            database: &table.database,
            table: &table.name,
            rows,
            parts: rows.parts.get(piece.parts.clone()).unwrap_or_default(),
            columns: &columns,
            number: piece.number,
        };
        let loaded = statement.run(self, session)?;
        if let Some(all) = making.loaded(loaded) {
            statement.check_count(all)?;
            if !made.is_empty() {
                let added = session.add_keys(&table.database, &table.name, made);
                added.map_err(|e| refused(&in_words(table), &e))?;
            }
            definition::check(session, &table.database, table, contents)?;
        }
        Ok(loaded)
    }

    /// Makes a table without rows. Returns what makes the keys that it does not have yet.
    fn create(&self, session: &mut Session, table: &Table) -> Result<Vec<u8>> {
        let refuses = |e: &SqlError| refused(&in_words(table), e);
        let (database, name) = (table.database.as_str(), table.name.as_str());
        if matches!(database, "mysql" | "sys") {
            session.drop_table(database, name).map_err(|e| refuses(&e))?;
        }
        let deferred = match &table.content {
            Content::Rows(rows) if rows.bytes >= DEFER_FROM => defer_keys(&table.create),
            _ => Deferred { create: table.create.clone(), add: Vec::new() },
        };
        let warnings = session.define(database, &deferred.create).map_err(|e| refuses(&e))?;
        definition::log_warnings(table, &warnings);
        match &table.content {
            Content::Nothing | Content::Rows(_) => {}
            Content::Discarded => session.discard(database, name).map_err(|e| refuses(&e))?,
            Content::Sequence(values) => {
                session.set_sequence(database, name, values).map_err(|e| refuses(&e))?;
            }
        }
        Ok(deferred.add)
    }
}
