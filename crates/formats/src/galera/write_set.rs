//! A write-set: its writer, its time, and its sets of keys and rows, each under a checksum.
//!
//! From galera/src/write_set_ng.hpp and galerautils/src/gu_rset.* (26.4.23) and from write-sets of real clusters.
//! Little-endian: a header of 64 bytes, then up to four record sets in this order: keys, data, unordered, annotation.
//! The header's flags and seqno are rewritten when the write-set is certified; the rest never changes.

use thiserror::Error;

use super::hash::{fast32, fast64, murmur128};
use crate::bytes::{array, le16, le32, le64};
use crate::ids::{Seqno, Uuid};

/// Bytes of the header.
pub const HEADER_LEN: usize = 64;

/// Bits of [`WriteSetHeader::flags`].
pub mod flags {
    /// The last (or only) part of a transaction.
    pub const COMMIT: u16 = 1;
    /// The transaction was rolled back: a part without rows.
    pub const ROLLBACK: u16 = 2;
    /// Executed in total order by every node before anything else: usually DDL.
    pub const TOTAL_ORDER: u16 = 4;
    /// The first (or only) part of a transaction.
    pub const BEGIN: u16 = 0x40;
    /// Set when the write-set passed certification somewhere.
    pub const CERTIFIED: u16 = 0x4000;
}

/// The first 64 bytes, with a correct checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteSetHeader {
    /// 6 in groups of today's protocol, 5 in those before.
    pub version: u8,
    /// Version of the keys; 0 when there are none.
    pub key_version: u8,
    /// Version of the data; 0 when there are none.
    pub data_version: u8,
    /// Whether there is a set of unordered data.
    pub has_unordered: bool,
    /// Whether there is a set of annotations.
    pub has_annotation: bool,
    /// See [`flags`].
    pub flags: u16,
    /// How many preceding seqnos it may be applied in parallel with.
    pub parallel_range: u16,
    /// Its own seqno once it is certified; before that, the last one that its writer had seen.
    pub seqno: Seqno,
    /// The writer's clock at the time of writing, in nanoseconds since that machine's start
    /// (CLOCK_MONOTONIC). Times of different writers do not compare.
    pub written_ns: u64,
    /// The node that wrote it.
    pub source: Uuid,
    /// The client's connection on that node.
    pub connection: u64,
    /// The transaction's number on that node; all ones if there is none.
    pub transaction: u64,
}

/// What is wrong with a write-set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WriteSetError {
    /// It does not begin like one.
    #[error("not a write-set")]
    Magic,
    /// The version is unknown.
    #[error("write-set of version {0}")]
    Version(u8),
    /// It ends within this part.
    #[error("{0} is truncated")]
    Short(Part),
    /// A record set has an unknown form.
    #[error("{0} has an unknown form")]
    Form(Part),
    /// The checksum of this part does not match its bytes.
    #[error("{0}: wrong checksum")]
    Checksum(Part),
    /// Unrelated bytes follow.
    #[error("{0} bytes behind the last part")]
    Trailing(usize),
}

/// Parts of a write-set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The 64 bytes at its start.
    Header,
    /// The keys for certification.
    Keys,
    /// The rows to apply.
    Data,
    /// Data that may be applied at any time.
    Unordered,
    /// A description of the data.
    Annotation,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Part::Header => "header",
            Part::Keys => "keys",
            Part::Data => "data",
            Part::Unordered => "unordered data",
            Part::Annotation => "annotation",
        })
    }
}

