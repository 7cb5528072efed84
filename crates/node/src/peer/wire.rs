//! The TLS byte stream. Every blocking step wakes each [`LOOK_EVERY`] to look at the [`Cancel`] and its deadline.
//!
//! The socket blocks with timeouts of that length, and a timeout in the middle of a record loses nothing: bytes
//! read go through a buffer of ours into rustls, which keeps a partial record until its rest comes; bytes to write
//! are encrypted once, held by rustls, and dropped from there only as far as the socket took them.
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::net::RecvFlags;
use rustls::Connection;

use super::secret::EXPORTER_LABEL;
use super::traffic::Traffic;
use crate::cancel::{Cancel, LOOK_EVERY};
use crate::failure::Failure;

/// Bytes taken from the socket at once. rustls alone would take 4 KiB a call.
const INPUT_BYTES: usize = 128 << 10;
/// Plain bytes encrypted before the socket gets them: fits a processor's L2 cache, few calls a mebibyte.
const OUTPUT_BYTES: usize = 128 << 10;

/// How long a blocking step may take.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patience {
    /// As long as bytes move at least this often.
    Stall(Duration),
    /// Until then, whatever moves.
    Until(Instant),
}

/// Why a step failed; the caller knows who the peer is and makes a sentence of it.
#[derive(Debug)]
pub(super) enum WireError {
    /// The peer closed the connection.
    Closed,
    /// Nothing came for so long.
    Silent(Duration),
    /// The peer took nothing for so long.
    Deaf(Duration),
    /// The deadline passed.
    Late,
    /// We were told to end.
    Ended(Failure),
    /// The peer does not speak TLS; its first bytes.
    Plain(String),
    /// TLS failed.
    Tls(rustls::Error),
    /// The socket failed.
    Io(io::Error),
}

/// One TCP connection with TLS on it.
pub(super) struct Wire {
    socket: TcpStream,
    tls: Connection,
    input: Box<[u8]>,
    /// The part of `input` that TLS has not had yet.
    unread: std::ops::Range<usize>,
    traffic: Arc<Traffic>,
    /// None once nothing but saying goodbye is left, which must not be cut short by what made us leave.
    cancel: Option<Cancel>,
    began: bool,
}

