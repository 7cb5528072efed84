//! The changes that a mini-transaction makes to the bytes of pages.
//!
//! Layouts of the bodies from storage/innobase/log/log0recv.cc (`recv_sys_t::parse`, `log_phys_t::apply`),
//! include/mtr0types.h and mtr0log.h, MariaDB 10.11; compared with `--wsrep-recover` of killed 10.11.19
//! servers.
//!
//! Only the changes of system pages are supported: writing, filling and moving bytes, initialising a page,
//! and the two records of undo pages. All others (rows of index pages) are [`Change::Unknown`]; after one,
//! the content of its page is not known any more: see [`super::redo_page`].

use super::redo::{BadRecord, EXTENDED, FREE_PAGE, INIT_PAGE, PageRecord, Records, TRIM_PAGES, varint};
use super::redo_mtr::Mtr;
use crate::ids::{PageNo, SpaceId};

const WRITE: u8 = 0x30;
const MEMSET: u8 = 0x40;
const MEMMOVE: u8 = 0x50;
/// Checksums that debug servers add; they change nothing.
const OPTION: u8 = 0x70;
/// Subtypes of `EXTENDED`.
const UNDO_INIT: u8 = 2;
const UNDO_APPEND: u8 = 3;

/// Offset of the page type: records that follow an initialisation on the same page count from here.
const PAGE_TYPE: usize = 24;
/// Bytes before this offset of a page are not logged.
const FIRST_LOGGED: usize = 8;
/// Largest page.
const PAGE_MAX: usize = 65536;

/// A change, and the page it is made to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageChange<'a> {
    /// Tablespace.
    pub space: SpaceId,
    /// Page; for [`Change::Trim`] the first one that is removed.
    pub page: PageNo,
    /// The change.
    pub change: Change<'a>,
}

/// A change of a page. All ranges are within the largest page; the code that applies them must check that they
/// are within this page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a> {
    /// Initialised: all zero except for its number, its tablespace and its (empty) neighbours.
    Init,
    /// Freed: its content no longer counts.
    Free,
    /// The tablespace is truncated; an undo tablespace is emptied completely.
    Trim,
    /// Bytes are written.
    Write {
        /// Offset in the page.
        at: usize,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// Bytes are filled with a pattern, repeated and truncated as needed; it is not empty.
    Fill {
        /// Offset in the page.
        at: usize,
        /// Bytes to fill.
        len: usize,
        /// The pattern.
        pattern: &'a [u8],
    },
    /// Bytes are copied within the page; the ranges may overlap.
    Move {
        /// Offset in the page.
        at: usize,
        /// Bytes to copy.
        len: usize,
        /// The source.
        from: usize,
    },
    /// Becomes an empty undo page.
    UndoInit,
    /// An undo record is added at the free end of an undo page.
    UndoAppend(&'a [u8]),
    /// Nothing.
    Nothing,
    /// Another change, or a body that does not match its type.
    Unknown,
    /// The log is encrypted: it only shows that the page changes. If `cut`, it may also be [`Change::Trim`].
    Encrypted {
        /// The record has the length and type of one that truncates the tablespace.
        cut: bool,
    },
}

impl<'a> Mtr<'a> {
    /// The changes of pages, in order.
    pub fn changes(&self) -> Changes<'a> {
        Changes { records: self.records(), last: None }
    }
}

/// The changes of one mini-transaction.
#[derive(Debug, Clone)]
pub struct Changes<'a> {
    records: Records<'a>,
    /// Where the previous record ended; `None` if the next one must not continue there.
    last: Option<usize>,
}

impl<'a> Changes<'a> {
    fn change(&mut self, record: &PageRecord<'a>) -> Change<'a> {
        let last = if record.same_page { self.last } else { Some(0) };
        let (change, last) = match record.kind {
            FREE_PAGE if !record.same_page && record.body.is_empty() => (Change::Free, None),
            INIT_PAGE if !record.same_page && record.body.is_empty() => (Change::Init, Some(PAGE_TYPE)),
            OPTION => (Change::Nothing, last),
            _ if self.records.encrypted() => {
                (Change::Encrypted { cut: record.kind == EXTENDED && record.body.len() == 1 }, None)
            }
            EXTENDED => extended(record.body),
            WRITE | MEMSET | MEMMOVE => last
                .and_then(|last| bytes(record.kind, record.body, last))
                .map_or((Change::Unknown, None), |(change, end)| (change, Some(end))),
            _ => (Change::Unknown, None),
        };
        self.last = last;
        change
    }
}

impl<'a> Iterator for Changes<'a> {
    type Item = Result<PageChange<'a>, BadRecord>;

