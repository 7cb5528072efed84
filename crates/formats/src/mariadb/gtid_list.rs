//! The replication positions at the start of a binary log, and the `.state` file with the same content.
//!
//! From sql/log_event.h, log_event.cc (MariaDB 10.11: common header, Format_description, Gtid_list and
//! Start_encryption events) and sql/rpl_gtid.cc (the `.state` file), and from files of a 10.11.19 server.

use std::fmt::Write;

use thiserror::Error;

use crate::bytes::{array, le16, le32, le64};
use crate::wsrep::state_id::Gtid;

/// Bytes that suffice for these events if the list has up to 200 entries.
pub const USUAL_HEAD: usize = 4096;

const MAGIC: &[u8; 4] = b"\xfebin";
const HEADER: usize = 19;
const FORMAT_DESCRIPTION: u8 = 15;
const GTID_LIST: u8 = 163;
const START_ENCRYPTION: u8 = 164;
/// More entries than any server has domains: 16 bytes each, so 16 MiB.
const MAX_ENTRIES: u32 = 1 << 20;

/// Why the positions cannot be read from a binary log's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BinlogError {
    /// Not a binary log.
    #[error("no binary log magic")]
    Magic,
    /// The bytes end before the list does: at least this many are needed.
    #[error("truncated: {needed} bytes are needed")]
    Short {
        /// Bytes from the file's start.
        needed: usize,
    },
    /// The first event is not a Format_description.
    #[error("first event has type {0}, not a format description")]
    NoFormatDescription(u8),
    /// An event with an impossible length.
    #[error("event at {at} has length {len}")]
    EventLength {
        /// Offset of the event.
        at: usize,
        /// Length it states.
        len: u32,
    },
    /// An unknown checksum algorithm.
    #[error("checksum algorithm {0}")]
    ChecksumAlgorithm(u8),
    /// An event's CRC-32 does not match its bytes.
    #[error("event at {at} has a wrong checksum")]
    Checksum {
        /// Offset of the event.
        at: usize,
    },
    /// Encrypted from here on.
    #[error("the binary log is encrypted")]
    Encrypted,
    /// Another event is in place of the list: a log of MySQL or of a server before 10.0.
    #[error("event type {0} instead of the list of positions")]
    NoList(u8),
    /// More entries than possible.
    #[error("list of {0} positions")]
    TooMany(u32),
}

struct Event<'a> {
    at: usize,
    kind: u8,
    /// Header and body with the checksum, if any.
    whole: &'a [u8],
}

/// Returns the positions at the start of a binary log: the content of its predecessors. Pass the file's first
/// [`USUAL_HEAD`] bytes; `Short` reports that more are needed. The order is that of the file: the newest
/// position of each domain comes last.
///
/// # Errors
/// The first problem.
pub fn parse(head: &[u8]) -> Result<Vec<Gtid>, BinlogError> {
    match head.get(..4) {
        None => return Err(BinlogError::Short { needed: 4 + HEADER }),
        Some(magic) if magic != MAGIC => return Err(BinlogError::Magic),
        Some(_) => {}
    }
    let format = event(head, 4)?;
    if format.kind != FORMAT_DESCRIPTION {
        return Err(BinlogError::NoFormatDescription(format.kind));
    }
    let crc = has_crc(&format)?;
    let list = event(head, 4 + format.whole.len())?;
    match list.kind {
        GTID_LIST => entries(&list, crc),
        START_ENCRYPTION => Err(BinlogError::Encrypted),
        other => Err(BinlogError::NoList(other)),
    }
}

/// Parses the event at `at`: u32 time, u8 type, u32 server, u32 length, u32 next position, u16 flags.
fn event(head: &[u8], at: usize) -> Result<Event<'_>, BinlogError> {
    let header = head.get(at..).filter(|rest| rest.len() >= HEADER);
    let header = header.ok_or(BinlogError::Short { needed: at + HEADER })?;
    let [kind] = array::<1>(header, 4).unwrap_or_default();
    let len = le32(header, 9).unwrap_or_default();
    let limit = HEADER + 8 + 16 * MAX_ENTRIES as usize;
    let size = usize::try_from(len).ok().filter(|size| (HEADER..=limit).contains(size));
    let size = size.ok_or(BinlogError::EventLength { at, len })?;
    let whole = header.get(..size).ok_or(BinlogError::Short { needed: at + size })?;
    Ok(Event { at, kind, whole })
}

/// Whether events end with a CRC-32: the last five bytes of the description are the algorithm and its own checksum.
fn has_crc(format: &Event<'_>) -> Result<bool, BinlogError> {
    let bad = BinlogError::EventLength { at: format.at, len: format.whole.len() as u32 };
    // Body: u16 version (4 since 5.0), 50 bytes server version, and more.
    if format.whole.len() < HEADER + 52 + 5 || le16(format.whole, HEADER) != Some(4) {
        return Err(bad);
    }
    let at = format.whole.len().checked_sub(5).ok_or(bad)?;
    match array::<1>(format.whole, at).unwrap_or_default() {
        [0] => Ok(false),
        [1] => Ok(true),
        [other] => Err(BinlogError::ChecksumAlgorithm(other)),
    }
}

