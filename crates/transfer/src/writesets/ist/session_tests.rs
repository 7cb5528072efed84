//! A provider, a donor and strangers, played by threads on loopback: what the provider reads is what it must read.
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;

use formats::galera::gcache::Action;
use formats::galera::ist::{Header, Kind};
use rustls::ServerConnection;

use super::super::callers;
use super::super::certificates::tests::Authority;
use super::super::spool::Spool;
use super::*;
use crate::server::ist_endpoints::{SocketCertificates, Transport};

const HISTORY: Uuid = Uuid([9; 16]);

fn skip(seqno: i64) -> [u8; HEADER_LEN] {
    Header::of_action(11, Seqno(seqno), Action::WriteSet, true, 0).unwrap().encode()
}

pub fn plain(kind: Kind, control: i8) -> [u8; HEADER_LEN] {
    Header::plain(11, kind, control).encode()
}

/// What a session runs on: nothing, or TLS with these.
pub type Encrypted<'a> = Option<&'a SocketTls>;

fn stream(socket: TcpStream, tls: Encrypted<'_>, serves: bool) -> Box<dyn ReadWrite> {
    let within = Duration::from_secs(20);
    socket.set_read_timeout(Some(within)).unwrap();
    match tls {
        None => Box::new(socket),
        Some(tls) if serves => {
            Box::new(rustls::StreamOwned::new(ServerConnection::new(tls.server.clone()).unwrap(), socket))
        }
        Some(tls) => {
            let name = ServerName::try_from("127.0.0.1").unwrap();
            Box::new(rustls::StreamOwned::new(
                ClientConnection::new(tls.client.clone(), name).unwrap(),
                socket,
            ))
        }
    }
}

trait ReadWrite: Read + Write + Send {}
impl<T: Read + Write + Send> ReadWrite for T {}

/// Greets one peer, lets it go on, and reads until the end of its IST.
pub fn provider(listener: &TcpListener, tls: Encrypted<'_>) -> Vec<i64> {
    let mut peer = stream(listener.accept().unwrap().0, tls, true);
    peer.write_all(&plain(Kind::Handshake, 0)).unwrap();
    let next = |peer: &mut dyn ReadWrite| {
        let mut head = [0; HEADER_LEN];
        peer.read_exact(&mut head).unwrap();
        Header::parse(&head).unwrap()
    };
    assert_eq!(next(&mut *peer).kind, Kind::HandshakeResponse);
    peer.write_all(&plain(Kind::Control, 0)).unwrap();
    let mut seqnos = Vec::new();
    loop {
        let header = next(&mut *peer);
        match header.kind {
            Kind::Control => return seqnos,
            _ => seqnos.push(header.seqno.0),
        }
    }
}

/// What a provider sends that begins with `from`.
pub fn donor(to: TcpStream, tls: Encrypted<'_>, from: i64) {
    let mut to = stream(to, tls, false);
    let mut word = [0; HEADER_LEN];
    to.read_exact(&mut word).unwrap();
    assert_eq!(word, plain(Kind::Handshake, 0));
    to.write_all(&plain(Kind::HandshakeResponse, 0)).unwrap();
    to.read_exact(&mut word).unwrap();
    assert_eq!(word, plain(Kind::Control, 0));
    let mut all: Vec<u8> = (from..from + 5).flat_map(skip).collect();
    all.extend(plain(Kind::Control, 1));
    // Cut anywhere.
    all.chunks(17).for_each(|bytes| to.write_all(bytes).unwrap());
    // Waits for the joiner to close.
    let _ = to.read(&mut word);
}

fn pair() -> (Arc<TcpStream>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (Arc::new(listener.accept().unwrap().0), there)
}

/// Greets the peer.
fn greeted(socket: Arc<TcpStream>, tls: Encrypted<'_>, hello: &[u8; HEADER_LEN]) -> Result<Donor> {
    let speaks = if tls.is_some() { Transport::Tls } else { Transport::Plain };
    callers::greet(socket, speaks, tls, hello, &AtomicBool::default(), &Cancel::new())
}

/// Plays one IST; answers what the provider read, and the first seqno that was told.
fn played(
    dir: &Path,
    from: i64,
    verdict: Verdict,
    strangers: usize,
    tls: Encrypted<'_>,
) -> (Vec<i64>, Option<i64>) {
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
        let provider = scope.spawn(|| provider(&listener, tls));
        let mut greeting = Greeting::of(at, tls, &cancel).unwrap().unwrap();
        for _ in 0..strangers {
            let (here, mut there) = pair();
            there.write_all(b"GET / HTTP/1.1\r\nHost: joiner\r\n\r\n").unwrap();
            greeted(here, tls, &greeting.hello).unwrap_err();
        }
        assert!(!greeting.is_stale());
        let (here, there) = pair();
        scope.spawn(move || donor(there, tls, from));
        let donor = greeted(here, tls, &greeting.hello).unwrap();
        session.run(greeting, donor).unwrap();
        provider.join().unwrap()
    });
    let told = *lock(&told);
    (read, told)
}

fn at(seqno: i64) -> StateId {
    format!("{HISTORY}:{seqno}").parse().unwrap()
}

/// A datadir with the spool of an outage.
fn datadir_with_spool() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("grastate.dat"), format!("uuid: {HISTORY}\nseqno: -1\n")).unwrap();
    trust::write_note(dir.path(), at(3)).unwrap();
    let mut spool = Spool::open(dir.path(), HISTORY, Seqno(1)).unwrap();
    (2..=9).for_each(|seqno| spool.take(&skip(seqno)).unwrap());
    spool.finish(Seqno(9)).unwrap();
    dir
}

