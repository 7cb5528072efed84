//! What all tests of the peer share: a listener and a dialer on loopback, and clients that are not ours.
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::hello::{Connection, Greeting, Hello};
use rejoin_transfer::cancel::Cancel;
use rejoin_transfer::failure::{Failure, Kind, kind_of};
use rejoin_transfer::peer::secret::{EXPORTER_LABEL, proof};
use rejoin_transfer::peer::{Dialer, Established, Invitation, Listener, Side, Terms, tls};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

pub const SOON: Duration = Duration::from_secs(10);

pub fn terms() -> Terms {
    Terms { stall: Duration::from_secs(20), ..Terms::of_this_program() }
}

pub fn open() -> (Listener, Cancel) {
    let cancel = Cancel::new();
    (Listener::open("127.0.0.1", 0, terms(), &cancel).unwrap(), cancel)
}

pub fn dialer(listener: &Listener, invitation: &Invitation, cancel: &Cancel) -> Dialer {
    let address = listener.address();
    Dialer::new(&address.ip().to_string(), address.port(), invitation.clone(), terms(), cancel).unwrap()
}

/// Both ends of a control connection.
pub fn pair() -> (Listener, Established, Established, Cancel) {
    let (listener, cancel) = open();
    let donor = dialer(&listener, listener.invitation(), &cancel).dial_control(SOON).unwrap();
    let joiner = listener.admit_control(SOON, &cancel).unwrap();
    (listener, joiner, donor, cancel)
}

/// The end of a link of the donor's with its own cancel, so that a test can cancel one side.
pub fn pair_with_cancels() -> (Listener, Established, Cancel, Established, Cancel) {
    let (listener, joiners) = open();
    let donors = Cancel::new();
    let donor = dialer(&listener, listener.invitation(), &donors).dial_control(SOON).unwrap();
    let joiner = listener.admit_control(SOON, &joiners).unwrap();
    (listener, joiner, joiners, donor, donors)
}

#[track_caller]
pub fn fails<T: std::fmt::Debug>(result: anyhow::Result<T>, kind: Kind, words: &str) {
    let error = result.expect_err("this must fail");
    let text = format!("{error:#}");
    assert!(text.contains(words), "{text:?} does not say {words:?}");
    assert_eq!(kind_of(&error), kind, "{text}");
    assert!(error.chain().any(|e| e.is::<Failure>()), "{text}");
}

/// Waits until the listener has refused so many.
#[track_caller]
pub fn refused(listener: &Listener, count: u64) {
    let end = Instant::now() + SOON;
    while listener.refused() < count {
        assert!(Instant::now() < end, "{} of {count} refused", listener.refused());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(listener.refused(), count);
}

/// A TLS client that is not a `Dialer` and says what it likes, behind a ClientHello with a donor's token.
pub struct Raw(pub StreamOwned<ClientConnection, TcpStream>);

impl Raw {
    pub fn new(listener: &Listener) -> Raw {
        Raw::with(listener, tls::client(None, listener.invitation().pin).unwrap())
    }

    pub fn with(listener: &Listener, config: Arc<ClientConfig>) -> Raw {
        let socket = TcpStream::connect(listener.address()).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        let mut tls =
            ClientConnection::new(config, tls::server_name(&listener.invitation().secret).unwrap()).unwrap();
        let mut socket = socket;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket).unwrap();
        }
        Raw(StreamOwned::new(tls, socket))
    }

    pub fn exporter(&self) -> [u8; 32] {
        self.0.conn.export_keying_material([0; 32], EXPORTER_LABEL, None).unwrap()
    }

    /// A Hello for `connection` with the proof that belongs to it on this session.
    pub fn hello(&self, listener: &Listener, connection: Connection) -> Hello {
        let proof = proof(&listener.invitation().secret, &self.exporter(), Side::Donor, connection);
        Hello { versions: (1, 1), capabilities: 0, connection, run: 7, proof, program: "raw".into() }
    }

    /// Sends a Hello; gives the reason of the refusal, or nothing when welcome.
    pub fn greet(&mut self, hello: &[u8]) -> Option<String> {
        self.0.write_all(hello).unwrap();
        self.0.flush().unwrap();
        let mut head = [0; 53];
        self.0.read_exact(&mut head).unwrap();
        let mut tail = vec![0; Greeting::tail_len(&head).unwrap()];
        self.0.read_exact(&mut tail).unwrap();
        match Greeting::decode(&head, &tail).unwrap() {
            Greeting::Welcome { .. } => None,
            Greeting::Refused { reason } => Some(reason),
        }
    }
}
