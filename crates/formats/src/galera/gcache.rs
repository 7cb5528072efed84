//! `galera.cache` and `gcache.page.NNNNNN`: the preamble, and the header before each buffer.
//!
//! From gcache/src of Galera 26.4.23 and from files of running, stopped and killed servers. Little-endian. A ring
//! file is `gcache.size` + 1304 bytes: a text preamble in the first 1024, 256 bytes that stay zero, then buffers from
//! 1280 on, the last 24 bytes only ever holding an end mark. A page file is buffers from its first byte on.
//! [`super::ring`] walks from buffer to buffer.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::bytes::{array, le16, le32, le64};
use crate::ids::{Seqno, Uuid};

/// Name of the ring file, unless `gcache.name` sets another.
pub const FILE_NAME: &str = "galera.cache";
/// Page files are this and a number of at least six digits, in `gcache.dir`.
pub const PAGE_PREFIX: &str = "gcache.page.";
/// Bytes of the preamble.
pub const PREAMBLE_LEN: usize = 1024;
/// Where the ring's buffers begin.
pub const RING_START: u64 = 1280;
/// Bytes of a buffer's header.
pub const HEADER_LEN: usize = 24;
/// The bytes of a ring file beyond `gcache.size`.
pub const RING_OVERHEAD: u64 = RING_START + HEADER_LEN as u64;

/// Whether `name` is a page file's.
pub fn is_page_name(name: &str) -> bool {
    name.strip_prefix(PAGE_PREFIX)
        .is_some_and(|digits| digits.len() >= 6 && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// The first bytes of a ring file. The provider writes them when it opens the file, when the history changes,
/// and when it closes the file cleanly; only then do they hold a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preamble {
    /// 0 not determined, 1 buffers lie anywhere, 2 at multiples of 8.
    pub version: u32,
    /// The history.
    pub history: Uuid,
    /// Lowest and highest seqno, if the file was closed cleanly and is not empty.
    pub range: Option<(Seqno, Seqno)>,
    /// Where the oldest buffer is, in bytes from the file's start, if the file was closed cleanly.
    pub offset: Option<u64>,
    /// The file was closed cleanly. False while a server has it open, and after a crash.
    pub synced: bool,
    /// Whether a fork of the provider marked all bytes behind the preamble as encrypted.
    pub encrypted: bool,
}

/// Why a file is not a ring file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PreambleError {
    /// The file ends before its preamble does.
    #[error("truncated: a ring file has at least {RING_OVERHEAD} bytes")]
    Short,
    /// A required key is missing.
    #[error("no line '{0}:' in the preamble")]
    Missing(&'static str),
    /// A value cannot be parsed.
    #[error("bad value of '{0}' in the preamble")]
    Value(&'static str),
    /// The layout is unknown.
    #[error("ring file of version {0}")]
    Version(u32),
}

impl Preamble {
    /// Parses the first [`PREAMBLE_LEN`] bytes of a file; more are ignored. Unknown keys and comments are
    /// skipped.
    ///
    /// # Errors
    /// The file is not a ring file, or has another version.
    pub fn parse(head: &[u8]) -> Result<Preamble, PreambleError> {
        let head = head.get(..PREAMBLE_LEN).ok_or(PreambleError::Short)?;
        let text = head.split(|&b| b == 0).next().unwrap_or_default();
        let text = String::from_utf8_lossy(text);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let keys: BTreeMap<&str, &str> =
            lines.filter_map(|line| line.split_once(':')).map(|(k, v)| (k.trim(), v.trim())).collect();
        let version = number::<u32>(&keys, "Version")?.ok_or(PreambleError::Missing("Version"))?;
        if version > 2 {
            return Err(PreambleError::Version(version));
        }
        let history = keys.get("GID").ok_or(PreambleError::Missing("GID"))?;
        let low = number::<i64>(&keys, "seqno_min")?.filter(|&n| n > 0);
        let high = number::<i64>(&keys, "seqno_max")?.filter(|&n| n > 0);
        Ok(Preamble {
            version,
            history: history.parse().map_err(|_| PreambleError::Value("GID"))?,
            range: low.zip(high).filter(|(low, high)| low <= high).map(|(l, h)| (Seqno(l), Seqno(h))),
            // It is -1 if there is no buffer.
            offset: match number::<i64>(&keys, "offset")? {
                None | Some(-1) => None,
                Some(n) => Some(u64::try_from(n).map_err(|_| PreambleError::Value("offset"))?),
            },
            synced: number::<u32>(&keys, "synced")? == Some(1),
            encrypted: number::<u32>(&keys, "enc_encrypted")? == Some(1),
        })
    }

    /// Whether buffers are at multiples of 8.
    pub fn aligned(&self) -> bool {
        self.version >= 2
    }
}

fn number<T: std::str::FromStr>(
    keys: &BTreeMap<&str, &str>,
    key: &'static str,
) -> Result<Option<T>, PreambleError> {
    keys.get(key).map(|text| text.parse()).transpose().map_err(|_| PreambleError::Value(key))
}

/// Where a buffer was allocated. A third kind exists only in the server's memory and is in no file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Store {
    /// In `galera.cache`.
    Ring,
    /// In a page file.
    Page,
}

/// The content of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// A write-set: see [`super::write_set`].
    WriteSet,
    /// A configuration change, also called a view: see [`super::conf_change`].
    ConfChange,
    /// Another action of the group.
    Other(u8),
}