    /// Ends after the first [`BadRecord`].
    fn next(&mut self) -> Option<Self::Item> {
        Some(self.records.next_of_page()?.map(|record| {
            let change = self.change(&record);
            PageChange { space: record.space, page: record.page, change }
        }))
    }
}

fn extended(body: &[u8]) -> (Change<'_>, Option<usize>) {
    match body {
        [TRIM_PAGES] => (Change::Trim, None),
        [UNDO_INIT] => (Change::UndoInit, Some(PAGE_TYPE)),
        // At least two bytes of type and number.
        [UNDO_APPEND, data @ ..] if data.len() > 2 => (Change::UndoAppend(data), Some(PAGE_TYPE)),
        _ => (Change::Unknown, Some(PAGE_TYPE)),
    }
}

/// Parses a record of types `WRITE`, `MEMSET` and `MEMMOVE` after one that ended at `last`, and returns where
/// it ends.
fn bytes(kind: u8, body: &[u8], last: usize) -> Option<(Change<'_>, usize)> {
    let (offset, rest) = number(body)?;
    let at = last.checked_add(offset)?;
    if rest.is_empty() || !(FIRST_LOGGED..PAGE_MAX).contains(&at) {
        return None;
    }
    if kind == WRITE {
        return Some((Change::Write { at, bytes: rest }, end(at, rest.len())?));
    }
    let (len, rest) = number(rest)?;
    let end = end(at, len)?;
    if kind == MEMSET {
        return (!rest.is_empty() && rest.len() <= len)
            .then_some((Change::Fill { at, len, pattern: rest }, end));
    }
    // The lowest bit is the direction; the distance is at least 1.
    let (code, rest) = number(rest)?;
    let distance = (code >> 1) + 1;
    let from = if code & 1 == 1 { at.checked_sub(distance)? } else { at.checked_add(distance)? };
    let fits = rest.is_empty() && from >= FIRST_LOGGED && from.checked_add(len)? <= PAGE_MAX;
    fits.then_some((Change::Move { at, len, from }, end))
}

fn end(at: usize, len: usize) -> Option<usize> {
    at.checked_add(len).filter(|&end| end <= PAGE_MAX)
}

/// Parses a variable-length number of at most 3 bytes, and returns the bytes behind it.
fn number(body: &[u8]) -> Option<(usize, &[u8])> {
    let (value, len) = varint(body)?;
    (len <= 3).then_some((value as usize, body.get(len..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_go_on_where_the_record_before_ended() {
        assert_eq!(bytes(WRITE, &[40, 1, 2, 3], 0), Some((Change::Write { at: 40, bytes: &[1, 2, 3] }, 43)));
        assert_eq!(bytes(WRITE, &[0, 9], 43), Some((Change::Write { at: 43, bytes: &[9] }, 44)));
        assert_eq!(bytes(WRITE, &[40], 0), None, "no bytes");
        assert_eq!(bytes(WRITE, &[7, 1], 0), None, "the checksum is not logged");
        assert_eq!(bytes(WRITE, &[0xe0, 0, 0, 0, 1], 40), None, "an offset of 4 bytes");
        let fill = Change::Fill { at: 50, len: 10, pattern: &[0xff] };
        assert_eq!(bytes(MEMSET, &[50, 10, 0xff], 0), Some((fill, 60)));
        assert_eq!(bytes(MEMSET, &[50, 10], 0), None);
        assert_eq!(bytes(MEMSET, &[50, 1, 2, 3], 0), None, "a pattern longer than its range");
    }

    #[test]
    fn bytes_move_both_ways() {
        let moved = |from| Some((Change::Move { at: 100, len: 8, from }, 108));
        assert_eq!(bytes(MEMMOVE, &[100, 8, 0], 0), moved(101));
        assert_eq!(bytes(MEMMOVE, &[100, 8, 1], 0), moved(99));
        assert_eq!(bytes(MEMMOVE, &[100, 8, 2 * 19 + 1], 0), moved(80));
        assert_eq!(bytes(MEMMOVE, &[100, 8, 0x80 + 0x37, 0xff], 0), None, "before the page");
        assert_eq!(bytes(MEMMOVE, &[100, 8, 1, 1], 0), None, "more than a distance");
    }

    #[test]
    fn other_types_are_unknown() {
        assert_eq!(extended(&[TRIM_PAGES]).0, Change::Trim);
        assert_eq!(extended(&[UNDO_INIT]).0, Change::UndoInit);
        for body in [&[][..], &[0], &[UNDO_INIT, 1], &[UNDO_APPEND, 1, 2], &[9, 1, 2, 3]] {
            assert_eq!(extended(body).0, Change::Unknown);
        }
    }
}
