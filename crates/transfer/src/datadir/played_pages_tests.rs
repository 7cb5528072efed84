use crc32c::crc32c;
use formats::innodb::redo_mtr::{Geometry, MtrReader};

use super::*;
use crate::datadir::testing::{Tree, page, write_pages};

const LOG_BEGINS: Lsn = Lsn(20_000);
/// First slot of a rollback segment header, after its format, sizes, list and segment.
const SLOT: usize = 72;

/// Mini-transactions of these records, from [`LOG_BEGINS`] on.
fn play_all(pages: &mut PlayedPages<'_>, mtrs: &[&[u8]]) -> Lsn {
    let geometry = Geometry { first_lsn: LOG_BEGINS, capacity: 1 << 20 };
    let mut reader = MtrReader::new(geometry, false, LOG_BEGINS);
    let mut at = LOG_BEGINS.0;
    for records in mtrs {
        let marker = geometry.sequence_bit(Lsn(at + records.len() as u64));
        let log = [records, &[marker][..], &crc32c(records).to_be_bytes()].concat();
        at += log.len() as u64;
        reader.feed(&log);
    }
    while let Some(mtr) = reader.next_mtr().unwrap() {
        pages.play(&mtr).unwrap().unwrap();
    }
    reader.at()
}

/// Two segments were copied at different times, and a page moved from one to the other in between. In the log
/// the older segment loses the page, which stays with the other.
#[test]
fn a_page_that_changed_its_segment_is_kept() {
    let tree = Tree::new();
    let slots = [[1u32, 3], [1, 4]].concat().iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<u8>>();
    let rest = vec![0xff; 126 * 8];
    let trx_sys = page(0, 5, 1, &[(56, &slots), (56 + slots.len(), &rest)]);
    let system = write_pages(&tree, "data/ibdata1", &[(0, page(0, 0, 1, &[])), (5, trx_sys)], 16);
    let names = |number, lsn| page(1, number, lsn, &[(SLOT, &7u32.to_be_bytes())]);
    let undo = [(0, page(1, 0, 1, &[])), (3, names(3, 100)), (4, names(4, LOG_BEGINS.0 + 100))];
    let undo = write_pages(&tree, "data/undo001", &undo, 16);
    let files = PageFiles::open(&[system], &[undo]).unwrap().unwrap();
    let mut pages = PlayedPages::new(&files, BTreeSet::new()).unwrap().unwrap();

    let leaves_the_older: &[u8] = &[0x37, 1, 3, SLOT as u8, 0xff, 0xff, 0xff, 0xff];
    let is_made_for_the_newer: &[u8] = &[0x12, 1, 7];
    let end = play_all(&mut pages, &[leaves_the_older, is_made_for_the_newer]);
    assert!(pages.incomplete().is_empty());
    let found = pages.found(Lsn(end.0 + 1000)).unwrap();
    assert!(found.stored.is_none() && found.prepared.is_empty());

    // A page that no page names is removed.
    let mut pages = PlayedPages::new(&files, BTreeSet::new()).unwrap().unwrap();
    let leaves_the_newer = [0x37, 1, 4, SLOT as u8, 0xff, 0xff, 0xff, 0xff];
    assert!(pages.pages.contains_key(&(SpaceId(1), PageNo(7))));
    let long_after = [0x10 | 2, 1, 9].repeat(40);
    play_all(&mut pages, &[leaves_the_older, &long_after, &leaves_the_newer]);
    assert!(!pages.pages.contains_key(&(SpaceId(1), PageNo(7))));
}