impl WriteSetHeader {
    /// Parses the header; the bytes behind it are ignored.
    ///
    /// # Errors
    /// Not a write-set, another version, or a wrong checksum.
    pub fn parse(bytes: &[u8]) -> Result<WriteSetHeader, WriteSetError> {
        let header: [u8; HEADER_LEN] = array(bytes, 0).ok_or(WriteSetError::Short(Part::Header))?;
        let [magic, versions, len, sets] = array(&header, 0).unwrap_or_default();
        let version = versions >> 4;
        if magic != b'G' {
            return Err(WriteSetError::Magic);
        }
        // Up to 4 (Galera 3) the sets have a different form.
        if !(5..=6).contains(&version) || usize::from(len) != HEADER_LEN {
            return Err(WriteSetError::Version(version));
        }
        if le64(&header, 56) != header.get(..56).map(fast64) {
            return Err(WriteSetError::Checksum(Part::Header));
        }
        let word = |at| le64(&header, at).unwrap_or_default();
        Ok(WriteSetHeader {
            version,
            key_version: sets >> 4,
            data_version: (sets >> 2) & 3,
            has_unordered: sets & 2 != 0,
            has_annotation: sets & 1 != 0,
            flags: le16(&header, 4).unwrap_or_default(),
            parallel_range: le16(&header, 6).unwrap_or_default(),
            seqno: Seqno(word(8).cast_signed()),
            written_ns: word(16),
            source: Uuid(array(&header, 24).unwrap_or_default()),
            connection: word(40),
            transaction: word(48),
        })
    }

    /// The record sets that follow, in their order.
    pub(super) fn parts(&self) -> impl Iterator<Item = Part> + use<> {
        let there = [
            (Part::Keys, self.key_version != 0),
            (Part::Data, self.data_version != 0),
            (Part::Unordered, self.has_unordered),
            (Part::Annotation, self.has_annotation),
        ];
        there.into_iter().filter(|(_, there)| *there).map(|(part, _)| part)
    }

    /// Run by every node in total order: mostly DDL.
    pub fn is_total_order(&self) -> bool {
        self.flags & flags::TOTAL_ORDER != 0
    }
}

/// A whole write-set with correct checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteSet<'a> {
    /// Its header.
    pub header: WriteSetHeader,
    /// The keys for certification.
    pub keys: Option<RecordSet<'a>>,
    /// The rows to apply: events of MariaDB's binary log, see [`crate::mariadb::binlog_events`].
    pub data: Option<RecordSet<'a>>,
}

impl<'a> WriteSet<'a> {
    /// Parses and verifies a write-set.
    ///
    /// # Errors
    /// The first problem.
    pub fn parse(bytes: &'a [u8]) -> Result<WriteSet<'a>, WriteSetError> {
        let header = WriteSetHeader::parse(bytes)?;
        let mut rest = bytes.get(HEADER_LEN..).unwrap_or_default();
        let mut next = |part, there: bool| match there {
            true => {
                let (set, behind) = RecordSet::parse(rest, part)?;
                rest = behind;
                Ok(Some(set))
            }
            false => Ok(None),
        };
        let keys = next(Part::Keys, header.key_version != 0)?;
        let data = next(Part::Data, header.data_version != 0)?;
        next(Part::Unordered, header.has_unordered)?;
        next(Part::Annotation, header.has_annotation)?;
        // Buffers are padded to a multiple of 8.
        match rest.len() {
            0..8 => Ok(WriteSet { header, keys, data }),
            more => Err(WriteSetError::Trailing(more)),
        }
    }
}

/// Records under one checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordSet<'a> {
    /// The number of records that it states.
    pub count: u64,
    /// The records' bytes, without padding.
    pub records: &'a [u8],
}

impl<'a> RecordSet<'a> {
    /// Parses the set at the start of `bytes` and returns the bytes behind it.
    fn parse(bytes: &'a [u8], part: Part) -> Result<(RecordSet<'a>, &'a [u8]), WriteSetError> {
        let short = WriteSetError::Short(part);
        let head = SetHead::parse(bytes, part)?;
        let records_at = head.len + head.checksum_len;
        let size = usize::try_from(head.size).map_err(|_| short)?;
        let records = bytes.get(records_at..size).ok_or(short)?;
        let padded = size.checked_next_multiple_of(8).ok_or(short)?;
        let covered = bytes.get(records_at..padded).ok_or(short)?;
        let stored = bytes.get(head.len..records_at).ok_or(short)?;
        let [low, high] = murmur128(&[covered, bytes.get(..head.len).ok_or(short)?]);
        let computed = [low.to_le_bytes(), high.to_le_bytes()].concat();
        if !computed.starts_with(stored) {
            return Err(WriteSetError::Checksum(part));
        }
        Ok((RecordSet { count: head.count, records }, bytes.get(padded..).unwrap_or_default()))
    }
}

