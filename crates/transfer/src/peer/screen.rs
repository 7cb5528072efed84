//! Tells the donor's connections from all others by their first packet.
//!
//! A donor puts a token made from the transfer's secret into its ClientHello. Until a connection has shown
//! one, it costs an entry in a bounded table and a few system calls in the accepting thread: no thread of its
//! own, no key exchange, no signature. The limit for one address is reached before the limit for all, and the
//! oldest connection is dropped first. A connection that showed a token leaves the table, so no number of
//! strangers can end it.
use std::collections::{HashMap, HashSet, VecDeque};
use std::io::Write;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::RecvFlags;
use rustls::server::{Acceptor, ClientHello};
use rustls::{AlertDescription, ProtocolVersion};

use super::link::failure;
use super::secret::{TokenNumber, TransferSecret};
use super::side::Side;
use super::tls;
use super::tls_stream::{WireError, again, not_tls};

/// At most this many unknown connections from one address.
const PER_ADDRESS: usize = 64;
/// At most this many unknown connections from all addresses.
const TOTAL: usize = 512;
/// How long a connection may take to send its first packet.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// The longest ClientHello that is accepted; a donor's has about 300 bytes.
const HELLO_BYTES_MAX: usize = 8 << 10;

/// The result of screening a connection.
pub(super) enum Verdict {
    /// It showed a new token: it is the donor's, unless the handshake proves otherwise.
    Donor {
        /// The connection.
        socket: TcpStream,
        /// Its other end.
        from: SocketAddr,
        /// What was read from it.
        received: Vec<u8>,
    },
    /// It was closed.
    Stranger {
        /// Its other end.
        from: SocketAddr,
        /// Why.
        why: String,
    },
}

/// The connections that are still unknown.
pub(super) struct Screen {
    secret: TransferSecret,
    used: HashSet<TokenNumber>,
    /// Oldest first.
    unknown: VecDeque<Unknown>,
    held: HashMap<IpAddr, usize>,
    verdicts: Vec<Verdict>,
}

struct Unknown {
    socket: TcpStream,
    from: SocketAddr,
    until: Instant,
    received: Vec<u8>,
    hello: Acceptor,
}

/// What the first bytes of a connection show so far.
enum Step {
    /// More bytes are needed.
    More,
    /// It is the donor's.
    Donor,
    /// It is not.
    Stranger(String),
}

impl Screen {
    pub(super) fn new(secret: TransferSecret) -> Screen {
        Screen {
            secret,
            used: HashSet::new(),
            unknown: VecDeque::new(),
            held: HashMap::new(),
            verdicts: Vec::new(),
        }
    }

    /// Takes a new connection and reads its first bytes. Drops another one if the table is full.
    pub(super) fn take(&mut self, socket: TcpStream, from: SocketAddr) {
        let address = address_of(&from);
        if self.held.get(&address).is_some_and(|held| *held >= PER_ADDRESS) {
            self.drop_oldest_of(address, "its address has too many silent connections");
        } else if self.unknown.len() >= TOTAL {
            self.make_room();
        }
        let until = Instant::now() + HELLO_WITHIN;
        let mut unknown = Unknown { socket, from, until, received: Vec::new(), hello: Acceptor::default() };
        match unknown.step(&self.secret, &mut self.used) {
            Step::More => {
                *self.held.entry(address).or_default() += 1;
                self.unknown.push_back(unknown);
            }
            Step::Donor => self.verdicts.push(unknown.donor()),
            Step::Stranger(why) => self.verdicts.push(Verdict::Stranger { from, why }),
        }
    }

    /// Drops the oldest connection of the address that has most; false if there is none.
    pub(super) fn make_room(&mut self) -> bool {
        let Some(address) = self.held.iter().max_by_key(|(_, held)| **held).map(|(address, _)| *address)
        else {
            return false;
        };
        self.drop_oldest_of(address, "there are too many silent connections");
        true
    }

