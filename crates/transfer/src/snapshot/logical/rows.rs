//! Reads the rows of tables: several tables and ranges at a time, each session in its own transaction, all of which see the same
//! state.
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use protocol::logical::{Content, Table};

use super::describe::{Described, describe};
use super::error::ReadError;
use super::part::{Packed, RowPacker, prefix};
use super::ranges::{Range, Ranges};
use super::receiver::Receiver;
use super::tally::Tally;
use super::watch::RowWatch;
use crate::sql::Session;
use crate::sql::definitions::Listed;
use crate::threads::{Thread, in_threads, lock};

/// How often a cancelled transfer is noticed, in rows.
const CHECK_EVERY: u64 = 256;
/// The joiner is told when all rows of a table with so many bytes have been sent: it can add the keys while others come.
const SAID_FROM: u64 = 8 << 20;

/// Reading in views.
pub(super) struct Reading<'a> {
    /// Takes parts.
    pub receiver: &'a dyn Receiver,
    /// Ends it early.
    pub watch: &'a RowWatch<'a>,
    /// Sessions, each in a transaction that sees the same state.
    pub readers: Vec<Session>,
    /// One more of them, which finds out what the others read next.
    pub divider: Session,
}

/// What was read of one range.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Done {
    /// Its place in the order of the table's key.
    pub at: usize,
    /// Its rows.
    pub rows: u64,
    /// Paths of its parts.
    pub parts: Vec<String>,
    /// There is no tablespace to read.
    pub discarded: bool,
}

impl Reading<'_> {
    /// Describes tables.
    ///
    /// # Errors
    /// A view is gone, the server does not show something, or the transfer is over.
    pub fn describe(&mut self, listed: &[Listed]) -> Result<Vec<Described>, ReadError> {
        each(&mut self.readers, self.watch, listed.iter(), &|session, listed| describe(session, listed))
    }

    /// Reads tables, the largest first.
    ///
    /// # Errors
    /// As [`Reading::describe`].
    pub fn tables(self, mut described: Vec<Described>) -> Result<Vec<Table>, ReadError> {
        let Reading { receiver, watch, mut readers, divider } = self;
        described.sort_by_key(|table| std::cmp::Reverse(table.extent.bytes));
        let (tables, tally) = (&described, Mutex::new(Tally::default()));
        // Under the same lock as the next range is taken, so that the tally knows of it before it is read.
        let ranges = Ranges::new(divider, tables).inspect(|next| {
            if let Ok((number, _)) = next {
                lock(&tally).begins(*number);
            }
        });
        each(&mut readers, watch, ranges, &|session, next| {
            let (number, range) = next?;
            let table = tables.get(number).ok_or_else(|| anyhow::anyhow!("no such table"))?;
            let mut take = |packed| receiver.part(packed);
            let done = match read_range(session, watch, table, &range, &mut take) {
                Err(ReadError::Discarded) => {
                    Done { at: range.at, rows: 0, parts: Vec::new(), discarded: true }
                }
                done => done?,
            };
            let complete = lock(&tally).ends(number, done);
            for (number, done) in complete {
                // Whether a table that was discarded meanwhile belongs to this snapshot is decided at its end.
                let said = |table: &&Described| {
                    table.extent.bytes >= SAID_FROM && !done.iter().any(|done| done.discarded)
                };
                let large = tables.get(number).filter(said);
                large.map_or(Ok(()), |table| receiver.complete(&counted(table.clone(), done)))?;
            }
            Ok(())
        })?;
        let mut tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
        let described = described.into_iter().enumerate();
        let counted = described.map(|(at, table)| {
            let done = tally.take(at);
            let Table { database, name, .. } = &table.table;
            tracing::debug!("{database}.{name} was read in {} ranges", done.len());
            counted(table, done)
        });
        Ok(counted.collect())
    }
}

