//! Every message of protocol version 1, and its frozen bytes.
use std::collections::BTreeSet;
use std::fmt::Display;

use rejoin_protocol::chunk::{Chunk, Packing};
use rejoin_protocol::codec::{self, PREFIX_BYTES};
use rejoin_protocol::delta::Delta;
use rejoin_protocol::inventory::{FileId, Place};
use rejoin_protocol::limits::RANGE_BYTES;
use rejoin_protocol::message::{
    Attempt, CanIst, JoinerPace, JoinerWork, Logical, Message, Offer, ReplayRate, SnapshotKind,
};
use rejoin_protocol::policy::{NodeFacts, SystemFile};
use rejoin_protocol::sample::{Sample, Sampled};
use serde::Deserialize;
use serde::de::IntoDeserializer;

use crate::entry;

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
        Message::AskPrepare { version: "10.11.19-MariaDB".into() },
        Message::CanPrepare { why_not: "cannot run /nowhere".into() },
        Message::NotPrepared { why: "exit status 1".into() },
        Message::ArchiveReach { node: "n1".into(), history: "u".into(), first: 1, last: 899 },
        Message::PageTime { nanos: 12_500 },
        Message::OwnKey { key: [7; 32] },
        Message::Pace(JoinerPace {
            kernel: 7,
            processors: 1500,
            waiting: 950,
            work: JoinerWork { fingerprint: 800, pieces: 1500, unpack: 700, carry: 650, store: 900 },
        }),
    ]
}

/// The names of an enum's variants: serde hands them to the error for a name that none of them has.
#[derive(Debug, thiserror::Error)]
#[error("{0:?}")]
struct Variants(&'static [&'static str]);

impl serde::de::Error for Variants {
    fn custom<T: Display>(_: T) -> Self {
        Variants(&[])
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Variants(expected)
    }
}

/// A message that is missing from the list could change unnoticed.
#[test]
fn the_list_has_every_message() {
    let Variants(all) = Message::deserialize("no message".into_deserializer()).expect_err("no message");
    assert!(!all.is_empty());
    let listed: BTreeSet<&str> = one_of_each().iter().map(Message::name).collect();
    assert_eq!(listed, all.iter().copied().collect());
}

fn session() -> Vec<u8> {
    let mut out = Vec::new();
    for message in one_of_each() {
        codec::encode(&message, 0, &mut out).expect("encode");
    }
    out
}

/// Protocol version 1 as stored when it was made. `REMAKE_GOLDEN=1 cargo test -p rejoin-protocol` writes it anew;
/// once released, a change of that file is a new protocol version.
#[test]
fn the_messages_of_version_1_are_frozen() {
    if std::env::var_os("REMAKE_GOLDEN").is_some() {
        std::fs::write("tests/data/session-v1.bin", session()).expect("write");
    }
    assert_eq!(session(), include_bytes!("../data/session-v1.bin"));
}

#[test]
fn the_stored_session_is_understood() {
    let mut rest: &[u8] = include_bytes!("../data/session-v1.bin");
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
