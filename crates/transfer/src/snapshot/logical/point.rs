//! The consistency point of a logical snapshot: sessions begin transactions that see one state, and what has no such view is read.
use std::time::{Duration, Instant};

use formats::mariadb::sql_text::{names, table};
use formats::mariadb::system_tables::{EVERY_ROW, OF_THE_DATA, SystemTable as Known};
use protocol::logical::{Content, Rows, SystemTable, Table, Text};

use super::Logical;
use super::describe::describe;
use super::error::ReadError;
use super::listing::{self, Kind, kind_of};
use super::part::{Packed, RowPacker, prefix};
use super::ranges::Range;
use super::rows::{counted, read, read_range};
use super::watch::RowWatch;
use crate::snapshot::declined::Declined;
use crate::snapshot::online::locking::{Again, Locking, TRY_MAX, Tried, TryError};
use crate::snapshot::online::sql_checks::Facts;
use crate::snapshot::online::stage::Stage;
use crate::snapshot::online::wait::Wait;
use crate::snapshot::sink::SnapshotSink;
use crate::sql::definitions::{Database, Listed};
use crate::sql::{Answer, Session};

/// How long the locks are held.
#[derive(Clone, Debug)]
pub(super) enum Reach {
    /// For the consistency point only.
    Released,
    /// Until everything is read.
    Held {
        /// Why.
        why: String,
        /// How long at most.
        limit: Duration,
    },
}

/// What was read under the locks.
#[derive(Debug, Default)]
pub(super) struct Early {
    /// Parts that are to be shipped.
    pub packed: Vec<Packed>,
    /// Tables and sequences.
    pub tables: Vec<Table>,
    /// Rows of `mysql`.
    pub system: Vec<SystemTable>,
}

impl Early {
    /// Keeps parts until they can be shipped.
    fn take(&mut self) -> impl FnMut(Packed) -> anyhow::Result<()> {
        move |packed| {
            self.packed.push(packed);
            Ok(())
        }
    }
}

/// What the consistency point established.
#[derive(Default)]
pub(super) struct Point {
    /// Tables whose rows are still to be read.
    pub listed: Vec<Listed>,
    /// All databases.
    pub databases: Vec<Database>,
    /// Definitions in files.
    pub texts: Vec<Text>,
    /// What was read.
    pub early: Early,
    /// The cluster's last committed write-set.
    pub seqno: Option<i64>,
    /// `gtid_binlog_state`, if there is a binary log.
    pub binlog_state: Option<String>,
    /// How long the provider was paused.
    pub ddl_held: Duration,
    /// The part of it that the server took to grant that.
    pub granting: Duration,
    /// The locks, if they are held until everything is read.
    pub stage: Option<Stage>,
    /// A session with table locks that are held until then.
    pub keeper: Option<Session>,
    /// Number of tries.
    pub tries: u32,
}

/// The sessions of a snapshot.
pub(super) struct Sessions {
    /// Each reads rows in a view.
    pub readers: Vec<Session>,
    /// Finds out how tables are divided, in a view.
    pub divider: Session,
    /// Holds definitions.
    pub guardian: Session,
    /// Reads under the locks.
    pub locked: Session,
}

impl Sessions {
    /// Those that have a view.
    pub fn viewing(&mut self) -> impl Iterator<Item = &mut Session> {
        self.readers.iter_mut().chain([&mut self.divider, &mut self.guardian])
    }

    /// The server's numbers for all of them.
    pub fn ids(&self) -> Vec<u32> {
        let others = [&self.divider, &self.guardian, &self.locked];
        self.readers.iter().chain(others).map(Session::id).collect()
    }
}

