//! The first bytes of a connection, which never change.
use proptest::prelude::*;
use rejoin_protocol::hello::{
    Connection, GREETING_BYTES, Greeting, HELLO_BYTES, Hello, HelloError, choose_version,
};

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

proptest! {
    #[test]
    fn hello_comes_back(min in any::<u16>(), max in any::<u16>(), caps in any::<u64>(), number in any::<u16>(), run in any::<u64>(),
                        proof in any::<[u8; 32]>(), program in "[ -~]{0,300}") {
        let said = Hello { versions: (min, max), capabilities: caps, connection: Connection::Worker(number), run, proof, program };
        let bytes = said.encode();
        let (head, tail) = bytes.split_first_chunk::<HELLO_BYTES>().expect("head");
        prop_assert_eq!(Hello::tail_len(head), tail.len());
        let decoded = Hello::decode(head, tail).expect("decode");
        prop_assert_eq!(&decoded.proof, &said.proof);
        prop_assert_eq!((decoded.connection, decoded.run), (said.connection, run));
        prop_assert!(said.program.starts_with(&decoded.program));
    }

    #[test]
    fn no_bytes_make_the_decoders_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Some((head, tail)) = bytes.split_first_chunk::<HELLO_BYTES>() {
            let _ = Hello::decode(head, tail);
        }
        if let Some((head, tail)) = bytes.split_first_chunk::<GREETING_BYTES>() {
            let _ = Greeting::tail_len(head);
            let _ = Greeting::decode(head, tail);
        }
    }
}