    /// The sockets to wait on, in the order of [`Screen::read`].
    pub(super) fn sockets(&self) -> impl Iterator<Item = &TcpStream> {
        self.unknown.iter().map(|unknown| &unknown.socket)
    }

    /// How long until the first connection must have sent its first packet.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.unknown.front().map(|oldest| oldest.until.saturating_duration_since(Instant::now()))
    }

    /// Reads from those that are ready, and ends those whose time is over.
    pub(super) fn read(&mut self, ready: &[bool]) {
        let now = Instant::now();
        for (n, mut unknown) in std::mem::take(&mut self.unknown).into_iter().enumerate() {
            let step = match ready.get(n) {
                Some(true) => unknown.step(&self.secret, &mut self.used),
                _ => Step::More,
            };
            match step {
                Step::More if unknown.until > now => {
                    self.unknown.push_back(unknown);
                    continue;
                }
                Step::More => {
                    let why = format!("it did not begin TLS within {} s", HELLO_WITHIN.as_secs());
                    self.verdicts.push(Verdict::Stranger { from: unknown.from, why });
                }
                Step::Donor => {
                    self.release(unknown.from);
                    self.verdicts.push(unknown.donor());
                    continue;
                }
                Step::Stranger(why) => {
                    self.verdicts.push(Verdict::Stranger { from: unknown.from, why });
                }
            }
            self.release(unknown.from);
        }
    }

    /// Returns the results since the last call.
    pub(super) fn verdicts(&mut self) -> Vec<Verdict> {
        std::mem::take(&mut self.verdicts)
    }

    fn drop_oldest_of(&mut self, address: IpAddr, why: &str) {
        let oldest = self.unknown.iter().position(|unknown| address_of(&unknown.from) == address);
        if let Some(oldest) = oldest.and_then(|at| self.unknown.remove(at)) {
            self.release(oldest.from);
            self.verdicts.push(Verdict::Stranger { from: oldest.from, why: why.to_owned() });
        }
    }

    fn release(&mut self, from: SocketAddr) {
        let address = address_of(&from);
        if let Some(held) = self.held.get_mut(&address) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&address);
            }
        }
    }
}

impl Unknown {
    fn step(&mut self, secret: &TransferSecret, used: &mut HashSet<TokenNumber>) -> Step {
        let mut buffer = [0; 4096];
        loop {
            let bytes = match rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Step::Stranger("it closed the connection before it began TLS".into()),
                Ok((_, count)) => buffer.get(..count).unwrap_or_default(),
                Err(e) if again(&std::io::Error::from(e)) => return Step::More,
                Err(e) => return stranger(WireError::Io(e.into())),
            };
            if let Some(plain) = not_tls(bytes).filter(|_| self.received.is_empty()) {
                return stranger(plain);
            }
            self.received.extend_from_slice(bytes);
            if self.received.len() > HELLO_BYTES_MAX {
                return Step::Stranger(format!("its first packet is longer than {HELLO_BYTES_MAX} bytes"));
            }
            if let Err(e) = self.hello.read_tls(&mut &*bytes) {
                return stranger(WireError::Io(e));
            }
            match self.hello.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => match judge(&accepted.client_hello(), secret, used) {
                    Ok(()) => return Step::Donor,
                    Err((alert, why)) => {
                        self.say(alert);
                        return Step::Stranger(why);
                    }
                },
                Err((error, mut alert)) => {
                    let _ = alert.write(&mut self.socket);
                    return stranger(WireError::Tls(error));
                }
            }
        }
    }

    /// Sends the client the reason of the refusal: seven bytes, for which an unused socket always has room.
    fn say(&mut self, alert: Option<AlertDescription>) {
        if let Some(alert) = alert {
            let [major, minor] = ProtocolVersion::TLSv1_2.to_array();
            let _ = self.socket.write(&[21, major, minor, 0, 2, 2, alert.into()]);
        }
    }

    fn donor(self) -> Verdict {
        Verdict::Donor { socket: self.socket, from: self.from, received: self.received }
    }
}