/// Does `work` with each item, in as many threads as there are sessions. The results are in no particular order. The first error ends
/// the sessions: the others may be in the middle of a large table.
fn each<T: Send, U: Send>(
    readers: &mut Vec<Session>,
    watch: &RowWatch<'_>,
    items: impl Iterator<Item = T> + Send,
    work: &(dyn Fn(&mut Session, T) -> Result<U, ReadError> + Sync),
) -> Result<Vec<U>, ReadError> {
    let threads = readers.len();
    let sessions = Mutex::new(std::mem::take(readers));
    let (items, done, failed) = (Mutex::new(items), Mutex::new(Vec::new()), Mutex::new(None));
    let next = || lock(&items).next();
    let ran = in_threads(Thread::RowReader, threads, &|| {
        let Some(mut session) = lock(&sessions).pop() else { return Ok(()) };
        while let Some(item) = next() {
            if lock(&failed).is_some() {
                break;
            }
            match work(&mut session, item) {
                Ok(answer) => lock(&done).push(answer),
                Err(error) => {
                    if keeps_first(&failed, error) {
                        watch.end_reading();
                    }
                    break;
                }
            }
        }
        lock(&sessions).push(session);
        Ok(())
    });
    *readers = sessions.into_inner().unwrap_or_else(PoisonError::into_inner);
    ran?;
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

/// Keeps the first error: the later ones only say that the sessions were ended for it. Returns whether this one is the first.
fn keeps_first<E>(failed: &Mutex<Option<E>>, error: E) -> bool {
    let mut failed = lock(failed);
    let is_first = failed.is_none();
    failed.get_or_insert(error);
    is_first
}

/// The table with what was read of its ranges.
pub(super) fn counted(mut table: Described, mut done: Vec<Done>) -> Table {
    done.sort_unstable();
    if done.iter().any(|one| one.discarded) {
        table.table.content = Content::Discarded;
    }
    if let Some(rows) = table.rows_mut() {
        rows.count = done.iter().map(|one| one.rows).sum();
        rows.parts = done.into_iter().flat_map(|one| one.parts).collect();
    }
    table.table
}

/// Reads one range of a table.
///
/// # Errors
/// As [`Reading::tables`], or from `take`.
pub(super) fn read_range(
    session: &mut Session,
    watch: &RowWatch<'_>,
    table: &Described,
    range: &Range,
    take: &mut dyn FnMut(Packed) -> Result<()>,
) -> Result<Done, ReadError> {
    let prefix = format!("{}/{}", prefix(&table.table.database, &table.table.name), range.number);
    let (select, rest) = table.query(&range.between);
    let (rows, parts) = read(session, watch, select, &rest, RowPacker::new(prefix, take))?;
    Ok(Done { at: range.at, rows, parts, discarded: false })
}

/// Reads rows into parts. Returns how many, and the paths of the parts.
///
/// # Errors
/// As [`read_range`].
pub(super) fn read(
    session: &mut Session,
    watch: &RowWatch<'_>,
    select: &str,
    rest: &str,
    mut packer: RowPacker<'_>,
) -> Result<(u64, Vec<String>), ReadError> {
    let id = session.id();
    session.read_rows(select, rest, &mut |columns| -> Result<(), ReadError> {
        let checked = if packer.rows.is_multiple_of(CHECK_EVERY) { watch.check() } else { Ok(()) };
        let taken = checked.map_err(anyhow::Error::from).and_then(|()| packer.row(columns));
        taken.map_err(|error| {
            // The rest of the rows would still come.
            watch.end(id);
            error.into()
        })
    })?;
    packer.end()?;
    Ok((packer.rows, packer.parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link that was cut was told as `the logical snapshot begins again`, because the last thread's error counted.
    #[test]
    fn the_error_that_ends_the_sessions_counts_and_not_theirs() {
        let failed = Mutex::new(None);
        assert!(keeps_first(&failed, "the joiner's server was lost"));
        assert!(!keeps_first(&failed, "the session is gone"));
        assert_eq!(failed.into_inner().unwrap(), Some("the joiner's server was lost"));
    }
}
