//! Tables on their way to a running joiner. Each is made in a database of its own kind, beside the old data, and loaded there while it
//! is read. What names objects of other databases by their place (a default that is the next value of a sequence, a foreign key
//! into another database) waits until they are in their places.
use std::collections::HashMap;
use std::io::Cursor;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use formats::mariadb::deferred::defer_references;
use formats::mariadb::rows_text::columns as split;
use protocol::inventory::FileId;
use protocol::logical::{Content, Contents, Rows, SystemTable, Table};
use report::record;
use zstd::stream::read::Decoder;

use super::cleanup::remove_incoming;
use super::joiner::Joiner;
use crate::failure::{Failure, Kind};
use crate::job::Job;
use crate::loading::expressible::check_names;
use crate::loading::referenced::Referenced;
use crate::loading::statement::{Loaded, as_they_were, load_of};
use crate::loading::system::is_engine;
use crate::loading::tables::without_later_keys;
use crate::loading::{definition, in_words, other_case};
use crate::snapshot::logical::INCOMING;
use crate::snapshot::logical::part::{Packed, prefix};
use crate::snapshot::logical::receiver::Receiver;
use crate::sql::{Session, SqlError};
use crate::threads::{Thread, each_in_threads, lock};

/// Takes a logical snapshot for a running joiner.
pub(super) struct Incoming<'a> {
    job: &'a Job,
    joiner: &'a Joiner<'a>,
    state: Mutex<State>,
}

/// What is on its way.
#[derive(Default)]
struct State {
    /// By the beginning of the paths of its parts.
    tables: HashMap<String, Arriving>,
    /// Parts of tables of the database `mysql`, which wait for the end.
    system: HashMap<String, Vec<u8>>,
}

/// A table that is loaded.
struct Arriving {
    place: Place,
    rows: Arc<Rows>,
    loaded: Arc<AtomicU64>,
    /// Its number in the record of the transfer.
    number: FileId,
    /// Keys that are made after the rows, each the end of an `ALTER TABLE`.
    keys: Vec<Vec<u8>>,
}

/// Where a table is made, and what of it waits until it is where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The database in which it is made.
    pub database: String,
    /// Its name.
    pub table: String,
    /// The database to which it belongs.
    pub home: String,
    /// Ends of an `ALTER TABLE`.
    pub later: Vec<Vec<u8>>,
}

/// Whether a table can be made only when others are where they belong: one of the engine MERGE names them.
pub(super) fn waits(table: &Table) -> bool {
    const MERGE: &[u8] = b" ENGINE=MRG_MyISAM";
    matches!(table.content, Content::Nothing) && table.create.windows(MERGE.len()).any(|part| part == MERGE)
}

/// The database in which the tables of a database are made.
fn incoming_of(contents: &Contents, database: &str) -> Result<String, Failure> {
    let number = contents.databases.iter().position(|name| name == database).ok_or_else(|| {
        Failure::new(Kind::Server, format!("the donor's database {database} has gone while it was read"))
    })?;
    Ok(format!("{INCOMING}{number}"))
}

