//! The packets with which a client logs in to a server, as far as a program between the two needs them to put TLS around the
//! login: the client behind it knows nothing of TLS.
//!
//! From sql/sql_acl.cc (`send_server_handshake_packet`, `parse_client_handshake_packet`, MariaDB 10.11): a packet has a header of
//! three bytes of length and one with its number. The server greets; a client that wants TLS answers with the first 32 bytes
//! of its answer, begins TLS, and sends the whole answer in it with the next number.

/// Bytes of a packet's header.
pub const HEADER_LEN: usize = 4;
/// The longest packet of a login that is read. Servers and clients send some hundred bytes.
pub const LOGIN_PACKET_MAX: usize = 16 << 10;
/// The part of a client's answer that asks for TLS.
const REQUEST_LEN: usize = 32;
/// In the second byte of the capabilities: the server offers TLS, or the client takes it.
const CLIENT_SSL: u8 = 0x08;
/// In the same byte: the answer has the form that all of this needs.
const CLIENT_PROTOCOL_41: u8 = 0x02;

/// Length of the payload, and the number of the packet.
pub fn header(bytes: [u8; HEADER_LEN]) -> (usize, u8) {
    let [a, b, c, number] = bytes;
    (u32::from_le_bytes([a, b, c, 0]) as usize, number)
}

/// The packet with this number and payload, which is shorter than [`LOGIN_PACKET_MAX`].
pub fn packet(number: u8, payload: &[u8]) -> Vec<u8> {
    let [a, b, c, _] = (payload.len() as u32).to_le_bytes();
    [&[a, b, c, number], payload].concat()
}

/// Takes the offer of TLS out of a server's greeting. Returns whether there was one; `None` if it is no greeting, but an error.
pub fn take_offer(greeting: &mut [u8]) -> Option<bool> {
    if greeting.first() != Some(&10) {
        return None;
    }
    let version = greeting.get(1..)?.iter().position(|byte| *byte == 0)?;
    // Behind the version: the session's number, half of the nonce, a zero, the lower half of the capabilities.
    let flags = greeting.get_mut(1 + version + 1 + 4 + 8 + 1 + 1)?;
    let offered = *flags & CLIENT_SSL != 0;
    *flags &= !CLIENT_SSL;
    Some(offered)
}

/// Marks a client's answer as one that is sent in TLS, and returns the request that goes before it. `None` if it is no answer that
/// can be sent in TLS.
pub fn request_tls(answer: &mut [u8]) -> Option<[u8; REQUEST_LEN]> {
    if answer.len() < REQUEST_LEN {
        return None;
    }
    let flags = answer.get_mut(1).filter(|flags| **flags & CLIENT_PROTOCOL_41 != 0)?;
    *flags |= CLIENT_SSL;
    answer.get(..REQUEST_LEN)?.try_into().ok()
}

/// What a server's packet means for a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The client is in.
    Done,
    /// It is not, and the server closes.
    Refused,
    /// The client is asked for its password itself, not for a proof that it knows it.
    AsksForPassword,
    /// The login goes on.
    GoesOn,
}

/// What a packet of the server means, after its greeting.
pub fn step(payload: &[u8]) -> Step {
    match payload {
        [0x00, ..] => Step::Done,
        [0xff, ..] => Step::Refused,
        // `caching_sha2_password`: the full login. The client would send its password, encrypted with whatever key it is shown.
        [0x01, 0x04] => Step::AsksForPassword,
        _ => Step::GoesOn,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As MariaDB 10.11 sends it, with and without TLS.
    fn greeting(flags: u8) -> Vec<u8> {
        let mut bytes = b"\x0a5.5.5-10.11.19-MariaDB\0".to_vec();
        bytes.extend([9, 0, 0, 0]);
        bytes.extend(*b"12345678\0");
        bytes.extend([0xfe, flags, 8, 2, 0]);
        bytes
    }

    #[test]
    fn an_offer_is_taken_out() {
        let mut with = greeting(0xff);
        assert_eq!(take_offer(&mut with), Some(true));
        assert_eq!(with, greeting(0xf7));
        assert_eq!(take_offer(&mut with), Some(false));
        assert_eq!(take_offer(&mut b"\xff\x10\x04Too many connections".to_vec()), None);
        assert_eq!(take_offer(&mut b"\x0a5.5.5-10.11".to_vec()), None);
    }

    #[test]
    fn a_request_is_the_head_of_the_answer() {
        let mut answer = [&[0x85, 0xa6, 0x0f, 0][..], &[1; 40]].concat();
        let request = request_tls(&mut answer).unwrap();
        assert_eq!((request[1], answer[1]), (0xae, 0xae));
        assert_eq!(request, answer[..32]);
        assert_eq!(request_tls(&mut [0xff; 31]), None);
        assert_eq!(request_tls(&mut [0; 40]), None, "an answer of the form before 4.1");
    }

    #[test]
    fn only_a_full_login_of_sha2_asks_for_the_password() {
        for (payload, means) in [
            (&[0, 0, 0, 2, 0, 0, 0][..], Step::Done),
            (b"\xff\x15\x04#28000Access denied", Step::Refused),
            (&[1, 4], Step::AsksForPassword),
            (&[1, 3], Step::GoesOn),
            (&[1, 4, 0], Step::GoesOn),
            (b"\xfeclient_ed25519\0", Step::GoesOn),
            (&[], Step::GoesOn),
        ] {
            assert_eq!(step(payload), means, "{payload:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..100), number: u8) {
            let _ = step(&bytes);
            let sent = packet(number, &bytes);
            let head = sent[..HEADER_LEN].try_into().unwrap();
            prop_assert_eq!(header(head), (bytes.len(), number));
            let _ = request_tls(&mut bytes);
            let _ = take_offer(&mut bytes);
            let mut greeting = [&[10], bytes.as_slice()].concat();
            let _ = take_offer(&mut greeting);
        }
    }
}
