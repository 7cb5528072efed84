//! The records of a mini-transaction: which pages they change, and which files they name.
//!
//! Layout from storage/innobase/include/mtr0types.h (record and file operation types), mtr0log.h (variable-length
//! numbers) and log/log0recv.cc (`recv_sys_t::parse`), MariaDB 10.11; held against logs of 10.11.19 and 11.8.6
//! servers. Framing and checksums are in [`super::redo_mtr`], a new log's bytes in [`super::redo_flat`].

use crate::bytes::be64;
use crate::ids::{Lsn, PageNo, SpaceId};

/// High bit of a record's first byte: an operation on a file, or one on the page of the record before.
const SAME_PAGE: u8 = 0x80;
/// Bits 4-6 of a page record's first byte.
const TYPE: u8 = 0x70;
pub(super) const FREE_PAGE: u8 = 0x00;
pub(super) const INIT_PAGE: u8 = 0x10;
pub(super) const EXTENDED: u8 = 0x20;
/// First byte of the shortest padding, `FILE_CHECKPOINT` and a NUL.
const PADDING: u8 = 0xf1;
/// Subtype of an `EXTENDED` record with no further bytes: the tablespace ends before this page.
pub(super) const TRIM_PAGES: u8 = 10;

/// One record. In an encrypted log only types, lengths and page numbers are in clear: there [`Record::Page`]
/// stands for every change of a page, and file names are `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    /// A page is changed in a way that is not listed below.
    Page {
        /// Tablespace.
        space: SpaceId,
        /// Page.
        page: PageNo,
    },
    /// A page is initialised: its old content does not matter.
    InitPage {
        /// Tablespace.
        space: SpaceId,
        /// Page.
        page: PageNo,
    },
    /// A page is freed.
    FreePage {
        /// Tablespace.
        space: SpaceId,
        /// Page.
        page: PageNo,
    },
    /// The tablespace is truncated (an undo tablespace).
    TrimPages {
        /// Tablespace.
        space: SpaceId,
        /// The first page that is removed.
        pages: PageNo,
    },
    /// A file operation.
    File(FileEvent<'a>),
}

/// An operation on a data file. Names are in the server's spelling, usually `./database/table.ibd`. In an
/// encrypted log only the kind is in clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileEvent<'a> {
    /// Created.
    Create {
        /// Tablespace.
        space: Option<SpaceId>,
        /// Its name.
        name: Option<&'a [u8]>,
    },
    /// Deleted.
    Delete {
        /// Tablespace.
        space: Option<SpaceId>,
        /// Its name.
        name: Option<&'a [u8]>,
    },
    /// Renamed.
    Rename {
        /// Tablespace.
        space: Option<SpaceId>,
        /// Its old and its new name.
        names: Option<(&'a [u8], &'a [u8])>,
    },
    /// Not a change: it names a file that records since the last checkpoint refer to.
    Modify {
        /// Tablespace.
        space: Option<SpaceId>,
        /// Its name.
        name: Option<&'a [u8]>,
    },
    /// A checkpoint at this LSN has been prepared; `None` in an encrypted log. LSN 0 is padding
    /// (log0recv.cc, `log_parse_file`).
    Checkpoint {
        /// Where recovery would start.
        lsn: Option<Lsn>,
    },
}

/// Bytes that are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a redo record: byte {byte:#04x} at offset {at} of its mini-transaction")]
pub struct BadRecord {
    /// Offset from the start of the mini-transaction.
    pub at: usize,
    /// The first invalid byte.
    pub byte: u8,
}

/// Decodes a variable-length number: its value and its length in bytes. `None` if it is truncated or invalid.
///
/// 1 byte below 0x80; 2 bytes from 0x80 (counting on from 0x80), 3 from 0xC0 (from 0x4080), 4 from 0xE0 (from
/// 0x204080), 5 from 0xF0 (from 0x10204080): mtr0log.h `mlog_decode_varint`.
pub fn varint(bytes: &[u8]) -> Option<(u32, usize)> {
    let byte = |at: usize| bytes.get(at).map(|&b| u32::from(b));
    let first = byte(0)?;
    match first {
        0..0x80 => Some((first, 1)),
        0x80..0xc0 => Some((0x80 + ((first & 0x3f) << 8 | byte(1)?), 2)),
        0xc0..0xe0 => Some((0x4080 + ((first & 0x1f) << 16 | byte(1)? << 8 | byte(2)?), 3)),
        0xe0..0xf0 => {
            let low = (first & 0x0f) << 24 | byte(1)? << 16 | byte(2)? << 8 | byte(3)?;
            Some((0x20_4080 + low, 4))
        }
        0xf0 => {
            let low = byte(1)? << 24 | byte(2)? << 16 | byte(3)? << 8 | byte(4)?;
            Some((0x1020_4080u32.checked_add(low)?, 5))
        }
        _ => None,
    }
}

