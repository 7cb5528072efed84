//! Who is let in at the joiner's door, and what a refused one is told.
//!
//! The order of the checks matters: until a connection has proved the secret it learns nothing but that it has not,
//! so that a stranger cannot ask what state the transfer is in.
use std::collections::HashSet;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use protocol::hello::{Connection, Greeting, HELLO_BYTES, Hello, choose_version};
use protocol::limits::CONNECTIONS_MAX;
use rustls::{ServerConfig, ServerConnection};

use super::link::{Link, failure};
use super::secret::{TransferSecret, proof, verify};
use super::wire::{Patience, Wire};
use super::{Established, Side, Terms, tls};
use crate::cancel::Cancel;
use crate::failure::{Failure, Kind};

/// How long a connection may take from the first byte to being let in.
pub(super) const GREET_WITHIN: Duration = Duration::from_secs(10);
/// How long a refused connection may take to read why.
const REFUSE_WITHIN: Duration = Duration::from_secs(1);

/// Somebody who was let in.
pub(super) enum Guest {
    /// The donor's first connection.
    Control(Established),
    /// A data connection with its number.
    Worker(u16, Link),
}

/// Decides who is let in.
pub(super) struct Greeter {
    pub(super) secret: TransferSecret,
    pub(super) config: Arc<ServerConfig>,
    pub(super) terms: Terms,
    pub(super) cancel: Cancel,
    places: Mutex<Places>,
}

/// Which connections the transfer has.
#[derive(Default)]
struct Places {
    /// The version agreed on with the donor, once there is one.
    control: Option<u16>,
    allowed: u16,
    used: HashSet<u16>,
}

impl Greeter {
    pub(super) fn new(
        secret: TransferSecret,
        config: Arc<ServerConfig>,
        terms: Terms,
        cancel: Cancel,
    ) -> Greeter {
        Greeter { secret, config, terms, cancel, places: Mutex::default() }
    }

    /// Lets workers 0 to `count - 1` in from now on, each once.
    pub(super) fn allow_workers(&self, count: u16) {
        let mut places = self.places();
        places.allowed = count.min(CONNECTIONS_MAX);
        places.used.clear();
    }

    /// Does everything from the first byte to the greeting. An error is the reason of the refusal.
    pub(super) fn greet(&self, socket: TcpStream, at: &str) -> Result<Guest, Failure> {
        // The log line already says where it is from.
        let peer = "the client";
        let fail = |e| failure(e, Side::Joiner, peer);
        let until = Patience::Until(Instant::now() + GREET_WITHIN);
        let broken = |e: &dyn std::fmt::Display| Failure::new(Kind::Peer, format!("{peer}: {e}"));
        let tls = ServerConnection::new(self.config.clone()).map_err(|e| broken(&e))?;
        let mut wire = Wire::new(socket, tls.into(), &self.cancel).map_err(|e| broken(&e))?;

        let result = self.handshake_and_hello(&mut wire, until).map_err(|e| match e {
            Trouble::Wire(e) => fail(e),
            Trouble::Hello(e) => Failure::new(Kind::Refused, e.to_string()),
        });
        let hello = match result {
            Ok(hello) => hello,
            Err(why) => {
                wire.part(Instant::now() + REFUSE_WITHIN);
                return Err(why);
            }
        };
        match self.admit(&mut wire, &hello, until) {
            Ok(version) => {
                let link = Link::new(wire, Side::Joiner, at, self.terms.stall);
                Ok(match hello.connection {
                    Connection::Worker(number) => Guest::Worker(number, link),
                    Connection::Control => Guest::Control(Established {
                        link,
                        version,
                        capabilities: hello.capabilities & self.terms.capabilities,
                        program: hello.program,
                    }),
                })
            }
            Err(why) => {
                let until = Instant::now() + REFUSE_WITHIN;
                let words = Greeting::Refused { reason: why.text.clone() }.encode();
                let patience = Patience::Until(until);
                let _ = wire.write_all(&words, patience).and_then(|()| wire.flush(patience));
                wire.part(until);
                Err(why)
            }
        }
    }

    fn handshake_and_hello(&self, wire: &mut Wire, until: Patience) -> Result<Hello, Trouble> {
        let Patience::Until(end) = until else { return Err(Trouble::Hello("no deadline".into())) };
        wire.handshake(end).map_err(Trouble::Wire)?;
        if wire.alpn() != Some(tls::ALPN) {
            return Err(Trouble::Hello(
                "it speaks TLS, but does not ask for the rejoin protocol (ALPN)".into(),
            ));
        }
        let mut head = [0; HELLO_BYTES];
        wire.read_exact(&mut head, until).map_err(Trouble::Wire)?;
        let mut tail = vec![0; Hello::tail_len(&head)];
        wire.read_exact(&mut tail, until).map_err(Trouble::Wire)?;
        Hello::decode(&head, &tail).map_err(|e| Trouble::Hello(e.to_string()))
    }

    /// Checks the proof, then everything else, and answers a welcome guest.
    fn admit(&self, wire: &mut Wire, hello: &Hello, until: Patience) -> Result<u16, Failure> {
        let refuse = |text: &str| Failure::new(Kind::Refused, text);
        let exporter = wire.exporter().map_err(|e| failure(e, Side::Joiner, "the client"))?;
        if !verify(&self.secret, &exporter, Side::Donor, hello.connection, &hello.proof) {
            return Err(refuse("the secret is not that of this transfer"));
        }
        let version =
            choose_version(hello.versions, self.terms.versions).map_err(|e| refuse(&e.to_string()))?;
        // Held while we answer, so that of two at once only one is welcomed; the answer is 100 bytes into an
        // empty socket buffer, which does not block.
        let mut places = self.places();
        places.check(hello.connection, version).map_err(|why| refuse(&why))?;
        let welcome = Greeting::Welcome {
            version,
            capabilities: hello.capabilities & self.terms.capabilities,
            proof: proof(&self.secret, &exporter, Side::Joiner, hello.connection),
            program: self.terms.program.clone(),
        };
        wire.write_all(&welcome.encode(), until)
            .and_then(|()| wire.flush(until))
            .map_err(|e| failure(e, Side::Joiner, "the client"))?;
        places.take(hello.connection, version);
        Ok(version)
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn check(&self, connection: Connection, version: u16) -> Result<(), String> {
        match (connection, self.control) {
            (Connection::Control, None) => Ok(()),
            (Connection::Control, Some(_)) => Err("another donor is already connected".into()),
            (Connection::Worker(n), None) => Err(format!("worker {n} came before the control connection")),
            (Connection::Worker(n), Some(_)) if n >= self.allowed => {
                Err(format!("worker {n} is one too many, {} are allowed", self.allowed))
            }
            (Connection::Worker(n), Some(_)) if self.used.contains(&n) => {
                Err(format!("worker {n} was here already"))
            }
            (Connection::Worker(n), Some(agreed)) if agreed != version => {
                Err(format!("worker {n} speaks version {version}, the control connection {agreed}"))
            }
            (Connection::Worker(_), Some(_)) => Ok(()),
        }
    }

    fn take(&mut self, connection: Connection, version: u16) {
        match connection {
            Connection::Control => self.control = Some(version),
            Connection::Worker(n) => {
                self.used.insert(n);
            }
        }
    }
}

enum Trouble {
    Wire(super::wire::WireError),
    Hello(String),
}