/// Body: u32 (low 28 bits count, the rest flags), then u32 domain, u32 server, u64 sequence each.
fn entries(list: &Event<'_>, crc: bool) -> Result<Vec<Gtid>, BinlogError> {
    let bad = BinlogError::EventLength { at: list.at, len: list.whole.len() as u32 };
    let tail = if crc { 4 } else { 0 };
    let content_len = list.whole.len().checked_sub(tail).ok_or(bad)?;
    let content = list.whole.get(..content_len).ok_or(bad)?;
    if crc && Some(crc32_ieee(content)) != le32(list.whole, content_len) {
        return Err(BinlogError::Checksum { at: list.at });
    }
    let count = le32(content, HEADER).ok_or(bad)? & 0x0fff_ffff;
    if count > MAX_ENTRIES {
        return Err(BinlogError::TooMany(count));
    }
    (0..count as usize)
        .map(|entry| {
            let at = HEADER + 4 + entry * 16;
            Some(Gtid {
                domain: le32(content, at)?,
                server: le32(content, at + 4)?,
                seq: le64(content, at + 8)?,
            })
        })
        .collect::<Option<Vec<_>>>()
        .ok_or(bad)
}

/// The CRC-32 of zlib (reflected 0xedb88320), bit by bit, because the events are short.
pub(super) fn crc32_ieee(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// Text of a `<binlog>.state` file: one position per line, in the order of [`parse`].
pub fn state_text(list: &[Gtid]) -> String {
    list.iter().fold(String::new(), |mut text, gtid| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{gtid}");
        text
    })
}

/// Parses a `<binlog>.state` file.
///
/// # Errors
/// Number, from 1, of the first line that is not a position.
pub fn parse_state(text: &str) -> Result<Vec<Gtid>, usize> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(at, line)| line.trim().parse().map_err(|_| at + 1))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event_bytes(kind: u8, body: &[u8], crc: bool) -> Vec<u8> {
        let len = HEADER + body.len() + if crc { 4 } else { 0 };
        let mut out = vec![0; 4];
        out.push(kind);
        out.extend([1, 0, 0, 0]);
        out.extend((len as u32).to_le_bytes());
        out.extend([0; 6]);
        out.extend(body);
        if crc {
            out.extend(crc32_ieee(&out).to_le_bytes());
        }
        out
    }

    fn binlog(list: &[Gtid], crc: bool) -> Vec<u8> {
        let mut description = vec![4, 0];
        description.extend([b'x'; 55]);
        description.push(u8::from(crc));
        let mut body = (list.len() as u32 | 0x2000_0000).to_le_bytes().to_vec();
        for gtid in list {
            body.extend(gtid.domain.to_le_bytes());
            body.extend(gtid.server.to_le_bytes());
            body.extend(gtid.seq.to_le_bytes());
        }
        let mut out = MAGIC.to_vec();
        out.extend(event_bytes(FORMAT_DESCRIPTION, &description, true));
        out.extend(event_bytes(GTID_LIST, &body, crc));
        out
    }

    #[test]
    fn crc32_of_a_known_text() {
        assert_eq!(crc32_ieee(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn what_is_not_a_list_is_named() {
        assert_eq!(parse(b""), Err(BinlogError::Short { needed: 23 }));
        assert_eq!(parse(b"nope and more"), Err(BinlogError::Magic));
        let whole = binlog(&[], true);
        assert_eq!(parse(&whole[..30]), Err(BinlogError::Short { needed: 4 + 19 + 58 + 4 }));
        let mut other = whole.clone();
        other[4 + 4] = 3;
        assert_eq!(parse(&other), Err(BinlogError::NoFormatDescription(3)));
        let mut other = whole.clone();
        other[85 + 4] = START_ENCRYPTION;
        assert_eq!(parse(&other), Err(BinlogError::Encrypted));
        let mut other = binlog(&[Gtid { domain: 1, server: 2, seq: 3 }], true);
        other[85 + 25] ^= 1;
        assert_eq!(parse(&other), Err(BinlogError::Checksum { at: 85 }));
    }

    fn gtids() -> impl Strategy<Value = Vec<Gtid>> {
        let one = (any::<u32>(), any::<u32>(), any::<u64>());
        prop::collection::vec(one.prop_map(|(domain, server, seq)| Gtid { domain, server, seq }), 0..20)
    }

    proptest! {
        #[test]
        fn round_trip(list in gtids(), crc: bool) {
            prop_assert_eq!(parse(&binlog(&list, crc)), Ok(list.clone()));
            prop_assert_eq!(parse_state(&state_text(&list)), Ok(list));
        }

        #[test]
        fn a_cut_log_asks_for_more_and_then_has_enough(list in gtids(), crc: bool, cut in 0usize..400) {
            let whole = binlog(&list, crc);
            let mut have = cut.min(whole.len());
            while let Err(error) = parse(&whole[..have]) {
                let BinlogError::Short { needed } = error else { panic!("{error}") };
                prop_assert!(needed > have && needed <= whole.len());
                have = needed;
            }
        }

        #[test]
        fn never_panics(mut bytes: Vec<u8>, at in 0usize..200, byte: u8, text in ".{0,40}") {
            let _ = parse(&bytes);
            bytes.splice(0..0, MAGIC.iter().copied());
            let _ = parse(&bytes);
            let mut log = binlog(&[Gtid { domain: 1, server: 2, seq: 3 }], false);
            if let Some(slot) = log.get_mut(at) {
                *slot = byte;
            }
            let _ = parse(&log);
            let _ = parse_state(&text);
        }
    }
}