impl<'a> Incoming<'a> {
    /// Nothing has come.
    pub fn new(job: &'a Job, joiner: &'a Joiner<'a>) -> Incoming<'a> {
        Incoming { job, joiner, state: Mutex::default() }
    }

    /// Engines and types of columns that the donor has loaded. Without one the joiner cannot have its tables.
    fn load_engines(
        &self,
        session: &mut Session,
        contents: &Contents,
        early: &HashMap<String, Vec<u8>>,
    ) -> Result<()> {
        let Some(plugins) = contents.system.iter().find(|system| system.name == "plugin") else {
            return Ok(());
        };
        let there = session.plugins().map_err(|e| self.joiner.refused("a query", &e))?;
        for (plugin, library) in plugins_of(plugins, early)? {
            let loaded = there.iter().any(|there| there.eq_ignore_ascii_case(&plugin));
            if loaded || !is_engine(&library) {
                continue;
            }
            if let Err(error) = session.install_plugin(&plugin, &library) {
                tracing::warn!(
                    "{} does not load the plugin {plugin} ({library}): {error}",
                    self.joiner.name()
                );
            }
        }
        Ok(())
    }

    /// Makes one table in its database, the one with this number. Returns what is to be loaded.
    fn make(
        &self,
        session: &mut Session,
        number: u32,
        contents: &Contents,
        referenced: &Referenced,
    ) -> Result<Arriving> {
        let table = contents.tables.get(number as usize).context("no such table")?;
        let database = incoming_of(contents, &table.database)?;
        let refuses = |e: &SqlError| self.joiner.refused(&in_words(table), e);
        let rows = if let Content::Rows(rows) = &table.content { rows.clone() } else { Rows::default() };
        let references = defer_references(&table.create);
        let keys = without_later_keys(&references.create, &table.content, referenced.of(table));
        let defined = session.define(&database, &keys.create);
        definition::log_warnings(table, &defined.map_err(|e| refuses(&e))?);
        if let Content::Sequence(values) = &table.content {
            session.set_sequence(&database, &table.name, values).map_err(|e| refuses(&e))?;
        }
        let place = Place {
            database,
            table: table.name.clone(),
            home: table.database.clone(),
            later: references.add,
        };
        let number = FileId(number);
        self.job.progress.ledger.begin_table(
            number,
            &format!("{}.{}", table.database, table.name),
            rows.bytes,
        );
        Ok(Arriving { place, rows: Arc::new(rows), loaded: Default::default(), number, keys: keys.add })
    }

    /// Loads one part.
    fn load(&self, session: &mut Session, place: &Place, rows: &Rows, bytes: Vec<u8>) -> Result<u64> {
        let columns: Vec<Option<String>> = rows.columns.iter().cloned().map(Some).collect();
        let what = format!("rows of {}.{}", place.home, place.table);
        Ok(self.load_into(session, &what, (&place.database, &place.table), rows, &columns, bytes)?.rows)
    }

    /// Loads one part into a table. `what`: the rows in words.
    pub fn load_into(
        &self,
        session: &mut Session,
        what: &str,
        at: (&str, &str),
        rows: &Rows,
        columns: &[Option<String>],
        bytes: Vec<u8>,
    ) -> Result<Loaded> {
        let refuses = |e: &SqlError| self.joiner.refused(what, e);
        let source = Decoder::with_buffer(Cursor::new(bytes)).context("rows cannot be unpacked")?;
        let load = load_of(at, rows, columns, Some(&self.joiner.version));
        as_they_were(session, rows, &refuses, |session| Ok(session.load_sent_rows(source, load)))
    }

    /// Everything was read. Makes the keys that waited, and compares what has come with what was read. Returns the number of rows.
    ///
    /// # Errors
    /// The server refuses a key, or rows are missing.
    pub fn complete(&self, contents: &Contents) -> Result<u64> {
        self.job.progress.phase("making keys", "");
        let arrived: Vec<(Place, Vec<Vec<u8>>, u64)> = lock(&self.state)
            .tables
            .values()
            .map(|table| (table.place.clone(), table.keys.clone(), table.loaded.load(Ordering::Acquire)))
            .collect();
        let by_name: HashMap<(&str, &str), &Table> = contents
            .tables
            .iter()
            .map(|table| ((table.database.as_str(), table.name.as_str()), table))
            .collect();
        let table_at = |place: &Place| by_name.get(&(place.home.as_str(), place.table.as_str())).copied();
        let complete = |(place, keys, loaded): (Place, Vec<Vec<u8>>, u64)| -> Result<u64> {
            let mut session = self.joiner.session()?;
            let Some(table) = table_at(&place) else { return Ok(0) };
            let count = if let Content::Rows(rows) = &table.content { rows.count } else { 0 };
            if count != loaded {
                let text = format!("received {loaded} of {count} rows of {}", in_words(table));
                return Err(Failure::new(Kind::Server, text).into());
            }
            if matches!(table.content, Content::Discarded) {
                let discarded = session.discard(&place.database, &place.table);
                discarded.map_err(|e| self.joiner.refused(&in_words(table), &e))?;
            }
            for keys in &keys {
                let made = session.add_keys(&place.database, &place.table, keys);
                made.map_err(|e| self.joiner.refused(&format!("keys of {}", in_words(table)), &e))?;
            }
            // What waits is looked at when it is there.
            if place.later.is_empty() {
                definition::check(&mut session, &place.database, table, contents)?;
            }
            self.joiner.give_back(session);
            self.job.progress.local.step();
            Ok(loaded)
        };
        let threads = usize::from(self.job.settings.threads);
        Ok(each_in_threads(Thread::Loader, threads, arrived, &complete)?.into_iter().sum())
    }

    /// Where tables are that belong elsewhere, and the parts of tables of the database `mysql`.
    pub fn arrived(&self) -> (Vec<Place>, HashMap<String, Vec<u8>>) {
        let state = std::mem::take(&mut *lock(&self.state));
        (state.tables.into_values().map(|table| table.place).collect(), state.system)
    }
}

impl Receiver for Incoming<'_> {
    fn begin(&self, contents: &Contents, early: Vec<Packed>) -> Result<()> {
        self.job.cancel.check()?;
        self.job.progress.phase("making tables on the joiner", "");
        check_names(contents, self.joiner.lower_case_table_names)?;
        other_case::warn(contents, "the joiner", self.joiner.lower_case_table_names);
        let mut session = self.joiner.session()?;
        remove_incoming(&mut session)
            .map_err(|e| self.joiner.refused("DROP DATABASE of an earlier transfer", &e))?;
        self.joiner.leave_note(&mut session, false)?;
        self.joiner.prepare(&mut session)?;
        let is_system = |packed: &Packed| {
            let of = packed.path.split('/').next();
            contents.system.iter().any(|system| of == Some(prefix("mysql", &system.name).as_str()))
        };
        let (system, early): (Vec<Packed>, Vec<Packed>) = early.into_iter().partition(is_system);
        let system = system.into_iter().map(|packed| (packed.path, packed.bytes)).collect();
        self.load_engines(&mut session, contents, &system)?;
        for number in 0..contents.databases.len() {
            let made = session.create_database(&format!("{INCOMING}{number}"));
            made.map_err(|e| self.joiner.refused("CREATE DATABASE for the incoming tables", &e))?;
        }
        let (mut tables, referenced) = (HashMap::new(), Referenced::by(&contents.tables));
        for (number, table) in (0..).zip(&contents.tables) {
            self.job.cancel.check()?;
            if !waits(table) {
                let arriving = self.make(&mut session, number, contents, &referenced)?;
                tables.insert(prefix(&table.database, &table.name), arriving);
            }
        }
        self.joiner.give_back(session);
        let total: u64 = contents.rows().map(|rows| rows.bytes).sum();
        self.job.progress.total_bytes.store(total, Ordering::Relaxed);
        self.job.progress.done_bytes.store(0, Ordering::Relaxed);
        *lock(&self.state) = State { tables, system };
        // Accounts are the donor's before the end, and a session that is there stays.
        self.joiner.open_sessions(usize::from(self.job.settings.threads) + 1)?;
        self.job.progress.phase("sending rows", "");
        early.into_iter().try_for_each(|packed| self.part(packed))
    }

