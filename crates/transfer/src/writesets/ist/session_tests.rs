//! A provider, a donor and strangers, played by threads on loopback: what the provider reads is what it must read.
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use formats::galera::gcache::Action;
use formats::galera::ist::{Header, Kind};

use super::super::spool::Spool;
use super::*;

const HISTORY: Uuid = Uuid([9; 16]);

fn skip(seqno: i64) -> [u8; HEADER_LEN] {
    Header::of_action(11, Seqno(seqno), Action::WriteSet, true, 0).unwrap().encode()
}

fn plain(kind: Kind, control: i8) -> [u8; HEADER_LEN] {
    Header::plain(11, kind, control).encode()
}

/// Greets one peer, lets it go on, and reads until the end of its IST.
fn provider(listener: &TcpListener) -> Vec<i64> {
    let (mut peer, _) = listener.accept().unwrap();
    peer.write_all(&plain(Kind::Handshake, 0)).unwrap();
    let mut next = || {
        let mut head = [0; HEADER_LEN];
        peer.read_exact(&mut head).unwrap();
        Header::parse(&head).unwrap()
    };
    assert_eq!(next().kind, Kind::HandshakeResponse);
    let mut seqnos = Vec::new();
    loop {
        let header = next();
        match header.kind {
            Kind::Control => return seqnos,
            _ => seqnos.push(header.seqno.0),
        }
    }
}

/// What a provider sends that begins with `from`.
fn donor(mut to: TcpStream, from: i64) {
    let mut hello = [0; HEADER_LEN];
    to.read_exact(&mut hello).unwrap();
    assert_eq!(hello, plain(Kind::Handshake, 0));
    let mut all = plain(Kind::HandshakeResponse, 0).to_vec();
    (from..from + 5).for_each(|seqno| all.extend(skip(seqno)));
    all.extend(plain(Kind::Control, 1));
    // Cut anywhere.
    all.chunks(17).for_each(|bytes| to.write_all(bytes).unwrap());
    // Waits for the joiner to close.
    let _ = to.read(&mut hello);
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0, there)
}

/// Plays one IST; answers what the provider read, and the first seqno that was told.
fn played(dir: &Path, from: i64, verdict: Verdict, strangers: usize) -> (Vec<i64>, Option<i64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let (verdicts, cancel) = (Verdicts::new(), Cancel::new());
    let told = Mutex::new(None);
    let first = |seqno: Seqno| {
        *lock(&told) = Some(seqno.0);
        verdicts.set(verdict);
    };
    let session = Session { datadir: dir, verdicts: &verdicts, cancel: &cancel, first: &first };
    let read = std::thread::scope(|scope| {
        let provider = scope.spawn(|| provider(&listener));
        let mut greeting = Greeting::of(at, &cancel).unwrap().unwrap();
        for _ in 0..strangers {
            let (here, mut there) = pair();
            there.write_all(b"GET / HTTP/1.1\r\nHost: joiner\r\n\r\n").unwrap();
            match session.run(greeting, &here, || panic!("a stranger")).unwrap() {
                Ended::Stranger(kept, _) => greeting = kept,
                ended @ Ended::Over(_) => panic!("{ended:?}"),
            }
        }
        let (here, there) = pair();
        scope.spawn(move || donor(there, from));
        let ended = session.run(greeting, &here, || {}).unwrap();
        assert!(matches!(ended, Ended::Over(_)), "{ended:?}");
        provider.join().unwrap()
    });
    let told = *lock(&told);
    (read, told)
}

fn at(seqno: i64) -> StateId {
    format!("{HISTORY}:{seqno}").parse().unwrap()
}

#[test]
fn write_sets_come_before_the_donors_own_and_strangers_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("grastate.dat"), format!("uuid: {HISTORY}\nseqno: -1\n")).unwrap();
    trust::write_note(dir.path(), at(3)).unwrap();
    let mut spool = Spool::open(dir.path(), HISTORY, Seqno(1)).unwrap();
    (2..=9).for_each(|seqno| spool.take(&skip(seqno)).unwrap());
    spool.finish(Seqno(9)).unwrap();
    let (read, told) = played(dir.path(), 8, Verdict::Splice(at(3)), 2);
    assert_eq!((read, told), ((4..=12).collect(), Some(8)));
    assert!(trust::position_noted(dir.path()).is_none(), "write-sets were passed on");
}

#[test]
fn ist_passes_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(played(dir.path(), 8, Verdict::Through, 0), ((8..=12).collect(), Some(8)));
    std::fs::write(dir.path().join("grastate.dat"), format!("uuid: {HISTORY}\nseqno: -1\n")).unwrap();
    // Nothing is missing: no spool is looked for.
    assert_eq!(played(dir.path(), 8, Verdict::Splice(at(7)), 0), ((8..=12).collect(), Some(8)));
}

#[test]
fn nobody_is_greeted_where_no_ist_is_expected() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    drop(listener);
    assert!(Greeting::of(at, &Cancel::new()).unwrap().is_none());
}
