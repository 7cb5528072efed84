//! The donor's connections to the joiner's listener.
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use protocol::hello::{Connection, GREETING_BYTES, Greeting, Hello};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use rustls::{ClientConfig, ClientConnection};

use super::handshake::GREET_WITHIN;
use super::link::{Link, failure};
use super::secret::{Invitation, proof, random_bytes, verify};
use super::side::Side;
use super::terms::{Established, Terms};
use super::tls_stream::{Deadlines, TlsStream, WireError};
use super::{bind, tls};
use crate::cancel::{Cancel, LOOK_EVERY};
use crate::failure::{Failure, Kind, is_lost};
use crate::threads::{self, Thread};

/// How long a data connection is retried.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(30);
/// How long an unresponsive address is retried.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// The limit for one of several addresses.
const ONE_ADDRESS_WITHIN: Duration = Duration::from_secs(5);
/// How long refused connections count as temporary. A joiner listens before it requests a donor, and until
/// its program ends.
const REFUSED_FOR: Duration = Duration::from_secs(2);
/// The delay between attempts to connect.
const PAUSE: Duration = Duration::from_millis(300);
/// The delay before a lost connection is made again.
const REDIAL_AFTER: Duration = Duration::from_millis(100);

/// Makes the connections of one transfer.
#[derive(Debug)]
pub struct Dialer {
    host: String,
    port: u16,
    invitation: Invitation,
    /// Identifies our connections to the joiner.
    run: u64,
    config: Arc<ClientConfig>,
    terms: Terms,
    cancel: Cancel,
    /// The shortest time that a connection took, in microseconds.
    fastest: AtomicU64,
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
        let run = random_bytes()?.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let (cancel, fastest) = (cancel.clone(), AtomicU64::new(u64::MAX));
        Ok(Dialer { host, port, invitation, run, config, terms, cancel, fastest })
    }

    /// The time of a packet to the joiner and back: the shortest that a connection took. Zero before the first one.
    pub fn round_trip(&self) -> Duration {
        match self.fastest.load(Ordering::Relaxed) {
            u64::MAX => Duration::ZERO,
            micros => Duration::from_micros(micros),
        }
    }

    /// Makes the control connection. If it is lost before the joiner has responded, it is made again for up
    /// to `within`: only an explicit refusal by the joiner is final.
    pub fn dial_control(&self, within: Duration) -> Result<Established> {
        self.dial(Connection::Control, within)
    }

    /// Makes the data connection with this number, like [`Dialer::dial_control`].
    pub fn dial_worker(&self, number: u16, within: Duration) -> Result<Link> {
        Ok(self.dial(Connection::Worker(number), within)?.link)
    }

    fn dial(&self, connection: Connection, within: Duration) -> Result<Established> {
        let end = Instant::now() + within;
        let mut lost = 0u32;
        loop {
            let socket = self.connect(end)?;
            let error = match self.meet(socket, connection) {
                Ok(established) => {
                    if lost > 0 {
                        tracing::info!("connected to the joiner after {lost} lost connections");
                    }
                    return Ok(established);
                }
                Err(error) => error,
            };
            if !is_lost(&error) || Instant::now() + REDIAL_AFTER >= end {
                return Err(error);
            }
            lost += 1;
            if lost == 1 {
                tracing::warn!("{error:#} before it responded; retrying for up to {} s", within.as_secs());
            }
            self.cancel.sleep(REDIAL_AFTER)?;
        }
    }

    /// Makes one connection, from the handshake to the joiner's welcome.
    fn meet(&self, socket: TcpStream, connection: Connection) -> Result<Established> {
        let at = bind::join(&self.host, self.port);
        let peer = format!("the joiner at {at}");
        let tls = ClientConnection::new(self.config.clone(), tls::server_name(&self.invitation.secret)?)
            .with_context(|| format!("cannot begin TLS with {peer}"))?;
        let mut wire =
            TlsStream::new(socket.into(), tls.into(), &self.cancel).with_context(|| peer.clone())?;
        match self.introduce(&mut wire, connection, &peer) {
            Ok((version, capabilities, program)) => {
                let link = Link::new(wire, Side::Donor, &at, self.terms.stall);
                Ok(Established { link, version, capabilities, program })
            }
            Err(why) => {
                // The joiner logs the TLS alert with our reason. If we were cancelled, we wait less.
                if self.cancel.check().is_ok() {
                    wire.part(Instant::now() + Duration::from_millis(500));
                }
                Err(why.into())
            }
        }
    }

    /// Handshake, Hello, Greeting, and the joiner's proof.
    fn introduce(
        &self,
        wire: &mut TlsStream,
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
            run: self.run,
            proof: proof(&self.invitation.secret, &exporter, Side::Donor, connection),
            program: self.terms.program.clone(),
        };
        let patience = Deadlines::Until(until);
        let sent = wire.write_all(&hello.encode(), patience).and_then(|()| wire.flush(patience));
        // A joiner that rejected our certificate reports it only now. That reason is better than our failed
        // write.
        let greeting = match (read_greeting(wire, patience), sent) {
            (Ok(greeting), _) => greeting,
            (Err(e @ Unread::Connection(WireError::Tls(_))), _) => return Err(e.failure(peer)),
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
                    return Err(Failure::new(
                        Kind::Peer,
                        format!("{peer} chose a version or capability that we did not offer"),
                    ));
                }
                Ok((version, capabilities, program))
            }
        }
    }

    /// Connects, trying each address repeatedly until one responds, nothing listens or the time is over.
    fn connect(&self, end: Instant) -> Result<TcpStream> {
        let began = Instant::now();
        let end = end.min(began + ANSWER_WITHIN);
        let at = bind::join(&self.host, self.port);
        let mut refused_since: Option<Instant> = None;
        loop {
            let (mut last, mut refused) = (None, true);
            match self.resolve(end)? {
                Err(e) => last = Some(e),
                Ok(addresses) => {
                    for address in addresses {
                        let dialed = Instant::now();
                        let until = end.min(dialed + ONE_ADDRESS_WITHIN);
                        match connect(address, until, &self.cancel)? {
                            Ok(socket) => {
                                let took = dialed.elapsed().as_micros() as u64;
                                self.fastest.fetch_min(took, Ordering::Relaxed);
                                return Ok(socket);
                            }
                            Err(e) => {
                                refused &= e.kind() == io::ErrorKind::ConnectionRefused;
                                last = Some(e);
                            }
                        }
                    }
                }
            }
            let all_refused =
                refused && last.as_ref().is_some_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
            refused_since = if all_refused { refused_since.or(Some(Instant::now())) } else { None };
            if refused_since.is_some_and(|since| since.elapsed() >= REFUSED_FOR) {
                let refused_for = REFUSED_FOR.as_secs();
                let text =
                    format!("the joiner at {at} is gone: it has refused connections for {refused_for} s");
                return Err(Failure::new(Kind::Peer, text)
                    .hint("read in the joiner's log why it ended; if it is running, a firewall rejects connections to its port")
                    .into());
            }
            if Instant::now() + PAUSE >= end {
                let why = last.map_or("the name has no address".to_owned(), |e| e.to_string());
                let within = (end - began).as_secs_f64().ceil();
                let text = format!("cannot connect to the joiner at {at} within {within} s: {why}");
                return Err(Failure::new(Kind::Timeout, text)
                    .hint("the address is the joiner's wsrep_sst_receive_address, otherwise its wsrep_node_address; a firewall may block it")
                    .into());
            }
            self.cancel.sleep(PAUSE)?;
        }
    }

    /// Resolves the name in a thread that is abandoned if it takes too long, because the system's resolver
    /// cannot be interrupted.
    fn resolve(&self, end: Instant) -> Result<io::Result<Vec<SocketAddr>>> {
        if let Ok(ip) = self.host.parse() {
            return Ok(Ok(vec![SocketAddr::new(ip, self.port)]));
        }
        let (tell, told) = channel();
        let (host, port) = (self.host.clone(), self.port);
        threads::spawn(Thread::Resolver, move || {
            let _ = tell.send((host.as_str(), port).to_socket_addrs().map(Iterator::collect));
        })?;
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

/// One attempt. After the inner error the caller may retry.
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
            return Ok(Err(io::Error::new(io::ErrorKind::TimedOut, "no response")));
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

/// Why the joiner's greeting could not be read.
enum Unread {
    Connection(WireError),
    Greeting(protocol::hello::HelloError),
}

impl Unread {
    fn failure(self, peer: &str) -> Failure {
        match self {
            Unread::Connection(WireError::Closed) => {
                Failure::new(Kind::Peer, format!("{peer} closed the connection without a greeting")).lost()
            }
            Unread::Connection(e) => failure(e, Side::Donor, peer),
            Unread::Greeting(e) => Failure::new(Kind::Peer, format!("{peer}: {e}")),
        }
    }
}

fn read_greeting(wire: &mut TlsStream, patience: Deadlines) -> Result<Greeting, Unread> {
    let mut head = [0; GREETING_BYTES];
    wire.read_exact(&mut head, patience).map_err(Unread::Connection)?;
    let mut tail = vec![0; Greeting::tail_len(&head).map_err(Unread::Greeting)?];
    wire.read_exact(&mut tail, patience).map_err(Unread::Connection)?;
    Greeting::decode(&head, &tail).map_err(Unread::Greeting)
}