    fn part(&self, part: Packed) -> Result<()> {
        let of = part.path.split('/').next().unwrap_or_default();
        let (place, rows, loaded, number) = {
            let state = lock(&self.state);
            let table = state.tables.get(of).with_context(|| format!("rows of no table: {}", part.path))?;
            (table.place.clone(), table.rows.clone(), table.loaded.clone(), table.number)
        };
        let progress = &self.job.progress;
        progress.read_bytes.fetch_add(part.raw, Ordering::Relaxed);
        let mut session = self.joiner.session()?;
        loaded.fetch_add(self.load(&mut session, &place, &rows, part.bytes)?, Ordering::AcqRel);
        self.joiner.give_back(session);
        progress.ledger.count(number, &record::Table { sent: part.raw, ..record::Table::default() });
        self.job.progress.done_bytes.store(self.joiner.sent(), Ordering::Relaxed);
        Ok(())
    }
}

/// Names and libraries of plugins in the rows of `mysql.plugin`.
fn plugins_of(plugins: &SystemTable, parts: &HashMap<String, Vec<u8>>) -> Result<Vec<(String, String)>> {
    let at = |name: &str| plugins.rows.columns.iter().position(|column| column.eq_ignore_ascii_case(name));
    let (Some(plugin), Some(library)) = (at("name"), at("dl")) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for part in plugins.rows.parts.iter().filter_map(|path| parts.get(path)) {
        let text =
            zstd::stream::decode_all(part.as_slice()).context("the list of plugins cannot be unpacked")?;
        for row in text.split(|byte| *byte == b'\n') {
            let columns = split(row);
            let word = |at: usize| String::from_utf8(columns.get(at)?.clone()?).ok();
            found.extend(word(plugin).zip(word(library)));
        }
    }
    Ok(found)
}