impl Wire {
    /// Takes over a connected socket.
    pub(super) fn new(socket: TcpStream, mut tls: Connection, cancel: &Cancel) -> io::Result<Wire> {
        socket.set_nonblocking(false)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(LOOK_EVERY))?;
        socket.set_write_timeout(Some(LOOK_EVERY))?;
        // A host that lost power is noticed within 40 s even while neither side has anything to say.
        rustix::net::sockopt::set_socket_keepalive(&socket, true)?;
        rustix::net::sockopt::set_tcp_keepidle(&socket, Duration::from_secs(15))?;
        rustix::net::sockopt::set_tcp_keepintvl(&socket, Duration::from_secs(5))?;
        rustix::net::sockopt::set_tcp_keepcnt(&socket, 5)?;
        tls.set_buffer_limit(Some(OUTPUT_BYTES));
        Ok(Wire {
            socket,
            tls,
            input: vec![0; INPUT_BYTES].into_boxed_slice(),
            unread: 0..0,
            traffic: Arc::default(),
            cancel: Some(cancel.clone()),
            began: false,
        })
    }

    /// The counters of this connection.
    pub(super) fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    /// The socket, to wait on.
    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// The way the transfer is told to end; none once [`Wire::stop_looking`] was called.
    pub(super) fn cancel(&self) -> Option<&Cancel> {
        self.cancel.as_ref()
    }

    /// From now on only deadlines end a step.
    pub(super) fn stop_looking(&mut self) {
        self.cancel = None;
    }

    /// The ALPN agreed on.
    pub(super) fn alpn(&self) -> Option<&[u8]> {
        self.tls.alpn_protocol()
    }

    /// 32 bytes that only the two ends of this TLS session know.
    pub(super) fn exporter(&self) -> Result<[u8; 32], WireError> {
        self.tls.export_keying_material([0; 32], EXPORTER_LABEL, None).map_err(WireError::Tls)
    }

    /// Does the TLS handshake.
    pub(super) fn handshake(&mut self, until: Instant) -> Result<(), WireError> {
        let patience = Patience::Until(until);
        while self.tls.is_handshaking() {
            self.flush(patience)?;
            if self.tls.is_handshaking() && self.tls.wants_read() {
                self.fill(Some(patience))?;
                self.feed()?;
            }
        }
        self.flush(patience)
    }

    /// Reads until `buf` is full.
    pub(super) fn read_exact(&mut self, mut buf: &mut [u8], patience: Patience) -> Result<(), WireError> {
        while !buf.is_empty() {
            let n = self.read(buf, Some(patience))?;
            buf = buf.get_mut(n..).unwrap_or_default();
        }
        Ok(())
    }

    /// Reads some bytes; without patience only what is already here, and 0 when nothing is.
    pub(super) fn read(&mut self, buf: &mut [u8], patience: Option<Patience>) -> Result<usize, WireError> {
        loop {
            match self.tls.reader().read(buf) {
                Ok(0) if !buf.is_empty() => return Err(WireError::Closed),
                Ok(n) => return Ok(n),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Err(WireError::Closed),
                Err(e) => return Err(WireError::Io(e)),
            }
            if self.unread.is_empty() && !self.fill(patience)? {
                return Ok(0);
            }
            self.feed()?;
            // Answers of TLS itself, such as to a key update. A few bytes; if they do not fit now, the next write
            // takes them along, which keeps a reader from waiting on a peer that does not read.
            if self.tls.wants_write() {
                let _ = self.flush(Patience::Until(Instant::now()));
            }
        }
    }

    /// Encrypts and sends all of `bytes` except what waits for [`Wire::flush`].
    pub(super) fn write_all(&mut self, mut bytes: &[u8], patience: Patience) -> Result<(), WireError> {
        while !bytes.is_empty() {
            // Encrypts from the caller's slice into records; no other copy is made on the way to the kernel.
            let n = self.tls.writer().write(bytes).map_err(WireError::Io)?;
            bytes = bytes.get(n..).unwrap_or_default();
            if !bytes.is_empty() {
                self.flush(patience)?;
            }
        }
        Ok(())
    }

    /// Sends what is encrypted.
    pub(super) fn flush(&mut self, patience: Patience) -> Result<(), WireError> {
        let mut moved = Instant::now();
        while self.tls.wants_write() {
            self.look()?;
            match self.tls.write_tls(&mut self.socket) {
                Ok(0) => return Err(WireError::Closed),
                Ok(n) => {
                    self.traffic.sent.fetch_add(n as u64, Ordering::Relaxed);
                    moved = Instant::now();
                }
                Err(e) if again(&e) => out_of_patience(patience, moved, WireError::Deaf)?,
                Err(e) => return Err(WireError::Io(e)),
            }
        }
        Ok(())
    }

    /// Says goodbye so that what we sent last arrives: a socket closed with unread input would throw it away.
    pub(super) fn part(&mut self, until: Instant) {
        self.stop_looking();
        self.tls.send_close_notify();
        let _ = self.flush(Patience::Until(until));
        let _ = self.socket.shutdown(Shutdown::Write);
        while Instant::now() < until {
            match self.socket.read(&mut self.input) {
                Ok(0) => break,
                Ok(_) => {}
                Err(e) if again(&e) => {}
                Err(_) => break,
            }
        }
    }

    /// Fails when the transfer was told to end.
    pub(super) fn look(&self) -> Result<(), WireError> {
        match &self.cancel {
            Some(cancel) => cancel.check().map_err(WireError::Ended),
            None => Ok(()),
        }
    }

    /// Takes bytes from the socket; false when there are none and no patience.
    fn fill(&mut self, patience: Option<Patience>) -> Result<bool, WireError> {
        let since = Instant::now();
        let flags = if patience.is_some() { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
        loop {
            self.look()?;
            // Bytes may arrive one by one; that must not carry a handshake past its deadline.
            if let Some(until @ Patience::Until(_)) = patience {
                out_of_patience(until, since, WireError::Silent)?;
            }
            match rustix::net::recv(&self.socket, &mut self.input[..], flags).map_err(io::Error::from) {
                Ok((_, 0)) => return Err(WireError::Closed),
                Ok((_, n)) => {
                    self.traffic.received.fetch_add(n as u64, Ordering::Relaxed);
                    self.unread = 0..n;
                    return Ok(true);
                }
                Err(e) if again(&e) => match patience {
                    Some(patience) => out_of_patience(patience, since, WireError::Silent)?,
                    None => return Ok(false),
                },
                Err(e) => return Err(WireError::Io(e)),
            }
        }
    }

    /// Gives TLS what came until it has plain bytes for us or everything is used up.
    fn feed(&mut self) -> Result<(), WireError> {
        if !self.began {
            self.began = true;
            // A TLS record that begins a connection is a handshake or, from a peer in trouble, an alert.
            let first = self.input.get(self.unread.clone()).unwrap_or_default();
            if !matches!(first.first(), Some(0x15 | 0x16)) {
                let first = String::from_utf8_lossy(first.get(..first.len().min(16)).unwrap_or_default());
                return Err(WireError::Plain(format!("{first:?}")));
            }
        }
        while !self.unread.is_empty() {
            let mut rest = self.input.get(self.unread.clone()).unwrap_or_default();
            let n = self.tls.read_tls(&mut rest).map_err(WireError::Io)?;
            self.unread.start += n;
            let state = match self.tls.process_new_packets() {
                Ok(state) => state,
                Err(e) => {
                    // Lets the peer know why; `part` sends it if there is no room now.
                    let _ = self.flush(Patience::Until(Instant::now()));
                    return Err(WireError::Tls(e));
                }
            };
            if n == 0 || state.peer_has_closed() {
                self.unread = 0..0;
            }
            if state.plaintext_bytes_to_read() > 0 {
                break;
            }
        }
        Ok(())
    }
}

