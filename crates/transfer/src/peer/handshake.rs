//! Which connections the joiner's listener accepts, and the reason that a refused one gets.
//!
//! The order of the checks matters: until a connection has proved the secret, the only thing it is told is
//! that it has not, so that a stranger cannot probe the state of the transfer.
use std::collections::HashMap;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use protocol::hello::{Connection, Greeting, HELLO_BYTES, Hello, choose_version};
use protocol::limits::CONNECTIONS_MAX;
use rustls::{ServerConfig, ServerConnection};

use super::link::{Link, failure};
use super::secret::{TransferSecret, proof, verify};
use super::side::Side;
use super::terms::{Established, Terms};
use super::tls;
use super::tls_stream::{Deadlines, TlsStream};
use crate::cancel::Cancel;
use crate::failure::{Failure, Kind};

/// How long a connection may take from the first byte until it is accepted.
pub(super) const GREET_WITHIN: Duration = Duration::from_secs(10);
/// How long a refused connection may take to read the reason.
const REFUSE_WITHIN: Duration = Duration::from_secs(1);

/// An accepted connection.
pub(super) enum Admitted {
    /// The donor's first connection.
    Control(Established),
    /// A data connection with its number.
    Worker(u16, Link),
}

/// Decides which connections are accepted.
pub(super) struct Handshakes {
    pub(super) secret: TransferSecret,
    pub(super) config: Arc<ServerConfig>,
    pub(super) terms: Terms,
    pub(super) cancel: Cancel,
    slots: Mutex<Slots>,
}

/// The connections of the transfer.
#[derive(Default)]
struct Slots {
    control: Option<Slot>,
    allowed: u16,
    workers: HashMap<u16, Slot>,
}

/// An accepted connection.
struct Slot {
    /// The version agreed on.
    version: u16,
    /// The donor's number for its run.
    run: u64,
    /// A weak reference, so that it does not keep the connection open.
    socket: Weak<TcpStream>,
    /// Whether anything was agreed over it; then it cannot be made again.
    begun: bool,
}

impl Handshakes {
    pub(super) fn new(
        secret: TransferSecret,
        config: Arc<ServerConfig>,
        terms: Terms,
        cancel: Cancel,
    ) -> Handshakes {
        Handshakes { secret, config, terms, cancel, slots: Mutex::default() }
    }

    /// Accepts workers 0 to `count - 1` from now on, each once.
    pub(super) fn allow_workers(&self, count: u16) {
        let mut slots = self.slots();
        slots.allowed = count.min(CONNECTIONS_MAX);
        slots.workers.clear();
    }

    /// From now on this connection cannot be made again.
    pub(super) fn begun(&self, connection: Connection) {
        if let Some(slot) = self.slots().slot(connection) {
            slot.begun = true;
        }
    }

    /// Whether [`Handshakes::begun`] was called for this connection.
    pub(super) fn has_begun(&self, connection: Connection) -> bool {
        self.slots().slot(connection).is_some_and(|slot| slot.begun)
    }

