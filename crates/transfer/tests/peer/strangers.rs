//! Strangers are refused, and the real donor is admitted nevertheless.
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use protocol::hello::{Connection, Hello};
use rejoin_transfer::failure::Kind;
use rejoin_transfer::peer::secret::proof;
use rejoin_transfer::peer::{Dialer, Invitation, Side, TransferSecret, tls};

use crate::common::*;

const WRONG_SECRET: &str = "the secret is not that of this transfer";

#[test]
fn a_wrong_secret_is_refused() {
    let (listener, cancel) = open();
    let wrong = Invitation { secret: TransferSecret::generate().unwrap(), pin: listener.invitation().pin };
    fails(dialer(&listener, &wrong, &cancel).dial_control(SOON), Kind::Refused, WRONG_SECRET);
    refused(&listener, 1);
    fails(
        listener.admit_control(Duration::from_millis(300), &cancel),
        Kind::Timeout,
        "1 connections were refused, the last one because the secret is not",
    );
    dialer(&listener, listener.invitation(), &cancel).dial_control(SOON).unwrap();
}

#[test]
fn a_stranger_learns_nothing_about_the_transfer() {
    let (listener, _joiner, _donor, _) = pair();
    let garbage = |connection, versions| Hello {
        versions,
        capabilities: 0,
        connection,
        run: 7,
        proof: [7; 32],
        program: String::new(),
    };
    for hello in [
        garbage(Connection::Control, (1, 1)),
        garbage(Connection::Control, (900, 901)),
        garbage(Connection::Worker(9), (1, 1)),
    ] {
        assert_eq!(Raw::new(&listener).greet(&hello.encode()).unwrap(), WRONG_SECRET);
    }
}

#[test]
fn a_recorded_hello_is_worth_nothing_on_another_session() {
    let (listener, cancel) = open();
    let mut first = Raw::new(&listener);
    let recorded = first.hello(&listener, Connection::Control).encode();
    assert_eq!(Raw::new(&listener).greet(&recorded).unwrap(), WRONG_SECRET);
    assert_eq!(first.greet(&recorded), None);
    listener.admit_control(SOON, &cancel).unwrap();
}

#[test]
fn a_proof_is_for_one_worker_number_and_one_side() {
    let (listener, _joiner, _donor, _) = pair();
    listener.allow_workers(4);
    for (claimed, proved, side) in [
        (Connection::Worker(1), Connection::Worker(0), Side::Donor),
        (Connection::Worker(0), Connection::Control, Side::Donor),
        (Connection::Worker(1), Connection::Worker(1), Side::Joiner),
    ] {
        let mut raw = Raw::new(&listener);
        let mut hello = raw.hello(&listener, claimed);
        hello.proof = proof(&listener.invitation().secret, &raw.exporter(), side, proved);
        assert_eq!(raw.greet(&hello.encode()).unwrap(), WRONG_SECRET, "{claimed:?} {proved:?} {side:?}");
    }
    let mut raw = Raw::new(&listener);
    let hello = raw.hello(&listener, Connection::Worker(1));
    assert_eq!(raw.greet(&hello.encode()), None);
}

#[test]
fn a_joiner_that_does_not_know_the_secret_is_refused() {
    // Same certificate, other secret: it welcomes any client, but cannot prove itself.
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["x".into()]).unwrap().self_signed(&key).unwrap();
    let mut config =
        rustls::ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
    config.alpn_protocols = vec![b"rejoin".to_vec()];
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let tls = rustls::ServerConnection::new(config.into()).unwrap();
        let mut stream = rustls::StreamOwned::new(tls, socket);
        let mut head = [0; 64];
        stream.read_exact(&mut head).unwrap();
        // The donor's own proof sent back must not do either.
        let proof = head[32..].try_into().unwrap();
        let welcome = protocol::hello::Greeting::Welcome {
            version: 1,
            capabilities: 0,
            proof,
            program: "thief".into(),
        };
        stream.write_all(&welcome.encode()).unwrap();
        stream.flush().unwrap();
        let _ = stream.read(&mut [0; 1]);
    });
    let invitation = Invitation {
        secret: TransferSecret::generate().unwrap(),
        pin: rejoin_transfer::peer::Pin::of_certificate(certificate.der()),
    };
    let cancel = rejoin_transfer::cancel::Cancel::new();
    let dialer = Dialer::new("127.0.0.1", port, invitation, terms(), &cancel).unwrap();
    fails(dialer.dial_control(SOON), Kind::Refused, "does not know the secret of this transfer");
    thread.join().unwrap();
}

#[test]
fn somebody_in_between_with_another_certificate_is_noticed() {
    let (listener, cancel) = open();
    let (other, _) = open();
    let mut invitation = listener.invitation().clone();
    invitation.pin = other.invitation().pin;
    fails(
        dialer(&listener, &invitation, &cancel).dial_control(SOON),
        Kind::Refused,
        "presents a different certificate than the invitation names",
    );
    refused(&listener, 1);
    fails(
        listener.admit_control(Duration::from_millis(300), &cancel),
        Kind::Timeout,
        "got a different certificate than its invitation names",
    );
}