/// Fails when the patience is at its end; `since` is when bytes moved last.
fn out_of_patience(
    patience: Patience,
    since: Instant,
    stalled: fn(Duration) -> WireError,
) -> Result<(), WireError> {
    match patience {
        Patience::Stall(limit) if since.elapsed() >= limit => Err(stalled(limit)),
        Patience::Until(end) if Instant::now() >= end => Err(WireError::Late),
        _ => Ok(()),
    }
}

/// Whether the socket only wants us to look around and try again.
fn again(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::crypto::ring::{cipher_suite, default_provider};
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
    use rustls::{SupportedCipherSuite, Tls13CipherSuite};

    /// AES-GCM keys are renewed after 2^24 records, 256 GiB: here after 100, so that a large transfer's renewals pass
    /// through our reading and writing.
    #[test]
    fn keys_are_renewed_in_the_middle_of_a_stream() {
        let suite = cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().unwrap();
        let common = rustls::crypto::CipherSuiteCommon { confidentiality_limit: 100, ..suite.common };
        let short = Tls13CipherSuite { common, ..*suite };
        let short: &'static Tls13CipherSuite = Box::leak(Box::new(short));
        let mut provider = default_provider();
        provider.cipher_suites = vec![SupportedCipherSuite::Tls13(short)];
        let provider = Arc::new(provider);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["x.invalid".into()]).unwrap();
        let certificate = certificate.self_signed(&key).unwrap();
        let versions = [&rustls::version::TLS13];
        let server =
            ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&versions).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let server =
            server.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(&versions).unwrap();
        let client = client.with_root_certificates(roots).with_no_client_auth();

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let cancel = Cancel::new();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let tls = ClientConnection::new(client.into(), "x.invalid".try_into().unwrap()).unwrap();
        let mut sender = Wire::new(socket, tls.into(), &cancel).unwrap();
        let tls = ServerConnection::new(server.into()).unwrap();
        let mut receiver = Wire::new(listener.accept().unwrap().0, tls.into(), &cancel).unwrap();

        let until = Instant::now() + Duration::from_secs(20);
        let (patience, data) = (Patience::Until(until), vec![9; 1 << 20]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                sender.handshake(until).unwrap();
                for _ in 0..16 {
                    sender.write_all(&data, patience).unwrap();
                }
                sender.flush(patience).unwrap();
            });
            receiver.handshake(until).unwrap();
            let mut got = vec![0; 1 << 20];
            for _ in 0..16 {
                receiver.read_exact(&mut got, patience).unwrap();
                assert!(got == data);
            }
        });
    }
}
