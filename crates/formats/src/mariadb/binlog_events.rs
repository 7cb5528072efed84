//! The data of a write-set: events of MariaDB's binary log, without the file around them.
//!
//! From sql/log_event.h and log_event.cc (MariaDB 10.11) and from write-sets of a 10.11.19 server. Rows are
//! `Annotate_rows`, `Table_map` and rows events without checksums and without a `Format_description`;
//! statements in total order have their own `Format_description` and checksums. `mariadb-binlog` reads either
//! with the right header in front.

use super::gtid_list::crc32_ieee;
use crate::bytes::{array, le32};

/// Bytes of the header of every event.
const HEADER_LEN: usize = 19;
const FORMAT_DESCRIPTION: u8 = 15;
const MAGIC: &[u8; 4] = b"\xfebin";
/// Bytes of a `Format_description` of MariaDB 10.11, with its checksum.
const DESCRIPTION_LEN: usize = 252;
/// Its table of event types: the type, and the bytes between header and body; types that are not listed have
/// none.
#[rustfmt::skip]
const POST_HEADERS: [(usize, u8); 33] = [
    (1, 56), (2, 13), (4, 8), (6, 18), (8, 4), (9, 4), (10, 4), (11, 4), (12, 18), (15, 228), (17, 4),
    (18, 26), (19, 8), (23, 8), (24, 8), (25, 8), (26, 2), (30, 10), (31, 10), (32, 10), (39, 10), (40, 10),
    (41, 10), (161, 4), (162, 19), (163, 4), (165, 13), (166, 8), (167, 8), (168, 8), (169, 10), (170, 10), (171, 10),
];

/// An event in a stream of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// Its type (sql/log_event.h, `enum Log_event_type`).
    pub kind: u8,
    /// Seconds since 1970 when its statement began.
    pub time: u32,
    /// Header and body.
    pub bytes: &'a [u8],
}

/// The events of a write-set's data, in order. Ends early at bytes that are not an event.
pub fn events(mut data: &[u8]) -> impl Iterator<Item = Event<'_>> {
    std::iter::from_fn(move || {
        let len = usize::try_from(le32(data, 9)?).ok().filter(|&len| len >= HEADER_LEN)?;
        let (bytes, rest) = data.split_at_checked(len)?;
        data = rest;
        let [kind] = array(bytes, 4)?;
        Some(Event { kind, time: le32(bytes, 0)?, bytes })
    })
}

/// The name of an event's type as `mariadb-binlog` prints it; `None` for types that do not occur in
/// write-sets.
pub fn name(kind: u8) -> Option<&'static str> {
    Some(match kind {
        2 => "Query",
        5 => "Intvar",
        13 => "Rand",
        14 => "User_var",
        FORMAT_DESCRIPTION => "Format_description",
        16 => "Xid",
        19 => "Table_map",
        20 | 23 => "Write_rows",
        21 | 24 => "Update_rows",
        22 | 25 => "Delete_rows",
        160 => "Annotate_rows",
        162 => "Gtid",
        166 => "Write_rows_compressed",
        167 => "Update_rows_compressed",
        168 => "Delete_rows_compressed",
        _ => return None,
    })
}

/// The header to put before a write-set's data, so that the whole is a file that `mariadb-binlog` reads.
pub fn file_head(data: &[u8]) -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    let first = events(data).next();
    if first.is_none_or(|event| event.kind != FORMAT_DESCRIPTION) {
        head.extend(description(first.map_or(0, |event| event.time)));
    }
    head
}

/// A `Format_description` for events of MariaDB 10.11 without checksums. It has one itself.
fn description(time: u32) -> Vec<u8> {
    let mut event = Vec::with_capacity(DESCRIPTION_LEN);
    event.extend(time.to_le_bytes());
    event.push(FORMAT_DESCRIPTION);
    event.extend(0u32.to_le_bytes());
    event.extend((DESCRIPTION_LEN as u32).to_le_bytes());
    event.extend((DESCRIPTION_LEN as u32 + 4).to_le_bytes());
    event.extend(0u16.to_le_bytes());
    // The body: version 4, the server's version in 50 bytes, no creation time (that would end transactions).
    event.extend(4u16.to_le_bytes());
    let mut version = [0; 50];
    crate::bytes::put(&mut version, 0, b"10.11.0-MariaDB-log");
    event.extend(version);
    event.extend(0u32.to_le_bytes());
    event.push(HEADER_LEN as u8);
    let types = DESCRIPTION_LEN - event.len() - 5;
    let mut post = vec![0; types];
    for (kind, len) in POST_HEADERS {
        crate::bytes::put(&mut post, kind.saturating_sub(1), &[len]);
    }
    event.extend(post);
    event.push(0);
    event.extend(crc32_ieee(&event).to_le_bytes());
    event
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::galera::write_set::WriteSet;
    use crate::mariadb::gtid_list::{self, BinlogError};
    use proptest::prelude::*;

    const REAL: &[u8] = include_bytes!("../../tests/data/writeset-653465.bin");
    /// The start of a binary log of a 10.11.19 server.
    const HEAD: &[u8] = include_bytes!("../../tests/data/binlog_head.bin");

    #[test]
    fn events_of_a_real_write_set() {
        let set = WriteSet::parse(&REAL[24..]).unwrap();
        let data = set.data.unwrap().records;
        let kinds: Vec<u8> = events(data).map(|event| event.kind).collect();
        assert_eq!(kinds, [160, 19, 24]);
        assert_eq!(events(data).map(|event| event.bytes.len()).sum::<usize>(), data.len());
        assert!(kinds.iter().all(|&kind| name(kind).is_some()));
    }

    #[test]
    fn the_description_says_what_a_real_servers_does() {
        let ours = description(7);
        let theirs = &HEAD[4..][..DESCRIPTION_LEN];
        assert_eq!(ours.len(), theirs.len());
        // They are equal from the header's length on, except for the checksum algorithm and the checksum
        // itself.
        assert_eq!(ours[75..247], theirs[75..247]);
        assert_eq!((ours[247], theirs[247]), (0, 1));
        // Our own reader accepts it, and then reports that the list is missing, which no write-set has.
        let file = [file_head(&[]), b"0123456789012345678".to_vec()].concat();
        assert!(matches!(gtid_list::parse(&file), Err(BinlogError::EventLength { at: 256, .. })));
    }

    #[test]
    fn data_with_a_description_of_their_own_need_only_the_magic() {
        assert_eq!(file_head(&HEAD[4..]), MAGIC);
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(events(&bytes).map(|event| event.bytes.len()).sum::<usize>() <= bytes.len());
            let _ = file_head(&bytes);
        }
    }
}