    /// Does everything from the first byte to the greeting. `received` was already read. An error is the
    /// reason of the refusal.
    pub(super) fn accept(
        &self,
        socket: &Arc<TcpStream>,
        received: &[u8],
        at: &str,
    ) -> Result<Admitted, Failure> {
        // The log line already names its origin.
        let peer = "the client";
        let fail = |e| failure(e, Side::Joiner, peer);
        let until = Deadlines::Until(Instant::now() + GREET_WITHIN);
        let broken = |e: &dyn std::fmt::Display| Failure::new(Kind::Peer, format!("{peer}: {e}"));
        let tls = ServerConnection::new(self.config.clone()).map_err(|e| broken(&e))?;
        let wire = TlsStream::new(socket.clone(), tls.into(), &self.cancel).map_err(|e| broken(&e))?;
        let mut wire = wire.with_received(received);

        let result = self.handshake_and_hello(&mut wire, until).map_err(|e| match e {
            Trouble::TlsStream(e) => fail(e),
            Trouble::Hello(e) => Failure::new(Kind::Refused, e.to_string()),
        });
        let hello = match result {
            Ok(hello) => hello,
            Err(why) => {
                wire.part(Instant::now() + REFUSE_WITHIN);
                return Err(why);
            }
        };
        match self.admit(&mut wire, socket, &hello, until) {
            Ok(version) => {
                let link = Link::new(wire, Side::Joiner, at, self.terms.stall);
                Ok(match hello.connection {
                    Connection::Worker(number) => Admitted::Worker(number, link),
                    Connection::Control => Admitted::Control(Established {
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
                let patience = Deadlines::Until(until);
                let _ = wire.write_all(&words, patience).and_then(|()| wire.flush(patience));
                wire.part(until);
                Err(why)
            }
        }
    }

    fn handshake_and_hello(&self, wire: &mut TlsStream, until: Deadlines) -> Result<Hello, Trouble> {
        let Deadlines::Until(end) = until else { return Err(Trouble::Hello("no deadline".into())) };
        wire.handshake(end).map_err(Trouble::TlsStream)?;
        if wire.alpn() != Some(tls::ALPN) {
            return Err(Trouble::Hello(
                "it speaks TLS, but does not request the rejoin protocol (ALPN)".into(),
            ));
        }
        let mut head = [0; HELLO_BYTES];
        wire.read_exact(&mut head, until).map_err(Trouble::TlsStream)?;
        let mut tail = vec![0; Hello::tail_len(&head)];
        wire.read_exact(&mut tail, until).map_err(Trouble::TlsStream)?;
        Hello::decode(&head, &tail).map_err(|e| Trouble::Hello(e.to_string()))
    }

    /// Checks the proof, then everything else, and greets an accepted connection.
    fn admit(
        &self,
        wire: &mut TlsStream,
        socket: &Arc<TcpStream>,
        hello: &Hello,
        until: Deadlines,
    ) -> Result<u16, Failure> {
        let refuse = |text: &str| Failure::new(Kind::Refused, text);
        let exporter = wire.exporter().map_err(|e| failure(e, Side::Joiner, "the client"))?;
        if !verify(&self.secret, &exporter, Side::Donor, hello.connection, &hello.proof) {
            return Err(refuse("the secret is not that of this transfer"));
        }
        let version =
            choose_version(hello.versions, self.terms.versions).map_err(|e| refuse(&e.to_string()))?;
        // The lock is held while we respond, so that only one of two simultaneous connections is accepted.
        // The response is 100 bytes into an empty socket buffer, so it does not block.
        let mut slots = self.slots();
        slots.check(hello, version).map_err(|why| refuse(&why))?;
        let welcome = Greeting::Welcome {
            version,
            capabilities: hello.capabilities & self.terms.capabilities,
            proof: proof(&self.secret, &exporter, Side::Joiner, hello.connection),
            program: self.terms.program.clone(),
        };
        wire.write_all(&welcome.encode(), until)
            .and_then(|()| wire.flush(until))
            .map_err(|e| failure(e, Side::Joiner, "the client"))?;
        let (run, socket) = (hello.run, Arc::downgrade(socket));
        slots.take(hello.connection, Slot { version, run, socket, begun: false });
        Ok(version)
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    fn slot(&mut self, connection: Connection) -> Option<&mut Slot> {
        match connection {
            Connection::Control => self.control.as_mut(),
            Connection::Worker(n) => self.workers.get_mut(&n),
        }
    }

    fn check(&mut self, hello: &Hello, version: u16) -> Result<(), String> {
        if let Some(slot) = self.slot(hello.connection) {
            // The donor lost this connection, perhaps before it knew that it was accepted.
            if slot.run == hello.run && !slot.begun && slot.version == version {
                return Ok(());
            }
        }
        match (hello.connection, &self.control) {
            (Connection::Control, None) => Ok(()),
            (Connection::Control, Some(_)) => Err("another donor is already connected".into()),
            (Connection::Worker(n), None) => Err(format!("worker {n} came before the control connection")),
            (Connection::Worker(n), Some(_)) if n >= self.allowed => {
                Err(format!("worker {n} is one too many: {} are allowed", self.allowed))
            }
            (Connection::Worker(n), Some(_)) if self.workers.contains_key(&n) => {
                Err(format!("worker {n} is already connected"))
            }
            (Connection::Worker(n), Some(agreed)) if agreed.version != version => {
                let agreed = agreed.version;
                Err(format!("worker {n} speaks version {version}, the control connection {agreed}"))
            }
            (Connection::Worker(_), Some(_)) => Ok(()),
        }
    }

    /// Registers a connection and ends the one that it replaces.
    fn take(&mut self, connection: Connection, slot: Slot) {
        let before = match connection {
            Connection::Control => self.control.replace(slot),
            Connection::Worker(n) => self.workers.insert(n, slot),
        };
        if let Some(socket) = before.and_then(|before| before.socket.upgrade()) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

enum Trouble {
    TlsStream(super::tls_stream::WireError),
    Hello(String),
}
