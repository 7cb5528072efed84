//! One connection to a running joiner's server: the login, in which it becomes encrypted, and then whatever both say.
use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use formats::mariadb::login_packets::{
    HEADER_LEN, LOGIN_PACKET_MAX, Step, header, packet, request_tls, step, take_offer,
};
use rustix::event::{PollFd, PollFlags};
use rustix::net::{RecvFlags, sockopt};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use super::{Shared, wait};
use crate::cancel::LOOK_EVERY;
use crate::failure::{Failure, Kind};
use crate::peer::end::End;
use crate::peer::socket::keep_alive;
use crate::peer::tls_stream::again;

/// How long a connection may take, and each step of a login.
const STEP_WITHIN: Duration = Duration::from_secs(10);
/// The packet with which a client takes leave.
const QUIT: [u8; HEADER_LEN + 1] = [1, 0, 0, 0, 1];
/// Bytes that are passed on at once.
const BUFFER: usize = 128 << 10;

impl Shared {
    /// One connection, from its beginning to its end.
    pub(super) fn pass(&self, client: &UnixStream) -> Result<()> {
        client.set_nonblocking(false)?;
        client.set_read_timeout(Some(LOOK_EVERY))?;
        client.set_write_timeout(Some(LOOK_EVERY))?;
        let socket = Arc::new(self.connect()?);
        let broken = |error: io::Error| self.broken(&error);
        let mut server = End::plain(Arc::clone(&socket), &self.cancel).map_err(broken)?;
        let mut said = Vec::new();
        let (number, mut greeting) =
            next_packet(&mut said, |buffer| server.read_until(buffer, Instant::now() + STEP_WITHIN))
                .map_err(|error| self.not_greeted(&error))?;
        let offer = take_offer(&mut greeting);
        if offer == Some(false) && self.verified {
            let text =
                format!("the joiner's server at {} offers no TLS, and ssl-ca is set here", self.name());
            return Err(Failure::new(Kind::Refused, text)
                .hint("give that server ssl_cert and ssl_key, or take ssl-ca out of [sst] on the donor")
                .into());
        }
        self.to_client(client, &packet(number, &greeting))?;
        // No greeting, but an error, which the client reads.
        let Some(offered) = offer else { return Ok(()) };
        let (number, mut answer) =
            next_packet(&mut Vec::new(), |buffer| self.receive_from_client(client, buffer))?;
        let request = offered.then(|| request_tls(&mut answer)).flatten();
        let shift = u8::from(request.is_some());
        if let Some(request) = request {
            // What came in clear after the greeting would count as said in TLS.
            if !said.is_empty() {
                return Err(self
                    .broken(&io::Error::other("it sent data after its greeting and before TLS"))
                    .into());
            }
            server.write(&packet(number, &request)).map_err(broken)?;
            server = self.encrypt(socket)?;
        }
        self.encrypted.store(request.is_some(), Ordering::Release);
        server.write(&packet(number.wrapping_add(shift), &answer)).map_err(broken)?;
        match self.log_in(client, &mut server, shift)? {
            true => self.pass_on(client, &mut server),
            false => Ok(()),
        }
    }

    fn connect(&self) -> Result<TcpStream> {
        let cannot = |why: &io::Error| {
            let kind = if why.kind() == io::ErrorKind::TimedOut { Kind::Timeout } else { Kind::Peer };
            Failure::new(kind, format!("the joiner's server at {} cannot be reached: {why}", self.name()))
                .hint("it must listen for clients there: see wsrep_node_address, port and bind-address of the joiner, and firewalls")
        };
        let addresses = (self.host.as_str(), self.port).to_socket_addrs().map_err(|e| cannot(&e))?;
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses {
            match TcpStream::connect_timeout(&address, STEP_WITHIN) {
                Ok(socket) => {
                    // A host that is gone says nothing, neither when it is asked nor when it is sent something.
                    keep_alive(&socket)?;
                    let gone_after = u32::try_from(self.gone_after.as_millis()).unwrap_or(u32::MAX);
                    sockopt::set_tcp_user_timeout(&socket, gone_after)?;
                    return Ok(socket);
                }
                Err(error) => last = error,
            }
        }
        Err(cannot(&last).into())
    }

    fn encrypt(&self, socket: Arc<TcpStream>) -> Result<End> {
        let name = ServerName::try_from(self.host.clone()).context("the joiner's address")?;
        let client = ClientConnection::new(Arc::clone(&self.tls), name).context("TLS")?;
        End::tls(socket, client, STEP_WITHIN, &self.cancel).map_err(|error| {
            let text = format!("no TLS with the joiner's server at {}: {error}", self.name());
            let hint = match self.verified {
                true => {
                    "its certificate must be of the CA of ssl-ca under [sst] on the donor; TLS 1.3 is needed"
                }
                false => "TLS 1.3 is needed: see tls_version and ssl_cert of the joiner's server",
            };
            Failure::new(Kind::Refused, text).hint(hint).into()
        })
    }

