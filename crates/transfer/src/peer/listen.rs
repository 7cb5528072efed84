//! The joiner's listener: accepts the donor, and rejects all other connections without waiting for them.
//!
//! One thread accepts and screens all connections. Only a connection whose first packet has a token of this
//! transfer (`screen`) gets a handshake, in a separate thread, and no stranger's connection can end that.
use std::collections::{HashMap, VecDeque};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use protocol::hello::Connection;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustls::ServerConfig;

use super::handshake::{Admitted, Handshakes};
use super::link::Link;
use super::screen::{Screen, Verdict};
use super::secret::{Invitation, Pin, TransferSecret};
use super::terms::{Established, Terms};
use super::tls_stream::again;
use super::{bind, tls};
use crate::cancel::{Cancel, LOOK_EVERY};
use crate::failure::{Failure, Kind};
use crate::threads::{self, Thread};

/// At most this many connections are accepted before the waiting ones are checked again.
const ACCEPTED_AT_ONCE: usize = 64;
/// The first refusals are logged individually, later ones at most once in [`LOG_EVERY`], so that a scanner
/// does not fill the error log.
const LOGGED_REFUSALS: u64 = 50;
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Listens until it is dropped, which frees the port.
pub struct Listener {
    shared: Arc<Shared>,
    invitation: Invitation,
    address: SocketAddr,
    acceptor: Option<JoinHandle<()>>,
    stop: Arc<OwnedFd>,
}

struct Shared {
    handshakes: Handshakes,
    arrivals: Mutex<Arrivals>,
    arrived: Condvar,
}

