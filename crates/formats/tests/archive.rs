//! Blocks and indexes of archive segments: what is written is read, every changed bit is seen, and nothing panics.
use proptest::prelude::*;
use rejoin_formats::Seqno;
use rejoin_formats::archive::{
    BlockHeader, BlockKind, Blocks, GapReason, PartHead, SEGMENT_HEADER_LEN, TRAILER_LEN, Trailer, entries,
    index_bytes, parse_index, push_entry,
};
use rejoin_formats::galera::gcache::Action;

const SERIAL: u64 = 12;

fn actions() -> impl Strategy<Value = Vec<(Action, bool, Vec<u8>)>> {
    let kind = prop_oneof![Just(Action::WriteSet), Just(Action::ConfChange), Just(Action::Other(7))];
    proptest::collection::vec((kind, any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40)), 1..20)
}

fn body(actions: &[(Action, bool, Vec<u8>)]) -> Vec<u8> {
    let mut body = Vec::new();
    actions.iter().for_each(|(action, skipped, bytes)| push_entry(&mut body, *action, *skipped, bytes));
    body
}

fn header(first: i64, actions: usize, body: &[u8]) -> BlockHeader {
    let last = first + actions as i64 - 1;
    BlockHeader::of(BlockKind::Actions, Seqno(first), Seqno(last), body.len(), body)
}

proptest! {
    #[test]
    fn actions_are_read_as_they_were_written(actions in actions(), first in 1i64..1 << 40) {
        let body = body(&actions);
        let header = header(first, actions.len(), &body);
        prop_assert_eq!(BlockHeader::parse(&header.encode(SERIAL), SERIAL), Ok(header));
        header.verify(&body).unwrap();
        let read = entries(&header, &body).unwrap();
        prop_assert_eq!(read.len(), actions.len());
        for (n, (entry, (action, skipped, bytes))) in read.iter().zip(&actions).enumerate() {
            prop_assert_eq!(entry.seqno, Seqno(first + n as i64));
            prop_assert_eq!((entry.action, entry.skipped, entry.bytes), (*action, *skipped, &bytes[..]));
        }
        // One action more or less than the body has is an error.
        for other in [BlockHeader { last: Seqno(header.last.0 + 1), ..header }, BlockHeader { last: Seqno(header.last.0 - 1), ..header }] {
            prop_assert!(entries(&other, &body).is_err());
        }
    }

    #[test]
    fn any_changed_bit_is_seen(actions in actions(), at: prop::sample::Index, bit in 0u8..8) {
        let mut body = body(&actions);
        let header = header(5, actions.len(), &body);
        let mut bytes = header.encode(SERIAL);
        bytes[at.index(64)] ^= 1 << bit;
        prop_assert!(BlockHeader::parse(&bytes, SERIAL).is_err());
        prop_assert!(BlockHeader::parse(&header.encode(SERIAL), SERIAL + 1).is_err(), "of another segment");
        let at = at.index(body.len());
        body[at] ^= 1 << bit;
        prop_assert!(header.verify(&body).is_err());
    }

    #[test]
    fn parts_are_read_as_they_were_written(offset in 0u64..1 << 31, piece in proptest::collection::vec(any::<u8>(), 0..50), more in 0u64..100, skipped: bool) {
        let total = offset + piece.len() as u64 + more;
        let head = PartHead { offset, total, action: Action::WriteSet, skipped };
        let body = head.body(&piece);
        prop_assert_eq!(PartHead::parse(&body), Ok((head, &piece[..])));
        let outside = PartHead { total: total - more - 1, ..head };
        prop_assert!(offset + piece.len() as u64 == 0 || PartHead::parse(&outside.body(&piece)).is_err());
    }

    #[test]
    fn an_index_is_of_one_file_only(counts in proptest::collection::vec(1usize..5, 0..6), changed: prop::sample::Index, bit in 0u8..8) {
        let mut blocks = Vec::new();
        let mut next = 1;
        for count in counts {
            let body = body(&vec![(Action::WriteSet, false, vec![1; 9]); count]);
            blocks.push(header(next, count, &body));
            next += count as i64;
        }
        blocks.push(BlockHeader::of(BlockKind::Gap(GapReason::Lost), Seqno(next), Seqno(next - 1), 0, &[]));
        let bytes = index_bytes(&blocks, SERIAL);
        let len = SEGMENT_HEADER_LEN as u64 + blocks.iter().map(BlockHeader::len).sum::<u64>() + bytes.len() as u64;
        let read = |bytes: &[u8], len| {
            let (index, trailer) = bytes.split_at(bytes.len() - TRAILER_LEN);
            let trailer = Trailer::parse(trailer, SERIAL)?;
            parse_index(index, &trailer, SERIAL, len).ok()
        };
        prop_assert_eq!(read(&bytes, len), Some(blocks));
        prop_assert_eq!(read(&bytes, len + 1), None);
        let mut damaged = bytes.clone();
        damaged[changed.index(bytes.len())] ^= 1 << bit;
        prop_assert_eq!(read(&damaged, len), None);
    }

    #[test]
    fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), first in 1i64.., last in 1i64.., len: u32) {
        let _ = BlockHeader::parse(&bytes, SERIAL);
        let _ = PartHead::parse(&bytes);
        if let Some(trailer) = Trailer::parse(&bytes, SERIAL) {
            let _ = parse_index(&bytes, &trailer, SERIAL, u64::from(len));
        }
        let header = header(1, 1, &bytes);
        let _ = entries(&BlockHeader { first: Seqno(first), last: Seqno(last), ..header }, &bytes);
    }
}

