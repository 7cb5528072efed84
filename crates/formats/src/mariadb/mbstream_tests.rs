use std::collections::BTreeMap;

use crc32fast::Hasher;
use proptest::prelude::*;

use super::*;

/// What `mbstream -c d/a.txt d/empty z` of 10.11.19 wrote: "hello", nothing, and 30 zeros.
const REAL: &[u8] = include_bytes!("../../tests/data/mbstream-10.11.19.bin");

fn head(kind: u8, flags: u8, path: &str) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend([flags, kind]);
    bytes.extend((path.len() as u32).to_le_bytes());
    bytes.extend(path.as_bytes());
    bytes
}

fn numbers(payload: &[u8], offset: u64, map: &[u8]) -> Vec<u8> {
    let mut hasher = Hasher::new();
    hasher.update(map);
    hasher.update(payload);
    let mut bytes = (payload.len() as u64).to_le_bytes().to_vec();
    bytes.extend(offset.to_le_bytes());
    bytes.extend(hasher.finalize().to_le_bytes());
    bytes
}

fn payload(path: &str, offset: u64, data: &[u8]) -> Vec<u8> {
    [head(b'P', 0, path), numbers(data, offset, &[]), data.to_vec()].concat()
}

fn sparse(path: &str, offset: u64, holes: &[(u32, u32)], data: &[u8]) -> Vec<u8> {
    let map: Vec<u8> =
        holes.iter().flat_map(|(skip, len)| [skip.to_le_bytes(), len.to_le_bytes()].concat()).collect();
    let count = (holes.len() as u32).to_le_bytes().to_vec();
    [head(b'S', 0, path), count, numbers(data, offset, &map), map, data.to_vec()].concat()
}

/// The files of a stream that is read in pieces of these lengths, over and over.
fn files(stream: &[u8], pieces: &[usize]) -> Result<BTreeMap<String, Vec<u8>>, MbstreamError> {
    read_files(Decoder::of_xtrabackup(), stream, pieces)
}

/// As a program does that extracts them.
fn read_files(
    mut decoder: Decoder,
    stream: &[u8],
    pieces: &[usize],
) -> Result<BTreeMap<String, Vec<u8>>, MbstreamError> {
    let (mut files, mut done) = (BTreeMap::<String, Vec<u8>>::new(), Vec::new());
    let (mut rest, mut pieces) = (stream, pieces.iter().cycle());
    while !rest.is_empty() {
        let next = (*pieces.next().unwrap()).clamp(1, rest.len());
        let (mut input, later) = rest.split_at(next);
        rest = later;
        while let Some(event) = decoder.next(&mut input)? {
            let path = decoder.path().to_owned();
            match event {
                Event::Removed => {
                    done.retain(|done| *done != path);
                    files.remove(&path).unwrap();
                    continue;
                }
                Event::Renamed => {
                    done.retain(|done| *done != path);
                    let file = files.remove(&path).unwrap();
                    files.insert(decoder.new_path().to_owned(), file);
                    continue;
                }
                Event::Chunk { replaces: true } if done.contains(&path) => {
                    done.retain(|done| *done != path);
                    files.insert(path.clone(), Vec::new());
                }
                _ => {}
            }
            assert!(!done.contains(&path), "{event:?} after the end");
            let file = files.entry(path).or_default();
            match event {
                Event::Chunk { .. } | Event::Removed | Event::Renamed => {}
                Event::Data { offset, bytes } => {
                    assert!(!bytes.is_empty());
                    let end = offset as usize + bytes.len();
                    file.resize(file.len().max(end), 0);
                    file[offset as usize..end].copy_from_slice(bytes);
                }
                Event::ChunkEnd { end } => file.resize(file.len().max(end as usize), 0),
                Event::FileEnd => done.push(decoder.path().to_owned()),
            }
        }
        assert!(input.is_empty());
    }
    assert!(decoder.is_between_chunks());
    Ok(files)
}

fn error(stream: &[u8]) -> MbstreamError {
    error_of(Decoder::new(), stream)
}

fn error_of(mut decoder: Decoder, stream: &[u8]) -> MbstreamError {
    let mut input = stream;
    loop {
        match decoder.next(&mut input) {
            Ok(Some(_)) => {}
            Ok(None) => panic!("no error in {stream:?}"),
            Err(error) => {
                assert_eq!(decoder.next(&mut &b"XBSTCK01"[..]), Err(error.clone()), "it stays broken");
                assert!(!decoder.is_between_chunks());
                return error;
            }
        }
    }
}

#[test]
fn a_real_stream() {
    for pieces in [&[1][..], &[7, 3], &[usize::MAX]] {
        let files = files(REAL, pieces).unwrap();
        let names: Vec<_> = files.keys().map(String::as_str).collect();
        assert_eq!(names, ["d/a.txt", "d/empty", "z"]);
        assert_eq!((&files["d/a.txt"][..], &files["d/empty"][..]), (&b"hello"[..], &b""[..]));
        assert_eq!(files["z"], [0; 30]);
    }
}

