//! Which parts, unchanged bytes and deltas a chunk may have.
use rejoin_protocol::chunk::{Chunk, Packing};
use rejoin_protocol::delta::Delta;
use rejoin_protocol::inventory::FileId;
use rejoin_protocol::limits::RANGE_BYTES;

#[test]
fn impossible_parts_are_refused() {
    let chunk = |parts: &[(u32, u32)]| Chunk {
        file: FileId(0),
        offset: 0,
        len: RANGE_BYTES,
        parts: parts.to_vec(),
        same: Vec::new(),
        deltas: Vec::new(),
        packing: Packing::Plain,
        digest: 0,
        whole: None,
    };
    assert_eq!(chunk(&[]).payload_len(), Ok((0, 0)));
    assert_eq!(chunk(&[(0, RANGE_BYTES)]).payload_len(), Ok((RANGE_BYTES, 0)));
    assert_eq!(chunk(&[(0, 1), (2, 3)]).payload_len(), Ok((4, 0)));
    for bad in [
        vec![(0, 0)],
        vec![(0, RANGE_BYTES + 1)],
        vec![(5, 1), (5, 1)],
        vec![(u32::MAX, 2)],
        vec![(0, 2), (2, 1)],
    ] {
        assert!(chunk(&bad).payload_len().is_err(), "{bad:?}");
        let same = Chunk { same: bad.clone(), ..chunk(&[]) };
        assert!(same.payload_len().is_err(), "{bad:?}");
    }
    // A buffer is made as long as the parts are: no range is longer than it may be.
    let long = Chunk { len: u32::MAX, ..chunk(&[(0, RANGE_BYTES + 1)]) };
    assert!(long.payload_len().is_err());
    let both = |parts, same: &[(u32, u32)]| Chunk { same: same.to_vec(), ..chunk(parts) };
    assert_eq!(both(&[(0, 4), (8, 4)], &[(4, 4), (12, 1)]).payload_len(), Ok((8, 0)));
    assert!(both(&[(0, 4), (8, 4)], &[(4, 5)]).payload_len().is_err(), "sent and the same");
    assert!(both(&[(4, 4)], &[(0, 5)]).payload_len().is_err(), "sent and the same");
    assert!(both(&[(4, 4), (20, 4)], &[(10, 2), (19, 2)]).payload_len().is_err(), "sent and the same");

    let delta = |start, len, sent: &[u8]| Delta { start, len, sent: sent.to_vec(), fingerprint: [0; 16] };
    let with = |deltas: &[Delta]| {
        Chunk { deltas: deltas.to_vec(), ..both(&[(0, 4)], &[(100, 4)]) }.payload_len().map_err(drop)
    };
    // Pieces of 32 bytes, the last one shorter.
    assert_eq!(with(&[delta(4, 96, &[0b101]), delta(104, 40, &[0b10])]), Ok((4, 64 + 8)));
    for bad in [
        delta(3, 32, &[1]),
        delta(80, 32, &[1]),
        delta(200, 0, &[]),
        delta(200, 32, &[2]),
        delta(200, 32, &[]),
        delta(200, 32, &[1, 0]),
        delta(RANGE_BYTES, 32, &[1]),
        delta(200, RANGE_BYTES / 2, &vec![0; RANGE_BYTES as usize / 512]),
    ] {
        assert_eq!(with(std::slice::from_ref(&bad)), Err(()), "{bad:?}");
    }
    assert_eq!(with(&[delta(200, 32, &[1]), delta(150, 32, &[1])]), Err(()), "in no order");
}
