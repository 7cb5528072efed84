use std::io::{Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;

use formats::mariadb::login_packets::{HEADER_LEN, header, packet};
use formats::wsrep::credentials::Account;

use super::*;
use crate::sql::{Listens, Login, Session};

/// A greeting of a server whose accounts have `caching_sha2_password`. It offers no TLS.
fn greeting() -> Vec<u8> {
    let mut bytes = b"\x0a11.8.9-MariaDB\0\x07\0\0\x0012345678\0".to_vec();
    bytes.extend([0xff, 0xf7, 45, 2, 0, 0xff, 0x81, 21]);
    bytes.extend([0; 10]);
    bytes.extend(*b"123456789012\0caching_sha2_password\0");
    bytes
}

fn read_packet(stream: &mut impl Read) -> Vec<u8> {
    let mut head = [0; HEADER_LEN];
    stream.read_exact(&mut head).unwrap();
    let mut payload = vec![0; header(head).0];
    stream.read_exact(&mut payload).unwrap();
    payload
}

fn log_in_to(answers: impl FnOnce(TcpStream) -> Vec<u8> + Send + 'static) -> (Vec<u8>, Proxy) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || answers(listener.accept().unwrap().0));
    let second = Duration::from_secs(1);
    let proxy =
        Proxy::to("127.0.0.1", port, None, second, Arc::new(Throttle::new(None)), &Cancel::new()).unwrap();
    let at = Listens::Proxied { socket: proxy.socket(), server: proxy.server() };
    let account = Account::from_pair("copier:Open.Sesame-7");
    assert!(Session::open(&Login { at, account }, Duration::from_secs(5)).is_err());
    (server.join().unwrap(), proxy)
}

#[test]
fn a_server_that_nobody_vouches_for_gets_no_password() {
    let (sent, proxy) = log_in_to(|mut stream| {
        stream.write_all(&packet(0, &greeting())).unwrap();
        let answer = read_packet(&mut stream);
        assert!(answer.windows(6).any(|name| name == b"copier"));
        stream.write_all(&packet(2, &[1, 4])).unwrap();
        let mut sent = Vec::new();
        stream.read_to_end(&mut sent).unwrap();
        sent
    });
    let why = proxy.why().unwrap();
    assert!(why.text.contains("asks for the password itself"), "{why}");
    // No packet after the answer to the greeting: neither the password nor the request for a key.
    assert_eq!(sent, b"");
}

#[test]
fn what_is_no_server_is_named() {
    let (_, proxy) = log_in_to(|mut stream| {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        Vec::new()
    });
    let why = proxy.why().unwrap();
    assert!(why.text.contains("does not speak the protocol of a MariaDB server"), "{why}");
}

/// A server that accepts any login and then stops reading.
fn lets_in(listener: &TcpListener) -> TcpStream {
    let mut stream = listener.accept().unwrap().0;
    stream.write_all(&packet(0, &greeting())).unwrap();
    read_packet(&mut stream);
    stream.write_all(&packet(2, &[0, 0, 0, 2, 0, 0, 0])).unwrap();
    stream
}

fn enter(proxy: &Proxy) -> UnixStream {
    let mut client = UnixStream::connect(proxy.socket()).unwrap();
    read_packet(&mut client);
    client.write_all(&packet(1, b"copier")).unwrap();
    read_packet(&mut client);
    client
}

#[test]
fn a_server_that_is_silent_on_one_connection_is_waited_for_on_none() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || [lets_in(&listener), lets_in(&listener)]);
    let (second, throttle) = (Duration::from_secs(1), Arc::new(Throttle::new(None)));
    let proxy = Proxy::to("127.0.0.1", port, None, second, throttle, &Cancel::new()).unwrap();
    let (mut waits, mut sends) = (enter(&proxy), enter(&proxy));
    let _open = server.join().unwrap();
    // This fits into the buffers on the way and is acknowledged, so that nothing more is sent; that does not.
    waits.write_all(&packet(0, b"\x03SELECT 1")).unwrap();
    let rows = std::thread::spawn(move || while sends.write_all(&[0; 1 << 16]).is_ok() {});
    waits.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(waits.read(&mut [0; 16]).unwrap(), 0);
    let why = proxy.why().unwrap();
    assert!(why.text.contains("no longer answers"), "{why}");
    rows.join().unwrap();
}
