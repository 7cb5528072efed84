//! The bytes on the wire: frozen greetings, round trips, limits, and no panic on anything.
use proptest::prelude::*;
use rejoin_protocol::chunk::{Chunk, Packing};
use rejoin_protocol::codec::{self, CodecError, Lengths, PREFIX_BYTES};
use rejoin_protocol::delta::Delta;
use rejoin_protocol::hello::{
    Connection, GREETING_BYTES, Greeting, HELLO_BYTES, Hello, HelloError, choose_version,
};
use rejoin_protocol::inventory::{FileEntry, FileId, FileRole, Place, batches, groups};
use rejoin_protocol::limits::{
    HEADER_BYTES_MAX, PATH_BYTES_MAX, PAYLOAD_BYTES_MAX, RANGE_BYTES, REPLAY_BYTES_MAX, REPLAY_WRITE_SETS_MAX,
};
use rejoin_protocol::message::{Attempt, CanIst, Logical, Message, Offer, ReplayRate, SnapshotKind};
use rejoin_protocol::policy::{NodeFacts, SystemFile};
use rejoin_protocol::sample::{Sample, Sampled};

fn hello() -> Hello {
    Hello {
        versions: (1, 2),
        capabilities: 5,
        connection: Connection::Worker(3),
        run: 0x1817_1615_1413_1211,
        proof: [0xAB; 32],
        program: "rejoin 0.1.0".into(),
    }
}

/// These bytes may never change: an old and a new program must understand each other's first words for ever.
#[test]
fn the_hello_is_frozen() {
    let mut expected = b"REJOIN\0\x01".to_vec();
    expected.extend_from_slice(&[1, 0, 2, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1, 3, 0]);
    expected.extend_from_slice(&[0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 12]);
    expected.extend_from_slice(&[0xAB; 32]);
    expected.extend_from_slice(b"rejoin 0.1.0");
    assert_eq!(hello().encode(), expected);
}

