//! One end of a connection that carries what other programs say: plain, or with TLS. IST between two providers, and SQL between a
//! donor and a joiner's server.
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::RecvFlags;

use super::tls_stream::{Deadlines, TlsStream, WireError, again};
use crate::cancel::{Cancel, LOOK_EVERY};

/// A provider that installs its state reads nothing meanwhile, however long that takes.
const FOR_EVER: Deadlines = Deadlines::Stall(Duration::MAX);
/// How long the last bytes may take to arrive when we close.
const CLOSES_WITHIN: Duration = Duration::from_secs(1);

/// A connected socket, plain or encrypted.
pub(crate) enum End {
    Plain(Arc<TcpStream>, Cancel),
    Tls(Box<TlsStream>),
}

impl std::fmt::Debug for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if matches!(self, End::Tls(_)) { "Tls" } else { "Plain" };
        f.debug_tuple(kind).field(&self.socket().peer_addr()).finish()
    }
}

impl End {
    /// Takes over a socket on which nothing is encrypted.
    pub fn plain(socket: Arc<TcpStream>, cancel: &Cancel) -> io::Result<End> {
        socket.set_nonblocking(false)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(LOOK_EVERY))?;
        socket.set_write_timeout(Some(LOOK_EVERY))?;
        rustix::net::sockopt::set_socket_keepalive(&socket, true)?;
        Ok(End::Plain(socket, cancel.clone()))
    }

    /// Takes over a socket and does the handshake of TLS.
    pub fn tls(
        socket: Arc<TcpStream>,
        tls: impl Into<rustls::Connection>,
        within: Duration,
        cancel: &Cancel,
    ) -> io::Result<End> {
        let mut stream = TlsStream::new(socket, tls.into(), cancel)?;
        stream.handshake(Instant::now() + within).map_err(broken)?;
        Ok(End::Tls(Box::new(stream)))
    }

    /// To wait on, once [`End::try_read`] has found nothing.
    pub fn socket(&self) -> &TcpStream {
        match self {
            End::Plain(socket, _) => socket,
            End::Tls(stream) => stream.socket(),
        }
    }

    /// What has come. `None` if nothing has; 0 if nothing will, because the other end has closed.
    pub fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self {
            End::Plain(socket, _) => match rustix::net::recv(&**socket, buffer, RecvFlags::DONTWAIT) {
                Ok((_, n)) => Ok(Some(n)),
                Err(error) if again(&error.into()) => Ok(None),
                Err(error) => Err(error.into()),
            },
            End::Tls(stream) => match stream.read(buffer, None) {
                Ok(0) => Ok(None),
                Ok(n) => Ok(Some(n)),
                Err(WireError::Closed) => Ok(Some(0)),
                Err(error) => Err(broken(error)),
            },
        }
    }

    /// Waits for bytes until an instant; 0 if the other end has closed.
    pub fn read_until(&mut self, buffer: &mut [u8], until: Instant) -> io::Result<usize> {
        match self {
            End::Plain(socket, cancel) => loop {
                cancel.check().map_err(io::Error::other)?;
                match (&**socket).read(buffer) {
                    Err(error) if again(&error) && Instant::now() < until => {}
                    Err(error) if again(&error) => return Err(broken(WireError::Late)),
                    read => return read,
                }
            },
            End::Tls(stream) => match stream.read(buffer, Some(Deadlines::Until(until))) {
                Err(WireError::Closed) => Ok(0),
                read => read.map_err(broken),
            },
        }
    }

    /// Writes everything, however long the other end takes.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            End::Plain(socket, cancel) => {
                let mut left = bytes;
                while !left.is_empty() {
                    cancel.check().map_err(io::Error::other)?;
                    match (&**socket).write(left) {
                        Ok(0) => return Err(ErrorKind::WriteZero.into()),
                        Ok(n) => left = left.get(n..).unwrap_or_default(),
                        Err(error) if again(&error) => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(())
            }
            End::Tls(stream) => {
                stream.write_all(bytes, FOR_EVER).and_then(|()| stream.flush(FOR_EVER)).map_err(broken)
            }
        }
    }

    /// Nothing more will be written.
    pub fn close_writing(&mut self) {
        match self {
            End::Plain(socket, _) => drop(socket.shutdown(Shutdown::Write)),
            End::Tls(stream) => stream.close_writing(Instant::now() + CLOSES_WITHIN),
        }
    }

    /// Closes at once.
    pub fn close(&mut self) {
        self.close_writing();
        let _ = self.socket().shutdown(Shutdown::Both);
    }
}

fn broken(error: WireError) -> io::Error {
    match error {
        WireError::Closed => io::Error::new(ErrorKind::UnexpectedEof, "it closed the connection"),
        WireError::Silent(_) | WireError::Deaf(_) | WireError::Late => {
            io::Error::new(ErrorKind::TimedOut, "nothing came in time")
        }
        WireError::Ended(failure) => io::Error::other(failure),
        WireError::Plain(first) => io::Error::other(format!("it does not speak TLS; it sent {first}")),
        WireError::Tls(error) => io::Error::other(format!("TLS: {error}")),
        WireError::Io(error) => error,
    }
}
