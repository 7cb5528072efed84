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
//! | `describe` | one table: its definition, its columns, what is read of it |
//! | `ranges` | how the rows of a table are divided |
//! | `point` | the consistency point |
//! | `rows` | reading rows, several tables and ranges at a time |
//! | `watch` | ending the sessions early |
//! | `part` | packing what is read into parts, and passing them on |
mod describe;
mod error;
mod listing;
mod part;
mod point;
mod ranges;
mod rows;
mod watch;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use formats::wsrep::state_id::StateId;
use formats::{Seqno, Uuid};
use protocol::inventory::FileId;
use protocol::logical::{CONTENTS, Contents, SystemTable, Table, VERSION};
use protocol::message::SnapshotKind;

use super::declined::{Declined, SnapshotError};
use super::online::sql_checks::{self, Facts};
use super::sink::{Position, SnapshotSink};
use super::{Snapshot, Taken};
use crate::cancel::Cancel;
use crate::datadir::layout::Layout;
use crate::human::size;
use crate::settings::Blocking as Permission;
use crate::sql::{ANSWER_WITHIN, Login, Session, SqlError};
use error::ReadError;
use part::Shipper;
use point::{Early, Point, Reach, Sessions};
use watch::RowWatch;

/// How often the snapshot begins without locks, before they are held for all of it.
const TRIES_WITHOUT_LOCKS: u32 = 2;
/// How often it begins at all.
const TRIES_MAX: u32 = 3;
/// How long the server may take to answer a question.
const ANSWER: Duration = Duration::from_secs(60);
/// How long locks are held at most, if the operator sets no limit.
const HOLD_MAX: Duration = Duration::from_secs(24 * 3600);

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
        let mut observer = Session::open(&self.login, ANSWER)?;
        let facts = sql_checks::check_locks(&mut observer, &self.layout.datadir)?;
        check_select(&mut observer)?;
        let shipper = Shipper::new(sink);
        let mut disturbed = String::new();
        for tried in 0..TRIES_MAX {
            let held = match tried < TRIES_WITHOUT_LOCKS {
                true => None,
                false => Some(format!("the tables changed {tried} times, the last time {disturbed}")),
            };
            self.revive(&mut observer)?;
            match self.once(&shipper, &mut observer, &facts, held, cancel) {
                Ok(taken) => return Ok(taken),
                Err(ReadError::Over(e)) => return Err(e),
                // Where rows are read, this is no error.
                Err(ReadError::Discarded) => return Err(error::discarded().into()),
                Err(ReadError::Disturbed(why)) => {
                    cancel.check().map_err(anyhow::Error::from)?;
                    tracing::warn!("the logical snapshot begins again: {why}");
                    sink.tell(&format!("the donor's logical snapshot begins again: {why}"));
                    disturbed = why;
                    shipper.forget();
                }
            }
        }
        Err(Declined::RowsDisturbed(format!("{TRIES_MAX} times, the last time {disturbed}")).into())
    }
}

impl Logical<'_> {
    /// One snapshot. `held`: why the locks are held until everything is read.
    fn once(
        &self,
        shipper: &Shipper<'_>,
        observer: &mut Session,
        facts: &Facts,
        held: Option<String>,
        cancel: &Cancel,
    ) -> Result<Taken, ReadError> {
        let began = Instant::now();
        shipper.sink().phase("listing tables");
        let large = listing::too_large_to_lock(observer, self.skip)?;
        let reach = self.reach(held.or(large))?;
        let uuid = history(observer)?;
        let readers = (0..self.threads.max(1)).map(|_| self.reader()).collect::<Result<Vec<_>, _>>()?;
        let sessions =
            Sessions { readers, divider: self.reader()?, guardian: self.reader()?, locked: self.reader()? };
        let watch = RowWatch::new(self.ender()?, sessions.ids(), cancel);
        let read = watch.during(|| self.read(shipper, observer, facts, sessions, &reach, &watch))?;
        let (point, tables, system) = read;
        let contents = Contents {
            version: VERSION,
            server_version: self.server_version.clone(),
            lower_case_table_names: self.layout.lower_case_table_names,
            databases: point.databases,
            tables,
            system,
            texts: point.texts,
        };
        let rows: u64 = contents.rows().map(|rows| rows.count).sum();
        let count = contents.tables.len();
        let encoded = contents.encode().map_err(|e| Declined::Layout(e.to_string()))?;
        shipper.ship(part::pack_whole(CONTENTS, &encoded)?)?;
        let position = position(uuid, point.seqno, facts)?;
        let ms = |d: Duration| format!("{:.1} ms", d.as_secs_f64() * 1000.0);
        let paused = match &reach {
            Reach::Released => {
                format!(
                    "replication paused for {} (granted after {})",
                    ms(point.ddl_held),
                    ms(point.granting)
                )
            }
            Reach::Held { why, .. } => format!("locks held until everything was read ({why})"),
        };
        let line = format!("the consistency point is at {}: {paused}, {} tries", position.state, point.tries);
        let read = format!(
            "logical: {count} tables and {rows} rows in {:.1} s, {} packed",
            began.elapsed().as_secs_f64(),
            size(shipper.bytes())
        );
        Ok(Taken {
            files: shipper.entries(),
            position,
            binlog_state: point.binlog_state,
            corrupt: Vec::new(),
            redo_rounds: None,
            summary: vec![line, read],
        })
    }

    /// The consistency point, and everything that is read after it.
    fn read(
        &self,
        shipper: &Shipper<'_>,
        observer: &mut Session,
        facts: &Facts,
        mut sessions: Sessions,
        reach: &Reach,
        watch: &RowWatch<'_>,
    ) -> Result<(Point, Vec<Table>, Vec<SystemTable>), ReadError> {
        let sink = shipper.sink();
        let mut point = self.point(sink, observer, facts, &mut sessions, reach, watch)?;
        let Sessions { readers, divider, guardian, .. } = sessions;
        match (&point.stage, reach) {
            (Some(stage), Reach::Held { limit, .. }) => watch.needs(stage.watch(), *limit),
            _ => watch.asks(guardian),
        }
        sink.phase("reading rows");
        let Early { packed, mut tables, mut system } = std::mem::take(&mut point.early);
        for packed in packed {
            shipper.ship(packed)?;
        }
        let reading = rows::Reading { shipper, watch, readers, divider };
        tables.extend(reading.tables(&point.listed)?);
        system.sort_by(|a, b| (&a.name, a.of_program).cmp(&(&b.name, b.of_program)));
        match point.stage.take() {
            // Success proves that the locks were held until now.
            Some(mut stage) => {
                let ended = stage.end();
                sink.paused("replication", stage.paused_for());
                ended?;
            }
            None => watch.check_definitions()?,
        }
        Ok((point, tables, system))
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
                let text = format!("{why}, and blocking=never forbids to hold locks until they are read");
                return Err(Declined::Layout(text).into());
            }
            Permission::Auto => HOLD_MAX,
            Permission::AtMost(limit) => limit,
        };
        tracing::warn!("the backup locks are held until everything is read: {why}");
        Ok(Reach::Held { why, limit })
    }
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
