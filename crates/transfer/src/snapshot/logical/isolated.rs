//! The consistency point where the server itself holds every write-set back until we end, and has told us its position: a donor of
//! 10.11 for the method mysqldump (`sst_donate_mysqldump`, sql/wsrep_sst.cc). The provider is not to be paused then: the pause
//! would wait for the server's own order, which waits for us.
//!
//! What is not replicated goes on: writes to tables without transactions, and DDL of sessions outside of replication. The
//! first are held by table locks until everything is read, the second by the transaction that has all other tables open.
use formats::wsrep::state_id::StateId;

use super::Logical;
use super::error::ReadError;
use super::listing::{self, Kind, kind_of};
use super::point::{Early, Point, Sessions};
use super::watch::RowWatch;
use crate::snapshot::declined::Declined;
use crate::snapshot::online::sql_checks::{Facts, grant_of};
use crate::sql::Session;
use crate::sql::definitions::Listed;

impl Logical<'_> {
    /// The consistency point at `given`, the server's position.
    pub(super) fn isolated_point(
        &self,
        given: StateId,
        observer: &mut Session,
        facts: &Facts,
        sessions: &mut Sessions,
        watch: &RowWatch<'_>,
    ) -> Result<Point, ReadError> {
        check_unmoved(observer, given)?;
        sessions.viewing().try_for_each(Session::end_view)?;
        let databases = self.databases(&mut sessions.locked)?;
        let mut listed: Vec<(Listed, Kind)> = Vec::new();
        let found = listing::definitions(self.layout)?;
        let all = sessions.locked.listed()?;
        listing::check_complete(&mut sessions.locked, &found, &all)?;
        for table in all {
            let kind = kind_of(&table, self.skip)?;
            listed.push((table, kind));
        }
        let keeper =
            self.hold_tables(listed.iter().filter(|(_, kind)| *kind == Kind::UnderLocks), observer)?;
        let mut early = Early::default();
        self.begin_views(sessions, &listed)?;
        for (table, kind) in &listed {
            if matches!(kind, Kind::DefinitionOnly | Kind::Sequence) {
                self.read_now(&mut sessions.locked, table, *kind, &mut early, watch)?;
            }
        }
        self.read_all_system(&mut sessions.locked, &mut early, watch, || Ok::<(), ReadError>(()))?;
        let texts = found.texts;
        let binlog_state = if facts.log_bin { Some(sessions.locked.gtid_binlog_state()?) } else { None };
        check_unmoved(observer, given)?;
        let later = |kind: Kind| matches!(kind, Kind::InView | Kind::UnderLocks);
        let listed = listed.into_iter().filter(|(_, kind)| later(*kind)).map(|(table, _)| table).collect();
        let seqno = Some(given.seqno.0);
        Ok(Point { listed, databases, texts, early, seqno, binlog_state, keeper, ..Point::default() })
    }

    /// A session that locks these tables against writes, as long as it lives.
    fn hold_tables<'a>(
        &self,
        tables: impl Iterator<Item = &'a (Listed, Kind)>,
        observer: &mut Session,
    ) -> Result<Option<Session>, ReadError> {
        let tables: Vec<&Listed> = tables.map(|(table, _)| table).collect();
        if tables.is_empty() {
            return Ok(None);
        }
        let mut keeper = self.reader()?;
        match keeper.lock_for_reading(&tables) {
            Err(e) if e.is_denied() => {
                let account = observer.current_user()?;
                let grant = grant_of(&account, &["LOCK TABLES"]);
                Err(Declined::MissingPrivilege { grant }.into())
            }
            locked => locked.map(|()| Some(keeper)).map_err(ReadError::from),
        }
    }
}

/// Fails unless the server is where it said that it is.
pub(super) fn check_unmoved(observer: &mut Session, given: StateId) -> Result<(), ReadError> {
    let seqno = observer.status_number("wsrep_last_committed")?;
    let after = seqno.ok_or_else(|| Declined::NoStatus("wsrep_last_committed".to_owned()))?;
    match after == given.seqno.0 {
        true => Ok(()),
        false => Err(Declined::PositionMoved { before: given.seqno.0, after }.into()),
    }
}
