//! A donor's IST stream: the first byte says how much of a real conversation precedes the rest.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rejoin_formats::Seqno;
use rejoin_formats::galera::ist::{HEADER_LEN, Header, Kind};
use rejoin_formats::galera::splice::{Splice, Step};

fuzz_target!(|data: &[u8]| {
    let Some((&kind, rest)) = data.split_first() else { return };
    let mut stream = Vec::new();
    if kind & 1 != 0 {
        stream.extend(Header::plain(11, Kind::HandshakeResponse, 0).encode());
    }
    stream.extend(rest);
    if let Some(header) = rest.first_chunk().and_then(|head| Header::parse(head).ok()) {
        assert_eq!(header.encode(), rest[..HEADER_LEN]);
        let _ = header.check_payload(&rest[HEADER_LEN..]);
    }
    let (mut splice, mut left) = (Splice::new(), &stream[..]);
    for _ in 0..100 {
        match splice.next(left) {
            Ok(Step::Pass(n)) => left = &left[n..],
            Ok(Step::Hold(first)) if kind & 2 != 0 => {
                let inserts = splice.insert_from(Seqno(i64::from(kind)));
                assert_eq!(inserts, i64::from(kind) < first.0 - 1);
            }
            Ok(Step::Hold(_)) => splice.insert_nothing(),
            Ok(Step::Insert(from, to)) => {
                assert!(from <= to);
                let skip = Header { version: 11, kind: Kind::Skip, flags: 0, control: 0, len: 0, seqno: from };
                splice.inserted(&skip).expect("the one that is due");
            }
            Ok(Step::Read | Step::Through) | Err(_) => return,
        }
    }
});