/// The example of an 'S' in XtraBackup's documentation, with its own header and another payload.
#[test]
fn a_chunk_with_holes() {
    let holes = [(0, 16474), (16294, 152), (16232, 1450), (14934, 147), (16237, 32768)];
    let data: Vec<u8> = (0..50991u32).map(|n| (n % 251) as u8 + 1).collect();
    let stream = [sparse("test/t1.ibd", 0, &holes, &data), head(b'E', 0, "test/t1.ibd")].concat();
    assert_eq!(stream[14..25], *b"test/t1.ibd");
    assert_eq!(stream[25..33], [5, 0, 0, 0, 0x2f, 0xc7, 0, 0]);
    assert_eq!(stream[49..57], [0, 0, 0, 0, 0x5a, 0x40, 0, 0]);
    for pieces in [&[1][..], &[4096], &[usize::MAX]] {
        let file = &files(&stream, pieces).unwrap()["test/t1.ibd"];
        assert_eq!(file.len(), 50991 + 16294 + 16232 + 14934 + 16237);
        assert_eq!((&file[..16474], file[16474]), (&data[..16474], 0));
        assert_eq!(file[16474 + 16294..][..152], data[16474..][..152]);
        assert_eq!(file[file.len() - 32768..], data[data.len() - 32768..]);
    }
    // A hole at the end.
    let stream = sparse("t", 10, &[(0, 1), (5, 0)], b"x");
    assert_eq!(files(&stream, &[3]).unwrap()["t"], *b"\0\0\0\0\0\0\0\0\0\0x\0\0\0\0\0");
}

#[test]
fn chunks_of_files_alternate() {
    let stream = [
        payload("./ibdata1", 0, b"ab"),
        payload("d/t.ibd", 0, b"x"),
        payload("./ibdata1", 2, b"cd"),
        head(b'E', 0, "d/t.ibd"),
        [head(b'?', IGNORABLE, "whatever"), numbers(b"skipped", 0, &[]), b"skipped".to_vec()].concat(),
        head(b'E', 0, "./ibdata1"),
    ]
    .concat();
    let files = files(&stream, &[5]).unwrap();
    assert_eq!((&files["ibdata1"][..], &files["d/t.ibd"][..]), (&b"abcd"[..], &b"x"[..]));
}

/// Each of these was tried with `mbstream -x` of 10.11.19.
#[test]
fn files_are_removed_renamed_replaced_and_written_to_elsewhere() {
    let new = |path: &str| [(path.len() as u32).to_le_bytes().to_vec(), path.as_bytes().to_vec()].concat();
    let mut replaced = payload("d/again", 0, b"q");
    replaced[8] = 2;
    let stream = [
        payload("d/gone", 0, b"xyz"),
        head(b'E', 0, "d/gone"),
        payload("d/old", 0, b"xyz"),
        head(b'E', 0, "d/old"),
        payload("d/again", 0, b"xyz"),
        head(b'E', 0, "d/again"),
        payload("d/seek", 0, b"xyz"),
        [head(b'S', 0, "d/seek"), 1u64.to_le_bytes().to_vec()].concat(),
        payload("d/seek", 1, b"Q"),
        head(b'E', 0, "d/seek"),
        head(b'D', 0, "d/gone"),
        [head(b'R', 0, "d/old"), new("./d/new")].concat(),
        replaced,
        head(b'E', 0, "d/again"),
    ]
    .concat();
    for pieces in [&[1][..], &[13], &[usize::MAX]] {
        let files = read_files(Decoder::new(), &stream, pieces).unwrap();
        let read: Vec<_> = files.iter().map(|(path, bytes)| (path.as_str(), &bytes[..])).collect();
        assert_eq!(read, [("d/again", &b"q"[..]), ("d/new", b"xyz"), ("d/seek", b"xQz")]);
    }
    for bad in ["", "../x", "/x"] {
        assert!(
            matches!(error(&[head(b'R', 0, "d/old"), new(bad)].concat()), MbstreamError::Path(_)),
            "{bad:?}"
        );
    }
    let long = [head(b'R', 0, "d/old"), (PATH_BYTES_MAX as u32 + 1).to_le_bytes().to_vec()].concat();
    assert!(matches!(error(&long), MbstreamError::Path(_)));
}