#[test]
fn a_header_cannot_announce_more_than_fits() {
    let parse = |header: BlockHeader| BlockHeader::parse(&header.encode(SERIAL), SERIAL);
    let right = header(5, 1, &[0; 8]);
    assert!(parse(right).is_ok());
    for wrong in [
        BlockHeader { last: Seqno(7), ..right },
        BlockHeader { last: Seqno(4), ..right },
        BlockHeader { last: Seqno(i64::MAX), ..right },
        BlockHeader { first: Seqno(0), ..right },
        BlockHeader { body_len: u32::MAX, compressed: true, ..right },
        BlockHeader { stored_len: u32::MAX, ..right },
        BlockHeader { compressed: true, ..right },
        BlockHeader { kind: BlockKind::Part, last: Seqno(6), ..right },
    ] {
        assert!(parse(wrong).is_err(), "{wrong:?}");
    }
}

/// A segment's blocks by a reader of these bytes, which refuses to read more than a block or an index has.
fn find(bytes: &[u8]) -> Blocks {
    let mut read = |at: u64, len: usize| -> Result<Vec<u8>, std::convert::Infallible> {
        let rest = bytes.get(at as usize..).unwrap_or_default();
        Ok(rest[..len.min(rest.len())].to_vec())
    };
    Blocks::find(bytes.len() as u64, SERIAL, &mut read).unwrap()
}

proptest! {
    /// A writer that was killed leaves no index; a disk may lose what lies between blocks.
    #[test]
    fn whole_blocks_are_found_among_what_is_none(
        parts in proptest::collection::vec((actions(), proptest::collection::vec(any::<u8>(), 0..80)), 1..5),
        indexed: bool,
        cut in 0usize..100,
    ) {
        let mut bytes = vec![0; SEGMENT_HEADER_LEN];
        let mut written = Vec::new();
        for (n, (actions, garbage)) in parts.iter().enumerate() {
            let body = body(actions);
            let header = header(100 * n as i64 + 1, actions.len(), &body);
            written.push((bytes.len() as u64, header));
            bytes.extend_from_slice(&header.encode(SERIAL));
            bytes.extend_from_slice(&body);
            if !indexed {
                bytes.extend_from_slice(garbage);
            }
        }
        let headers: Vec<_> = written.iter().map(|(_, header)| *header).collect();
        if indexed {
            bytes.extend_from_slice(&index_bytes(&headers, SERIAL));
            prop_assert_eq!(find(&bytes), Blocks { blocks: written.clone(), complete: true, ..Blocks::default() });
        }
        bytes.truncate(bytes.len() - cut.min(bytes.len() - SEGMENT_HEADER_LEN));
        let found = find(&bytes);
        let is_whole = |(at, header): &&(u64, BlockHeader)| at + header.len() <= bytes.len() as u64;
        prop_assert_eq!(&found.blocks, &written.iter().filter(is_whole).copied().collect::<Vec<_>>());
        if !found.complete {
            let in_blocks: u64 = found.blocks.iter().map(|(_, block)| block.len()).sum();
            let damaged: u64 = found.damaged.iter().map(|damage| damage.bytes.end - damage.bytes.start).sum();
            prop_assert_eq!(in_blocks + damaged + found.torn, (bytes.len() - SEGMENT_HEADER_LEN) as u64);
        }
    }
}
