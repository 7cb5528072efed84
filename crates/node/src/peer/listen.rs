//! The joiner's door: listens, lets the donor in, and turns everybody else away without waiting for them.
//!
//! Each connection is greeted in a thread of its own with a deadline. When too many are being greeted at once the
//! oldest is dropped: the true donor needs milliseconds, whoever holds a place for longer has nothing to say.
use std::collections::VecDeque;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustls::ServerConfig;

use super::greet::{Greeter, Guest};
use super::secret::{Invitation, Pin, TransferSecret};
use super::{Established, Link, Terms, bind, tls};
use crate::cancel::{Cancel, LOOK_EVERY};
use crate::failure::{Failure, Kind};

/// Connections greeted at once.
const GREETED_AT_ONCE: usize = 32;
/// Refusals logged one by one; after them one in [`LOG_ONE_IN`], so that a scanner does not fill the error log.
const LOGGED_REFUSALS: u64 = 50;
const LOG_ONE_IN: u64 = 1000;

/// Listens until it is dropped; nothing holds the port afterwards.
pub struct Door {
    shared: Arc<Shared>,
    invitation: Invitation,
    address: SocketAddr,
    acceptor: Option<JoinHandle<()>>,
    stop: Arc<OwnedFd>,
}

struct Shared {
    greeter: Greeter,
    arrivals: Mutex<Arrivals>,
    arrived: Condvar,
}

#[derive(Default)]
struct Arrivals {
    control: Option<Established>,
    workers: VecDeque<(u16, Link)>,
    refused: u64,
    last_refusal: String,
    /// Being greeted, oldest first.
    greeting: VecDeque<(u64, TcpStream)>,
    next: u64,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Door {
    /// Makes a secret and a certificate (or takes the operator's), binds `host:port`, and begins to listen.
    pub fn open(host: &str, port: u16, terms: Terms, cancel: &Cancel) -> Result<Door> {
        let (config, pin) = tls::server(terms.certificates.as_ref())?;
        Door::open_with(host, port, terms, cancel, config, pin)
    }

    /// [`Door::open`] with a TLS configuration that is already made.
    fn open_with(
        host: &str,
        port: u16,
        terms: Terms,
        cancel: &Cancel,
        config: Arc<ServerConfig>,
        pin: Pin,
    ) -> Result<Door> {
        let secret = TransferSecret::generate()?;
        let listeners = bind::bind(host, port)?;
        let address = listeners.first().context("no listener")?.local_addr()?;
        let shared = Arc::new(Shared {
            greeter: Greeter::new(secret.clone(), config, terms, cancel.clone()),
            arrivals: Mutex::default(),
            arrived: Condvar::new(),
        });
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).context("cannot make an event descriptor")?);
        let acceptor = std::thread::Builder::new().name("door".into()).spawn({
            let (shared, stop) = (shared.clone(), stop.clone());
            move || shared.accept(&listeners, &stop)
        });
        let acceptor = Some(acceptor.context("cannot start the thread that listens")?);
        Ok(Door { shared, invitation: Invitation { secret, pin }, address, acceptor, stop })
    }

    /// What the donor needs to know, for the `ready` line.
    pub fn invitation(&self) -> &Invitation {
        &self.invitation
    }

    /// The first address we listen on.
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
                n => format!("; {n} connections were refused, the last because {}", arrivals.last_refusal),
            };
            let text = format!("no donor came to port {port} within {} s{refused}", first_contact.as_secs());
            Failure::new(Kind::Timeout, text)
                .hint(format!(
                    "the donor must reach this machine's port {port}: see its log, and the firewall"
                ))
                .into()
        })
    }

    /// From now on workers 0 to `count - 1` are let in, each once. To be called before the donor hears that they may
    /// come, and again before each further attempt.
    pub fn allow_workers(&self, count: u16) {
        self.shared.greeter.allow_workers(count);
    }

    /// Waits for a worker and gives its number and connection; none when nobody came in time.
    pub fn admit_worker(&self, wait: Duration, cancel: &Cancel) -> Result<Option<(u16, Link)>> {
        self.wait(wait, cancel, |arrivals| arrivals.workers.pop_front())
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
            if let Some(guest) = take(&mut arrivals) {
                return Ok(Some(guest));
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

impl Drop for Door {
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
        let mut threads: Vec<JoinHandle<()>> = Vec::new();
        loop {
            let mut fds: Vec<PollFd<'_>> = vec![PollFd::new(stop, PollFlags::IN)];
            fds.extend(listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => tracing::warn!("cannot wait for connections: {e}"),
            }
            if fds.first().is_some_and(|stop| !stop.revents().is_empty()) {
                break;
            }
            threads.retain(|thread| !thread.is_finished());
            for listener in listeners {
                match listener.accept() {
                    Ok((socket, from)) => threads.extend(self.welcome(socket, from)),
                    Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(e) => {
                        // Out of descriptors, most likely: the connection stays, so do not spin.
                        tracing::warn!("cannot accept a connection: {e}");
                        std::thread::sleep(LOOK_EVERY);
                    }
                }
            }
        }
        for (_, socket) in self.arrivals().greeting.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
        for thread in threads {
            let _ = thread.join();
        }
    }

    /// Greets a connection in a thread of its own.
    fn welcome(self: &Arc<Shared>, socket: TcpStream, from: SocketAddr) -> Option<JoinHandle<()>> {
        // An IPv4 donor at the dual-stack wildcard is shown as what it is.
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        let handle = match socket.try_clone() {
            Ok(handle) => handle,
            Err(e) => {
                self.refuse(from, &format!("cannot serve it: {e}"));
                return None;
            }
        };
        let id = {
            let mut arrivals = self.arrivals();
            while arrivals.greeting.len() >= GREETED_AT_ONCE {
                if let Some((_, oldest)) = arrivals.greeting.pop_front() {
                    let _ = oldest.shutdown(Shutdown::Both);
                }
            }
            arrivals.next += 1;
            let id = arrivals.next;
            arrivals.greeting.push_back((id, handle));
            id
        };
        let shared = self.clone();
        let greeting = std::thread::Builder::new().name("greet".into()).spawn(move || {
            let guest = shared.greeter.greet(socket, &from.to_string());
            shared.arrivals().greeting.retain(|(other, _)| *other != id);
            match guest {
                Ok(guest) => shared.arrive(guest, from),
                Err(why) => shared.refuse(from, &why.to_string()),
            }
        });
        match greeting {
            Ok(thread) => Some(thread),
            Err(e) => {
                self.arrivals().greeting.retain(|(other, _)| *other != id);
                self.refuse(from, &format!("cannot serve it: {e}"));
                None
            }
        }
    }

    fn arrive(&self, guest: Guest, from: SocketAddr) {
        let mut arrivals = self.arrivals();
        match guest {
            Guest::Control(established) => {
                // The joiner says so to the server's log.
                tracing::debug!("donor {from} connected, {}", established.program);
                arrivals.control = Some(established);
            }
            Guest::Worker(number, link) => {
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
        drop(arrivals);
        if n <= LOGGED_REFUSALS || n.is_multiple_of(LOG_ONE_IN) {
            tracing::warn!("refused a connection from {from} (number {n}): {why}");
        }
    }
}
