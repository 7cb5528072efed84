//! Connections to the relay that have not yet shown whether they are a donor's.
//!
//! Each gets a thread for a few seconds: the handshake of TLS where our provider encrypts, then the provider's greeting, which a
//! donor's provider answers within a round trip. Their number is bounded. When it is reached, the address with most of them
//! loses its oldest one, so a stranger that connects again and again makes room for itself only.
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use formats::galera::ist::HEADER_LEN;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::ServerConnection;

use super::certificates::SocketTls;
use super::end::End;
use super::session::Donor;
use crate::cancel::Cancel;
use crate::server::ist_door::Transport;

/// At most this many at once.
const AT_ONCE: usize = 32;
/// How long one may take for its handshake, and again for its answer to the greeting.
const WITHIN: Duration = Duration::from_secs(5);
/// A provider with `socket.dynamic` waits this long for the beginning of TLS, then speaks plainly.
const TLS_BEGINS_WITHIN: Duration = Duration::from_millis(750);
/// The first refusals are logged one by one, later ones at most once in [`LOG_EVERY`].
const LOGGED: u64 = 50;
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Those that are being greeted, oldest first.
#[derive(Default)]
pub(super) struct Callers {
    present: VecDeque<(SocketAddr, Arc<TcpStream>)>,
    refused: u64,
    logged: Option<Instant>,
}

impl Callers {
    /// Takes one in. Another one loses its place if there are too many.
    pub fn admit(&mut self, from: SocketAddr, socket: &Arc<TcpStream>) {
        if self.present.len() >= AT_ONCE {
            self.make_room();
        }
        self.present.push_back((from, socket.clone()));
    }

    fn make_room(&mut self) {
        let mut held: HashMap<IpAddr, usize> = HashMap::new();
        self.present.iter().for_each(|(from, _)| *held.entry(from.ip()).or_default() += 1);
        let most = held.values().max().copied().unwrap_or(0);
        let loses = self.present.iter().position(|(from, _)| held.get(&from.ip()) == Some(&most));
        if let Some((_, socket)) = loses.and_then(|at| self.present.remove(at)) {
            // Its thread ends with that.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// None is being greeted.
    pub fn are_none(&self) -> bool {
        self.present.is_empty()
    }

    /// This one is no longer being greeted.
    pub fn remove(&mut self, from: SocketAddr) {
        self.present.retain(|(known, _)| *known != from);
    }

    /// One is no donor.
    pub fn refuse(&mut self, from: SocketAddr, why: &str) {
        self.refused += 1;
        if self.refused <= LOGGED || self.logged.is_none_or(|last| last.elapsed() >= LOG_EVERY) {
            self.logged = Some(Instant::now());
            let n = self.refused;
            tracing::warn!("{from} connected where IST is expected and is no donor (number {n}): {why}");
        }
    }

    /// Ends all.
    pub fn dismiss(&mut self) {
        for (_, socket) in self.present.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// Greets a connection as our provider would.
///
/// # Errors
/// It does not answer as a donor's provider does.
pub(super) fn greet(
    socket: Arc<TcpStream>,
    speaks: Transport,
    tls: Option<&SocketTls>,
    hello: &[u8; HEADER_LEN],
    cancel: &Cancel,
) -> Result<Donor> {
    let encrypted = match speaks {
        Transport::Plain => None,
        Transport::Tls => tls,
        Transport::Dynamic => tls.filter(|_| sends(&socket, TLS_BEGINS_WITHIN)),
    };
    let end = match encrypted {
        None => End::plain(socket, cancel)?,
        Some(tls) => End::tls(socket, ServerConnection::new(tls.server.clone())?, WITHIN, cancel)?,
    };
    Donor::greeted(end, hello, WITHIN)
}

/// Whether it sends anything in time.
fn sends(socket: &TcpStream, within: Duration) -> bool {
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(within.subsec_nanos()) };
    matches!(poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&timeout)), Ok(1..))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_address_with_most_loses_its_oldest() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut others = Vec::new();
        let mut callers = Callers::default();
        let from = |host: u8, port: u16| SocketAddr::new([10, 0, 0, host].into(), port);
        let mut admit = |callers: &mut Callers, from: SocketAddr| {
            others.push(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
            callers.admit(from, &Arc::new(listener.accept().unwrap().0));
        };
        admit(&mut callers, from(1, 1));
        (2..8).for_each(|host| admit(&mut callers, from(host, 1)));
        (0..100).for_each(|port| admit(&mut callers, from(9, port)));
        let present = |callers: &Callers| -> Vec<SocketAddr> { callers.present.iter().map(|c| c.0).collect() };
        assert_eq!(callers.present.len(), AT_ONCE);
        assert_eq!(present(&callers).first(), Some(&from(1, 1)));
        assert_eq!(present(&callers).get(7), Some(&from(9, 75)), "its oldest went");
        callers.remove(from(1, 1));
        assert_eq!(present(&callers).first(), Some(&from(2, 1)));
        callers.dismiss();
        assert!(callers.are_none());
    }
}
