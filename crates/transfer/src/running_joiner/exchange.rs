//! The donor's data takes the place of the joiner's. Everything has come and was counted, and only names change, so this takes
//! little time; but it is no transaction: a server that ends in the middle has neither state.
use std::collections::HashMap;

use anyhow::{Context, Result};
use formats::mariadb::system_tables::is_made_by_server;
use protocol::logical::{Contents, SystemTable, Table};
use protocol::policy::series;

use super::cleanup::{self, Data, remove_incoming};
use super::incoming::{Incoming, Place, waits};
use super::joiner::Joiner;
use super::note::NOTE;
use crate::failure::Failure;
use crate::job::Job;
use crate::loading::privileges::log_unknown;
use crate::loading::statement::check_count;
use crate::loading::texts::{bytes_of, is_of_server, path_of};
use crate::loading::{definition, in_words, system};
use crate::snapshot::logical::{Read, is_foreign};
use crate::sql::definitions::Database;
use crate::sql::joining::FILE_EXISTS;
use crate::sql::{Session, SqlError};

/// Tables that are moved with one statement.
const MOVED_AT_ONCE: usize = 50;
/// Databases that a server has by itself, and in which a donor's tables may be anyway.
const OF_SERVER: [&str; 2] = ["mysql", "sys"];
/// ER_DB_DROP_RMDIR: the tables are gone, and a file of another program is there.
const NOT_EMPTY: u16 = 1010;
/// The table of `mysql` with events.
const EVENTS: &str = "event";
/// The file with the options of a database.
const OPTIONS: &str = "db.opt";

