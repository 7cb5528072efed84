//! Connections to the relay that have not yet shown whether they are a donor's.
//!
//! Each gets a thread for a few seconds: the handshake of TLS where our provider encrypts, then the provider's greeting, which a
//! donor's provider answers within a round trip. A donor connects once: if it is dropped, the join fails. So nobody loses a place
//! who may still be one. Their number is bounded, and when it is reached, others wait until one has ended or is late.
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use formats::galera::ist::HEADER_LEN;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::ServerConnection;

use super::certificates::SocketTls;
use super::session::Donor;
use crate::cancel::{Cancel, LOOK_EVERY};
use crate::peer::end::End;
use crate::server::ist_endpoints::Transport;

/// At most this many at once.
const AT_ONCE: usize = 128;
/// One that has sent nothing may lose its place after this time: a donor's provider begins TLS, or answers the greeting, at once
/// (with `socket.dynamic` after half a second) ...
const SILENT: Duration = Duration::from_millis(1000);
/// ... and one that has sent something after this time.
const LATE: Duration = Duration::from_secs(3);
/// How long one may take for its handshake, and again for its answer to the greeting.
const WITHIN: Duration = Duration::from_secs(5);
/// A provider with `socket.dynamic` waits this long for the beginning of TLS, then speaks plainly.
const TLS_BEGINS_WITHIN: Duration = Duration::from_millis(750);
/// The first refusals are logged one by one, later ones at most once in [`LOG_EVERY`].
const LOGGED: u64 = 50;
const LOG_EVERY: Duration = Duration::from_secs(10);

/// One of them.
struct Caller {
    from: SocketAddr,
    socket: Arc<TcpStream>,
    since: Instant,
    spoke: Arc<AtomicBool>,
}

impl Caller {
    /// It may lose its place: a donor's provider would have done more by now.
    fn is_late(&self, now: Instant) -> bool {
        let patience = if self.spoke.load(Ordering::Acquire) { LATE } else { SILENT };
        now.saturating_duration_since(self.since) >= patience
    }
}

/// Those that are being greeted, oldest first.
#[derive(Default)]
pub(super) struct Callers {
    present: VecDeque<Caller>,
    refused: u64,
    logged: Option<Instant>,
}

impl Callers {
    /// Whether another one can be taken in. A late one loses its place for that: the oldest of the address that has most.
    pub fn have_room(&mut self) -> bool {
        if self.present.len() < AT_ONCE {
            return true;
        }
        let (now, mut held) = (Instant::now(), HashMap::<IpAddr, usize>::new());
        self.present.iter().for_each(|caller| *held.entry(caller.from.ip()).or_default() += 1);
        let late = self.present.iter().enumerate().filter(|(_, caller)| caller.is_late(now));
        let most = late.max_by_key(|(at, caller)| (held.get(&caller.from.ip()), std::cmp::Reverse(*at)));
        let loses = most.map(|(at, _)| at).and_then(|at| self.present.remove(at));
        // Its thread ends with that.
        loses.iter().for_each(|caller| drop(caller.socket.shutdown(Shutdown::Both)));
        loses.is_some()
    }

    /// Admits a caller. The thread that greets it sets the returned flag once the caller has sent anything.
    pub fn admit(&mut self, from: SocketAddr, socket: &Arc<TcpStream>) -> Arc<AtomicBool> {
        let spoke = Arc::<AtomicBool>::default();
        let (socket, since) = (socket.clone(), Instant::now());
        self.present.push_back(Caller { from, socket, since, spoke: spoke.clone() });
        spoke
    }

    /// None is being greeted.
    pub fn are_none(&self) -> bool {
        self.present.is_empty()
    }

    /// This one is no longer being greeted.
    pub fn remove(&mut self, from: SocketAddr) {
        self.present.retain(|caller| caller.from != from);
    }

    /// One is no donor.
    pub fn refuse(&mut self, from: SocketAddr, why: &str) {
        self.refused += 1;
        if self.refused <= LOGGED || self.logged.is_none_or(|last| last.elapsed() >= LOG_EVERY) {
            self.logged = Some(Instant::now());
            let n = self.refused;
            tracing::warn!("refused {from} at the port of IST, because it is no donor (refusal {n}): {why}");
        }
    }

    /// Ends all.
    pub fn dismiss(&mut self) {
        self.present.drain(..).for_each(|caller| drop(caller.socket.shutdown(Shutdown::Both)));
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
    spoke: &AtomicBool,
    cancel: &Cancel,
) -> Result<Donor> {
    let encrypted = match speaks {
        Transport::Plain => None,
        Transport::Tls => tls,
        Transport::Dynamic => tls.filter(|_| sends(&socket, TLS_BEGINS_WITHIN, cancel)),
    };
    let end = match encrypted {
        None => End::plain(socket, cancel)?,
        Some(tls) => {
            spoke.store(sends(&socket, WITHIN, cancel), Ordering::Release);
            End::tls(socket, ServerConnection::new(tls.server.clone())?, WITHIN, cancel)?
        }
    };
    Donor::greeted(end, hello, WITHIN)
}

/// Whether it sends anything in time, and before everything is over.
fn sends(socket: &TcpStream, within: Duration, cancel: &Cancel) -> bool {
    let until = Instant::now() + within;
    loop {
        let left = until.saturating_duration_since(Instant::now()).min(LOOK_EVERY);
        let timeout = Timespec { tv_sec: 0, tv_nsec: left.subsec_nanos().into() };
        if matches!(poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&timeout)), Ok(1..)) {
            return true;
        }
        if cancel.check().is_err() || Instant::now() >= until {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_silent_caller_is_not_waited_for_after_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _silent = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        let cancel = Cancel::new();
        let began = Instant::now();
        assert!(!sends(&socket, Duration::from_millis(300), &cancel));
        assert!(began.elapsed() >= Duration::from_millis(300));
        cancel.cancel(crate::failure::Kind::Stopped, "stop");
        let began = Instant::now();
        assert!(!sends(&socket, WITHIN, &cancel));
        assert!(began.elapsed() < WITHIN / 2);
    }

    #[test]
    fn the_late_ones_of_the_address_with_most_make_room_and_nobody_else() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut others = Vec::new();
        let mut callers = Callers::default();
        let from = |host: u8, port: usize| SocketAddr::new([10, 0, 0, host].into(), port as u16);
        let mut admit = |callers: &mut Callers, from: SocketAddr| {
            others.push(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
            callers.admit(from, &Arc::new(listener.accept().unwrap().0))
        };
        admit(&mut callers, from(1, 1));
        let spoke = admit(&mut callers, from(2, 0));
        spoke.store(true, Ordering::Release);
        (1..AT_ONCE - 1).for_each(|port| drop(admit(&mut callers, from(2, port))));
        assert!(!callers.have_room(), "nobody is late");
        let ago = |callers: &mut Callers, time: Duration| {
            callers.present.iter_mut().for_each(|caller| caller.since -= time);
        };
        ago(&mut callers, SILENT);
        assert!(callers.have_room());
        let present = |callers: &Callers| callers.present.iter().map(|c| c.from).collect::<Vec<_>>();
        assert_eq!(present(&callers)[..3], [from(1, 1), from(2, 0), from(2, 2)]);
        callers.remove(from(2, 2));
        admit(&mut callers, from(3, 1));
        admit(&mut callers, from(3, 2));
        ago(&mut callers, LATE);
        assert!(callers.have_room());
        assert_eq!(present(&callers)[..2], [from(1, 1), from(2, 3)], "it had spoken, and was late");
        callers.dismiss();
        assert!(callers.are_none());
    }
}