#[test]
fn the_greeting_is_frozen() {
    let refused = Greeting::Refused { reason: "no".into() };
    let mut expected = b"REJOIN\0\x01\x01".to_vec();
    expected.extend_from_slice(&[0; 42]);
    expected.extend_from_slice(&[2, 0, b'n', b'o']);
    assert_eq!(refused.encode(), expected);
    let welcome = Greeting::Welcome { version: 1, capabilities: 1, proof: [7; 32], program: "rejoin".into() };
    let mut expected = b"REJOIN\0\x01\x00".to_vec();
    expected.extend_from_slice(&[1, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend_from_slice(&[7; 32]);
    expected.extend_from_slice(b"\x06\0rejoin");
    assert_eq!(welcome.encode(), expected);
}

#[test]
fn another_program_is_named_by_its_first_bytes() {
    let mut head = [0u8; HELLO_BYTES];
    head[..8].copy_from_slice(b"GET / HT");
    assert_eq!(Hello::decode(&head, &[]), Err(HelloError::NotRejoin(*b"GET / HT")));
}

#[test]
fn versions_are_chosen_from_what_both_speak() {
    assert_eq!(choose_version((1, 1), (1, 1)), Ok(1));
    assert_eq!(choose_version((1, 9), (1, 3)), Ok(3));
    assert!(choose_version((2, 9), (1, 1)).is_err());
    assert!(choose_version((9, 1), (1, 9)).is_err());
}

fn entry() -> FileEntry {
    let role = FileRole::TableElsewhere { owner: "db/t.isl".into() };
    FileEntry {
        id: FileId(7),
        place: Place::External,
        path: "/x/db/t.ibd".into(),
        size: 9,
        allocated: 4096,
        role,
    }
}

fn one_of_each() -> Vec<Message> {
    let facts = NodeFacts {
        server_version: Some("10.11.19-MariaDB".into()),
        page_size: 16384,
        lower_case_table_names: 0,
        system_files: vec![SystemFile { size: 12 << 20, autoextend: true }],
        key_plugins: vec!["file_key_management".into()],
        encrypted: Some("d/t.ibd".into()),
    };
    let offer = Offer {
        node: "n1".into(),
        position: "u:7".into(),
        facts,
        files: 3,
        bytes: vec![(Place::Datadir, 1), (Place::UndoDir, 2)],
        external: vec![("/x/db".into(), 4096)],
        undo_tablespaces: 3,
        left_out: vec!["x: unknown".into()],
        databases: vec!["shop".into()],
        logical: Logical::IfNeeded,
    };
    let chunk = Chunk {
        file: FileId(1),
        offset: 1 << 20,
        len: 16384,
        parts: vec![(0, 4096), (8192, 4096)],
        same: vec![(4096, 4096)],
        deltas: vec![Delta { start: 12288, len: 64, sent: vec![2], fingerprint: [5; 16] }],
        packing: Packing::Zstd,
        digest: 1 << 60,
        whole: Some(1 << 61),
    };
    vec![
        Message::Ping { doing: "d".into() },
        Message::Note { text: "n".into() },
        Message::Abort { reason: "r".into() },
        Message::Bypass { position: "p".into(), domain: Some(1) },
        Message::Offer(offer),
        Message::Accept {
            workers: 4,
            in_place: true,
            empty_undo: false,
            without_redo: true,
            compare: true,
            logical: "innodb_page_size differs".into(),
        },
        Message::Attempt(Attempt {
            snapshot: SnapshotKind::Online,
            reason: "w".into(),
            fingerprints: Some([7; 32]),
            remember: Some([8; 32]),
            bytes: 1 << 40,
        }),
        Message::Sample(Sample {
            blocks: vec![Sampled {
                place: Place::Datadir,
                path: "d/t.ibd".into(),
                block: 9,
                fingerprint: [3; 16],
                pieces: vec![4, 5],
            }],
            bytes: 7,
            more: true,
        }),
        Message::Plan { about: Some(7) },
        Message::Ready,
        Message::Begin(entry()),
        Message::BeginKnown { file: FileId(7) },
        Message::Chunk(chunk),
        Message::Same { file: FileId(7), offset: 1 << 20, len: RANGE_BYTES },
        Message::SameGroup { first: FileId(7) },
        Message::Asks,
        Message::Answers,
        Message::CompareFiles(vec![entry()]),
        Message::CompareGroups(vec![entry(), entry()]),
        Message::SplitGroup { first: FileId(7) },
        Message::CompareBlocks { file: FileId(7), range: 3 },
        Message::ComparePieces { file: FileId(1), range: 2, blocks: vec![0, 63] },
        Message::CompareEnd,
        Message::JoinersFile { file: FileId(7), size: Some(1 << 33) },
        Message::GroupFingerprint { first: FileId(7), fingerprint: [4; 16] },
        Message::RangeFingerprints { file: FileId(7), first: 4, fingerprints: vec![[1; 16], [2; 16]] },
        Message::BlockFingerprints { file: FileId(7), range: 3, fingerprints: vec![[3; 16]] },
        Message::PieceFingerprints { file: FileId(1), range: 2, fingerprints: vec![vec![1, 2, 3], vec![]] },
        Message::Rebuilt { file: FileId(1), offset: 1 << 20, failed: vec![16384] },
        Message::WrongFingerprints { what: "w".into() },
        Message::AnswersEnd,
        Message::WorkerDone { chunks: 1 },
        Message::WorkerStored,
        Message::Files(vec![entry()]),
        Message::FilesKnown { first: FileId(8), count: 7 },
        Message::FilesEnd {
            count: 8,
            position: "p".into(),
            domain: None,
            binlog_state: Some("0-1-2\n".into()),
        },
        Message::Complete { chunks: 1 },
        Message::Stored,
        Message::Total { bytes: 1 << 33 },
        Message::AskIst { fingerprints: Some([8; 32]) },
        Message::CanIst(CanIst::Yes {
            position: "u:7".into(),
            first: 900,
            next: 8,
            room: 1 << 30,
            rate: Some(ReplayRate { write_sets: 11_000, bytes: 1 << 23 }),
        }),
        Message::CanIst(CanIst::No { why: "ist=never is set".into() }),
        Message::WriteSets { from: 8, to: 899, domain: Some(3) },
        Message::WriteSetBytes { len: 24, packing: Packing::Plain },
        Message::WriteSetsEnd,
        Message::WriteSetsFail { why: "a gap".into() },
    ]
}

/// Protocol version 1 as stored when it was made. `REMAKE_GOLDEN=1 cargo test -p rejoin-protocol` writes it anew;
/// once released, a change of that file is a new protocol version.
#[test]
fn the_messages_of_version_1_are_frozen() {
    if std::env::var_os("REMAKE_GOLDEN").is_some() {
        std::fs::write("tests/data/session-v1.bin", session()).expect("write");
    }
    assert_eq!(session(), include_bytes!("data/session-v1.bin"));
}

#[test]
fn the_stored_session_is_understood() {
    let mut rest: &[u8] = include_bytes!("data/session-v1.bin");
    for message in one_of_each() {
        let (prefix, tail) = rest.split_first_chunk::<PREFIX_BYTES>().expect("prefix");
        let lengths = codec::lengths(*prefix).expect("lengths");
        assert_eq!(codec::decode(&tail[..lengths.header], lengths), Ok(message));
        rest = &tail[lengths.header..];
    }
    assert!(rest.is_empty());
}

#[test]
fn a_message_has_the_name_of_its_variant() {
    for message in one_of_each() {
        let shown = format!("{message:?}");
        assert_eq!(shown.split([' ', '(']).next(), Some(message.name()));
    }
}

fn session() -> Vec<u8> {
    let mut out = Vec::new();
    for message in one_of_each() {
        codec::encode(&message, 0, &mut out).expect("encode");
    }
    out
}

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

#[test]
fn lists_are_split_so_that_they_fit_into_messages() {
    let file = |number: u32, path: usize| FileEntry { id: FileId(number), path: "x".repeat(path), ..entry() };
    let short: Vec<FileEntry> = (0..2500).map(|n| file(n, 20)).collect();
    assert_eq!(batches(&short).map(<[_]>::len).collect::<Vec<_>>(), [1024, 1024, 452]);
    let long: Vec<FileEntry> = (0..1000).map(|n| file(n, PATH_BYTES_MAX)).collect();
    for files in [&short, &long] {
        assert_eq!(batches(files).collect::<Vec<_>>().concat(), **files);
        for batch in batches(files) {
            codec::encode(&Message::Files(batch.to_vec()), 0, &mut Vec::new()).expect("it fits");
        }
    }
    assert_eq!(batches(&[]).count(), 0);
}

#[test]
fn small_files_are_grouped_until_they_make_a_range() {
    let half = u64::from(RANGE_BYTES) / 2;
    let files: Vec<FileEntry> = [1, half, half, half, half, 5, u64::MAX, 7]
        .into_iter()
        .map(|size| FileEntry { size, ..entry() })
        .collect();
    let sizes = |group: &[FileEntry]| group.iter().map(|file| file.size).collect::<Vec<_>>();
    let groups: Vec<Vec<u64>> = groups(&files).map(sizes).collect();
    assert_eq!(groups, [vec![1, half, half], vec![half, half], vec![5, u64::MAX], vec![7]]);
}

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

#[test]
fn paths_cannot_leave_their_place() {
    let at = |place, path: &str, role| FileEntry { place, path: path.into(), role, ..entry() };
    assert!(at(Place::Datadir, "db/t.frm", FileRole::Table).check().is_ok());
    assert!(entry().check().is_ok());
    for bad in [
        "",
        "/etc/x",
        "../x",
        "a/../b",
        "a//b",
        "./a",
        "a\0b",
        "a\nb",
        ".rejoin/x",
        "db/.rejoin/x",
        "#sql-rejoin/x",
    ] {
        assert!(at(Place::Datadir, bad, FileRole::Table).check().is_err(), "{bad:?}");
    }
    assert!(at(Place::External, "relative", FileRole::Table).check().is_err());
    assert!(at(Place::Datadir, "db/t.MYD", FileRole::Link { target: "relative".into() }).check().is_err());
    assert!(at(Place::Datadir, "db/t.MYD", FileRole::Link { target: "/a/../b".into() }).check().is_err());
    let owner = FileRole::TableElsewhere { owner: "../t.isl".into() };
    assert!(at(Place::External, "/x/t.ibd", owner).check().is_err());
}

proptest! {
    #[test]
    fn hello_comes_back(min in any::<u16>(), max in any::<u16>(), caps in any::<u64>(), number in any::<u16>(), run in any::<u64>(),
                        proof in any::<[u8; 32]>(), program in "[ -~]{0,300}") {
        let said = Hello { versions: (min, max), capabilities: caps, connection: Connection::Worker(number), run, proof, program };
        let bytes = said.encode();
        let (head, tail) = bytes.split_first_chunk::<HELLO_BYTES>().expect("head");
        prop_assert_eq!(Hello::tail_len(head), tail.len());
        let heard = Hello::decode(head, tail).expect("decode");
        prop_assert_eq!(&heard.proof, &said.proof);
        prop_assert_eq!((heard.connection, heard.run), (said.connection, run));
        prop_assert!(said.program.starts_with(&heard.program));
    }

    #[test]
    fn no_bytes_make_the_decoders_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), packed in any::<bool>(), payload in 0usize..10) {
        let _ = codec::decode(&bytes, Lengths { header: bytes.len(), packed, payload });
        if let Some((head, tail)) = bytes.split_first_chunk::<HELLO_BYTES>() {
            let _ = Hello::decode(head, tail);
        }
        if let Some((head, tail)) = bytes.split_first_chunk::<GREETING_BYTES>() {
            let _ = Greeting::tail_len(head);
            let _ = Greeting::decode(head, tail);
        }
    }
}