#[test]
fn write_sets_come_before_the_donors_own_and_strangers_do_no_harm() {
    let dir = datadir_with_spool();
    let (read, told) = played(dir.path(), 8, Verdict::Splice(at(3)), 2, None);
    assert_eq!((read, told), ((4..=12).collect(), Some(8)));
    assert!(trust::position_noted(dir.path()).is_none(), "write-sets were passed on");
}

#[test]
fn both_ends_may_be_encrypted() {
    let dir = datadir_with_spool();
    let files = Authority::new("group").node("n1");
    let tls = SocketTls::load(&files.certificates()).unwrap();
    let (read, told) = played(dir.path(), 8, Verdict::Splice(at(3)), 2, Some(&tls));
    assert_eq!((read, told), ((4..=12).collect(), Some(8)));
}

#[test]
fn ist_passes_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(played(dir.path(), 8, Verdict::Through, 0, None), ((8..=12).collect(), Some(8)));
    std::fs::write(dir.path().join("grastate.dat"), format!("uuid: {HISTORY}\nseqno: -1\n")).unwrap();
    // Nothing is missing: no spool is looked for.
    assert_eq!(played(dir.path(), 8, Verdict::Splice(at(7)), 0, None), ((8..=12).collect(), Some(8)));
}

/// The joiner's program failed, and ends before its server.
#[test]
fn the_note_stays_if_the_server_ends_without_a_write_set() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("grastate.dat"), format!("uuid: {}\nseqno: -1\n", Uuid::NIL)).unwrap();
    trust::write_note(dir.path(), at(3)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (verdicts, cancel) = (Verdicts::new(), Cancel::new());
    verdicts.set(Verdict::Through);
    let session = Session { datadir: dir.path(), verdicts: &verdicts, cancel: &cancel, first: &|_| () };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut peer = listener.accept().unwrap().0;
            peer.write_all(&plain(Kind::Handshake, 0)).unwrap();
            peer.read_exact(&mut [0; HEADER_LEN]).unwrap();
            peer.write_all(&plain(Kind::Control, 0)).unwrap();
            peer.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            peer.read_exact(&mut [0]).expect_err("a write-set came");
        });
        let greeting = Greeting::of(address, None, &cancel).unwrap().unwrap();
        let (here, there) = pair();
        scope.spawn(move || donor(there, None, 8));
        let donor = greeted(here, None, &greeting.hello).unwrap();
        assert!(session.run(greeting, donor).unwrap().is_none());
    });
    assert_eq!(trust::position_noted(dir.path()), Some(at(3)));
}

#[test]
fn nobody_is_greeted_where_no_ist_is_expected() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    drop(listener);
    assert!(Greeting::of(at, None, &Cancel::new()).unwrap().is_none());
}

/// Who is a provider of the group, to the greeter. The error that it gives, as the other end would not know.
fn judged(ours: &SocketTls, theirs: Option<&SocketTls>, speaks: Transport) -> Result<(), String> {
    let (here, there) = pair();
    let hello = plain(Kind::Handshake, 0);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut to = stream(there, theirs, false);
            let mut word = [0; HEADER_LEN];
            // What it presents is refused, or what it is presented.
            let answered =
                to.read_exact(&mut word).and_then(|()| to.write_all(&plain(Kind::HandshakeResponse, 0)));
            let _ = answered.and_then(|()| to.read(&mut word));
        });
        let spoke = AtomicBool::default();
        let greeted = callers::greet(here, speaks, Some(ours), &hello, &spoke, &Cancel::new());
        greeted.map(drop).map_err(|why| format!("{why:#}"))
    })
}

#[test]
fn only_the_group_is_greeted_where_ist_is_encrypted() {
    let load =
        |node: &super::super::certificates::tests::Node| SocketTls::load(&node.certificates()).unwrap();
    let group = Authority::new("group");
    let (one, two) = (group.node("n1"), group.node("n2"));
    let ours = load(&one);
    assert_eq!(judged(&ours, Some(&load(&two)), Transport::Tls), Ok(()));
    // It trusts whom we trust, and has its certificate from elsewhere.
    let stranger = Authority::new("another").node("n2");
    let files = SocketCertificates { ca: one.certificates().ca, ..stranger.certificates() };
    let why = judged(&ours, Some(&SocketTls::load(&files).unwrap()), Transport::Tls).unwrap_err();
    assert!(why.contains("invalid peer certificate"), "{why}");
    let why = judged(&ours, Some(&two.without_certificate()), Transport::Tls).unwrap_err();
    assert!(why.contains("no certificates"), "{why}");
    // Who speaks plainly has said nothing of TLS.
    let why = judged(&ours, None, Transport::Tls).unwrap_err();
    assert!(why.contains("nothing came in time") || why.contains("closed"), "{why}");
    // One certificate of its own on all nodes, as many groups have it.
    let shared = Authority::new("shared").itself();
    assert_eq!(judged(&load(&shared), Some(&load(&shared)), Transport::Tls), Ok(()));
    assert!(judged(&load(&shared), Some(&load(&two)), Transport::Tls).is_err());
    // With socket.dynamic a peer that begins TLS gets TLS, and others are greeted in plain text.
    assert_eq!(judged(&ours, Some(&load(&two)), Transport::Dynamic), Ok(()));
    assert_eq!(judged(&ours, None, Transport::Dynamic), Ok(()));
}
