//! The framing of mini-transactions in the log of 10.8 and later: an incremental reader.
//!
//! Records follow each other; a byte 0 or 1 where a record would begin ends the mini-transaction. It is the
//! sequence bit, which changes with each lap around the file and so tells new bytes from old ones. Then an
//! encrypted log has 8 bytes of nonce, and all have CRC-32C over the records (and the nonce), not over the
//! sequence bit. From storage/innobase/log/log0recv.cc (`recv_sys_t::parse`, `recv_ring`), mtr/mtr0mtr.cc
//! (`mtr_t::finish_write`) and include/log0log.h (`log_t::get_sequence_bit`), MariaDB 10.11.

use crc32c::{crc32c, crc32c_append};
use thiserror::Error;

use super::redo::{Record, Records, record_len};
use super::redo_header::DATA_START;
use crate::bytes::be32;
use crate::ids::Lsn;

/// Bytes of the nonce behind the sequence bit of an encrypted log.
const NONCE: usize = 8;
/// Bytes of the checksum.
const CRC: usize = 4;
/// The longest mini-transaction that is accepted. A server writes a few megabytes at most (a page per record
/// and a tree's path per mini-transaction); a longer one is damage.
pub const MTR_BYTES_MAX: usize = 32 << 20;

/// The mapping of LSNs to offsets in a circular log file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// LSN at the start of the data on the first lap.
    pub first_lsn: Lsn,
    /// Bytes of a lap.
    pub capacity: u64,
}

impl Geometry {
    /// The geometry of a file with this header and size; `None` if it has no room for records.
    pub fn new(first_lsn: Lsn, file_size: u64) -> Option<Geometry> {
        let capacity = file_size.checked_sub(DATA_START).filter(|&c| c > 0)?;
        Some(Geometry { first_lsn, capacity })
    }

    /// Offset in the file; `None` for an LSN before the first.
    pub fn offset(&self, lsn: Lsn) -> Option<u64> {
        Some(DATA_START + lsn.0.checked_sub(self.first_lsn.0)?.checked_rem(self.capacity)?)
    }

    /// The end marker of a mini-transaction that ends at `lsn`.
    pub fn sequence_bit(&self, lsn: Lsn) -> u8 {
        let laps = lsn.0.saturating_sub(self.first_lsn.0).checked_div(self.capacity).unwrap_or(0);
        u8::from(laps & 1 == 0)
    }
}

/// Why the bytes at an LSN are not a mini-transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no mini-transaction at LSN {start}: {kind} at LSN {at}")]
pub struct BadMtr {
    /// Where it would begin.
    pub start: Lsn,
    /// Where the fault is.
    pub at: Lsn,
    /// What is wrong.
    pub kind: BadMtrKind,
}

/// What is wrong with a mini-transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadMtrKind {
    /// An end marker in place of the first record: the log ends here, or the bytes are of another lap.
    #[error("no record")]
    Empty,
    /// Not a record.
    #[error("not a record")]
    Record,
    /// The sequence bit is that of another lap.
    #[error("end marker of another lap")]
    Lap,
    /// The checksum is wrong.
    #[error("checksum mismatch")]
    Checksum,
    /// Longer than [`MTR_BYTES_MAX`].
    #[error("longer than any mini-transaction")]
    TooLong,
}

/// A complete mini-transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mtr<'a> {
    /// LSN of its first byte.
    pub start: Lsn,
    /// LSN of the byte after it: where the next one begins.
    pub end: Lsn,
    /// All its bytes, checksum included.
    pub bytes: &'a [u8],
    /// How many of them are records: the offset of the end marker.
    pub records_len: usize,
    encrypted: bool,
}

impl<'a> Mtr<'a> {
    /// Its records.
    pub fn records(&self) -> Records<'a> {
        Records::new(self.bytes.get(..self.records_len).unwrap_or_default(), self.encrypted)
    }

    /// The file operations among its records. This is cheap, because they come first or not at all.
    pub fn file_events(&self) -> impl Iterator<Item = super::redo::FileEvent<'a>> + use<'a> {
        self.records().filter_map(|record| match record {
            Ok(Record::File(event)) => Some(event),
            _ => None,
        })
    }
}

