//! The logical snapshot: definitions and rows as the server shows them, from which a joiner's server makes files of its own. For a
//! joiner that cannot open the donor's files: another page size, another series, another case of names.
//!
//! In the same short consistency point as the online snapshot's, sessions begin transactions that see one state at one known
//! position; what has no such view (tables without transactions, sequences, definitions in files, accounts) is read while the locks
//! hold. Then everything is released, and the rows of InnoDB are read in parallel while the server works. One more session keeps all
//! tables open, so that no definition changes unnoticed: a definition that another node changes ends that session's transaction. Then the
//! snapshot begins again, and after a few times the locks are held until everything is read, if the operator allows that.
//!
//! | module | owns |
//! |---|---|
//! | `listing` | which tables there are, and what each needs; definitions in files |
//! | [`locked`] | tables without transactions, and for how long they hold writes |
//! | `describe` | one table: its definition, its columns, what is read of it |
//! | `refusing` | tables whose rows could not be the same on the joiner |
//! | `ranges` | how the rows of a table are divided |
//! | `point` | the consistency point, under the backup locks |
//! | `isolated` | the consistency point where the server itself holds everything |
//! | `rows` | reading rows, several tables and ranges at a time; `tally` knows which tables are complete |
//! | [`part`] | packing what is read into parts, and passing them on |
//! | [`receiver`] | what becomes of them |
//! | `watch` | ending the sessions early |
mod describe;
mod error;
mod isolated;
mod listing;
pub mod locked;
pub mod part;
mod point;
mod ranges;
pub mod receiver;
mod refusing;
mod rows;
mod tally;
mod watch;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use formats::wsrep::state_id::StateId;
use formats::{Seqno, Uuid};
use protocol::inventory::FileId;
use protocol::logical::{CONTENTS, Contents, VERSION};
use protocol::message::SnapshotKind;

use super::declined::{Declined, SnapshotError};
use super::online::sql_checks::{self, Facts};
use super::sink::{Position, SnapshotSink};
use super::{Snapshot, Taken};
use crate::cancel::Cancel;
use crate::datadir::layout::Layout;
use crate::human::size;
use crate::settings::Blocking as Permission;
use crate::sql::definitions::Database;
use crate::sql::{ANSWER_WITHIN, Login, Session, SqlError};
use error::ReadError;
pub(crate) use listing::is_foreign;
use locked::LockedTables;
use part::Shipper;
use point::{Early, Point, Reach, Sessions};
use receiver::Receiver;
use watch::RowWatch;

/// How often the snapshot begins without locks, before they are held for all of it.
const TRIES_WITHOUT_LOCKS: u32 = 2;
/// How often it begins at all.
const TRIES_MAX: u32 = 3;
/// How long the server may take to answer a question.
const ANSWER: Duration = Duration::from_secs(60);
/// How long locks are held at most, if the operator sets no limit.
const HOLD_MAX: Duration = Duration::from_secs(24 * 3600);

/// How the names of databases begin in which a running joiner receives tables. What an interrupted transfer has left of them is no
/// data.
pub const INCOMING: &str = "#rejoin-incoming-";

/// What holds the state still while the transactions that see it begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// The backup locks, which we take.
    BackupLocks,
    /// The server, at this position, until our program ends.
    Server(StateId),
}

/// How the snapshot is taken.
pub struct Logical<'a> {
    /// How to log in to the server.
    pub login: Login,
    /// Where its files are.
    pub layout: &'a Layout,
    /// Its version.
    pub server_version: Option<String>,
    /// Engines whose tables are left out, in upper case.
    pub skip: &'a BTreeSet<String>,
    /// Sessions that read rows.
    pub threads: usize,
    /// How long to wait for the consistency point.
    pub budget: Duration,
    /// How often the server has desynced its provider by itself.
    pub desynced: i64,
    /// Whether locks may be held until everything is read.
    pub blocking: Permission,
    /// What holds the state still.
    pub isolation: Isolation,
}

/// One try.
struct Attempt<'t> {
    receiver: &'t dyn Receiver,
    sink: &'t dyn SnapshotSink,
    facts: &'t Facts,
    /// Why the locks are held until everything is read.
    held: Option<String>,
}

/// A snapshot that a [`Receiver`] has taken.
pub struct Read {
    /// All of it but the rows.
    pub contents: Contents,
    /// Databases with their options.
    pub databases: Vec<Database>,
    /// The position of that state.
    pub position: Position,
    /// GTID state of the binary log at that position, as the lines of a `.state` file; `None` without a binary log.
    pub binlog_state: Option<String>,
    /// A line about how it was taken.
    pub summary: String,
}

