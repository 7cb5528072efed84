//! What a peer sends: greetings, frames, and the paths and parts in them.
#![no_main]
use libfuzzer_sys::fuzz_target;
use rejoin_protocol::codec::{self, Lengths, PREFIX_BYTES};
use rejoin_protocol::hello::{GREETING_BYTES, Greeting, HELLO_BYTES, Hello};
use rejoin_protocol::message::Message;

fuzz_target!(|bytes: &[u8]| {
    if let Some((head, tail)) = bytes.split_first_chunk::<HELLO_BYTES>() {
        let _ = Hello::decode(head, tail);
    }
    if let Some((head, tail)) = bytes.split_first_chunk::<GREETING_BYTES>() {
        let _ = Greeting::tail_len(head);
        let _ = Greeting::decode(head, tail);
    }
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_BYTES>() else { return };
    let Ok(lengths) = codec::lengths(*prefix) else { return };
    let Ok(message) = codec::decode(rest, Lengths { payload: 0, ..lengths }) else { return };
    match &message {
        Message::Files(files) | Message::CompareFiles(files) | Message::CompareGroups(files) => files.iter().for_each(|f| {
            if f.check().is_ok() {
                assert!(!f.path.split('/').any(|part| part == ".."));
            }
        }),
        Message::Chunk(chunk) => {
            if let Ok((parts, literals)) = chunk.payload_len() {
                assert!(parts <= chunk.len && literals <= chunk.len - parts);
            }
        }
        _ => {}
    }
    let mut again = Vec::new();
    if codec::encode(&message, 0, &mut again).is_ok() {
        let (prefix, rest) = again.split_first_chunk::<PREFIX_BYTES>().expect("a prefix");
        let lengths = codec::lengths(*prefix).expect("lengths of ours");
        assert_eq!(codec::decode(rest, lengths).as_ref(), Ok(&message));
    }
});
