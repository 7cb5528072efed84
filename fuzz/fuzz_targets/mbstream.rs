//! A backup stream, read as a whole and in pieces: the first byte says how long these are.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rejoin_formats::mariadb::mbstream::{Decoder, Event, MbstreamError, PATH_BYTES_MAX};

/// What it says, with the bytes one by one: how they are cut depends on the pieces.
fn read(stream: &[u8], piece: usize) -> (Vec<(String, u64, Option<u8>)>, Option<MbstreamError>) {
    let (mut decoder, mut said) = (Decoder::new(), Vec::new());
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
                Event::Chunk => said.push((path, u64::MAX - 1, None)),
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
    let whole = read(stream, stream.len().max(1));
    assert_eq!(read(stream, usize::from(piece) + 1), whole);
});
