//! Hands over what need not be read: ranges of which this node remembers the fingerprint while the joiner has the same.
//!
//! The state of the file is looked at when a range would be read. The kernel changes it before the first byte of a write, so
//! if it is that of the remembered fingerprints, a read would find what they were made from. Whatever is written later is
//! brought by redo, or found by the checks of a file without redo, as if the range had been read now.
use anyhow::{Context, Result};
use formats::{Lsn, SpaceId};
use protocol::extents::Extents;
use protocol::fingerprint::{block_fingerprints, range_fingerprint};
use protocol::inventory::{FileEntry, FileId, FileRole};
use protocol::limits::RANGE_BYTES;

use super::pages::{Copied, Copier, Wanted};
use crate::disk::identity::{Look, look};
use crate::remembered::front::pages_of;
use crate::remembered::memory::Memory;
use crate::remembered::trust::state_of;
use crate::snapshot::declined::Declined;

/// A file of which fingerprints are remembered.
#[derive(Debug)]
pub struct Unread {
    /// The record.
    pub at: u32,
    /// Its state, now and when it was read.
    pub look: Look,
    /// Bytes that were handed over without reading them.
    pub done: Extents,
}

/// What a data file begins with, as it is remembered.
#[derive(Debug)]
pub struct Beginning {
    /// Its tablespace.
    pub space: SpaceId,
    /// The LSN of its first page.
    pub lsn: Lsn,
    /// Digests of its first pages.
    pub pages: Vec<u64>,
}

/// Only files of tables: the others change with every start of a server.
pub fn may_be_remembered(entry: &FileEntry) -> bool {
    matches!(entry.role, FileRole::Table | FileRole::TableElsewhere { .. })
}

/// Hands over what the joiner has of a file, as far as nothing must be read for it. `None` if nothing is remembered of the
/// file in its state. `until` ends it at the first range that must be read.
///
/// # Errors
/// From the system, the sink, or cancelled.
pub fn hand_over(copier: Copier<'_>, wanted: &Wanted, until: bool) -> Result<Option<Unread>> {
    let may_be_recalled = |memory: &&Memory| memory.recalls() && may_be_remembered(&wanted.entry);
    let Some(memory) = copier.memory.filter(may_be_recalled) else { return Ok(None) };
    let now = || look(&wanted.path).with_context(|| format!("cannot look at {}", wanted.path.display()));
    let Some(seen) = now()?.filter(|seen| seen.identity == wanted.identity) else { return Ok(None) };
    let Some(at) = memory.find(&seen) else { return Ok(None) };
    let Some(record) = memory.record(at) else { return Ok(None) };
    copier.sink.announce(&wanted.entry).context("cannot announce a file")?;
    let mut done = Extents::default();
    let ranges = if copier.sink.compares() { record.count() } else { 0 };
    for number in 0..ranges {
        copier.cancel.check()?;
        (copier.pace)()?;
        let (offset, len) = (u64::from(number) * u64::from(RANGE_BYTES), record.len_of(number));
        // For the first range the file was just looked at.
        let is_unchanged = || -> Result<bool> {
            Ok(number == 0 || now()?.is_some_and(|now| state_of(&now) == record.state))
        };
        let is_due = !memory.is_checked(at, number) && is_unchanged()?;
        let put = || match record.range(number).filter(|_| is_due) {
            Some((fingerprint, _)) => copier.sink.put_remembered(wanted.entry.id, offset, len, &fingerprint),
            None => Ok(false),
        };
        if put()? {
            done.add(offset..offset + u64::from(len));
        } else if until {
            break;
        }
    }
    Ok(Some(Unread { at, look: seen, done }))
}

/// A range of a file was read: it is checked if it is remembered, or else learned. `whole`: it is what the file contains,
/// with no corrupt page. What is remembered was whole, so a range that no longer is, of a file in the same state, is as wrong as
/// one with other bytes.
///
/// # Errors
/// As [`Unread::check`].
pub fn learn(
    copier: Copier<'_>,
    wanted: &Wanted,
    unread: Option<&Unread>,
    offset: u64,
    bytes: &[u8],
    whole: bool,
) -> Result<()> {
    let Some(memory) = copier.memory else { return Ok(()) };
    match unread {
        Some(unread) => {
            memory.keep(unread.at);
            unread.check(memory, wanted, offset, bytes)?;
        }
        None if !whole => memory.learner().give_up(wanted.entry.id),
        None => memory.learner().read(&memory.key(), wanted.entry.id, offset, bytes),
    }
    Ok(())
}

impl Unread {
    /// Nothing of it must be read.
    pub fn is_all(&self) -> bool {
        self.done.is_all(self.look.signature.size)
    }

    /// The first byte from `at` on that must be read.
    pub fn first_from(&self, at: u64) -> u64 {
        let (range, end) = (u64::from(RANGE_BYTES), self.look.signature.size);
        let mut at = at;
        while at < end && self.done.covers(at..at + 1) {
            at = end.min((at / range + 1) * range);
        }
        at
    }

    /// What the file begins with, if it is a data file.
    pub fn beginning(&self, memory: &Memory) -> Option<Beginning> {
        let front = memory.record(self.at)?.front?;
        Some(Beginning { space: SpaceId(front.space), lsn: Lsn(front.lsn), pages: pages_of(&front) })
    }

    /// The result of copying a data file of which nothing must be read.
    pub fn copied(&self, copier: Copier<'_>, id: FileId, seen: Lsn) -> Option<Copied> {
        let memory = copier.memory.filter(|_| self.is_all())?;
        let beginning = self.beginning(memory)?;
        memory.keep(self.at);
        Some(Copied {
            id,
            bytes: Some(self.look.signature.size),
            space: Some(beginning.space),
            first_lsn: Some(beginning.lsn),
            head: beginning.pages,
            fresh: vec![(seen, 0)],
        })
    }

    /// A range was read after all: it must be what is remembered of it, unless the file was changed meanwhile.
    ///
    /// # Errors
    /// [`Declined::WrongFingerprints`].
    pub fn check(&self, memory: &Memory, wanted: &Wanted, offset: u64, bytes: &[u8]) -> Result<()> {
        let number = (offset / u64::from(RANGE_BYTES)) as u32;
        let Some(record) =
            memory.record(self.at).filter(|record| record.len_of(number) as usize == bytes.len())
        else {
            return Ok(());
        };
        let Some((remembered, _)) =
            record.range(number).filter(|_| offset.is_multiple_of(u64::from(RANGE_BYTES)))
        else {
            return Ok(());
        };
        let key = memory.key();
        if range_fingerprint(&key, &block_fingerprints(&key, bytes)) == remembered {
            return Ok(());
        }
        let now = look(&wanted.path).with_context(|| format!("cannot look at {}", wanted.path.display()))?;
        if now.is_none_or(|now| state_of(&now) != record.state) {
            return Ok(());
        }
        Err(Declined::WrongFingerprints(memory.is_wrong_about(&wanted.path, offset)).into())
    }
}

#[cfg(test)]
#[path = "unread_tests.rs"]
mod tests;