/// The start of a record set of version 2.
pub(super) struct SetHead {
    /// Bytes up to the records' checksum.
    pub(super) len: usize,
    pub(super) checksum_len: usize,
    /// Bytes of the set with this head, without the padding at its end.
    pub(super) size: u64,
    count: u64,
}

impl SetHead {
    pub(super) fn parse(bytes: &[u8], part: Part) -> Result<SetHead, WriteSetError> {
        let short = WriteSetError::Short(part);
        let word = le32(bytes, 0).ok_or(short)?;
        let first = word as u8;
        let checksum_len = match first & 7 {
            0 => 0,
            2 => 8,
            3 => 16,
            _ => return Err(WriteSetError::Form(part)),
        };
        if first >> 4 != 2 {
            return Err(WriteSetError::Form(part));
        }
        let (size, count, crc_at) = if first & 8 != 0 {
            (u64::from(word >> 18) + 1, u64::from((word >> 8) & 0x3ff) + 1, 4)
        } else {
            let (size, at) = uleb(bytes, 1).ok_or(short)?;
            let (count, at) = uleb(bytes, at).ok_or(short)?;
            // Padded so that the head with its own checksum is a multiple of 8.
            (size, count, (at + 4).next_multiple_of(8) - 4)
        };
        let covered = bytes.get(..crc_at).ok_or(short)?;
        if le32(bytes, crc_at).ok_or(short)? != fast32(covered) {
            return Err(WriteSetError::Checksum(part));
        }
        Ok(SetHead { len: crc_at + 4, checksum_len, size, count })
    }
}

/// An unsigned LEB128 number at `at`, and where it ends.
fn uleb(bytes: &[u8], mut at: usize) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for shift in (0..63).step_by(7) {
        let [byte] = array(bytes, at)?;
        at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value, at));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A write-set of a real cluster (`update sb.t set a='HELLO' where id=1`), behind its buffer's header.
    const REAL: &[u8] = include_bytes!("../../tests/data/writeset-653465.bin");

    #[test]
    fn a_real_write_set_is_read_and_its_checksums_are_right() {
        let bytes = &REAL[24..];
        let set = WriteSet::parse(bytes).unwrap();
        assert_eq!((set.header.seqno, set.header.version), (Seqno(653_465), 6));
        assert_eq!(set.header.source.to_string(), "c182339a-e537-11f1-9754-af9be45ac218");
        assert_eq!((set.header.connection, set.header.transaction), (0x1a0, 0x2f_1ad8));
        assert_eq!(set.header.flags, flags::BEGIN | flags::COMMIT | flags::CERTIFIED);
        assert_eq!(set.keys.map(|keys| (keys.count, keys.records.len())), Some((4, 32)));
        let data = set.data.unwrap();
        assert_eq!((data.count, data.records.len()), (1, 0x37 + 0x29 + 0x34));
        assert!(data.records.windows(6).any(|w| w == b"update"));
    }

    #[test]
    fn any_changed_bit_is_seen() {
        let bytes = &REAL[24..];
        for at in 0..bytes.len() * 8 {
            let mut damaged = bytes.to_vec();
            damaged[at / 8] ^= 1 << (at % 8);
            assert!(WriteSet::parse(&damaged).is_err(), "bit {at}");
        }
        for len in 0..bytes.len() {
            assert!(WriteSet::parse(&bytes[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn numbers_of_any_length_end() {
        assert_eq!(uleb(&[0x7f], 0), Some((127, 1)));
        assert_eq!(uleb(&[0x80, 1], 0), Some((128, 2)));
        assert_eq!(uleb(&[0xff; 20], 0), None);
        assert_eq!(uleb(&[0x80], 0), None);
    }

    proptest! {
        #[test]
        fn never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), keep in 0usize..300) {
            let _ = WriteSet::parse(&bytes);
            let _ = RecordSet::parse(&bytes, Part::Data);
            // The changed bytes follow a correct header.
            let real = &REAL[24..];
            let keep = keep.min(real.len());
            bytes.splice(0..0, real[..keep].iter().copied());
            let _ = WriteSet::parse(&bytes);
        }
    }
}
