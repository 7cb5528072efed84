//! Where the listener is, who may come through it in which order, and how the donor finds it.
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use protocol::hello::Connection;
use protocol::message::Message;
use rejoin_transfer::cancel::Cancel;
use rejoin_transfer::failure::Kind;
use rejoin_transfer::peer::{Dialer, Invitation, Listener, Terms};

use crate::common::*;

fn meet(listen: &str, dial: &str) {
    let cancel = Cancel::new();
    let listener = Listener::open(listen, 0, terms(), &cancel).unwrap();
    let (user, password) = listener.invitation().to_auth();
    let invitation = Invitation::parse(&user, &password).unwrap();
    let dialer = Dialer::new(dial, listener.address().port(), invitation, terms(), &cancel).unwrap();
    let mut donor = dialer.dial_control(SOON).unwrap();
    let mut joiner = listener.admit_control(SOON, &cancel).unwrap();
    assert_eq!((joiner.version, donor.version), (1, 1));
    assert_eq!(donor.capabilities, joiner.capabilities);
    assert!(joiner.program.starts_with("rejoin ") && donor.program.starts_with("rejoin "));
    joiner.link.send(&Message::Ready).unwrap();
    assert_eq!(donor.link.recv().unwrap(), Message::Ready);
    assert!(donor.link.peer().starts_with("the joiner at "), "{}", donor.link.peer());
    assert!(joiner.link.peer().starts_with("the donor at "), "{}", joiner.link.peer());
    let (ours, theirs) = (joiner.link.traffic(), donor.link.traffic());
    assert!(ours.sent() > 0);
    assert_eq!((ours.sent(), ours.received()), (theirs.received(), theirs.sent()));
}

#[test]
fn addresses_and_names() {
    meet("127.0.0.1", "127.0.0.1");
    meet("::1", "[::1]");
    meet("[::1]", "::1");
    meet("localhost", "localhost");
    meet("localhost", "127.0.0.1");
    meet("0.0.0.0", "127.0.0.1");
    meet("::", "127.0.0.1");
}

#[test]
fn an_address_that_is_not_ours_binds_the_wildcard() {
    let listener = Listener::open("192.0.2.1", 0, terms(), &Cancel::new()).unwrap();
    assert!(listener.address().ip().is_unspecified(), "{}", listener.address());
    meet("192.0.2.1", "127.0.0.1");
    meet("2001:db8::1", "::1");
    meet("no-such-host.invalid", "127.0.0.1");
}

#[test]
fn a_busy_port_is_named() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    for host in ["127.0.0.1", "localhost", "192.0.2.1"] {
        let opened = Listener::open(host, port, terms(), &Cancel::new());
        let words = format!(
            "port {port} is in use on this machine (hint: choose another port: wsrep_sst_receive_address={host}:OTHERPORT)"
        );
        fails(opened, Kind::Configuration, &words);
    }
}

#[test]
fn a_port_is_free_again_at_once() {
    let (listener, joiner, donor, cancel) = pair();
    let address = listener.address();
    drop((joiner, donor, listener));
    assert!(TcpStream::connect(address).is_err());
    Listener::open("127.0.0.1", address.port(), terms(), &cancel).unwrap();
}

