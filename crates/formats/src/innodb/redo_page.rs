//! One page in memory, to which redo is applied as in crash recovery.
//!
//! The rules are from storage/innobase/log/log0recv.cc (`recv_recover_page`, `log_phys_t::apply`), MariaDB
//! 10.11: a change is applied only if its mini-transaction began at or after the page's LSN, and afterwards
//! the page's LSN is the end of the mini-transaction. An initialised page depends neither on its content in
//! the file nor on that LSN.

use thiserror::Error;

use super::page;
use super::redo_change::{Change, PageChange};
use crate::bytes::{be16, put};
use crate::ids::{Lsn, PageNo, SpaceId};

/// Page type of undo pages (fil0fil.h), and the layout of their header (trx0undo.h).
const UNDO_LOG: u16 = 2;
const UNDO_TYPE: usize = 38;
const UNDO_START: usize = UNDO_TYPE + 2;
const UNDO_FREE: usize = UNDO_TYPE + 4;
const UNDO_NODE: usize = UNDO_TYPE + 6;
const UNDO_HEADER_END: usize = UNDO_TYPE + 18;

/// Why the content of a page is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Gap {
    /// It is not in the files, or was never written.
    #[error("is not in the files")]
    Missing,
    /// Its checksum, number or tablespace is wrong.
    #[error("is damaged in its file")]
    Damaged,
    /// Encrypted.
    #[error("is encrypted")]
    Encrypted,
    /// It is changed by encrypted redo.
    #[error("is changed by encrypted redo")]
    EncryptedRedo,
    /// It was freed.
    #[error("was freed")]
    Freed,
    /// Its tablespace was truncated.
    #[error("was removed when its tablespace was truncated")]
    Trimmed,
    /// It is changed in a way that this crate does not support, or by a record that does not fit the page.
    #[error("is changed by redo in a way that is not supported")]
    Unknown,
}

/// A page, and the state to which redo has brought it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageImage {
    space: SpaceId,
    page: PageNo,
    size: usize,
    /// Changes that began before are already included. It is not advanced, because later changes begin later.
    since: Lsn,
    content: Result<Vec<u8>, Gap>,
}

impl PageImage {
    /// A page with its content from the file, `bytes`, or the reason why it has none. `size` is the page
    /// size.
    pub fn new(space: SpaceId, page: PageNo, size: usize, content: Result<Vec<u8>, Gap>) -> PageImage {
        let content =
            content.and_then(|bytes| if bytes.len() == size { Ok(bytes) } else { Err(Gap::Damaged) });
        let since = content.as_ref().ok().and_then(|bytes| page::lsn(bytes)).unwrap_or_default();
        PageImage { space, page, size, since, content }
    }

    /// Returns the page's bytes. Its checksum and the second copy of its LSN are not updated.
    ///
    /// # Errors
    /// Why they are not known.
    pub fn content(&self) -> Result<&[u8], Gap> {
        self.content.as_deref().map_err(|gap| *gap)
    }

    /// LSN of its newest change; 0 if there is no content.
    pub fn lsn(&self) -> Lsn {
        self.content.as_ref().ok().and_then(|bytes| page::lsn(bytes)).unwrap_or_default()
    }

    /// Whether this change is for this page.
    pub fn concerns(&self, change: &PageChange<'_>) -> bool {
        if change.space != self.space {
            return false;
        }
        match change.change {
            // Truncating an undo tablespace empties it; it is rebuilt from its first page.
            Change::Trim | Change::Encrypted { cut: true } => {
                self.space != SpaceId(0) || self.page >= change.page
            }
            _ => change.page == self.page,
        }
    }

    /// Applies a change of a mini-transaction from `start` to `end`. Does nothing if the change is for
    /// another page. Changes must come in the order of the log.
    pub fn play(&mut self, start: Lsn, end: Lsn, change: &PageChange<'_>) {
        if !self.concerns(change) {
            return;
        }
        match change.change {
            Change::Init => {
                self.since = Lsn(0);
                self.content = Ok(self.fresh());
            }
            Change::Trim => {
                self.since = Lsn(0);
                self.content = Err(Gap::Trimmed);
            }
            _ if start < self.since => return,
            Change::Nothing => {}
            Change::Free => self.content = Err(Gap::Freed),
            Change::Encrypted { .. } => self.content = Err(Gap::EncryptedRedo),
            other => {
                if let Ok(bytes) = &mut self.content
                    && apply(bytes, &other).is_none()
                {
                    self.content = Err(Gap::Unknown);
                }
            }
        }
        if let Ok(bytes) = &mut self.content {
            put(bytes, 16, &end.0.to_be_bytes());
        }
    }

    fn fresh(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.size];
        put(&mut bytes, 4, &self.page.0.to_be_bytes());
        put(&mut bytes, 8, &[0xff; 8]);
        put(&mut bytes, 34, &self.space.0.to_be_bytes());
        bytes
    }
}

/// Returns `None` if the change is unknown or does not fit the page, which may then be partly changed.
fn apply(bytes: &mut [u8], change: &Change<'_>) -> Option<()> {
    match *change {
        Change::Write { at, bytes: new } => {
            bytes.get_mut(at..at.checked_add(new.len())?)?.copy_from_slice(new);
        }
        Change::Fill { at, len, pattern } => {
            let slots = bytes.get_mut(at..at.checked_add(len)?)?;
            slots.iter_mut().zip(pattern.iter().cycle()).for_each(|(slot, byte)| *slot = *byte);
        }
        Change::Move { at, len, from } => {
            let range = from..from.checked_add(len)?;
            if bytes.len() < range.end || bytes.len() < at.checked_add(len)? {
                return None;
            }
            bytes.copy_within(range, at);
        }
        Change::UndoInit => {
            if bytes.len() < UNDO_HEADER_END {
                return None;
            }
            put(bytes, 24, &UNDO_LOG.to_be_bytes());
            put(bytes, UNDO_TYPE, &[0; 2]);
            for at in [UNDO_START, UNDO_FREE] {
                put(bytes, at, &(UNDO_HEADER_END as u16).to_be_bytes());
            }
            put(bytes, UNDO_NODE, &[0xff, 0xff, 0xff, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0]);
        }
        Change::UndoAppend(data) => {
            let free = be16(bytes, UNDO_FREE)?;
            let at = usize::from(free);
            // The record, framed by the offsets of where the next one begins and where this one began.
            let next = at.checked_add(data.len())?.checked_add(4)?;
            if at < UNDO_HEADER_END || next.checked_add(2)? >= bytes.len().checked_sub(38)? {
                return None;
            }
            let after = u16::try_from(next).ok()?.to_be_bytes();
            put(bytes, UNDO_FREE, &after);
            put(bytes, at, &after);
            put(bytes, at + 2, data);
            put(bytes, next - 2, &free.to_be_bytes());
        }
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
#[path = "redo_page_tests.rs"]
mod tests;
