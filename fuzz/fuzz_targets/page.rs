//! Pages, first pages, redo heads and positions: the first four bytes are the flags, the rest is the page.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rejoin_formats::innodb::redo_header::{Checkpoint, RedoFormat, RedoHeader};
use rejoin_formats::innodb::tablespace::{PageFormat, parse_page0};
use rejoin_formats::innodb::{page, wsrep_position};

fuzz_target!(|data: &[u8]| {
    let _ = parse_page0(data);
    let _ = Checkpoint::newest(data);
    if let Ok(header) = RedoHeader::parse(data) {
        if header.format == RedoFormat::Circular && header.creator.len() <= 32 {
            let again = RedoHeader::parse(&header.emit().expect("fits"));
            assert_eq!(again.as_ref(), Ok(&header));
        }
    }
    assert!(wsrep_position::rseg_slots(data).len() <= 128);
    for size in [4096, 16384, 65536] {
        let _ = wsrep_position::stored_position(data, size);
    }
    let Some((flags, rest)) = data.split_first_chunk() else { return };
    let Ok(format) = PageFormat::from_flags(u32::from_be_bytes(*flags)) else { return };
    // A page from few bytes: libFuzzer grows inputs slowly.
    let mut bytes = rest.to_vec();
    bytes.resize(format.physical_size, 0);
    let state = page::verify(&format, &bytes);
    assert_eq!(state == page::PageState::Zero, bytes.iter().all(|&b| b == 0));
    if let Some(len) = page::stored_len(&format, &bytes) {
        assert!(len <= format.physical_size);
    }
    let _ = page::verify(&format, rest);
    let _ = (page::page_no(rest), page::space_id(&format, rest), page::lsn(rest), page::page_type(rest));
});
