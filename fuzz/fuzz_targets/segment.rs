//! The blocks of a whole segment: pieces of the input stand as they are or as the body of a block with a right checksum, and
//! an index may follow. Whatever lies there, every byte belongs to a block, to damage or to the torn end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rejoin_formats::Seqno;
use rejoin_formats::archive::{
    BlockHeader, BlockKind, Blocks, INDEX_MAX, SEGMENT_HEADER_LEN, index_bytes,
};

fuzz_target!(|data: &[u8]| {
    let Some((&shape, mut rest)) = data.split_first() else { return };
    let (mut bytes, mut headers, mut n) = (vec![0; SEGMENT_HEADER_LEN], Vec::new(), 0);
    while let Some((&len, behind)) = rest.split_first() {
        let (piece, left) = behind.split_at(behind.len().min(len as usize));
        rest = left;
        if len % 2 == 0 {
            n += 1;
            let block = BlockHeader::of(BlockKind::Actions, Seqno(n), Seqno(n), piece.len(), piece);
            bytes.extend_from_slice(&block.encode(1));
            headers.push(block);
        }
        bytes.extend_from_slice(piece);
    }
    if shape & 1 != 0 {
        bytes.extend_from_slice(&index_bytes(&headers, 1));
    }
    bytes.truncate(bytes.len() - usize::from(shape >> 1).min(bytes.len() - SEGMENT_HEADER_LEN));
    let len = bytes.len() as u64;
    let mut read = |at: u64, wanted: usize| -> Result<Vec<u8>, ()> {
        assert!(wanted <= INDEX_MAX);
        let behind = bytes.get(at as usize..).unwrap_or_default();
        Ok(behind[..wanted.min(behind.len())].to_vec())
    };
    let found = Blocks::find(len, 1, &mut read).unwrap();
    let mut end = SEGMENT_HEADER_LEN as u64;
    for (at, block) in &found.blocks {
        assert!(*at >= end);
        end = at + block.len();
    }
    assert!(end <= len);
    if !found.complete {
        let blocks: u64 = found.blocks.iter().map(|(_, block)| block.len()).sum();
        let damaged: u64 = found.damaged.iter().map(|damage| damage.bytes.end - damage.bytes.start).sum();
        assert_eq!(blocks + damaged + found.torn, len - SEGMENT_HEADER_LEN as u64);
    }
});