#[test]
fn plain_text_clients_do_not_disturb_the_donor() {
    let (listener, cancel) = open();
    let clients: Vec<TcpStream> = (0..8)
        .map(|_| {
            let mut client = TcpStream::connect(listener.address()).unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            client
        })
        .collect();
    let mut donor = dialer(&listener, listener.invitation(), &cancel).dial_control(SOON).unwrap();
    let mut joiner = listener.admit_control(SOON, &cancel).unwrap();
    refused(&listener, 8);
    for mut client in clients {
        client.set_read_timeout(Some(SOON)).unwrap();
        let _ = client.read_to_end(&mut Vec::new());
    }
    donor.link.send(&protocol::message::Message::Ready).unwrap();
    assert_eq!(joiner.link.recv().unwrap(), protocol::message::Message::Ready);
}

#[test]
fn a_plain_text_client_is_named_in_the_reason() {
    let (listener, cancel) = open();
    let mut client = TcpStream::connect(listener.address()).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    refused(&listener, 1);
    let admitted = listener.admit_control(Duration::from_millis(100), &cancel);
    fails(admitted, Kind::Timeout, "speaks plain text, not TLS (first bytes \"GET / HTTP/1.1");
}

#[test]
fn silent_clients_do_not_hold_up_the_donor() {
    let (listener, cancel) = open();
    // More than one address may hold: its oldest go, the donor gets in.
    let silent: Vec<TcpStream> = (0..80).map(|_| TcpStream::connect(listener.address()).unwrap()).collect();
    let began = Instant::now();
    dialer(&listener, listener.invitation(), &cancel).dial_control(SOON).unwrap();
    listener.admit_control(SOON, &cancel).unwrap();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    // The others have a few seconds to say something.
    refused(&listener, 80);
    drop(silent);
}

#[test]
fn a_listener_closes_while_a_client_is_being_greeted() {
    let (listener, _) = open();
    let address = listener.address();
    let _silent = TcpStream::connect(address).unwrap();
    let _raw = Raw::new(&listener);
    let began = Instant::now();
    drop(listener);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(TcpStream::connect(address).is_err());
}

/// A ClientHello as TLS 1.2 clients send it: no supported_versions, one cipher suite.
fn client_hello_tls12() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([9; 32]);
    body.extend([0, 0, 4, 0xc0, 0x2f, 0xc0, 0x2b, 1, 0]);
    let extensions: &[u8] = &[
        0, 10, 0, 4, 0, 2, 0, 23, // supported_groups: P-256
        0, 11, 0, 2, 1, 0, // ec_point_formats
        0, 13, 0, 6, 0, 4, 4, 3, 4, 1, // signature_algorithms
        0, 23, 0, 0, // extended_master_secret
        0, 16, 0, 9, 0, 7, 6, b'r', b'e', b'j', b'o', b'i', b'n', // ALPN
    ];
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let mut record = vec![22, 3, 1];
    record.extend((body.len() as u16 + 4).to_be_bytes());
    record.extend([1, 0]);
    record.extend((body.len() as u16).to_be_bytes());
    record.extend(body);
    record
}

#[test]
fn tls_1_2_is_refused() {
    let (listener, cancel) = open();
    let mut client = TcpStream::connect(listener.address()).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client.write_all(&client_hello_tls12()).unwrap();
    let mut alert = [0; 7];
    client.read_exact(&mut alert).unwrap();
    assert_eq!((alert[0], alert[5]), (21, 2), "a fatal alert: {alert:?}");
    refused(&listener, 1);
    let admitted = listener.admit_control(Duration::from_millis(100), &cancel);
    fails(admitted, Kind::Timeout, "offers no TLS 1.3");
}

#[test]
fn other_protocols_over_tls_are_refused() {
    for alpn in [vec![], vec![b"h2".to_vec()]] {
        let (listener, cancel) = open();
        let mut config = (*tls::client(None, listener.invitation().pin).unwrap()).clone();
        config.alpn_protocols = alpn;
        let socket = TcpStream::connect(listener.address()).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        let client = rustls::ClientConnection::new(
            config.into(),
            tls::server_name(&listener.invitation().secret).unwrap(),
        )
        .unwrap();
        let _ = rustls::StreamOwned::new(client, socket).read(&mut [0]);
        refused(&listener, 1);
        fails(listener.admit_control(Duration::from_millis(100), &cancel), Kind::Timeout, "(ALPN)");
    }
}

#[test]
fn a_hello_of_something_else_is_refused() {
    let (listener, cancel) = open();
    let mut raw = Raw::new(&listener);
    raw.0.write_all(&[b'x'; 400]).unwrap();
    raw.0.flush().unwrap();
    let _ = raw.0.read(&mut [0]);
    refused(&listener, 1);
    let admitted = listener.admit_control(Duration::from_millis(100), &cancel);
    fails(admitted, Kind::Timeout, "does not speak the rejoin protocol");
}