/// Puts everything in its place. `incoming` is empty afterwards.
///
/// # Errors
/// The server refuses something. Then it has neither its old data nor the donor's.
pub(super) fn exchange(
    job: &Job,
    joiner: &Joiner<'_>,
    incoming: &Incoming<'_>,
    read: &Read,
    mut session: Session,
) -> Result<()> {
    job.progress.phase("replacing the joiner's old data", "");
    let (contents, began) = (&read.contents, std::time::Instant::now());
    let (places, parts) = incoming.arrived();
    let exchange = Exchange { joiner, contents, databases: &read.databases, session: &mut session };
    exchange.all(incoming, &places, parts, read.binlog_state.as_deref())?;
    joiner.give_back(session);
    tracing::info!(
        "the joiner's old data was replaced: {} tables in {:.2} s",
        places.len(),
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

/// What both operators must know of a failure in the middle.
pub(super) fn half_done(joiner: &Joiner<'_>, error: anyhow::Error) -> anyhow::Error {
    let error = error.context(format!(
        "{} has lost its old data and has not the donor's yet; it must join again, or be restored",
        joiner.name()
    ));
    cleanup::after_failure(joiner, &error, Data::Neither);
    error
}

struct Exchange<'a> {
    joiner: &'a Joiner<'a>,
    contents: &'a Contents,
    databases: &'a [Database],
    session: &'a mut Session,
}

impl Exchange<'_> {
    fn all(
        mut self,
        incoming: &Incoming<'_>,
        places: &[Place],
        parts: HashMap<String, Vec<u8>>,
        binlog_state: Option<&str>,
    ) -> Result<()> {
        self.remove_old(places)?;
        self.make_databases()?;
        self.move_tables(places)?;
        for table in self.contents.tables.iter().filter(|table| waits(table)) {
            let defined = self.session.define(&table.database, &table.create);
            definition::log_warnings(table, &defined.map_err(|e| self.refuses(&in_words(table), &e))?);
        }
        self.write_texts()?;
        let flushed = self.session.reload_tables();
        flushed.map_err(|e| self.refuses("FLUSH TABLES", &e))?;
        self.replace_system(incoming, parts)?;
        let removed = remove_incoming(self.session).and_then(|()| self.session.drop_database(NOTE));
        removed.map_err(|e| self.refuses("DROP DATABASE of the incoming tables", &e))?;
        let flushed = self.session.reload_accounts();
        flushed.map_err(|e| self.refuses("FLUSH PRIVILEGES", &e))?;
        if self.joiner.log_bin {
            let restarted = self.session.restart_binlog(binlog_state.unwrap_or_default());
            restarted.map_err(|e| self.refuses("the GTID state of the donor's binary log", &e))?;
        }
        Ok(())
    }

    fn refuses(&self, what: &str, error: &SqlError) -> Failure {
        self.joiner.refused(what, error)
    }

    /// Removes what the joiner has: its databases, and tables in those of the server.
    fn remove_old(&mut self, places: &[Place]) -> Result<()> {
        let databases = self.session.databases().map_err(|e| self.refuses("a query", &e))?;
        let names = databases.iter().map(|database| &database.name);
        let is_data = |name: &&String| !OF_SERVER.contains(&name.as_str()) && !is_foreign(name);
        for database in names.filter(is_data) {
            match self.session.drop_database(database) {
                Err(e) if e.code == NOT_EMPTY => {
                    tracing::warn!(
                        "{}: the database {database} has files of another program and stays, without tables: {e}",
                        self.joiner.name()
                    );
                }
                dropped => dropped.map_err(|e| self.refuses(&format!("DROP DATABASE {database}"), &e))?,
            }
        }
        let same_series = series(&Some(self.joiner.version.clone())) == series(&self.contents.server_version);
        let listed = self.session.listed().map_err(|e| self.refuses("a query", &e))?;
        for table in listed.iter().filter(|table| OF_SERVER.contains(&table.database.as_str())) {
            let is_table = matches!(table.kind.as_str(), "BASE TABLE" | "SYSTEM VERSIONED" | "SEQUENCE");
            let comes = places.iter().any(|place| place.home == table.database && place.table == table.name);
            // Another series has tables of its own there.
            if is_table && !is_made_by_server(&table.database, &table.name) && (comes || same_series) {
                let dropped = self.session.drop_table(&table.database, &table.name);
                dropped.map_err(|e| {
                    self.refuses(&format!("DROP TABLE {}.{}", table.database, table.name), &e)
                })?;
            }
        }
        Ok(())
    }

    fn make_databases(&mut self) -> Result<()> {
        for database in self.databases.iter().filter(|database| !OF_SERVER.contains(&database.name.as_str()))
        {
            let made = self.session.create_database(&database.name);
            let made = made.and_then(|()| self.session.alter_database(database));
            made.map_err(|e| self.refuses(&format!("the database {}", database.name), &e))?;
        }
        Ok(())
    }

    fn move_tables(&mut self, places: &[Place]) -> Result<()> {
        for some in places.chunks(MOVED_AT_ONCE) {
            let moves: Vec<((String, String), String)> = some
                .iter()
                .map(|place| ((place.database.clone(), place.table.clone()), place.home.clone()))
                .collect();
            let moved = self.session.move_tables(&moves);
            moved.map_err(|e| self.refuses("RENAME TABLE of the incoming tables", &e))?;
        }
        for place in places.iter().filter(|place| !place.later.is_empty()) {
            let same = |table: &&Table| table.database == place.home && table.name == place.table;
            let Some(table) = self.contents.tables.iter().find(same) else { continue };
            for later in &place.later {
                let changed = self.session.change_table(&place.home, &place.table, later);
                changed.map_err(|e| self.refuses(&in_words(table), &e))?;
            }
            definition::check(self.session, &place.home, table, self.contents)?;
        }
        Ok(())
    }

    /// Views and triggers, as the donor has them in its files.
    fn write_texts(&mut self) -> Result<()> {
        let lower = self.joiner.lower_case_table_names != 0;
        for one in &self.contents.texts {
            if one.path.ends_with(&format!("/{OPTIONS}")) {
                continue;
            }
            let path = self.joiner.datadir.join(path_of(&one.path, lower));
            match self.session.write_file(&path, &bytes_of(one, lower)) {
                // What a program has made is its own version of it.
                Err(e) if e.code == FILE_EXISTS && is_of_server(one) => {}
                written => written.map_err(|e| self.refuses(&format!("the definition {}", one.path), &e))?,
            }
        }
        Ok(())
    }

    /// Accounts, routines, events, and what else is rows of `mysql`.
    fn replace_system(&mut self, incoming: &Incoming<'_>, parts: HashMap<String, Vec<u8>>) -> Result<()> {
        let lower = self.joiner.lower_case_table_names != 0 && self.contents.lower_case_table_names == 0;
        let (joiner, contents) = (self.joiner, self.contents);
        let rows = &mut |session: &mut Session, system: &SystemTable, columns: &[Option<String>]| {
            let mut count = 0;
            for path in &system.rows.parts {
                let part = parts.get(path).with_context(|| format!("the part {path} never arrived"))?;
                let at = ("mysql", system.name.as_str());
                let what = format!("rows of mysql.{}", system.name);
                let loaded = incoming.load_into(session, &what, at, &system.rows, columns, part.clone())?;
                log_unknown(&system.name, &loaded.expected);
                count += loaded.rows;
            }
            Ok(check_count(&format!("rows of mysql.{}", system.name), &system.rows, count)?)
        };
        let refuses = |what: &str, error: &SqlError| joiner.refused(what, error);
        system::replace(self.session, contents, lower, &refuses, rows)?;
        // A server reads events from their table when it starts; then only a statement makes it take note of one. That changes the
        // event's row, so the donor's rows are put in place once more: of these the server takes the event itself, when it runs.
        if !touch_events(joiner, self.session)? {
            return Ok(());
        }
        let events = contents.system.iter().filter(|system| system.name == EVENTS).cloned().collect();
        let server_version = contents.server_version.clone();
        let events = Contents { system: events, server_version, ..Contents::default() };
        system::replace(self.session, &events, lower, &refuses, rows)
    }
}

/// Has the joiner's server take note of the donor's events. Returns whether there are any.
fn touch_events(joiner: &Joiner<'_>, session: &mut Session) -> Result<bool, Failure> {
    let events = session.enabled_events().map_err(|e| joiner.refused("a query", &e))?;
    for (database, name) in &events {
        match session.touch_event(database, name) {
            Err(e) if e.is_lost() => return Err(joiner.refused(&format!("the event {database}.{name}"), &e)),
            Err(e) => tracing::warn!(
                "the event {database}.{name} does not run on {} before its next start: {e}",
                joiner.name()
            ),
            Ok(()) => {}
        }
    }
    Ok(!events.is_empty())
}