impl Logical<'_> {
    /// The consistency point. It is waited for as long as another session holds what it needs.
    pub(super) fn point(
        &self,
        sink: &dyn SnapshotSink,
        observer: &mut Session,
        facts: &Facts,
        sessions: &mut Sessions,
        reach: &Reach,
        watch: &RowWatch<'_>,
    ) -> Result<Point, ReadError> {
        let mut wait = Wait::new(self.budget, watch.cancel(), sink);
        let mut hanging = None;
        loop {
            wait.tries += 1;
            self.revive(observer)?;
            let mut locking = Locking {
                login: &self.login,
                observer,
                sink,
                galera: facts.galera,
                desynced: self.desynced,
                hanging: &mut hanging,
                cancel: watch.cancel(),
            };
            let (again, held) = match self.attempt(&mut locking, facts, sessions, reach, watch)? {
                Tried::Done(point) => return Ok(Point { tries: wait.tries, ..*point }),
                Tried::Again(again, held) => (again, held),
            };
            wait.after(again, held, observer, hanging.into_iter().collect())?;
        }
    }

    fn attempt(
        &self,
        locking: &mut Locking<'_>,
        facts: &Facts,
        sessions: &mut Sessions,
        reach: &Reach,
        watch: &RowWatch<'_>,
    ) -> Result<Tried<Point>, ReadError> {
        if let Some(held) = locking.hindrance()? {
            return Ok(Tried::Again(Again::Held(held), Duration::ZERO));
        }
        // Of an earlier try.
        sessions.locked.end_view()?;
        sessions.viewing().try_for_each(Session::end_view)?;
        let limit = match reach {
            Reach::Released => TRY_MAX,
            Reach::Held { limit, .. } => *limit,
        };
        let mut stage = Stage::open(&self.login, limit, locking.cancel)?;
        let result = self.under_locks(locking, &mut stage, facts, sessions, reach, watch);
        let result = match (result, reach) {
            (Ok(point), Reach::Held { .. }) => {
                locking.sink.end_consistency_point();
                locking.sink.holds_writes();
                return Ok(Tried::Done(Box::new(Point { stage: Some(stage), ..point })));
            }
            (result, _) => result,
        };
        match locking.release(&mut stage, result) {
            (Ok(point), held) => Ok(Tried::Done(Box::new(Point { ddl_held: held, ..point }))),
            (Err(error), held) => match (locking.again(error, &stage)?, reach) {
                // Another try would hold writes for as long, and reach no more.
                (Again::TooLong { .. }, Reach::Held { limit, .. }) => {
                    Err(Declined::HeldTooLong { limit: *limit }.into())
                }
                (again, _) => Ok(Tried::Again(again, held)),
            },
        }
    }

    /// The steps under the locks. The caller ends the stage.
    fn under_locks(
        &self,
        locking: &mut Locking<'_>,
        stage: &mut Stage,
        facts: &Facts,
        sessions: &mut Sessions,
        reach: &Reach,
        row_watch: &RowWatch<'_>,
    ) -> Result<Point, TryError> {
        let began = Instant::now();
        let (granting, seqno) = locking.hold(stage)?;
        let databases = self.databases(&mut sessions.locked)?;
        let found = listing::definitions(self.layout)?;
        let all = sessions.locked.listed()?;
        listing::check_complete(&mut sessions.locked, &found, &all)?;
        let texts = found.texts;
        let mut listed: Vec<(Listed, Kind)> = Vec::new();
        for table in all {
            let kind = kind_of(&table, self.skip)?;
            listed.push((table, kind));
        }
        let later = |kind: Kind| {
            kind == Kind::InView || kind == Kind::UnderLocks && matches!(reach, Reach::Held { .. })
        };
        let mut early = Early::default();
        let watch = stage.watch();
        let now = |kind: &Kind| !later(*kind) && matches!(kind, Kind::UnderLocks | Kind::DefinitionOnly);
        for (table, kind) in listed.iter().filter(|(_, kind)| now(kind)) {
            watch.check()?;
            self.read_now(&mut sessions.locked, table, *kind, &mut early, row_watch)?;
        }
        stage.block_commit()?;
        self.begin_views(sessions, &listed)?;
        for (table, kind) in listed.iter().filter(|(_, kind)| *kind == Kind::Sequence) {
            watch.check()?;
            self.read_now(&mut sessions.locked, table, *kind, &mut early, row_watch)?;
        }
        let alive = || watch.check().map_err(TryError::from);
        self.read_all_system(&mut sessions.locked, &mut early, row_watch, alive)?;
        let binlog_state = if facts.log_bin { Some(stage.ask(Session::gtid_binlog_state)?) } else { None };
        locking.check_unmoved(seqno, stage)?;
        tracing::debug!("{:.1} ms under the backup locks", began.elapsed().as_secs_f64() * 1000.0);
        let listed = listed.into_iter().filter(|(_, kind)| later(*kind)).map(|(table, _)| table).collect();
        Ok(Point { listed, databases, texts, early, seqno, binlog_state, granting, ..Point::default() })
    }

    /// Databases that belong to the data.
    pub(super) fn databases(&self, session: &mut Session) -> Answer<Vec<Database>> {
        let databases = session.databases()?;
        Ok(databases.into_iter().filter(|database| !listing::is_foreign(&database.name)).collect())
    }

    /// Begins the transactions that see the state, and holds the definitions of what is read in them.
    pub(super) fn begin_views(&self, sessions: &mut Sessions, listed: &[(Listed, Kind)]) -> Answer<()> {
        sessions.viewing().try_for_each(Session::begin_view)?;
        let in_view = listed.iter().filter(|(_, kind)| *kind == Kind::InView).map(|(table, _)| table);
        sessions.guardian.hold_definitions(in_view)
    }

    /// Reads the rows of `mysql`. `alive`: what must be true before each table.
    pub(super) fn read_all_system<E: From<ReadError>>(
        &self,
        session: &mut Session,
        early: &mut Early,
        row_watch: &RowWatch<'_>,
        alive: impl Fn() -> Result<(), E>,
    ) -> Result<(), E> {
        for known in &OF_THE_DATA {
            alive()?;
            for of_program in [false, true] {
                let read = self.read_system(session, known, of_program, early, row_watch)?;
                early.system.extend(read);
            }
        }
        Ok(())
    }

    /// Reads what has no view.
    pub(super) fn read_now(
        &self,
        session: &mut Session,
        listed: &Listed,
        kind: Kind,
        early: &mut Early,
        row_watch: &RowWatch<'_>,
    ) -> Result<(), ReadError> {
        let (database, name) = (listed.database.as_str(), listed.name.as_str());
        let of =
            |create, content| Table { database: database.to_owned(), name: name.to_owned(), create, content };
        let table = match kind {
            Kind::Sequence => {
                let create = session.sequence_definition(database, name)?;
                of(create, Content::Sequence(session.sequence(database, name)?))
            }
            Kind::DefinitionOnly => of(session.definition(database, name)?, Content::Nothing),
            _ => {
                let described = describe(session, listed)?;
                let mut take = early.take();
                let done = read_range(session, row_watch, &described, &Range::WHOLE, &mut take)?;
                drop(take);
                counted(described, vec![done])
            }
        };
        early.tables.push(table);
        Ok(())
    }

    /// Reads the rows of a table of `mysql` that belong to the data, or those that came with the server's program; none if there
    /// are none of that kind.
    fn read_system(
        &self,
        session: &mut Session,
        known: &Known,
        of_program: bool,
        early: &mut Early,
        row_watch: &RowWatch<'_>,
    ) -> Result<Option<SystemTable>, ReadError> {
        /// ER_NO_SUCH_TABLE.
        const NO_TABLE: u16 = 1146;
        if of_program && known.rows == EVERY_ROW {
            return Ok(None);
        }
        let columns = match session.column_names("mysql", known.name) {
            Err(e) if e.code == NO_TABLE => return Ok(None),
            columns => columns?,
        };
        let mut take = early.take();
        let packer =
            RowPacker::new(format!("{}/{}", prefix("mysql", known.name), u8::from(of_program)), &mut take);
        let (select, rest) = (
            names(columns.iter().map(String::as_str)),
            match of_program {
                false => format!("FROM {} WHERE {}", table("mysql", known.name), known.rows),
                true => format!("FROM {} WHERE NOT ({})", table("mysql", known.name), known.rows),
            },
        );
        let (count, parts) = read(session, row_watch, &select, &rest, packer)?;
        let rows = Rows { columns, count, parts, ..Rows::default() };
        Ok(Some(SystemTable { name: known.name.to_owned(), of_program, rows }))
    }
}
