//! Undo log header pages: which transactions were prepared when the server ended.
//!
//! A prepared transaction of a cluster has its position in its undo log, not yet in the rollback segment.
//! During recovery, a server without a binary log commits those that follow the last position without a gap,
//! which advances the position (sql/handler.cc, `xarecover_handlerton` and
//! `wsrep_order_and_check_continuity`). Layout from storage/innobase/include/trx0rseg.h and trx0undo.h. All
//! MariaDB 10.11.

use super::wsrep_position::{StoredPosition, position_in_xid};
use crate::bytes::{array, be16, be32};
use crate::ids::{PageNo, Seqno};

/// Slots of a rollback segment header: after format, sizes, list of old logs and a segment header.
const SLOTS: usize = 38 + 34;
/// The state of the segment, behind the page's undo header.
const STATE: usize = 38 + 18;
const LAST_LOG: usize = STATE + 2;
/// State of a prepared transaction.
const PREPARED: u16 = 5;
/// In a log's header: whether it has an XID, and the XID.
const XID_EXISTS: usize = 20;
const XID: usize = 46;

/// The undo log header pages that a rollback segment header names, in slot order, without unused slots.
pub fn undo_pages(rseg: &[u8], page_size: usize) -> impl Iterator<Item = PageNo> {
    let slots = rseg.get(SLOTS..).unwrap_or_default().chunks_exact(4).take(page_size / 16);
    slots
        .filter_map(|slot| be32(slot, 0))
        .map(PageNo)
        .filter(|&page| page != PageNo::NULL && page != PageNo(0))
}

/// The state of the transaction in an undo log header page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UndoState {
    /// Active or ended: recovery rolls it back, or has nothing to do.
    Settled,
    /// Prepared, at this position of a cluster.
    Prepared(StoredPosition),
    /// Prepared, but not a transaction of a cluster.
    PreparedElsewhere,
}

/// Parses one; `None` if the page is truncated.
pub fn undo_state(page: &[u8]) -> Option<UndoState> {
    if be16(page, STATE)? != PREPARED {
        return Some(UndoState::Settled);
    }
    let log = usize::from(be16(page, LAST_LOG)?);
    let [exists] = array(page, log.checked_add(XID_EXISTS)?)?;
    let position = if exists == 0 { None } else { position_in_xid(page, log + XID) };
    Some(position.map_or(UndoState::PreparedElsewhere, UndoState::Prepared))
}

/// Returns the position that a server without a binary log reaches from `stored` and these prepared
/// transactions.
pub fn follow_prepared(
    stored: Option<StoredPosition>,
    mut prepared: Vec<StoredPosition>,
) -> Option<StoredPosition> {
    prepared.sort_by_key(|one| one.state.seqno);
    let mut reached = stored;
    for next in prepared {
        let now = reached.map_or(Seqno::UNDEFINED, |one| one.state.seqno);
        if now.0.checked_add(1) != Some(next.state.seqno.0) {
            break;
        }
        reached = Some(next);
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::put;
    use crate::ids::Uuid;
    use crate::wsrep::state_id::StateId;
    use proptest::prelude::*;

    fn undo(state: u16, exists: u8, seqno: i64) -> Vec<u8> {
        let mut page = vec![0; 4096];
        let log = 86;
        put(&mut page, STATE, &state.to_be_bytes());
        put(&mut page, LAST_LOG, &(log as u16).to_be_bytes());
        put(&mut page, log + XID_EXISTS, &[exists]);
        put(&mut page, log + XID, &1u32.to_be_bytes());
        put(&mut page, log + XID + 4, &32u32.to_be_bytes());
        put(&mut page, log + XID + 12, b"WSREPXid");
        put(&mut page, log + XID + 20, &[7; 16]);
        put(&mut page, log + XID + 36, &seqno.to_le_bytes());
        page
    }

    fn at(seqno: i64) -> StoredPosition {
        StoredPosition { state: StateId { uuid: Uuid([7; 16]), seqno: Seqno(seqno) }, gtid: None }
    }

    #[test]
    fn only_prepared_transactions_count() {
        assert_eq!(undo_state(&undo(5, 1, 12)), Some(UndoState::Prepared(at(12))));
        assert_eq!(undo_state(&undo(5, 0, 12)), Some(UndoState::PreparedElsewhere));
        assert_eq!(undo_state(&undo(1, 1, 12)), Some(UndoState::Settled));
        assert_eq!(undo_state(&[0; 57]), None);
        assert_eq!(undo_state(&undo(5, 1, 12)[..100]), None);
    }

    #[test]
    fn a_gap_ends_it() {
        assert_eq!(follow_prepared(Some(at(7)), vec![at(9), at(8), at(11)]), Some(at(9)));
        assert_eq!(follow_prepared(Some(at(7)), vec![at(9)]), Some(at(7)));
        assert_eq!(follow_prepared(Some(at(7)), vec![at(7), at(8)]), Some(at(7)), "as the server");
        assert_eq!(follow_prepared(None, vec![at(0)]), Some(at(0)));
        assert_eq!(follow_prepared(None, vec![]), None);
    }

    #[test]
    fn slots_end_with_the_page_size() {
        let mut rseg = vec![0xff; 16384];
        put(&mut rseg, 72, &9u32.to_be_bytes());
        put(&mut rseg, 72 + 1023 * 4, &70u32.to_be_bytes());
        put(&mut rseg, 72 + 1024 * 4, &71u32.to_be_bytes());
        assert_eq!(undo_pages(&rseg, 16384).collect::<Vec<_>>(), [PageNo(9), PageNo(70)]);
    }

    proptest! {
        #[test]
        fn never_panics(page in prop::collection::vec(any::<u8>(), 0..400), size: usize) {
            let _ = undo_pages(&page, size).count();
            let _ = undo_state(&page);
        }
    }
}
