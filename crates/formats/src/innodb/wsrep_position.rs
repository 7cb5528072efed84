//! The cluster position inside InnoDB: the XID that each commit writes into a rollback segment header.
//!
//! Layout from storage/innobase/trx/trx0rseg.cc and include/trx0sys.h, trx0rseg.h, and sql/wsrep_xid.cc (MariaDB
//! 10.11), decoded from real files.
//!
//! The transaction system page is never encrypted, but the segment headers that it names are, once
//! `innodb_encrypt_tables` has encrypted the system tablespace in the background (seen with 10.11.19). Then
//! no position can be read without the key, which [`read_rseg`] distinguishes from having none.
//!
//! On disk the position is that of the last checkpoint, not of the last commit: after a crash redo must be
//! applied first.

use thiserror::Error;

use super::page::key_version;
use super::tablespace::PageFormat;
use crate::bytes::{array, be32, le32, le64, put};
use crate::ids::{PageNo, Seqno, SpaceId, Uuid};
use crate::wsrep::state_id::{Gtid, StateId};

/// Number of the transaction system page in the system tablespace.
pub const TRX_SYS_PAGE: PageNo = PageNo(5);

/// Where a page's own data begins.
const PAGE_DATA: usize = 38;
/// Slots of the transaction system page: after an 8-byte transaction number and a 10-byte segment header.
const RSEG_SLOTS: usize = PAGE_DATA + 18;
const RSEG_SLOT_COUNT: usize = 128;
/// Bytes that are reserved for the data of an XID.
const XID_DATA: usize = 128;

/// One position as stored, with the replication GTID that newer servers add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredPosition {
    /// The cluster position.
    pub state: StateId,
    /// Replication GTID, stored since format `f` (10.5); all zero without `wsrep_gtid_mode`.
    pub gtid: Option<Gtid>,
}

/// The segment header is encrypted, so it is not known whether it holds a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the rollback segment header is encrypted")]
pub struct Encrypted;

/// Like [`stored_position`], for a whole page of a file of this format.
///
/// # Errors
/// The page is encrypted.
pub fn read_rseg(format: &PageFormat, page: &[u8]) -> Result<Option<StoredPosition>, Encrypted> {
    if key_version(format, page).is_some_and(|version| version != 0) {
        return Err(Encrypted);
    }
    Ok(stored_position(page, format.logical_size))
}

/// The rollback segment header pages named by the transaction system page (page 5 of the system tablespace),
/// in slot order, without unused slots. At most 128; empty if the page is truncated.
pub fn rseg_slots(trx_sys_page: &[u8]) -> Vec<(SpaceId, PageNo)> {
    (0..RSEG_SLOT_COUNT)
        .filter_map(|slot| {
            let at = RSEG_SLOTS + slot * 8;
            let page = PageNo(be32(trx_sys_page, at + 4)?);
            // A slot whose page is FIL_NULL was never used; page 0 cannot hold a segment (a page of zeros).
            (page != PageNo::NULL && page != PageNo(0)).then_some((SpaceId(be32(trx_sys_page, at)?), page))
        })
        .collect()
}

/// The position in one rollback segment header page; `None` if it holds none, has an older layout, or is
/// truncated. The cluster position is the highest over all segments, see [`newest`].
pub fn position_in_rseg(page: &[u8], page_size: usize) -> Option<StateId> {
    stored_position(page, page_size).map(|stored| stored.state)
}

/// Like [`position_in_rseg`], with the replication GTID.
pub fn stored_position(page: &[u8], page_size: usize) -> Option<StoredPosition> {
    // Non-zero: a segment of 10.2 or older, which has no position here.
    if be32(page, PAGE_DATA)? != 0 {
        return None;
    }
    position_in_xid(page, xid_at(page_size)?)
}

/// The position in the XID that begins at `xid`: format, two lengths, data. InnoDB stores all XIDs in this
/// form.
pub(super) fn position_in_xid(page: &[u8], xid: usize) -> Option<StoredPosition> {
    let word = |at: usize| be32(page, xid.checked_add(at)?);
    let (format, gtrid_len, bqual_len) = (word(0)?, word(4)?, word(8)?);
    let data = xid + 12;
    let prefix: [u8; 7] = array(page, data)?;
    // -1 in the first word is "no XID"; the lengths are those of a position, not of a user's XA transaction.
    if format != 1 || !matches!(gtrid_len, 32 | 48) || bqual_len != 0 || &prefix != b"WSREPXi" {
        return None;
    }
    let [version] = array::<1>(page, data + 7)?;
    let uuid = Uuid(array(page, data + 8)?);
    let seqno = match version {
        // 'd' stored the number in the machine's order, which on every platform in use is the same.
        b'd' | b'e' | b'f' => Seqno(le64(page, data + 24)? as i64),
        _ => return None,
    };
    let gtid = match version {
        b'f' => Some(Gtid {
            domain: le32(page, data + 32)?,
            server: le32(page, data + 36)?,
            seq: le64(page, data + 40)?,
        }),
        _ => None,
    };
    Some(StoredPosition { state: StateId { uuid, seqno }, gtid })
}

