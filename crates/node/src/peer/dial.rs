//! The donor's way to the joiner's door.
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use protocol::hello::{Connection, GREETING_BYTES, Greeting, Hello};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use rustls::{ClientConfig, ClientConnection};

use super::greet::GREET_WITHIN;
use super::link::{Link, failure};
use super::secret::{Invitation, proof, verify};
use super::wire::{Patience, Wire, WireError};
use super::{Established, Side, Terms, bind, tls};
use crate::cancel::{Cancel, LOOK_EVERY};
use crate::failure::{Failure, Kind};

/// How long connecting is retried unless the caller says otherwise: a joiner prints its address before it listens
/// on no system we know, but a link or a firewall may take a moment.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(30);
/// One address of several must not take all the time.
const ONE_ADDRESS_WITHIN: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(300);

/// Makes the connections of one transfer.
#[derive(Debug)]
pub struct Dialer {
    host: String,
    port: u16,
    invitation: Invitation,
    config: Arc<ClientConfig>,
    terms: Terms,
    cancel: Cancel,
}

impl Dialer {
    /// Prepares to dial the joiner at `host:port` (a name, an IPv4 or an IPv6 address with or without brackets).
    pub fn new(
        host: &str,
        port: u16,
        invitation: Invitation,
        terms: Terms,
        cancel: &Cancel,
    ) -> Result<Dialer> {
        let config = tls::client(terms.certificates.as_ref(), invitation.pin)?;
        let host = bind::bare(host).to_owned();
        Ok(Dialer { host, port, invitation, config, terms, cancel: cancel.clone() })
    }

    /// Makes the control connection; tries for as long as `within` while nobody answers at the address.
    pub fn dial_control(&self, within: Duration) -> Result<Established> {
        self.dial(Connection::Control, within)
    }

    /// Makes the data connection with this number.
    pub fn dial_worker(&self, number: u16, within: Duration) -> Result<Link> {
        Ok(self.dial(Connection::Worker(number), within)?.link)
    }

    fn dial(&self, connection: Connection, within: Duration) -> Result<Established> {
        let socket = self.connect(Instant::now() + within, within)?;
        let at = bind::join(&self.host, self.port);
        let peer = format!("the joiner at {at}");
        let tls = ClientConnection::new(self.config.clone(), tls::server_name()?)
            .with_context(|| format!("cannot begin TLS with {peer}"))?;
        let mut wire = Wire::new(socket, tls.into(), &self.cancel).with_context(|| peer.clone())?;
        match self.introduce(&mut wire, connection, &peer) {
            Ok((version, capabilities, program)) => {
                let link = Link::new(wire, Side::Donor, &at, self.terms.stall);
                Ok(Established { link, version, capabilities, program })
            }
            Err(why) => {
                // The joiner logs the TLS alert that says what we did not like.
                wire.part(Instant::now() + Duration::from_millis(500));
                Err(why.into())
            }
        }
    }

    /// Handshake, Hello, Greeting, and the joiner's proof.
    fn introduce(
        &self,
        wire: &mut Wire,
        connection: Connection,
        peer: &str,
    ) -> Result<(u16, u64, String), Failure> {
        let fail = |e| failure(e, Side::Donor, peer);
        let refused = |text: String| Failure::new(Kind::Refused, text);
        let until = Instant::now() + GREET_WITHIN;
        wire.handshake(until).map_err(fail)?;
        if wire.alpn() != Some(tls::ALPN) {
            return Err(refused(format!("{peer} speaks TLS, but not the rejoin protocol (ALPN)")));
        }
        let exporter = wire.exporter().map_err(fail)?;
        let hello = Hello {
            versions: self.terms.versions,
            capabilities: self.terms.capabilities,
            connection,
            proof: proof(&self.invitation.secret, &exporter, Side::Donor, connection),
            program: self.terms.program.clone(),
        };
        let patience = Patience::Until(until);
        let sent = wire.write_all(&hello.encode(), patience).and_then(|()| wire.flush(patience));
        // A joiner that did not like our certificate says so only now; it counts more than that we could not write.
        let greeting = match (read_greeting(wire, patience), sent) {
            (Ok(greeting), _) => greeting,
            (Err(e @ Unread::Wire(WireError::Tls(_))), _) => return Err(e.failure(peer)),
            (_, Err(e)) => return Err(fail(e)),
            (Err(e), Ok(())) => return Err(e.failure(peer)),
        };
        match greeting {
            Greeting::Refused { reason } => Err(refused(format!("{peer} refused us: {reason}"))),
            Greeting::Welcome { version, capabilities, proof, program } => {
                if !verify(&self.invitation.secret, &exporter, Side::Joiner, connection, &proof) {
                    return Err(refused(format!("{peer} does not know the secret of this transfer")));
                }
                let (oldest, newest) = self.terms.versions;
                if !(oldest..=newest).contains(&version) || capabilities & !self.terms.capabilities != 0 {
                    return Err(Failure::new(Kind::Peer, format!("{peer} chose what we did not offer")));
                }
                Ok((version, capabilities, program))
            }
        }
    }

