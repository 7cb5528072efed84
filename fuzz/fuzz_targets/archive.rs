//! Headers, bodies and indexes of archive segments. Headers get a right checksum, so that what is behind it is reached.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rejoin_formats::Seqno;
use rejoin_formats::archive::{
    BODY_MAX, BlockHeader, BlockKind, PartHead, SegmentHeader, Trailer, entries, index_bytes, parse_index,
};

fuzz_target!(|data: &[u8]| {
    let _ = SegmentHeader::parse(data);
    let _ = BlockHeader::parse(data, 1);
    let _ = Trailer::parse(data, 1);
    if let Ok((head, piece)) = PartHead::parse(data) {
        assert!(head.offset + piece.len() as u64 <= head.total);
    }
    let Some((&[first, count], body)) = data.split_first_chunk() else { return };
    let (first, last) = (i64::from(first), i64::from(first) + i64::from(count));
    let made = BlockHeader::of(BlockKind::Actions, Seqno(first), Seqno(last), body.len(), body);
    let Ok(header) = BlockHeader::parse(&made.encode(1), 1) else { return };
    assert!(header == made && header.body_len as usize <= BODY_MAX);
    if let Ok(found) = entries(&header, body) {
        assert_eq!(found.len() as u64, header.count());
    }
    let index = index_bytes(&[header, header], 1);
    let (blocks, trailer) = index.split_at(index.len() - 32);
    let trailer = Trailer::parse(trailer, 1).expect("what was just written");
    let len = 64 + 2 * header.len() + index.len() as u64;
    assert_eq!(parse_index(blocks, &trailer, 1, len).map(|all| all.len()), Ok(2));
});