#[test]
fn one_donor_and_each_worker_once() {
    let (listener, cancel) = open();
    let dialer = dialer(&listener, listener.invitation(), &cancel);
    fails(dialer.dial_worker(0, SOON), Kind::Refused, "worker 0 came before the control connection");
    let _donor = dialer.dial_control(SOON).unwrap();
    let _joiner = listener.admit_control(SOON, &cancel).unwrap();
    let other = self::dialer(&listener, listener.invitation(), &cancel);
    fails(other.dial_control(SOON), Kind::Refused, "another donor is already connected");
    listener.begun(Connection::Control);
    fails(dialer.dial_control(SOON), Kind::Refused, "another donor is already connected");
    fails(dialer.dial_worker(0, SOON), Kind::Refused, "worker 0 is one too many: 0 are allowed");
    listener.allow_workers(2);
    let _first = dialer.dial_worker(1, SOON).unwrap();
    assert_eq!(listener.admit_worker(SOON, &cancel).unwrap().unwrap().0, 1);
    listener.begun(Connection::Worker(1));
    fails(dialer.dial_worker(1, SOON), Kind::Refused, "worker 1 is already connected");
    fails(dialer.dial_worker(2, SOON), Kind::Refused, "worker 2 is one too many: 2 are allowed");
    let _second = dialer.dial_worker(0, SOON).unwrap();
    assert_eq!(listener.admit_worker(SOON, &cancel).unwrap().unwrap().0, 0);
    assert!(listener.admit_worker(Duration::from_millis(50), &cancel).unwrap().is_none());
    assert_eq!(listener.refused(), 6);
}

#[test]
fn versions_without_overlap_are_refused() {
    let (listener, cancel) = open();
    let future = Terms { versions: (7, 9), ..terms() };
    let address = listener.address();
    let dialer =
        Dialer::new("127.0.0.1", address.port(), listener.invitation().clone(), future, &cancel).unwrap();
    let words = "no common protocol version: the donor speaks 7 to 9, the joiner 1 to 1";
    fails(dialer.dial_control(SOON), Kind::Refused, words);
    fails(listener.admit_control(Duration::from_millis(100), &cancel), Kind::Timeout, words);
}

#[test]
fn a_joiner_that_listens_late_is_found() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    drop(holder);
    let cancel = Cancel::new();
    let (first, _) = open();
    let dialer = Dialer::new("127.0.0.1", port, first.invitation().clone(), terms(), &cancel).unwrap();
    let began = Instant::now();
    fails(dialer.dial_control(Duration::from_secs(1)), Kind::Timeout, "within 1 s: Connection refused");
    assert!(began.elapsed() < Duration::from_secs(2));
    let late = std::thread::spawn({
        let cancel = cancel.clone();
        move || {
            std::thread::sleep(Duration::from_millis(700));
            Listener::open("127.0.0.1", port, terms(), &cancel).unwrap()
        }
    });
    // Found, and refused because it is another's; a refusal is not tried again.
    fails(dialer.dial_control(SOON), Kind::Refused, "refused us: the secret is not that of this transfer");
    late.join().unwrap();
}

#[test]
fn a_joiner_that_is_gone_is_given_up_soon() {
    let (listener, cancel) = open();
    let dialer = dialer(&listener, listener.invitation(), &cancel);
    drop(listener);
    let began = Instant::now();
    fails(
        dialer.dial_control(Duration::from_secs(60)),
        Kind::Peer,
        "is gone: it has refused connections for 2 s",
    );
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(5), "{took:?}");
}

/// Passes connections on to a listener and cuts each of the first `cuts` after so many bytes from the donor and so many from the joiner.
fn cutting_relay(listener: &Listener, cuts: usize, limits: (usize, usize)) -> u16 {
    let (listener, to) = (TcpListener::bind("127.0.0.1:0").unwrap(), listener.address());
    let port = listener.local_addr().unwrap().port();
    let pass = |mut from: TcpStream, mut to: TcpStream, limit: usize| {
        let mut byte = [0; 1];
        for _ in 0..limit {
            match from.read(&mut byte) {
                Ok(1) if to.write_all(&byte).is_ok() => {}
                _ => break,
            }
        }
        for end in [from, to] {
            let _ = end.shutdown(std::net::Shutdown::Both);
        }
    };
    std::thread::spawn(move || {
        for (n, donor) in listener.incoming().map_while(Result::ok).enumerate() {
            let limits = if n < cuts { limits } else { (usize::MAX, usize::MAX) };
            let joiner = TcpStream::connect(to).unwrap();
            let (up, down) = (donor.try_clone().unwrap(), joiner.try_clone().unwrap());
            std::thread::spawn(move || pass(donor, joiner, limits.0));
            std::thread::spawn(move || pass(down, up, limits.1));
        }
    });
    port
}

