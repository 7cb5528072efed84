//! A backup stream, read as a whole and in pieces: the first byte says how long these are.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rejoin_formats::mariadb::mbstream::{Decoder, Event, MbstreamError, PATH_BYTES_MAX};

/// What it says, with the bytes one by one: how they are cut depends on the pieces.
fn read(stream: &[u8], piece: usize, xtrabackup: bool) -> (Vec<(String, u64, Option<u8>)>, Option<MbstreamError>) {
    let mut said = Vec::new();
    let mut decoder = if xtrabackup { Decoder::of_xtrabackup() } else { Decoder::new() };
    for mut input in stream.chunks(piece) {
        loop {
            let event = match decoder.next(&mut input) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(error) => return (said, Some(error)),
            };
            let path = decoder.path().to_owned();
            assert!((1..=PATH_BYTES_MAX).contains(&path.len()) && !path.starts_with('/'));
            match event {
                Event::Data { offset, bytes } => {
                    said.extend(bytes.iter().zip(offset..).map(|(byte, at)| (path.clone(), at, Some(*byte))));
                }
                Event::Chunk { replaces } => said.push((path, u64::MAX - 1 - u64::from(replaces), None)),
                Event::Removed => said.push((path, u64::MAX - 3, None)),
                Event::Renamed => said.push((format!("{path} {}", decoder.new_path()), u64::MAX - 4, None)),
                Event::ChunkEnd { end } => said.push((path, end, None)),
                Event::FileEnd => said.push((path, u64::MAX, None)),
            }
        }
        assert!(input.is_empty());
    }
    (said, None)
}

fuzz_target!(|data: &[u8]| {
    let Some((&piece, stream)) = data.split_first() else { return };
    for xtrabackup in [false, true] {
        let whole = read(stream, stream.len().max(1), xtrabackup);
        assert_eq!(read(stream, usize::from(piece) + 1, xtrabackup), whole);
    }
});
