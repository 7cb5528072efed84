//! Redo played on a page: any records on any page, and what is then read from it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rejoin_formats::innodb::redo_mtr::{Geometry, MtrReader};
use rejoin_formats::innodb::redo_page::{Gap, PageImage};
use rejoin_formats::innodb::{undo_header, wsrep_position};
use rejoin_formats::{Lsn, PageNo, SpaceId};

/// Appends a mini-transaction of these records, with a marker and checksum that hold.
fn framed(log: &mut Vec<u8>, records: &[u8]) {
    log.extend_from_slice(records);
    log.push(1);
    log.extend_from_slice(&crc32c::crc32c(records).to_be_bytes());
}

fuzz_target!(|data: &[u8]| {
    let Some((&[flags, cut], records)) = data.split_first_chunk::<2>() else { return };
    let size = [4096, 16384, 65536][usize::from(flags) % 3];
    let known = flags & 8 != 0;
    let mut pages: Vec<PageImage> = (0..8)
        .map(|n| {
            let content = if known { Ok(vec![0x11 * n; size]) } else { Err(Gap::Missing) };
            PageImage::new(SpaceId(u32::from(n) / 4), PageNo(u32::from(n) % 4 + 3), size, content)
        })
        .collect();
    let mut log = Vec::new();
    records.chunks(usize::from(cut).max(4)).for_each(|part| framed(&mut log, part));
    let geometry = Geometry { first_lsn: Lsn(12288), capacity: 1 << 40 };
    let mut reader = MtrReader::new(geometry, flags & 16 != 0, Lsn(12288));
    reader.feed(&log);
    while let Ok(Some(mtr)) = reader.next_mtr() {
        for change in mtr.changes().filter_map(Result::ok) {
            pages.iter_mut().for_each(|page| page.play(mtr.start, mtr.end, &change));
        }
    }
    for page in &pages {
        let Ok(content) = page.content() else { continue };
        assert_eq!(content.len(), size);
        let _ = undo_header::undo_state(content);
        assert!(undo_header::undo_pages(content, size).count() <= size / 16);
        let _ = wsrep_position::stored_position(content, size);
    }
});
