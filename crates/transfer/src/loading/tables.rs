//! Makes databases, sequences and tables on the private server and loads their rows: by several statements at a time, of one table
//! or of several.
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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
use crate::threads::{Thread, in_threads, scoped};

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
        let (sequences, tables): (Vec<&Table>, Vec<&Table>) =
            contents.tables.iter().partition(|table| matches!(table.content, Content::Sequence(_)));
        // A default can be the next value of a sequence.
        for table in sequences {
            self.create(&mut session, table)?;
            definition::check(&mut session, &table.database, table, contents)?;
        }
        let (work, rows) = (Work::of(tables, self.threads), AtomicU64::new(0));
        in_threads(Thread::Loader, self.threads.max(1), &|| {
            let mut session = self.session()?;
            while let Some((piece, making)) = work.next() {
                self.cancel.check()?;
                let loaded = self.piece(&mut session, piece, making, contents);
                // Leave nothing to the other threads.
                rows.fetch_add(loaded.inspect_err(|_| work.stop())?, Ordering::Relaxed);
            }
            Ok(())
        })?;
        Ok(rows.into_inner())
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
