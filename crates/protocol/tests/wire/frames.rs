//! Frames: their limits, what they refuse, and how headers are packed.
use proptest::prelude::*;
use rejoin_protocol::codec::{self, CodecError, Lengths, PREFIX_BYTES};
use rejoin_protocol::inventory::{FileEntry, FileId, FileRole, Place};
use rejoin_protocol::limits::{
    HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX, REPLAY_BYTES_MAX, REPLAY_WRITE_SETS_MAX, TEXT_BYTES_MAX,
};
use rejoin_protocol::message::{CanIst, Message, ReplayRate};

#[test]
fn lengths_are_refused_one_above_the_limit_and_taken_at_it() {
    let prefix = |header: u32, payload: u32| {
        let mut p = [0; PREFIX_BYTES];
        p[..4].copy_from_slice(&header.to_le_bytes());
        p[4..].copy_from_slice(&payload.to_le_bytes());
        p
    };
    assert!(codec::lengths(prefix(HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX)).is_ok());
    assert!(matches!(codec::lengths(prefix(HEADER_BYTES_MAX + 1, 0)), Err(CodecError::TooLong { .. })));
    assert!(matches!(codec::lengths(prefix(0, PAYLOAD_BYTES_MAX + 1)), Err(CodecError::TooLong { .. })));
}

#[test]
fn a_payload_belongs_to_a_chunk_only() {
    let mut out = Vec::new();
    codec::encode(&Message::Ready, 0, &mut out).expect("encode");
    let lengths = Lengths { header: out.len() - PREFIX_BYTES, packed: false, payload: 5 };
    assert_eq!(codec::decode(&out[PREFIX_BYTES..], lengths), Err(CodecError::StrayPayload("Ready")));
}

#[test]
fn a_rate_that_no_server_has_is_refused() {
    let with = |write_sets: u64, bytes: u64| {
        let rate = Some(ReplayRate { write_sets, bytes });
        let message =
            Message::CanIst(CanIst::Yes { position: "u:7".into(), first: 9, next: 8, room: 1, rate });
        let mut out = Vec::new();
        codec::encode(&message, 0, &mut out).expect("encode");
        let lengths = Lengths { header: out.len() - PREFIX_BYTES, packed: false, payload: 0 };
        codec::decode(&out[PREFIX_BYTES..], lengths).map(|decoded| assert_eq!(decoded, message))
    };
    assert_eq!(with(REPLAY_WRITE_SETS_MAX, REPLAY_BYTES_MAX), Ok(()));
    assert_eq!(with(1, 1), Ok(()));
    for (write_sets, bytes) in [(0, 1), (1, 0), (REPLAY_WRITE_SETS_MAX + 1, 1), (1, REPLAY_BYTES_MAX + 1)] {
        assert_eq!(with(write_sets, bytes), Err(CodecError::FieldTooLong("a rate")));
    }
}

/// A list of files becomes a small part of itself, and comes back.
#[test]
fn long_headers_are_packed() {
    let file = |number: u32| FileEntry {
        id: FileId(number),
        place: Place::Datadir,
        path: format!("many/t{number:05}.ibd"),
        size: 65536,
        allocated: 65536,
        role: FileRole::Table,
    };
    let files: Vec<FileEntry> = (1..=1024).map(file).collect();
    let message = Message::CompareFiles(files);
    let mut out = Vec::new();
    codec::encode(&message, 0, &mut out).expect("encode");
    assert!(out.len() < 1024 * 5, "{} bytes for 1024 files", out.len());
    let (prefix, header) = out.split_first_chunk::<PREFIX_BYTES>().expect("prefix");
    let lengths = codec::lengths(*prefix).expect("lengths");
    assert_eq!((lengths.header, lengths.packed), (header.len(), true));
    assert_eq!(codec::decode(header, lengths), Ok(message));
    assert_eq!(codec::decode(header, Lengths { packed: false, ..lengths }), Err(CodecError::NoMessage));
    assert_eq!(codec::decode(&header[1..], lengths), Err(CodecError::NoMessage));

    // What would become more than a header may have is not unpacked.
    let bomb = zstd::bulk::compress(&vec![0; HEADER_BYTES_MAX as usize + 1], 9).expect("compress");
    let lengths = Lengths { header: bomb.len(), packed: true, payload: 0 };
    assert_eq!(codec::decode(&bomb, lengths), Err(CodecError::NoMessage));
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), packed in any::<bool>(), payload in 0usize..10) {
        let _ = codec::decode(&bytes, Lengths { header: bytes.len(), packed, payload });
    }
}

#[test]
fn a_name_or_a_history_that_is_longer_than_a_text_is_refused() {
    let with = |name: usize, history: usize| {
        let (node, history) = ("n".repeat(name), "u".repeat(history));
        let message = Message::ArchiveReach { node, history, first: i64::MIN, last: i64::MAX };
        let mut out = Vec::new();
        codec::encode(&message, 0, &mut out).expect("encode");
        let (prefix, header) = out.split_first_chunk::<PREFIX_BYTES>().expect("prefix");
        codec::decode(header, codec::lengths(*prefix).expect("lengths")).map(|decoded| decoded == message)
    };
    assert_eq!(with(TEXT_BYTES_MAX, TEXT_BYTES_MAX), Ok(true));
    for (name, history) in [(TEXT_BYTES_MAX + 1, 1), (1, TEXT_BYTES_MAX + 1)] {
        assert_eq!(with(name, history), Err(CodecError::FieldTooLong("a name or a history")));
    }
}