/// Splits a stream of bytes into mini-transactions. Pass it bytes with [`MtrReader::feed`], and call
/// [`MtrReader::next_mtr`] until it returns `None`. It stores the bytes that were fed but not yet consumed.
#[derive(Debug)]
pub struct MtrReader {
    geometry: Geometry,
    encrypted: bool,
    /// LSN of `buffer[taken]`.
    at: Lsn,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were returned.
    taken: usize,
    /// Bytes after `taken` that are known to be complete records.
    walked: usize,
}

impl MtrReader {
    /// Starts at an LSN at which a mini-transaction begins: that of a checkpoint.
    pub fn new(geometry: Geometry, encrypted: bool, at: Lsn) -> MtrReader {
        MtrReader { geometry, encrypted, at, buffer: Vec::new(), taken: 0, walked: 0 }
    }

    /// Where the next mini-transaction begins.
    pub fn at(&self) -> Lsn {
        self.at
    }

    /// The LSN of the next byte to feed.
    pub fn wants(&self) -> Lsn {
        Lsn(self.at.0 + (self.buffer.len() - self.taken) as u64)
    }

    /// Discards the bytes that were fed but not consumed: they will be read again, perhaps from another file.
    pub fn rewind(&mut self, geometry: Geometry) {
        self.geometry = geometry;
        self.buffer.clear();
        self.taken = 0;
        self.walked = 0;
    }

    /// Adds the bytes at [`MtrReader::wants`].
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next complete mini-transaction, or `None` if more bytes are needed.
    ///
    /// # Errors
    /// The bytes are not a mini-transaction. The reader does not advance: rewind, and feed again what may
    /// have been read too early.
    pub fn next_mtr(&mut self) -> Result<Option<Mtr<'_>>, BadMtr> {
        let Some(records_len) = self.walk()? else { return Ok(None) };
        let total = records_len + 1 + if self.encrypted { NONCE } else { 0 } + CRC;
        let Some(bytes) = self.buffer.get(self.taken..self.taken + total) else { return Ok(None) };
        if let Some(kind) = self.fault(bytes, records_len) {
            return Err(self.bad(records_len, kind));
        }
        let (start, end) = (self.at, Lsn(self.at.0 + total as u64));
        self.at = end;
        self.walked = 0;
        self.taken += total;
        let bytes = self.buffer.get(self.taken - total..self.taken).unwrap_or_default();
        Ok(Some(Mtr { start, end, bytes, records_len, encrypted: self.encrypted }))
    }

    /// Returns the offset of the end marker once it has been fed.
    fn walk(&mut self) -> Result<Option<usize>, BadMtr> {
        loop {
            let here = self.buffer.get(self.taken + self.walked..).unwrap_or_default();
            match here.first() {
                None => return Ok(None),
                Some(0 | 1) if self.walked == 0 => return Err(self.bad(0, BadMtrKind::Empty)),
                Some(0 | 1) => return Ok(Some(self.walked)),
                Some(_) => {}
            }
            match record_len(here) {
                Err(()) => return Err(self.bad(self.walked, BadMtrKind::Record)),
                Ok(Some(len)) if self.walked.saturating_add(len) > MTR_BYTES_MAX => {
                    return Err(self.bad(self.walked, BadMtrKind::TooLong));
                }
                Ok(Some(len)) if len <= here.len() => self.walked += len,
                Ok(_) => return Ok(None),
            }
        }
    }

    fn fault(&self, bytes: &[u8], records_len: usize) -> Option<BadMtrKind> {
        let marker = *bytes.get(records_len)?;
        if marker != self.geometry.sequence_bit(Lsn(self.at.0 + records_len as u64)) {
            return Some(BadMtrKind::Lap);
        }
        let mut expected = crc32c(bytes.get(..records_len)?);
        if self.encrypted {
            expected = crc32c_append(expected, bytes.get(records_len + 1..records_len + 1 + NONCE)?);
        }
        (be32(bytes, bytes.len().checked_sub(CRC)?)? != expected).then_some(BadMtrKind::Checksum)
    }

    fn bad(&self, offset: usize, kind: BadMtrKind) -> BadMtr {
        BadMtr { start: self.at, at: Lsn(self.at.0 + offset as u64), kind }
    }
}