/// Writes a position into a rollback segment header page of a server of 10.5 or later, as that server would. False if the
/// page is no such header; then it is unchanged. The page's checksum is no longer right ([`super::page::seal`]).
#[must_use]
pub fn store_position(page: &mut [u8], page_size: usize, position: &StoredPosition) -> bool {
    let is_header = be32(page, PAGE_DATA) == Some(0);
    let Some(xid) = xid_at(page_size).filter(|xid| is_header && page.len() >= xid + 12 + XID_DATA) else {
        return false;
    };
    let gtid = position.gtid.unwrap_or(Gtid { domain: 0, server: 0, seq: 0 });
    put(page, xid, &1u32.to_be_bytes());
    put(page, xid + 4, &48u32.to_be_bytes());
    put(page, xid + 8, &0u32.to_be_bytes());
    let data = xid + 12;
    put(page, data, &[0; XID_DATA]);
    put(page, data, b"WSREPXif");
    put(page, data + 8, &position.state.uuid.0);
    put(page, data + 24, &position.state.seqno.0.to_le_bytes());
    put(page, data + 32, &gtid.domain.to_le_bytes());
    put(page, data + 36, &gtid.server.to_le_bytes());
    put(page, data + 40, &gtid.seq.to_le_bytes());
    true
}

/// Where the XID with the position begins in a header.
fn xid_at(page_size: usize) -> Option<usize> {
    PAGE_DATA.checked_add(34 + 16 + 512)?.checked_add(4 * (page_size / 16))
}

/// The position that counts: the highest sequence number. Segments of an earlier history can remain with
/// higher numbers; the server takes the highest nevertheless, and clears them when it adopts a new history.
/// Among equal ones it takes the first, and it ignores -1 (trx0rseg.cc, `trx_rseg_read_wsrep_checkpoint`).
pub fn newest(positions: impl IntoIterator<Item = StoredPosition>) -> Option<StoredPosition> {
    let defined = positions.into_iter().filter(|stored| stored.state.seqno > Seqno::UNDEFINED);
    defined.reduce(|best, next| if next.state.seqno > best.state.seqno { next } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rseg(page_size: usize, version: u8, seqno: i64) -> Vec<u8> {
        let mut page = vec![0; page_size];
        let xid = 38 + 34 + page_size / 4 + 16 + 512;
        put(&mut page, xid, &1u32.to_be_bytes());
        put(&mut page, xid + 4, &48u32.to_be_bytes());
        put(&mut page, xid + 12, b"WSREPXi");
        put(&mut page, xid + 19, &[version]);
        put(&mut page, xid + 20, &[7; 16]);
        put(&mut page, xid + 36, &seqno.to_le_bytes());
        put(&mut page, xid + 44, &[1, 0, 0, 0, 2, 0, 0, 0, 3]);
        page
    }

    #[test]
    fn the_three_versions() {
        let state = StateId { uuid: Uuid([7; 16]), seqno: Seqno(95) };
        for (version, gtid) in [(b'd', None), (b'f', Some(Gtid { domain: 1, server: 2, seq: 3 }))] {
            let page = rseg(16384, version, 95);
            assert_eq!(stored_position(&page, 16384), Some(StoredPosition { state, gtid }));
        }
        assert_eq!(position_in_rseg(&rseg(16384, b'z', 95), 16384), None);
        assert_eq!(position_in_rseg(&vec![0; 16384], 16384), None);
    }

    #[test]
    fn an_encrypted_segment_is_told_from_an_empty_one() {
        let format = PageFormat::plain(4096, true);
        let mut page = rseg(4096, b'f', 1);
        assert_eq!(read_rseg(&format, &page), Ok(stored_position(&page, 4096)));
        assert_eq!(read_rseg(&format, &vec![0; 4096]), Ok(None));
        page[3] = 1;
        assert_eq!(read_rseg(&format, &page), Err(Encrypted));
    }

    #[test]
    fn an_old_segment_has_none() {
        let mut page = rseg(4096, b'f', 1);
        assert!(position_in_rseg(&page, 4096).is_some());
        page[41] = 1;
        assert_eq!(position_in_rseg(&page, 4096), None);
    }

    #[test]
    fn what_is_stored_is_read() {
        let state = StateId { uuid: Uuid([9; 16]), seqno: Seqno(1 << 40) };
        for size in [4096, 16384, 65536] {
            let mut page = rseg(size, b'd', 95);
            let stored = StoredPosition { state, gtid: Some(Gtid { domain: 1, server: 2, seq: 3 }) };
            assert!(store_position(&mut page, size, &stored));
            assert_eq!(stored_position(&page, size), Some(stored));
        }
        let mut old = rseg(4096, b'f', 1);
        old[41] = 1;
        let before = old.clone();
        let none = StoredPosition { state, gtid: None };
        assert!(!store_position(&mut old, 4096, &none) && old == before);
        assert!(!store_position(&mut [0; 100], 4096, &none));
    }

    #[test]
    fn unused_slots_are_left_out() {
        let mut page = vec![0xff; 16384];
        put(&mut page, 56, &[0, 0, 0, 0, 0, 0, 0, 6]);
        put(&mut page, 56 + 8 * 127, &[0, 0, 0, 3, 0, 0, 0, 9]);
        assert_eq!(rseg_slots(&page), [(SpaceId(0), PageNo(6)), (SpaceId(3), PageNo(9))]);
        assert!(rseg_slots(&[0; 16384]).is_empty());
        assert!(rseg_slots(&[]).is_empty());
    }

    #[test]
    fn the_highest_counts() {
        let at =
            |seqno| StoredPosition { state: StateId { uuid: Uuid::NIL, seqno: Seqno(seqno) }, gtid: None };
        assert_eq!(newest([at(3), at(9), at(-1)]), Some(at(9)));
        assert_eq!(newest([at(-1)]), None);
        assert_eq!(newest([]), None);
    }

    proptest! {
        #[test]
        fn never_panics(page in prop::collection::vec(any::<u8>(), 0..2000), size: usize) {
            let _ = rseg_slots(&page);
            let _ = position_in_rseg(&page, size);
            let _ = position_in_rseg(&page, 4096);
        }
    }
}
