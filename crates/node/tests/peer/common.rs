//! What all tests of the peer share: a door and a dialer on loopback, and clients that are not ours.
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use node::cancel::Cancel;
use node::failure::{Failure, Kind, kind_of};
use node::peer::secret::{EXPORTER_LABEL, proof};
use node::peer::{Dialer, Door, Established, Invitation, Side, Terms, tls};
use protocol::hello::{Connection, Greeting, Hello};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

pub const SOON: Duration = Duration::from_secs(10);

pub fn terms() -> Terms {
    Terms { stall: Duration::from_secs(20), ..Terms::of_this_program() }
}

pub fn open() -> (Door, Cancel) {
    let cancel = Cancel::new();
    (Door::open("127.0.0.1", 0, terms(), &cancel).unwrap(), cancel)
}

pub fn dialer(door: &Door, invitation: &Invitation, cancel: &Cancel) -> Dialer {
    let address = door.address();
    Dialer::new(&address.ip().to_string(), address.port(), invitation.clone(), terms(), cancel).unwrap()
}

/// Both ends of a control connection.
pub fn pair() -> (Door, Established, Established, Cancel) {
    let (door, cancel) = open();
    let donor = dialer(&door, door.invitation(), &cancel).dial_control(SOON).unwrap();
    let joiner = door.admit_control(SOON, &cancel).unwrap();
    (door, joiner, donor, cancel)
}

/// The end of a link of the donor's with its own cancel, so that a test can cancel one side.
pub fn pair_with_cancels() -> (Door, Established, Cancel, Established, Cancel) {
    let (door, joiners) = open();
    let donors = Cancel::new();
    let donor = dialer(&door, door.invitation(), &donors).dial_control(SOON).unwrap();
    let joiner = door.admit_control(SOON, &joiners).unwrap();
    (door, joiner, joiners, donor, donors)
}

#[track_caller]
pub fn fails<T: std::fmt::Debug>(result: anyhow::Result<T>, kind: Kind, words: &str) {
    let error = result.expect_err("this must fail");
    let text = format!("{error:#}");
    assert!(text.contains(words), "{text:?} does not say {words:?}");
    assert_eq!(kind_of(&error), kind, "{text}");
    assert!(error.chain().any(|e| e.is::<Failure>()), "{text}");
}

/// Waits until the door has refused so many.
#[track_caller]
pub fn refused(door: &Door, count: u64) {
    let end = Instant::now() + SOON;
    while door.refused() < count {
        assert!(Instant::now() < end, "{} of {count} refused", door.refused());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(door.refused(), count);
}

/// A TLS client that is not a `Dialer` and says what it likes.
pub struct Raw(pub StreamOwned<ClientConnection, TcpStream>);

impl Raw {
    pub fn new(door: &Door) -> Raw {
        Raw::with(door, tls::client(None, door.invitation().pin).unwrap())
    }

    pub fn with(door: &Door, config: Arc<ClientConfig>) -> Raw {
        let socket = TcpStream::connect(door.address()).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        let mut tls = ClientConnection::new(config, tls::server_name().unwrap()).unwrap();
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
    pub fn hello(&self, door: &Door, connection: Connection) -> Hello {
        let proof = proof(&door.invitation().secret, &self.exporter(), Side::Donor, connection);
        Hello { versions: (1, 1), capabilities: 0, connection, proof, program: "raw".into() }
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