impl Snapshot for Logical<'_> {
    fn kind(&self) -> SnapshotKind {
        SnapshotKind::Logical
    }

    fn redo(&self) -> Option<FileId> {
        None
    }

    fn blocks_writes(&self) -> bool {
        false
    }

    fn take(&self, sink: &dyn SnapshotSink, cancel: &Cancel) -> Result<Taken, SnapshotError> {
        let began = Instant::now();
        let shipper = Shipper::new(sink);
        let Read { contents, position, binlog_state, summary, .. } = self.read(&shipper, sink, cancel)?;
        let rows: u64 = contents.rows().map(|rows| rows.count).sum();
        let count = contents.tables.len();
        let encoded = contents.encode().map_err(|e| Declined::Layout(e.to_string()))?;
        shipper.ship(part::pack_whole(CONTENTS, &encoded)?)?;
        let read = format!(
            "logical: {count} tables and {rows} rows in {:.1} s, {} packed",
            began.elapsed().as_secs_f64(),
            size(shipper.bytes())
        );
        Ok(Taken {
            files: shipper.entries(),
            position,
            binlog_state,
            corrupt: Vec::new(),
            redo_rounds: None,
            summary: vec![summary, read],
        })
    }
}

impl Logical<'_> {
    /// Reads everything. `sink` is told how that goes on; what is read goes to `receiver`.
    ///
    /// # Errors
    /// As [`Snapshot::take`].
    pub fn read(
        &self,
        receiver: &dyn Receiver,
        sink: &dyn SnapshotSink,
        cancel: &Cancel,
    ) -> Result<Read, SnapshotError> {
        let mut observer = Session::open(&self.login, ANSWER)?;
        let facts = match self.isolation {
            Isolation::BackupLocks => sql_checks::check_locks(&mut observer, &self.layout.datadir)?,
            Isolation::Server(_) => sql_checks::check_isolated(&mut observer, &self.layout.datadir)?,
        };
        check_select(&mut observer)?;
        let mut disturbed = String::new();
        for tried in 0..TRIES_MAX {
            let held = match tried < TRIES_WITHOUT_LOCKS {
                true => None,
                false => Some(format!("the tables changed {tried} times, the last time {disturbed}")),
            };
            self.revive(&mut observer)?;
            let one = Attempt { receiver, sink, facts: &facts, held };
            match self.once(&one, &mut observer, cancel) {
                Ok(read) => return Ok(read),
                Err(ReadError::Over(e)) => return Err(e),
                // Where rows are read, this is no error.
                Err(ReadError::Discarded) => return Err(error::discarded().into()),
                Err(ReadError::Disturbed(why)) => {
                    cancel.check().map_err(anyhow::Error::from)?;
                    tracing::warn!("the logical snapshot begins again: {why}");
                    sink.tell(&format!("the donor's logical snapshot begins again: {why}"));
                    disturbed = why;
                }
            }
        }
        Err(Declined::RowsDisturbed(format!("{TRIES_MAX} times, the last time {disturbed}")).into())
    }

    /// One snapshot.
    fn once(&self, one: &Attempt<'_>, observer: &mut Session, cancel: &Cancel) -> Result<Read, ReadError> {
        one.sink.phase("listing tables");
        let uuid = history(observer)?;
        let readers = (0..self.threads.max(1)).map(|_| self.reader()).collect::<Result<Vec<_>, _>>()?;
        let sessions =
            Sessions { readers, divider: self.reader()?, guardian: self.reader()?, locked: self.reader()? };
        let watch = RowWatch::new(self.ender()?, sessions.ids(), cancel);
        let (point, contents, how) = watch.during(|| self.watched(one, observer, sessions, &watch))?;
        if let Isolation::Server(given) = self.isolation {
            isolated::check_unmoved(observer, given)?;
        }
        let Point { databases, binlog_state, seqno, keeper, .. } = point;
        drop(keeper);
        let position = position(uuid, seqno, one.facts)?;
        let summary = format!("the consistency point is at {}: {how}", position.state);
        Ok(Read { contents, databases, position, binlog_state, summary })
    }

    /// The consistency point, and everything that is read after it. Also returns how long the provider was paused, in words.
    fn watched(
        &self,
        one: &Attempt<'_>,
        observer: &mut Session,
        mut sessions: Sessions,
        watch: &RowWatch<'_>,
    ) -> Result<(Point, Contents, String), ReadError> {
        let (mut point, how, limit) = match self.isolation {
            Isolation::BackupLocks => {
                let large = LockedTables::find(observer, self.skip)?.too_large();
                let reach = self.reach(one.held.clone().or(large))?;
                let point = self.point(one.sink, observer, one.facts, &mut sessions, &reach, watch)?;
                let how = how_long(&point, &reach);
                match reach {
                    Reach::Released => (point, how, None),
                    Reach::Held { limit, .. } => (point, how, Some(limit)),
                }
            }
            Isolation::Server(given) => {
                let point = self.isolated_point(given, observer, one.facts, &mut sessions, watch)?;
                (point, "the server holds every write-set back".to_owned(), None)
            }
        };
        let Sessions { readers, divider, guardian, .. } = sessions;
        match (&point.stage, limit) {
            (Some(stage), Some(limit)) => watch.needs(stage.watch(), limit),
            _ => watch.asks(guardian),
        }
        one.sink.phase("reading rows");
        let contents =
            self.rows(rows::Reading { receiver: one.receiver, watch, readers, divider }, &mut point)?;
        match point.stage.take() {
            // Success proves that the locks were held until now.
            Some(mut stage) => {
                let ended = stage.end();
                one.sink.paused("replication", stage.paused_for());
                ended?;
            }
            None => watch.check_definitions()?,
        }
        Ok((point, contents, how))
    }

    /// Describes and reads the tables whose rows are still to be read. Returns everything that there is.
    fn rows(&self, mut reading: rows::Reading<'_>, point: &mut Point) -> Result<Contents, ReadError> {
        let Early { packed, tables, mut system } = std::mem::take(&mut point.early);
        system.sort_by(|a, b| (&a.name, a.of_program).cmp(&(&b.name, b.of_program)));
        let described = reading.describe(&point.listed)?;
        let with_rows = described.iter().map(|described| described.table.clone());
        let mut contents = Contents {
            version: VERSION,
            server_version: self.server_version.clone(),
            lower_case_table_names: self.layout.lower_case_table_names,
            databases: point.databases.iter().map(|database| database.name.clone()).collect(),
            tables: tables.iter().cloned().chain(with_rows).collect(),
            system,
            texts: std::mem::take(&mut point.texts),
        };
        reading.receiver.begin(&contents, packed)?;
        contents.tables = tables;
        contents.tables.extend(reading.tables(described)?);
        Ok(contents)
    }

    /// Logs in again if the observer's session has ended: it says nothing while rows are read.
    fn revive(&self, observer: &mut Session) -> Result<(), Declined> {
        if observer.ping().is_err() {
            *observer = Session::open(&self.login, ANSWER)?;
        }
        Ok(())
    }

    /// The session that ends the others.
    fn ender(&self) -> Result<Session, ReadError> {
        let mut session = Session::open(&self.login, ANSWER_WITHIN).map_err(Declined::from)?;
        session.set_reading()?;
        Ok(session)
    }

    /// A session in which rows or definitions are read.
    fn reader(&self) -> Result<Session, ReadError> {
        let mut session = Session::open(&self.login, HOLD_MAX).map_err(Declined::from)?;
        session.set_reading()?;
        Ok(session)
    }

    /// Whether locks are released before rows are read.
    fn reach(&self, held: Option<String>) -> Result<Reach, ReadError> {
        let Some(why) = held else { return Ok(Reach::Released) };
        let limit = match self.blocking {
            Permission::Never => {
                return Err(Declined::Layout(locked::never_held(&why)).into());
            }
            Permission::Auto => HOLD_MAX,
            Permission::AtMost(limit) => limit,
        };
        tracing::warn!("the backup locks are held until everything is read: {why}");
        Ok(Reach::Held { why, limit })
    }
}