/// A connection that is cut at any point before the joiner's welcome has arrived is made again, also when the joiner
/// believes that it let the donor in.
#[test]
fn a_connection_that_is_cut_before_the_welcome_is_made_again() {
    let everything = usize::MAX;
    // In the ClientHello; in the joiner's handshake; in the Hello; in the Welcome, which is the joiner's last.
    for limits in [(40, everything), (everything, 60), (420, everything), (everything, 640)] {
        let (listener, cancel) = open();
        let port = cutting_relay(&listener, 2, limits);
        let dialer = Dialer::new("127.0.0.1", port, listener.invitation().clone(), terms(), &cancel).unwrap();
        let mut donor = dialer.dial_control(SOON).unwrap_or_else(|e| panic!("{limits:?}: {e:#}"));
        donor.link.send(&Message::Ready).unwrap();
        // A link that the donor never knew of ends when its next one takes its place.
        let end = Instant::now() + SOON;
        loop {
            let mut joiner = listener.admit_control(SOON, &cancel).unwrap();
            match joiner.link.recv() {
                Ok(message) => break assert_eq!(message, Message::Ready),
                Err(e) => {
                    assert!(
                        rejoin_transfer::failure::is_lost(&e) && Instant::now() < end,
                        "{limits:?}: {e:#}"
                    )
                }
            }
        }
        listener.begun(Connection::Control);
        listener.allow_workers(1);
        let port = cutting_relay(&listener, 2, limits);
        let workers =
            Dialer::new("127.0.0.1", port, listener.invitation().clone(), terms(), &cancel).unwrap();
        let mut donor = workers.dial_worker(0, SOON).unwrap_or_else(|e| panic!("{limits:?}: {e:#}"));
        donor.send(&Message::Stored).unwrap();
        loop {
            let (_, mut joiner) = listener.admit_worker(SOON, &cancel).unwrap().unwrap();
            match joiner.recv() {
                Ok(message) => break assert_eq!(message, Message::Stored),
                Err(e) => {
                    assert!(
                        rejoin_transfer::failure::is_lost(&e) && Instant::now() < end,
                        "{limits:?}: {e:#}"
                    )
                }
            }
        }
    }
}

#[test]
fn cancel_ends_waiting_and_dialing() {
    let (listener, cancel) = open();
    let stopper = std::thread::spawn({
        let cancel = cancel.clone();
        move || {
            std::thread::sleep(Duration::from_millis(300));
            cancel.cancel(Kind::Stopped, "told to stop");
        }
    });
    let began = Instant::now();
    fails(listener.admit_control(SOON, &cancel), Kind::Stopped, "told to stop");
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
    stopper.join().unwrap();
    let cancel = Cancel::new();
    // Nobody answers there (documentation addresses are routed nowhere), or the network refuses at once; both retry.
    let dialer = Dialer::new("192.0.2.1", 4444, listener.invitation().clone(), terms(), &cancel).unwrap();
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        cancel.cancel(Kind::Stopped, "told to stop");
    });
    let began = Instant::now();
    fails(dialer.dial_control(SOON), Kind::Stopped, "told to stop");
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
    stopper.join().unwrap();
}

#[test]
fn sockets_are_closed_on_exec() {
    let (listener, _joiner, _donor, _) = pair();
    let mut raw = Raw::new(&listener);
    let hello = raw.hello(&listener, Connection::Control);
    assert!(raw.greet(&hello.encode()).is_some());
    for entry in std::fs::read_dir("/proc/self/fdinfo").unwrap().flatten() {
        let link = format!("/proc/self/fd/{}", entry.file_name().to_string_lossy());
        let Ok(target) = std::fs::read_link(link) else { continue };
        if !target.to_string_lossy().starts_with("socket:") {
            continue;
        }
        let info = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or("02000000").trim();
        let flags = u32::from_str_radix(flags, 8).unwrap();
        assert_ne!(flags & 0o2000000, 0, "{target:?} stays open in programs we start");
    }
}