/// Whether a ClientHello is a donor's. If not: the alert to send, and the reason for the log.
fn judge(
    hello: &ClientHello<'_>,
    secret: &TransferSecret,
    used: &mut HashSet<TokenNumber>,
) -> Result<(), (Option<AlertDescription>, String)> {
    // The cipher suites of TLS 1.3 have their own range of numbers.
    if !hello.cipher_suites().iter().any(|suite| suite.to_array()[0] == 0x13) {
        let why = "the client offers no TLS 1.3 parameters that this program supports";
        return Err((Some(AlertDescription::ProtocolVersion), why.into()));
    }
    if !hello.alpn().is_some_and(|mut names| names.any(|name| name == tls::ALPN)) {
        let why = "it speaks TLS, but does not request the rejoin protocol (ALPN)";
        return Err((Some(AlertDescription::NoApplicationProtocol), why.into()));
    }
    let number = hello.server_name().and_then(|name| secret.check_token(name));
    let Some(number) = number else {
        let why = "the secret is not that of this transfer";
        return Err((Some(AlertDescription::UnrecognisedName), why.into()));
    };
    // An attacker who can read the network may replay a donor's packet. If the replay comes first, the donor
    // itself must not be refused, so there is no alert: it dials again.
    if !used.insert(number) {
        return Err((None, "it repeats the first packet of another connection".into()));
    }
    Ok(())
}

fn stranger(error: WireError) -> Step {
    Step::Stranger(failure(error, Side::Joiner, "the client").to_string())
}

/// The unit that counts as one address: an IPv6 host has a whole /64.
fn address_of(from: &SocketAddr) -> IpAddr {
    match from.ip() {
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) & !u128::from(u64::MAX)).into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn peer(n: u8, port: u16) -> SocketAddr {
        SocketAddr::new([10, 0, 0, n].into(), port)
    }

    struct Loopback {
        listener: TcpListener,
        clients: Vec<TcpStream>,
    }

    impl Loopback {
        fn connect(&mut self) -> TcpStream {
            self.clients.push(TcpStream::connect(self.listener.local_addr().unwrap()).unwrap());
            self.listener.accept().unwrap().0
        }
    }

    #[test]
    fn an_address_loses_its_own_oldest_and_no_other_loses_any() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut net = Loopback { listener, clients: vec![] };
        let mut screen = Screen::new(TransferSecret::generate().unwrap());
        screen.take(net.connect(), peer(1, 1));
        for port in 0..PER_ADDRESS as u16 + 10 {
            screen.take(net.connect(), peer(2, port));
        }
        let gone: Vec<SocketAddr> = screen
            .verdicts()
            .iter()
            .map(|verdict| match verdict {
                Verdict::Stranger { from, .. } | Verdict::Donor { from, .. } => *from,
            })
            .collect();
        assert_eq!(gone, (0..10).map(|port| peer(2, port)).collect::<Vec<_>>());
        assert_eq!(screen.unknown.front().unwrap().from, peer(1, 1));
        assert_eq!(screen.held.values().sum::<usize>(), screen.unknown.len());
    }

    #[test]
    fn when_all_places_are_taken_the_address_that_holds_most_loses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut net = Loopback { listener, clients: vec![] };
        let mut screen = Screen::new(TransferSecret::generate().unwrap());
        screen.take(net.connect(), peer(250, 1));
        for n in 0..TOTAL as u16 + 20 {
            screen.take(net.connect(), peer(if n < 20 { 1 } else { (n % 200) as u8 + 2 }, n));
        }
        assert_eq!(screen.unknown.len(), TOTAL);
        assert_eq!(screen.unknown.front().unwrap().from, peer(250, 1));
        assert_eq!(screen.held.values().sum::<usize>(), TOTAL);
    }
}