/// Returns the length of the record that starts here, its first byte included; `Ok(None)` if its length is
/// truncated.
///
/// The low 4 bits of the first byte count the bytes after it; 0 means that a number follows, which with 15
/// added counts them, including its own bytes.
pub(super) fn record_len(bytes: &[u8]) -> Result<Option<usize>, ()> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    let short = usize::from(first & 0x0f);
    if short != 0 {
        return Ok(Some(1 + short));
    }
    let rest = bytes.get(1..).unwrap_or_default();
    match varint(rest) {
        Some((more, _)) => Ok(Some(1 + 15 + more as usize)),
        None if rest.len() < 5 => Ok(None),
        None => Err(()),
    }
}

/// A page record in the form in which it is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageRecord<'a> {
    pub(super) space: SpaceId,
    pub(super) page: PageNo,
    /// Bits 4-6 of the first byte.
    pub(super) kind: u8,
    /// It continues where the previous record ended.
    pub(super) same_page: bool,
    /// The bytes behind the page's number.
    pub(super) body: &'a [u8],
}

enum Read<'a> {
    Page(PageRecord<'a>),
    File(FileEvent<'a>),
}

/// The records of one mini-transaction, without its end marker.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
    encrypted: bool,
    page: Option<(SpaceId, PageNo)>,
}

impl<'a> Records<'a> {
    pub(super) fn new(bytes: &'a [u8], encrypted: bool) -> Records<'a> {
        Records { bytes, at: 0, encrypted, page: None }
    }

    /// Whether the log is encrypted.
    pub(super) fn encrypted(&self) -> bool {
        self.encrypted
    }

    fn read(&mut self) -> Option<Read<'a>> {
        let here = self.bytes.get(self.at..)?;
        let len = record_len(here).ok()??;
        let record = here.get(..len)?;
        let (&first, rest) = record.split_first()?;
        let length_bytes = if first & 0x0f == 0 { varint(rest)?.1 } else { 0 };
        let mut body = rest.get(length_bytes..)?;
        self.at += len;
        let kind = first & TYPE;
        if first & SAME_PAGE != 0
            && let Some((space, page)) = self.page
        {
            return Some(Read::Page(PageRecord { space, page, kind, same_page: true, body }));
        }
        if first & SAME_PAGE != 0 && self.encrypted {
            return self.file_record(first & 0xf0, None, body).map(Read::File);
        }
        if first == PADDING && body == [0] {
            return Some(Read::File(FileEvent::Checkpoint { lsn: Some(Lsn(0)) }));
        }
        let mut number = || {
            let (value, len) = varint(body)?;
            body = body.get(len..)?;
            Some(value)
        };
        let (space, page) = (SpaceId(number()?), PageNo(number()?));
        if first & SAME_PAGE == 0 {
            self.page = Some((space, page));
            return Some(Read::Page(PageRecord { space, page, kind, same_page: false, body }));
        }
        self.file_record(first & 0xf0, Some(space), body).map(Read::File)
    }

    fn page_record(&self, record: PageRecord<'a>) -> Record<'a> {
        let PageRecord { space, page, .. } = record;
        match record.kind {
            FREE_PAGE => Record::FreePage { space, page },
            INIT_PAGE => Record::InitPage { space, page },
            EXTENDED if record.body == [TRIM_PAGES] && !self.encrypted => {
                Record::TrimPages { space, pages: page }
            }
            _ => Record::Page { space, page },
        }
    }

    /// The next record of a page; those of files are skipped. Ends after the first [`BadRecord`].
    pub(super) fn next_of_page(&mut self) -> Option<Result<PageRecord<'a>, BadRecord>> {
        loop {
            match self.next_read()? {
                Ok(Read::Page(record)) => return Some(Ok(record)),
                Ok(Read::File(_)) => {}
                Err(bad) => return Some(Err(bad)),
            }
        }
    }

    fn next_read(&mut self) -> Option<Result<Read<'a>, BadRecord>> {
        let at = self.at;
        let &byte = self.bytes.get(at)?;
        match self.read() {
            Some(read) => Some(Ok(read)),
            None => {
                self.at = self.bytes.len();
                Some(Err(BadRecord { at, byte }))
            }
        }
    }

    fn file_record(&self, kind: u8, space: Option<SpaceId>, body: &'a [u8]) -> Option<FileEvent<'a>> {
        let name = (!self.encrypted).then_some(body);
        Some(match kind {
            0x80 => FileEvent::Create { space, name },
            0x90 => FileEvent::Delete { space, name },
            0xa0 => {
                let names = match name {
                    None => None,
                    Some(both) => {
                        let nul = both.iter().position(|&b| b == 0)?;
                        Some((both.get(..nul)?, both.get(nul + 1..)?))
                    }
                };
                FileEvent::Rename { space, names }
            }
            0xb0 => FileEvent::Modify { space, name },
            0xf0 => {
                let lsn = match self.encrypted {
                    true => None,
                    false if body.iter().all(|&b| b == 0) => Some(Lsn(0)),
                    false => Some(Lsn(be64(body, 0)?)),
                };
                FileEvent::Checkpoint { lsn }
            }
            _ => return None,
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, BadRecord>;

    /// Ends after the first [`BadRecord`].
    fn next(&mut self) -> Option<Self::Item> {
        Some(self.next_read()?.map(|read| match read {
            Read::Page(record) => self.page_record(record),
            Read::File(event) => Record::File(event),
        }))
    }
}

#[cfg(test)]
#[path = "redo_tests.rs"]
mod tests;
