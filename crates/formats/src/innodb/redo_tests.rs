use super::super::redo_flat::{FlatLog, push_mtr};
use super::super::redo_header::{Checkpoint, RedoFormat, RedoHeader};
use super::super::redo_mtr::{BadMtrKind, Geometry, MtrReader};
use super::*;
use crc32c::{crc32c, crc32c_append};
use proptest::prelude::*;

const FIRST: Lsn = Lsn(12288);

fn put_varint(out: &mut Vec<u8>, value: u32) {
    match value {
        0..0x80 => out.push(value as u8),
        0x80..0x4080 => out.extend_from_slice(&(0x8000 | (value - 0x80)).to_be_bytes()[2..]),
        0x4080..0x20_4080 => out.extend_from_slice(&(0xc0_0000 | (value - 0x4080)).to_be_bytes()[1..]),
        0x20_4080..0x1020_4080 => out.extend_from_slice(&(0xe000_0000 | (value - 0x20_4080)).to_be_bytes()),
        _ => {
            out.push(0xf0);
            out.extend_from_slice(&(value - 0x1020_4080).to_be_bytes());
        }
    }
}

/// A record with this type and body, with its length encoded as a server does.
fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    if body.len() < 16 && !body.is_empty() {
        out[0] |= body.len() as u8;
    } else {
        // The number counts its own bytes: find the length that is consistent with itself.
        for own in 1..=5 {
            let Some(value) = (body.len() + own).checked_sub(15) else { continue };
            let mut number = Vec::new();
            put_varint(&mut number, value as u32);
            if number.len() == own {
                out.extend_from_slice(&number);
                break;
            }
        }
    }
    out.extend_from_slice(body);
    out
}

fn page_body(space: u32, page: u32, rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    put_varint(&mut body, space);
    put_varint(&mut body, page);
    body.extend_from_slice(rest);
    body
}

fn file_record(kind: u8, space: u32, rest: &[u8]) -> Vec<u8> {
    record(kind, &page_body(space, 0, rest))
}

/// Appends a mini-transaction to a log that began at `FIRST`.
fn append(log: &mut Vec<u8>, geometry: Geometry, records: &[Vec<u8>], nonce: Option<[u8; 8]>) {
    let bytes = records.concat();
    let marker = Lsn(FIRST.0 + (log.len() + bytes.len()) as u64);
    log.extend_from_slice(&bytes);
    log.push(geometry.sequence_bit(marker));
    let mut crc = crc32c(&bytes);
    if let Some(nonce) = nonce {
        log.extend_from_slice(&nonce);
        crc = crc32c_append(crc, &nonce);
    }
    log.extend_from_slice(&crc.to_be_bytes());
}

fn geometry(capacity: u64) -> Geometry {
    Geometry { first_lsn: FIRST, capacity }
}

#[test]
fn numbers_at_their_borders() {
    for value in [0, 0x7f, 0x80, 0x407f, 0x4080, 0x20_407f, 0x20_4080, 0x1020_407f, 0x1020_4080, u32::MAX] {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, value);
        assert_eq!(varint(&bytes), Some((value, bytes.len())), "{value:#x}");
        assert_eq!(varint(&bytes[..bytes.len() - 1]), None);
    }
    assert_eq!(varint(&[0xf1, 0, 0, 0, 0]), None);
    assert_eq!(varint(&[0xf0, 0xff, 0xff, 0xff, 0xff]), None, "more than 32 bits");
}