#[test]
fn what_is_no_stream() {
    assert_eq!(error(b"mariadb-backup: unknown option"), MbstreamError::Magic { at: 0 });
    let second = [payload("t", 0, b"x"), b"XBSTCK02".to_vec()].concat();
    assert_eq!(error(&second), MbstreamError::Magic { at: second.len() as u64 - 8 });
    assert_eq!(error(&head(b'?', 0, "t")), MbstreamError::Kind { at: 0, kind: b'?' });
    for path in ["", "/etc/passwd", "../up", "d/../../up", "d//t", "d/.", "a\nb", "a\0b"] {
        assert!(matches!(error(&payload(path, 0, b"x")), MbstreamError::Path(_)), "{path:?}");
    }
    let long = "x".repeat(PATH_BYTES_MAX + 1);
    assert!(matches!(error(&payload(&long, 0, b"x")), MbstreamError::Path(_)));
    assert!(matches!(error(&payload("t", u64::MAX, b"x")), MbstreamError::Numbers { .. }));
    assert!(matches!(
        error_of(Decoder::of_xtrabackup(), &sparse("t", 0, &[(1, 2)], b"x")),
        MbstreamError::Numbers { .. }
    ));
    assert!(matches!(
        error_of(Decoder::of_xtrabackup(), &sparse("t", i64::MAX as u64 - 1, &[(9, 1)], b"x")),
        MbstreamError::Numbers { .. }
    ));
    let many = [head(b'S', 0, "t"), (HOLES_MAX + 1).to_le_bytes().to_vec()].concat();
    assert!(matches!(error_of(Decoder::of_xtrabackup(), &many), MbstreamError::Numbers { .. }));
    let mut damaged = payload("t", 0, b"xyz");
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(error(&damaged), MbstreamError::Checksum { path: "t".to_owned(), end: 3 });
}

#[test]
fn a_stream_that_breaks_off_is_not_between_chunks() {
    let stream = [payload("t", 0, b"xyz"), head(b'E', 0, "t")].concat();
    for cut in 0..stream.len() {
        let (mut decoder, mut input) = (Decoder::new(), &stream[..cut]);
        while decoder.next(&mut input).unwrap().is_some() {}
        let whole = cut == 0 || cut == stream.len() - 15;
        assert_eq!(decoder.is_between_chunks(), whole, "{cut}");
    }
}

/// A chunk, and what it says about its file.
fn any_chunk() -> impl Strategy<Value = (String, u64, Vec<(u32, u32)>, Vec<u8>)> {
    let holes = proptest::collection::vec((0u32..50, 0u32..50), 0..4);
    ("[a-c]/[t-v]\\.ibd", 0u64..200, holes, proptest::collection::vec(any::<u8>(), 0..100))
}

proptest! {
    #[test]
    fn what_is_read_is_what_was_written(
        chunks in proptest::collection::vec(any_chunk(), 0..12),
        pieces in proptest::collection::vec(1usize..64, 1..5),
    ) {
        let (mut stream, mut expected) = (Vec::new(), BTreeMap::<String, Vec<u8>>::new());
        for (path, offset, holes, data) in chunks {
            let file = expected.entry(path.clone()).or_default();
            let (mut at, mut from) = (offset as usize, 0);
            let data = if holes.is_empty() {
                stream.extend(payload(&path, offset, &data));
                file.resize(file.len().max(at + data.len()), 0);
                file[at..at + data.len()].copy_from_slice(&data);
                continue;
            } else {
                let len = holes.iter().map(|(_, len)| *len as usize).sum();
                data.iter().copied().chain(std::iter::repeat(7)).take(len).collect::<Vec<u8>>()
            };
            stream.extend(sparse(&path, offset, &holes, &data));
            for (skip, len) in holes {
                at += skip as usize;
                file.resize(file.len().max(at + len as usize), 0);
                file[at..at + len as usize].copy_from_slice(&data[from..from + len as usize]);
                (at, from) = (at + len as usize, from + len as usize);
            }
        }
        for path in expected.keys() {
            stream.extend(head(b'E', 0, path));
        }
        prop_assert_eq!(files(&stream, &pieces).unwrap(), expected);
    }

    #[test]
    fn pieces_make_no_difference(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        real in 0..REAL.len(),
        pieces in proptest::collection::vec(1usize..16, 1..5),
    ) {
        // A real stream that goes wrong somewhere.
        let stream = [&REAL[..real], &bytes].concat();
        let read = |pieces: &[usize]| {
            let (mut decoder, mut at, mut read) = (Decoder::new(), 0, Vec::new());
            for piece in pieces.iter().cycle() {
                let end = stream.len().min(at + piece);
                let mut input = &stream[at..end];
                loop {
                    match decoder.next(&mut input) {
                        Ok(Some(Event::Data { offset, bytes })) => {
                            read.extend(bytes.iter().zip(offset..).map(|(byte, at)| format!("{at} {byte}")));
                        }
                        Ok(Some(event)) => read.push(format!("{event:?} {}", decoder.path())),
                        Ok(None) => break,
                        Err(error) => {
                            read.push(format!("{error:?}"));
                            return read;
                        }
                    }
                }
                at = end;
                if at == stream.len() {
                    break;
                }
            }
            read
        };
        let whole = read(&[stream.len().max(1)]);
        prop_assert_eq!(read(&pieces), whole);
    }
}