/// How long the provider was paused, for the logs.
fn how_long(point: &Point, reach: &Reach) -> String {
    let ms = |d: Duration| format!("{:.1} ms", d.as_secs_f64() * 1000.0);
    let paused = match reach {
        Reach::Released => {
            let (held, granting) = (ms(point.ddl_held), ms(point.granting));
            format!("replication paused for {held} (granted after {granting})")
        }
        Reach::Held { why, .. } => format!("locks held until everything was read ({why})"),
    };
    format!("{paused}, {} tries", point.tries)
}

/// The account must be able to read everything: what it may not see is not even listed.
fn check_select(session: &mut Session) -> Result<(), Declined> {
    let lost = |e: SqlError| Declined::SessionLost(e.to_string());
    if session.reads_everything().map_err(lost)? {
        return Ok(());
    }
    let account = session.current_user().map_err(lost)?;
    Err(Declined::MissingPrivilege { grant: sql_checks::grant_of(&account, &["SELECT"]) })
}

fn history(observer: &mut Session) -> Result<Option<Uuid>, ReadError> {
    let text = observer.status("wsrep_local_state_uuid")?;
    Ok(text.and_then(|text| text.parse().ok()))
}

fn position(uuid: Option<Uuid>, seqno: Option<i64>, facts: &Facts) -> Result<Position, Declined> {
    match uuid.zip(seqno) {
        Some((uuid, seqno)) => {
            Ok(Position { state: StateId { uuid, seqno: Seqno(seqno) }, domain: facts.gtid_domain })
        }
        None => Err(Declined::NoPosition { shown: "the server is no member of a cluster".to_owned() }),
    }
}