#[test]
fn every_kind_of_record() {
    let records = [
        file_record(0x80, 5, b"./a/b.ibd"),
        file_record(0x90, 6, b"./a/a-table-with-a-long-name.ibd"),
        file_record(0xa0, 7, b"./a/b.ibd\0./a/c.ibd"),
        file_record(0xb0, 300, b"./a/d.ibd"),
        file_record(0xf0, 0, &77u64.to_be_bytes()),
        record(0x10, &page_body(9, 70000, &[])),
        record(0xb0, &[1, 2, 3]),
        record(0x00, &page_body(9, 4, &[])),
        record(0x20, &page_body(3, 640, &[10])),
    ];
    let mut log = Vec::new();
    append(&mut log, geometry(1 << 20), &records, None);
    let mut reader = MtrReader::new(geometry(1 << 20), false, FIRST);
    reader.feed(&log);
    let mtr = reader.next_mtr().unwrap().unwrap();
    let seen: Vec<_> = mtr.records().map(Result::unwrap).collect();
    let (space, page) = (SpaceId(9), PageNo(70000));
    assert_eq!(
        seen,
        [
            Record::File(FileEvent::Create { space: Some(SpaceId(5)), name: Some(b"./a/b.ibd") }),
            Record::File(FileEvent::Delete {
                space: Some(SpaceId(6)),
                name: Some(b"./a/a-table-with-a-long-name.ibd")
            }),
            Record::File(FileEvent::Rename {
                space: Some(SpaceId(7)),
                names: Some((b"./a/b.ibd", b"./a/c.ibd"))
            }),
            Record::File(FileEvent::Modify { space: Some(SpaceId(300)), name: Some(b"./a/d.ibd") }),
            Record::File(FileEvent::Checkpoint { lsn: Some(Lsn(77)) }),
            Record::InitPage { space, page },
            Record::Page { space, page },
            Record::FreePage { space, page: PageNo(4) },
            Record::TrimPages { space: SpaceId(3), pages: PageNo(640) },
        ]
    );
    assert_eq!(mtr.file_events().count(), 5);
    assert_eq!(mtr.end, Lsn(FIRST.0 + log.len() as u64));
}

#[test]
fn faults_have_a_place() {
    let mut log = Vec::new();
    append(&mut log, geometry(1 << 20), &[record(0x30, &page_body(1, 2, b"xyz"))], None);
    let fault = |log: &[u8], capacity| {
        let mut reader = MtrReader::new(geometry(capacity), false, FIRST);
        reader.feed(log);
        reader.next_mtr().unwrap_err()
    };
    assert_eq!(fault(&[0], 1 << 20).kind, BadMtrKind::Empty);
    assert_eq!(fault(&[0x30, 0xff, 0, 0, 0, 0, 0], 1 << 20).kind, BadMtrKind::Record);
    assert_eq!(fault(&[0x30, 0xf0, 0xe0, 0, 0, 0], 1 << 20).kind, BadMtrKind::TooLong);
    let lap = fault(&log, 6);
    assert_eq!((lap.kind, lap.at), (BadMtrKind::Lap, Lsn(FIRST.0 + 6)));
    log[3] ^= 1;
    assert_eq!(fault(&log, 1 << 20).kind, BadMtrKind::Checksum);
}

#[test]
fn a_flat_log_reads_from_its_checkpoint() {
    let donor =
        RedoHeader { format: RedoFormat::Circular, first_lsn: FIRST, creator: "MariaDB 10.11.19".into() };
    let checkpoint = Checkpoint { lsn: Lsn(1_000_001), end_lsn: Lsn(1_000_500) };
    let flat = FlatLog::new(checkpoint);
    let head = flat.head(&donor.emit().unwrap(), "rejoin").unwrap();
    let header = RedoHeader::parse(&head).unwrap();
    assert_eq!((header.first_lsn, header.creator.as_str()), (Lsn(999_424), "Backup rejoin"));
    assert_eq!(Checkpoint::newest(&head), Ok(checkpoint));
    assert_eq!(flat.offset(checkpoint.lsn), Some(12288 + 577));
    assert_eq!(flat.offset(Lsn(999_423)), None);
    assert!(flat.file_size(Lsn(4_000_000)) > 19 << 20);
    assert!(flat.head(&donor.emit().unwrap(), "a name that is much too long").is_err());
}