    /// Connects, trying each address again and again until one answers or the time is over.
    fn connect(&self, end: Instant, within: Duration) -> Result<TcpStream> {
        loop {
            let mut last = None;
            match self.resolve(end)? {
                Err(e) => last = Some(e),
                Ok(addresses) => {
                    for address in addresses {
                        let until = end.min(Instant::now() + ONE_ADDRESS_WITHIN);
                        match connect(address, until, &self.cancel)? {
                            Ok(socket) => return Ok(socket),
                            Err(e) => last = Some(e),
                        }
                    }
                }
            }
            if Instant::now() + PAUSE >= end {
                let at = bind::join(&self.host, self.port);
                let why = last.map_or("the name has no address".to_owned(), |e| e.to_string());
                let text =
                    format!("cannot connect to the joiner at {at} within {} s: {why}", within.as_secs());
                return Err(Failure::new(Kind::Timeout, text)
                    .hint("the address is wsrep_sst_receive_address of the joiner, else its wsrep_node_address; a firewall may be between")
                    .into());
            }
            self.cancel.sleep(PAUSE)?;
        }
    }

    /// Resolves the name in a thread that is left behind when it takes too long: the system's resolver cannot be
    /// interrupted.
    fn resolve(&self, end: Instant) -> Result<io::Result<Vec<SocketAddr>>> {
        if let Ok(ip) = self.host.parse() {
            return Ok(Ok(vec![SocketAddr::new(ip, self.port)]));
        }
        let (tell, told) = channel();
        let (host, port) = (self.host.clone(), self.port);
        std::thread::Builder::new()
            .name("resolve".into())
            .spawn(move || {
                let _ = tell.send((host.as_str(), port).to_socket_addrs().map(Iterator::collect));
            })
            .context("cannot start a thread to resolve the joiner's name")?;
        loop {
            self.cancel.check()?;
            match told.recv_timeout(LOOK_EVERY) {
                Ok(addresses) => return Ok(addresses),
                Err(RecvTimeoutError::Timeout) if Instant::now() < end => {}
                Err(_) => {
                    return Ok(Err(io::Error::new(io::ErrorKind::TimedOut, "the name does not resolve")));
                }
            }
        }
    }
}

/// One attempt; the inner error is one to try again after.
fn connect(address: SocketAddr, until: Instant, cancel: &Cancel) -> Result<io::Result<TcpStream>> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = match rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP)) {
        Ok(socket) => socket,
        Err(e) => return Ok(Err(e.into())),
    };
    match rustix::net::connect(&socket, &address) {
        Ok(()) => return Ok(Ok(TcpStream::from(socket))),
        Err(Errno::INPROGRESS | Errno::INTR) => {}
        Err(e) => return Ok(Err(e.into())),
    }
    let look = rustix::event::Timespec { tv_sec: 0, tv_nsec: LOOK_EVERY.as_nanos() as i64 };
    loop {
        cancel.check()?;
        if Instant::now() >= until {
            return Ok(Err(io::Error::new(io::ErrorKind::TimedOut, "no answer")));
        }
        match poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&look)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => {
                return Ok(match sockopt::socket_error(&socket) {
                    Ok(Ok(())) => Ok(TcpStream::from(socket)),
                    Ok(Err(e)) | Err(e) => Err(e.into()),
                });
            }
            Err(e) => return Ok(Err(e.into())),
        }
    }
}

enum Unread {
    Wire(WireError),
    Words(protocol::hello::HelloError),
}

impl Unread {
    fn failure(self, peer: &str) -> Failure {
        match self {
            Unread::Wire(WireError::Closed) => {
                Failure::new(Kind::Peer, format!("{peer} closed the connection without a greeting"))
            }
            Unread::Wire(e) => failure(e, Side::Donor, peer),
            Unread::Words(e) => Failure::new(Kind::Peer, format!("{peer}: {e}")),
        }
    }
}

fn read_greeting(wire: &mut Wire, patience: Patience) -> Result<Greeting, Unread> {
    let mut head = [0; GREETING_BYTES];
    wire.read_exact(&mut head, patience).map_err(Unread::Wire)?;
    let mut tail = vec![0; Greeting::tail_len(&head).map_err(Unread::Words)?];
    wire.read_exact(&mut tail, patience).map_err(Unread::Wire)?;
    Greeting::decode(&head, &tail).map_err(Unread::Words)
}