#[derive(Default)]
struct Arrivals {
    control: Option<Established>,
    workers: VecDeque<(u16, Link)>,
    refused: u64,
    last_refusal: String,
    /// When the last refusal was logged.
    logged: Option<Instant>,
    /// Connections in their handshake.
    greeting: HashMap<u64, Weak<TcpStream>>,
    next: u64,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Listener {
    /// Creates a secret and a certificate (or uses the operator's), binds `host:port`, and starts to listen.
    pub fn open(host: &str, port: u16, terms: Terms, cancel: &Cancel) -> Result<Listener> {
        let (config, pin) = tls::server(terms.certificates.as_ref())?;
        Listener::open_with(host, port, terms, cancel, config, pin)
    }

    /// Like [`Listener::open`], with an existing TLS configuration.
    fn open_with(
        host: &str,
        port: u16,
        terms: Terms,
        cancel: &Cancel,
        config: Arc<ServerConfig>,
        pin: Pin,
    ) -> Result<Listener> {
        let secret = TransferSecret::generate()?;
        let listeners = bind::bind(host, port)?;
        let address = listeners.first().context("no listener")?.local_addr()?;
        let shared = Arc::new(Shared {
            handshakes: Handshakes::new(secret.clone(), config, terms, cancel.clone()),
            arrivals: Mutex::default(),
            arrived: Condvar::new(),
        });
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).context("cannot make an event descriptor")?);
        let acceptor = threads::spawn(Thread::Listener, {
            let (shared, stop) = (shared.clone(), stop.clone());
            move || shared.accept(&listeners, &stop)
        });
        let acceptor = Some(acceptor?);
        Ok(Listener { shared, invitation: Invitation { secret, pin }, address, acceptor, stop })
    }

    /// What the donor needs, for the `ready` line.
    pub fn invitation(&self) -> &Invitation {
        &self.invitation
    }

    /// The first address that we listen on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for the donor.
    pub fn admit_control(&self, first_contact: Duration, cancel: &Cancel) -> Result<Established> {
        let port = self.address.port();
        let admitted = self.wait(first_contact, cancel, |arrivals| arrivals.control.take())?;
        admitted.ok_or_else(|| {
            let arrivals = self.shared.arrivals();
            let refused = match arrivals.refused {
                0 => String::new(),
                n => format!("; {n} connections were refused, the last one because {}", arrivals.last_refusal),
            };
            let waited = first_contact.as_secs_f64().ceil();
            let text = format!("no donor connected to port {port} within {waited} s{refused}");
            Failure::new(Kind::Timeout, text)
                .hint(format!(
                    "the donor must be able to connect to port {port} of this machine: check its log, and the firewall"
                ))
                .into()
        })
    }

    /// Accepts workers 0 to `count - 1` from now on, each once. Call it before the donor is told that workers
    /// may connect, and again before each further attempt.
    pub fn allow_workers(&self, count: u16) {
        self.shared.handshakes.allow_workers(count);
    }

    /// Waits for a worker and returns its number and connection; `None` if no worker connected in time.
    pub fn admit_worker(&self, wait: Duration, cancel: &Cancel) -> Result<Option<(u16, Link)>> {
        self.wait(wait, cancel, |arrivals| arrivals.workers.pop_front())
    }

    /// From now on this connection cannot be made again, because something was agreed over it. Until then its
    /// donor may make it again, and the earlier one ends.
    pub fn begun(&self, connection: Connection) {
        self.shared.handshakes.begun(connection);
    }

    /// Whether [`Listener::begun`] was called for this connection.
    pub fn has_begun(&self, connection: Connection) -> bool {
        self.shared.handshakes.has_begun(connection)
    }

    /// How many connections were refused so far.
    pub fn refused(&self) -> u64 {
        self.shared.arrivals().refused
    }

    fn wait<T>(
        &self,
        limit: Duration,
        cancel: &Cancel,
        mut take: impl FnMut(&mut Arrivals) -> Option<T>,
    ) -> Result<Option<T>> {
        let end = Instant::now() + limit;
        let mut arrivals = self.shared.arrivals();
        loop {
            cancel.check()?;
            if let Some(admitted) = take(&mut arrivals) {
                return Ok(Some(admitted));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let woken = self.shared.arrived.wait_timeout(arrivals, left.min(LOOK_EVERY));
            arrivals = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The acceptor thread.
    fn accept(self: &Arc<Shared>, listeners: &[TcpListener], stop: &OwnedFd) {
        let mut screen = Screen::new(self.handshakes.secret.clone());
        let mut threads: Vec<JoinHandle<()>> = Vec::new();
        while let Some(ready) = wait(listeners, &screen, stop) {
            screen.read(&ready);
            for listener in listeners {
                accept_from(listener, &mut screen);
            }
            threads.retain(|thread| !thread.is_finished());
            for verdict in screen.verdicts() {
                match verdict {
                    Verdict::Donor { socket, from, received } => {
                        threads.extend(self.welcome(socket, from, received));
                    }
                    Verdict::Stranger { from, why } => self.refuse(from, &why),
                }
            }
        }
        for (_, socket) in self.arrivals().greeting.drain() {
            let _ = socket.upgrade().map(|socket| socket.shutdown(Shutdown::Both));
        }
        for thread in threads {
            let _ = thread.join();
        }
    }

    /// Does the handshake of a connection in a separate thread.
    fn welcome(
        self: &Arc<Shared>,
        socket: TcpStream,
        from: SocketAddr,
        received: Vec<u8>,
    ) -> Option<JoinHandle<()>> {
        let socket = Arc::new(socket);
        let id = {
            let mut arrivals = self.arrivals();
            arrivals.next += 1;
            let id = arrivals.next;
            arrivals.greeting.insert(id, Arc::downgrade(&socket));
            id
        };
        let shared = self.clone();
        let greeting = threads::spawn(Thread::Handshake, move || {
            let admitted = shared.handshakes.accept(&socket, &received, &from.to_string());
            shared.arrivals().greeting.remove(&id);
            match admitted {
                Ok(admitted) => shared.arrive(admitted, from),
                Err(why) => shared.refuse(from, &why.to_string()),
            }
        });
        match greeting {
            Ok(thread) => Some(thread),
            Err(e) => {
                self.arrivals().greeting.remove(&id);
                self.refuse(from, &format!("cannot serve it: {e}"));
                None
            }
        }
    }

    fn arrive(&self, admitted: Admitted, from: SocketAddr) {
        let mut arrivals = self.arrivals();
        match admitted {
            Admitted::Control(established) => {
                // The joiner writes this to the server's log.
                tracing::debug!("donor {from} connected, {}", established.program);
                arrivals.control = Some(established);
            }
            Admitted::Worker(number, link) => {
                tracing::debug!("worker {number} connected from {from}");
                arrivals.workers.push_back((number, link));
            }
        }
        self.arrived.notify_all();
    }

    fn refuse(&self, from: SocketAddr, why: &str) {
        let mut arrivals = self.arrivals();
        arrivals.refused += 1;
        arrivals.last_refusal = why.to_owned();
        let n = arrivals.refused;
        let log = n <= LOGGED_REFUSALS || arrivals.logged.is_none_or(|last| last.elapsed() >= LOG_EVERY);
        if log {
            arrivals.logged = Some(Instant::now());
        }
        drop(arrivals);
        if log {
            tracing::warn!("refused a connection from {from} (number {n}): {why}");
        }
    }
}

/// Waits until something can be done. Returns which of the screened connections are readable; `None` when the
/// listener must stop.
fn wait(listeners: &[TcpListener], screen: &Screen, stop: &OwnedFd) -> Option<Vec<bool>> {
    let mut fds: Vec<PollFd<'_>> = vec![PollFd::new(stop, PollFlags::IN)];
    fds.extend(listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
    fds.extend(screen.sockets().map(|socket| PollFd::new(socket, PollFlags::IN)));
    let patience = screen.patience().map(|patience| Timespec {
        tv_sec: patience.as_secs() as i64,
        tv_nsec: i64::from(patience.subsec_nanos()),
    });
    match poll(&mut fds, patience.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(e) => tracing::warn!("cannot wait for connections: {e}"),
    }
    let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
    match fds.first() {
        Some(stop) if ready(stop) => None,
        _ => Some(fds.iter().skip(1 + listeners.len()).map(ready).collect()),
    }
}

/// Accepts the waiting connections.
fn accept_from(listener: &TcpListener, screen: &mut Screen) {
    for _ in 0..ACCEPTED_AT_ONCE {
        match listener.accept() {
            // An IPv4 donor at the dual-stack wildcard is shown with its IPv4 address.
            Ok((socket, from)) => screen.take(socket, SocketAddr::new(from.ip().to_canonical(), from.port())),
            Err(e) if again(&e) => return,
            // Probably no descriptors are left: closing the oldest unknown connection frees one; otherwise we
            // can only wait.
            Err(e) if !screen.make_room() => {
                tracing::warn!("cannot accept a connection: {e}");
                std::thread::sleep(LOOK_EVERY);
                return;
            }
            Err(_) => {}
        }
    }
}