#[test]
fn the_key_information_of_an_encrypted_log_is_kept() {
    let mut block = vec![0x5a; 512];
    block[..4].copy_from_slice(&0x5068_7973u32.to_be_bytes());
    let crc = crc32c(&block[..508]);
    block[508..].copy_from_slice(&crc.to_be_bytes());
    let flat = FlatLog::new(Checkpoint { lsn: Lsn(50_000), end_lsn: Lsn(50_000) });
    let head = flat.head(&block, "rejoin").unwrap();
    let header = RedoHeader::parse(&head).unwrap();
    assert_eq!((header.format, header.first_lsn), (RedoFormat::CircularEncryptedUnmarked, Lsn(49_152)));
    assert_eq!(head[48..508], block[48..508]);
}

fn any_records() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
    let body = (0u32..100_000, any::<u32>(), prop::collection::vec(any::<u8>(), 0..60));
    // A first record names its page; the next ones may be about the same page.
    let record = (0x20u8..0x80, body, any::<bool>());
    let mtr = prop::collection::vec(record, 1..6).prop_map(|records| {
        let each = records.into_iter().enumerate().map(|(at, (kind, (space, page, rest), same))| {
            let kind = kind & 0x70;
            match same && at > 0 && !rest.is_empty() {
                true => record_of_same_page(kind, &rest),
                false => super::tests::record(kind, &page_body(space, page, &rest)),
            }
        });
        each.collect()
    });
    prop::collection::vec(mtr, 1..20)
}

fn record_of_same_page(kind: u8, rest: &[u8]) -> Vec<u8> {
    record(0x80 | kind, rest)
}

proptest! {
    #[test]
    fn any_cut_of_any_log_gives_the_same(
        mtrs in any_records(), cuts in prop::collection::vec(1usize..40, 1..30),
        capacity in 30u64..2000, nonce: Option<[u8; 8]>
    ) {
        let geometry = geometry(capacity);
        let mut log = Vec::new();
        for records in &mtrs {
            append(&mut log, geometry, records, nonce);
        }
        let mut reader = MtrReader::new(geometry, nonce.is_some(), FIRST);
        let (mut at, mut flat, mut count) = (0, Vec::new(), 0);
        for cut in cuts.iter().cycle() {
            prop_assert_eq!(reader.wants(), Lsn(FIRST.0 + at as u64));
            let part = &log[at..log.len().min(at + cut)];
            reader.feed(part);
            at += part.len();
            while let Some(mtr) = reader.next_mtr().unwrap() {
                prop_assert_eq!(mtr.records().filter(Result::is_ok).count(), mtrs[count].len());
                prop_assert_eq!(mtr.records().filter(Result::is_err).count(), 0);
                push_mtr(&mut flat, &mtr);
                count += 1;
            }
            if at == log.len() {
                break;
            }
        }
        prop_assert_eq!(count, mtrs.len());
        prop_assert_eq!(reader.at(), Lsn(FIRST.0 + log.len() as u64));
        // The flat log reads with an endless first lap, and only end markers differ.
        let mut again = MtrReader::new(super::super::redo_mtr::Geometry { first_lsn: FIRST, capacity: u64::MAX }, nonce.is_some(), FIRST);
        again.feed(&flat);
        let mut read = 0;
        while again.next_mtr().unwrap().is_some() {
            read += 1;
        }
        prop_assert_eq!(read, count);
        prop_assert!(flat.iter().zip(&log).filter(|(a, b)| a != b).count() <= count);
    }

    #[test]
    fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), first: u64, capacity: u64, at: u64, encrypted: bool) {
        let geometry = Geometry { first_lsn: Lsn(first), capacity };
        let _ = (geometry.offset(Lsn(at)), geometry.sequence_bit(Lsn(at)));
        let mut reader = MtrReader::new(geometry, encrypted, Lsn(at >> 1));
        reader.feed(&bytes);
        for _ in 0..4 {
            if let Ok(Some(mtr)) = reader.next_mtr() {
                let _ = mtr.records().count();
            }
        }
        let _ = Records::new(&bytes, encrypted).count();
        let _ = FlatLog::new(Checkpoint { lsn: Lsn(at), end_lsn: Lsn(at) }).head(&bytes, "x");
    }
}