/// Whether a buffer has a position in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    /// It has this seqno.
    Ordered(Seqno),
    /// Allocated, but not ordered (yet).
    Unordered,
    /// Discarded; its bytes stay until they are overwritten.
    Discarded,
}

/// The 24 bytes before each buffer. Eight of them are a pointer of the server, without meaning here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferHeader {
    /// Its position in the history.
    pub order: Order,
    /// Bytes including this header and padding.
    pub size: u32,
    /// The server no longer needs it: it may be overwritten, and its [`BufferHeader::skipped`] is final.
    pub released: bool,
    /// It failed certification or was voted out: its seqno is used, but no node applied its rows.
    pub skipped: bool,
    /// Where it was allocated.
    pub store: Store,
    /// Its content.
    pub action: Action,
}

impl BufferHeader {
    /// Parses a header. Returns `None` for zeros (the end mark), and for bytes that no provider writes.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Option<BufferHeader> {
        let seqno = i64::from_le_bytes(array(bytes, 0)?);
        let (size, flags) = (le32(bytes, 16)?, le16(bytes, 20)?);
        let [store, kind] = array::<2>(bytes, 22)?;
        let order = match seqno {
            1.. => Order::Ordered(Seqno(seqno)),
            0 => Order::Unordered,
            -1 => Order::Discarded,
            _ => return None,
        };
        let store = match store {
            1 => Store::Ring,
            2 => Store::Page,
            _ => return None,
        };
        if (size as usize) < HEADER_LEN || flags > 3 {
            return None;
        }
        let action = match kind {
            0 => Action::WriteSet,
            3 => Action::ConfChange,
            other => Action::Other(other),
        };
        Some(BufferHeader { order, size, released: flags & 1 != 0, skipped: flags & 2 != 0, store, action })
    }

    /// Whether this is the mark behind the newest buffer: all zero.
    pub fn is_end_mark(bytes: &[u8; HEADER_LEN]) -> bool {
        (0..3).all(|word| le64(bytes, word * 8) == Some(0))
    }

    /// The seqno of an ordered buffer.
    pub fn seqno(&self) -> Option<Seqno> {
        match self.order {
            Order::Ordered(seqno) => Some(seqno),
            Order::Unordered | Order::Discarded => None,
        }
    }

    /// Bytes behind the header.
    pub fn payload_len(&self) -> usize {
        (self.size as usize).saturating_sub(HEADER_LEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn preamble(text: &str) -> Result<Preamble, PreambleError> {
        let mut head = text.as_bytes().to_vec();
        head.resize(PREAMBLE_LEN, 0);
        Preamble::parse(&head)
    }

    const OPEN: &str = "Version: 2\nGID: 9ca7ee20-e537-11f1-9b0e-0242ac110002\nsynced: 0\n\n";

    #[test]
    fn preambles_of_open_and_closed_files() {
        let open = preamble(OPEN).unwrap();
        assert_eq!((open.range, open.offset, open.synced), (None, None, false));
        let text = OPEN.replace("synced: 0", "seqno_min: 7\nseqno_max: 9\noffset: 1280\nsynced: 1");
        let closed = preamble(&text).unwrap();
        assert_eq!((closed.range, closed.offset), (Some((Seqno(7), Seqno(9))), Some(1280)));
        let text = OPEN.replace("synced: 0", "seqno_min: -1\nseqno_max: -1\noffset: -1\nsynced: 1");
        let empty = preamble(&text).unwrap();
        assert_eq!((empty.range, empty.offset, empty.synced), (None, None, true));
    }

    #[test]
    fn what_is_no_ring_file_is_refused() {
        assert_eq!(Preamble::parse(&[0; 1023]), Err(PreambleError::Short));
        assert_eq!(preamble(""), Err(PreambleError::Missing("Version")));
        assert_eq!(preamble("Version: 2\n"), Err(PreambleError::Missing("GID")));
        assert_eq!(preamble("Version: 3\n"), Err(PreambleError::Version(3)));
        assert_eq!(preamble(&format!("{OPEN}offset: x")), Err(PreambleError::Value("offset")));
    }

    #[test]
    fn names_of_pages() {
        assert!(is_page_name("gcache.page.000000") && is_page_name("gcache.page.1234567"));
        assert!(!is_page_name("gcache.page.00000") && !is_page_name("gcache.page.00000x"));
    }

    proptest! {
        #[test]
        fn never_panics(head in proptest::collection::vec(any::<u8>(), 0..1100), tail in "\\PC{0,60}") {
            let _ = Preamble::parse(&head);
            let _ = preamble(&format!("{OPEN}{tail}"));
        }

        #[test]
        fn headers_have_room_for_themselves(bytes: [u8; HEADER_LEN]) {
            if let Some(header) = BufferHeader::parse(&bytes) {
                prop_assert!(header.size as usize >= HEADER_LEN);
                prop_assert!(!BufferHeader::is_end_mark(&bytes));
            }
        }
    }
}
