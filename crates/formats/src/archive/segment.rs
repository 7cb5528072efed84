//! The head of a segment, and its name.
use xxhash_rust::xxh3::xxh3_64;

use super::error::ArchiveError;
use crate::bytes::{array, le32, le64, put};
use crate::ids::{Seqno, Uuid};

/// Bytes of a segment's header.
pub const SEGMENT_HEADER_LEN: usize = 64;

const MAGIC: &[u8; 8] = b"rjsegmnt";
const VERSION: u32 = 1;
const ENDING: &str = ".segment";
/// So many digits, so that the order of names is the order of numbers.
const DIGITS: usize = 10;

/// The first bytes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Its place among the segments of the archive.
    pub serial: u64,
    /// The history that all its seqnos belong to.
    pub history: Uuid,
    /// The seqno that comes first, at the earliest.
    pub first: Seqno,
    /// When it was begun, in milliseconds since 1970.
    pub created_ms: u64,
}

impl SegmentHeader {
    /// As bytes.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_LEN] {
        let mut out = [0; SEGMENT_HEADER_LEN];
        put(&mut out, 0, MAGIC);
        put(&mut out, 8, &VERSION.to_le_bytes());
        put(&mut out, 16, &self.history.0);
        put(&mut out, 32, &self.first.0.to_le_bytes());
        put(&mut out, 40, &self.created_ms.to_le_bytes());
        put(&mut out, 48, &self.serial.to_le_bytes());
        let checksum = xxh3_64(out.get(..56).unwrap_or_default());
        put(&mut out, 56, &checksum.to_le_bytes());
        out
    }

    /// Reads a header.
    ///
    /// # Errors
    /// It is none, is damaged, or is of another version.
    pub fn parse(bytes: &[u8]) -> Result<SegmentHeader, ArchiveError> {
        let bytes: [u8; SEGMENT_HEADER_LEN] = array(bytes, 0).ok_or(ArchiveError::Magic("segment"))?;
        if !bytes.starts_with(MAGIC) {
            return Err(ArchiveError::Magic("segment"));
        }
        match le32(&bytes, 8) {
            Some(VERSION) => {}
            other => return Err(ArchiveError::Version(other.unwrap_or_default())),
        }
        if le64(&bytes, 56) != bytes.get(..56).map(xxh3_64) {
            return Err(ArchiveError::Checksum("segment header"));
        }
        let word = |at| le64(&bytes, at).unwrap_or_default();
        let first = Seqno(word(32).cast_signed());
        if first.0 < 1 {
            return Err(ArchiveError::Range("first seqno"));
        }
        let history = Uuid(array(&bytes, 16).unwrap_or_default());
        Ok(SegmentHeader { serial: word(48), history, first, created_ms: word(40) })
    }
}

/// What the file of a segment is called.
pub fn file_name(serial: u64) -> String {
    format!("{serial:0DIGITS$}{ENDING}")
}

/// The number of the segment that a file of this name is, if it is one's.
pub fn serial_of_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(ENDING)?;
    let is_number = digits.len() >= DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|serial| is_number && file_name(*serial) == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_in_the_order_of_numbers() {
        assert_eq!(file_name(7), "0000000007.segment");
        assert_eq!(serial_of_name("0000000007.segment"), Some(7));
        assert_eq!(serial_of_name(&file_name(u64::MAX)), Some(u64::MAX));
        for other in ["7.segment", "0000000007", "000000000x.segment", "00000000007.segment", "status.json"] {
            assert_eq!(serial_of_name(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(serial: u64, history: [u8; 16], first in 1i64.., created_ms: u64, at in 0usize..64, bit in 0u8..8) {
            let header = SegmentHeader { serial, history: Uuid(history), first: Seqno(first), created_ms };
            let mut bytes = header.encode();
            prop_assert_eq!(SegmentHeader::parse(&bytes), Ok(header));
            bytes[at] ^= 1 << bit;
            prop_assert!(SegmentHeader::parse(&bytes).is_err());
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = SegmentHeader::parse(&bytes);
            let _ = serial_of_name(&String::from_utf8_lossy(&bytes));
        }
    }
}
