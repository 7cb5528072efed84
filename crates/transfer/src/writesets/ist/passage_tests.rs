use std::time::Instant;

use super::super::session::tests::{donor, provider};
use super::*;

#[test]
fn the_rate_is_that_of_all_that_was_applied() {
    let (from, to, bytes, history) = (Seqno(101), Seqno(30_100), 60_000_000, formats::Uuid::NIL);
    let inserted = Inserted { history, from, to, bytes, since: Instant::now() };
    let rate = |last: i64, s: u64| rate_of(&inserted, Seqno(last), Duration::from_secs(s));
    assert_eq!(rate(60_100, 6), Some(ReplayRate { write_sets: 10_000, bytes: 20_000_000 }));
    assert_eq!(rate(60_100, 2), None, "too short");
    assert_eq!(rate(7, 60), None, "another history");
}

#[test]
fn nothing_is_passed_on_once_its_thread_is_gone() {
    let passing = AtomicBool::new(false);
    let is_passing = Passing::begin(&passing);
    assert!(passing.load(Ordering::Acquire));
    let never_started = move || drop(is_passing);
    drop(never_started);
    assert!(!passing.load(Ordering::Acquire));
}

/// A provider that restarts does not end the relay.
#[test]
fn a_provider_that_cannot_be_reached_ends_only_that_connection() {
    let dir = tempfile::tempdir().unwrap();
    let outside = TcpListener::bind("127.0.0.1:0").unwrap();
    outside.set_nonblocking(true).unwrap();
    let at = outside.local_addr().unwrap();
    let endpoints = IstEndpoints {
        advertised: (at.ip().to_string(), at.port()),
        outside: Transport::Plain,
        // No address to which anything can be connected.
        provider: "255.255.255.255:1".parse().unwrap(),
        inside: Transport::Plain,
        certificates: None,
    };
    let (verdicts, cancel) = (Verdicts::new(), Cancel::new());
    let (datadir, socket) = (dir.path().to_owned(), dir.path().join("s.sock"));
    let last_tls = Mutex::default();
    let (account, verdicts, first, cancel) = (None, &verdicts, &|_: Seqno| (), &cancel);
    let passage = Passage { datadir, socket, account, endpoints, last_tls, verdicts, first, cancel };
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| passage.serve_unread(&[outside]));
        for _ in 0..2 {
            let mut caller = TcpStream::connect(at).unwrap();
            assert_eq!(std::io::Read::read(&mut caller, &mut [0]).unwrap_or(0), 0);
            assert!(!serving.is_finished());
        }
        cancel.end_now(Kind::Server, "the test is over");
        assert!(serving.join().unwrap().is_err());
    });
}

#[test]
fn silent_callers_do_not_keep_the_donor_out() {
    let dir = tempfile::tempdir().unwrap();
    let (inside, outside) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    outside.set_nonblocking(true).unwrap();
    let at = outside.local_addr().unwrap();
    let endpoints = IstEndpoints {
        advertised: (at.ip().to_string(), at.port()),
        outside: Transport::Plain,
        provider: inside.local_addr().unwrap(),
        inside: Transport::Plain,
        certificates: None,
    };
    let (verdicts, cancel) = (Verdicts::new(), Cancel::new());
    verdicts.set(Verdict::Through);
    let (datadir, socket) = (dir.path().to_owned(), dir.path().join("s.sock"));
    let last_tls = Mutex::default();
    let (account, verdicts, first, cancel) = (None, &verdicts, &|_: Seqno| (), &cancel);
    let passage = Passage { datadir, socket, account, endpoints, last_tls, verdicts, first, cancel };
    let (read, took) = std::thread::scope(|scope| {
        scope.spawn(|| passage.serve(vec![outside]).unwrap_err());
        let reading = scope.spawn(|| provider(&inside, None));
        // More than have room, and all from the donor's own address.
        let connect = || TcpStream::connect(at).unwrap();
        let silent: Vec<TcpStream> = (0..150).map(|_| connect()).collect();
        let began = Instant::now();
        scope.spawn(move || donor(connect(), None, 8));
        let read = reading.join();
        let took = began.elapsed();
        drop(silent);
        cancel.end_now(crate::failure::Kind::Server, "the test is over");
        (read.unwrap(), took)
    });
    assert_eq!(read, (8..=12).collect::<Vec<i64>>());
    assert!(took < Duration::from_secs(4), "{took:?}");
}
