//! Where the door is, who may come through it in which order, and how the donor finds it.
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use node::cancel::Cancel;
use node::failure::Kind;
use node::peer::{Dialer, Door, Invitation, Terms};
use protocol::hello::Connection;
use protocol::message::Message;

use crate::common::*;

fn meet(listen: &str, dial: &str) {
    let cancel = Cancel::new();
    let door = Door::open(listen, 0, terms(), &cancel).unwrap();
    let (user, password) = door.invitation().to_auth();
    let invitation = Invitation::parse(&user, &password).unwrap();
    let dialer = Dialer::new(dial, door.address().port(), invitation, terms(), &cancel).unwrap();
    let mut donor = dialer.dial_control(SOON).unwrap();
    let mut joiner = door.admit_control(SOON, &cancel).unwrap();
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
    let door = Door::open("192.0.2.1", 0, terms(), &Cancel::new()).unwrap();
    assert!(door.address().ip().is_unspecified(), "{}", door.address());
    meet("192.0.2.1", "127.0.0.1");
    meet("2001:db8::1", "::1");
    meet("no-such-host.invalid", "127.0.0.1");
}

#[test]
fn a_busy_port_is_named() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    for host in ["127.0.0.1", "localhost", "192.0.2.1"] {
        let opened = Door::open(host, port, terms(), &Cancel::new());
        let words = format!(
            "port {port} is in use on this machine (hint: choose another port: wsrep_sst_receive_address={host}:OTHERPORT)"
        );
        fails(opened, Kind::Configuration, &words);
    }
}

#[test]
fn a_port_is_free_again_at_once() {
    let (door, joiner, donor, cancel) = pair();
    let address = door.address();
    drop((joiner, donor, door));
    assert!(TcpStream::connect(address).is_err());
    Door::open("127.0.0.1", address.port(), terms(), &cancel).unwrap();
}

#[test]
fn one_donor_and_each_worker_once() {
    let (door, cancel) = open();
    let dialer = dialer(&door, door.invitation(), &cancel);
    fails(dialer.dial_worker(0, SOON), Kind::Refused, "worker 0 came before the control connection");
    let _donor = dialer.dial_control(SOON).unwrap();
    let _joiner = door.admit_control(SOON, &cancel).unwrap();
    fails(dialer.dial_control(SOON), Kind::Refused, "another donor is already connected");
    fails(dialer.dial_worker(0, SOON), Kind::Refused, "worker 0 is one too many, 0 are allowed");
    door.allow_workers(2);
    let _first = dialer.dial_worker(1, SOON).unwrap();
    assert_eq!(door.admit_worker(SOON, &cancel).unwrap().unwrap().0, 1);
    fails(dialer.dial_worker(1, SOON), Kind::Refused, "worker 1 was here already");
    fails(dialer.dial_worker(2, SOON), Kind::Refused, "worker 2 is one too many, 2 are allowed");
    let _second = dialer.dial_worker(0, SOON).unwrap();
    assert_eq!(door.admit_worker(SOON, &cancel).unwrap().unwrap().0, 0);
    assert!(door.admit_worker(Duration::from_millis(50), &cancel).unwrap().is_none());
    assert_eq!(door.refused(), 5);
}

#[test]
fn versions_without_overlap_are_refused() {
    let (door, cancel) = open();
    let future = Terms { versions: (7, 9), ..terms() };
    let address = door.address();
    let dialer =
        Dialer::new("127.0.0.1", address.port(), door.invitation().clone(), future, &cancel).unwrap();
    let words = "no common protocol version: the donor speaks 7 to 9, the joiner 1 to 1";
    fails(dialer.dial_control(SOON), Kind::Refused, words);
    fails(door.admit_control(Duration::from_millis(100), &cancel), Kind::Timeout, words);
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
            Door::open("127.0.0.1", port, terms(), &cancel).unwrap()
        }
    });
    // Found, and refused because it is another's; a refusal is not tried again.
    fails(dialer.dial_control(SOON), Kind::Refused, "shows another certificate");
    late.join().unwrap();
}

#[test]
fn cancel_ends_waiting_and_dialing() {
    let (door, cancel) = open();
    let stopper = std::thread::spawn({
        let cancel = cancel.clone();
        move || {
            std::thread::sleep(Duration::from_millis(300));
            cancel.cancel(Kind::Stopped, "told to stop");
        }
    });
    let began = Instant::now();
    fails(door.admit_control(SOON, &cancel), Kind::Stopped, "told to stop");
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
    stopper.join().unwrap();
    let cancel = Cancel::new();
    // Nobody answers there (documentation addresses are routed nowhere), or the network refuses at once; both retry.
    let dialer = Dialer::new("192.0.2.1", 4444, door.invitation().clone(), terms(), &cancel).unwrap();
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
    let (door, _joiner, _donor, _) = pair();
    let mut raw = Raw::new(&door);
    let hello = raw.hello(&door, Connection::Control);
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