    /// The rest of the login. The numbers of packets differ by the request of TLS, which the client does not know. Returns whether
    /// the server lets the client in.
    fn log_in(&self, client: &UnixStream, server: &mut End, shift: u8) -> Result<bool> {
        let (mut said, mut answered) = (Vec::new(), Vec::new());
        loop {
            let (number, payload) =
                next_packet(&mut said, |buffer| server.read_until(buffer, Instant::now() + STEP_WITHIN))
                    .map_err(|error| self.broken(&error))?;
            let means = step(&payload);
            if means == Step::AsksForPassword && !self.verified {
                let text = format!(
                    "the joiner's server at {} asks for the password itself (caching_sha2_password), and nothing proves that it is the joiner's",
                    self.name()
                );
                return Err(Failure::new(Kind::Refused, text)
                    .hint("give the account ed25519, parsec or mysql_native_password, or set ssl-ca, ssl-cert and ssl-key under [sst] on the donor")
                    .into());
            }
            self.to_client(client, &packet(number.wrapping_sub(shift), &payload))?;
            match means {
                Step::Done => break,
                Step::Refused => return Ok(false),
                // The fast login of the same method has succeeded: the server says so at once.
                Step::GoesOn if payload == [1, 3] => continue,
                Step::GoesOn | Step::AsksForPassword => {}
            }
            let (number, answer) =
                next_packet(&mut answered, |buffer| self.receive_from_client(client, buffer))?;
            server
                .write(&packet(number.wrapping_add(shift), &answer))
                .map_err(|error| self.broken(&error))?;
        }
        // Nobody says anything unasked here; if so, it goes the usual way.
        self.to_client(client, &said)?;
        server.write(&answered).map_err(|error| self.broken(&error))?;
        Ok(true)
    }

    /// Passes on what both say, until one of them has closed.
    fn pass_on(&self, client: &UnixStream, server: &mut End) -> Result<()> {
        let mut buffer = vec![0; BUFFER];
        let mut taken_leave = false;
        // A later connection may find the server again.
        let silent = self.silent.load(Ordering::Acquire);
        loop {
            let mut moved = false;
            match server.try_read(&mut buffer).map_err(|error| self.broken(&error))? {
                Some(0) if taken_leave => return Ok(()),
                Some(0) => return Err(self.broken(&io::ErrorKind::UnexpectedEof.into()).into()),
                Some(n) => {
                    self.to_client(client, buffer.get(..n).unwrap_or_default())?;
                    moved = true;
                }
                None => {}
            }
            match rustix::net::recv(client, &mut buffer[..], RecvFlags::DONTWAIT).map_err(io::Error::from) {
                Ok((_, 0)) => {
                    server.close();
                    return Ok(());
                }
                Ok((_, n)) => {
                    let bytes = buffer.get(..n).unwrap_or_default();
                    self.throttle.hold_back(n, &self.cancel, || Ok(()))?;
                    server.write(bytes).map_err(|error| self.broken(&error))?;
                    self.sent.fetch_add(n as u64, Ordering::Relaxed);
                    taken_leave = bytes.ends_with(&QUIT);
                    moved = true;
                }
                Err(error) if again(&error) => {}
                Err(error) => return Err(error).context("our own SQL client"),
            }
            if !moved {
                wait(&mut [PollFd::new(server.socket(), PollFlags::IN), PollFd::new(client, PollFlags::IN)]);
                self.cancel.check()?;
                // On this one the server may owe an answer, and nothing is sent meanwhile that its host could leave unanswered.
                if self.silent.load(Ordering::Acquire) > silent {
                    return Err(self.broken(&io::ErrorKind::TimedOut.into()).into());
                }
            }
        }
    }

    /// A server speaks first.
    fn not_greeted(&self, error: &io::Error) -> Failure {
        if error.kind() != io::ErrorKind::TimedOut {
            return self.broken(error);
        }
        let seconds = STEP_WITHIN.as_secs();
        let text = format!(
            "the joiner's server at {} accepted the connection and sent nothing within {seconds} s",
            self.name()
        );
        Failure::new(Kind::Timeout, text)
            .hint("it hangs, or another program is there: see wsrep_sst_receive_address and port of the joiner, and what is between the hosts")
    }

    fn broken(&self, error: &io::Error) -> Failure {
        let name = self.name();
        match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                Failure::new(Kind::Peer, format!("the joiner's server at {name} closed the connection"))
            }
            io::ErrorKind::TimedOut => {
                self.silent.fetch_add(1, Ordering::AcqRel);
                Failure::new(Kind::Timeout, format!("the joiner's server at {name} no longer answers"))
            }
            _ => Failure::new(
                Kind::Peer,
                format!("the connection to the joiner's server at {name} broke: {error}"),
            ),
        }
    }

    fn receive_from_client(&self, mut client: &UnixStream, buffer: &mut [u8]) -> io::Result<usize> {
        let until = Instant::now() + STEP_WITHIN;
        loop {
            match client.read(buffer) {
                Err(error) if again(&error) && Instant::now() < until && !self.is_over() => {}
                read => return read,
            }
        }
    }

    fn to_client(&self, mut client: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match client.write(bytes) {
                Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
                Err(error) if again(&error) && !self.is_over() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The next whole packet of a login, by its number; what came behind it stays in `said`.
fn next_packet(
    said: &mut Vec<u8>,
    mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
) -> io::Result<(u8, Vec<u8>)> {
    let mut buffer = [0; 4096];
    loop {
        if let Some(head) = said.first_chunk::<HEADER_LEN>() {
            let (length, number) = header(*head);
            if length > LOGIN_PACKET_MAX {
                return Err(io::Error::other("it does not speak the protocol of a MariaDB server"));
            }
            if said.len() >= HEADER_LEN + length {
                let rest = said.split_off(HEADER_LEN + length);
                let payload = said.split_off(HEADER_LEN);
                *said = rest;
                return Ok((number, payload));
            }
        }
        match read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => said.extend_from_slice(buffer.get(..n).unwrap_or_default()),
        }
    }
}
