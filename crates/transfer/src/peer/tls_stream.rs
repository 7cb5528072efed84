//! The TLS byte stream. Every blocking step wakes every [`LOOK_EVERY`] to check the [`Cancel`] and its
//! deadline.
//!
//! The socket blocks with timeouts of that length. A timeout in the middle of a record loses nothing:
//! received bytes pass through a buffer into rustls, which stores a partial record until the rest arrives;
//! outgoing bytes are encrypted once, stored by rustls, and removed only as far as the socket accepted them.
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::net::RecvFlags;
use rustls::Connection;

use super::secret::EXPORTER_LABEL;
use super::socket::{keep_alive, limit_unsent};
use super::traffic::Traffic;
use crate::cancel::{Cancel, LOOK_EVERY};
use crate::failure::Failure;

/// Bytes read from the socket at once. rustls alone would read 4 KiB per call.
const INPUT_BYTES: usize = 128 << 10;
/// Plain bytes that are encrypted before they go to the socket: this fits a processor's L2 cache and needs
/// few calls per MiB.
const OUTPUT_BYTES: usize = 128 << 10;

/// How long a blocking step may take.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deadlines {
    /// As long as bytes move at least this often.
    Stall(Duration),
    /// Until this instant, whatever moves.
    Until(Instant),
}

/// Why a step failed. The caller knows the peer and puts it into a sentence.
#[derive(Debug)]
pub(crate) enum WireError {
    /// The peer closed the connection.
    Closed,
    /// Nothing arrived for this long.
    Silent(Duration),
    /// The peer accepted no data for this long.
    Deaf(Duration),
    /// The deadline passed.
    Late,
    /// The transfer was cancelled.
    Ended(Failure),
    /// The peer does not speak TLS; its first bytes.
    Plain(String),
    /// TLS failed.
    Tls(rustls::Error),
    /// The socket failed.
    Io(io::Error),
}

/// One TCP connection with TLS on it.
pub(crate) struct TlsStream {
    socket: Arc<TcpStream>,
    tls: Connection,
    input: Box<[u8]>,
    /// The part of `input` that rustls has not read yet.
    unread: std::ops::Range<usize>,
    traffic: Arc<Traffic>,
    /// None while we only close the connection, which the reason for closing must not interrupt.
    cancel: Option<Cancel>,
    began: bool,
}

impl TlsStream {
    /// Takes over a connected socket.
    pub(crate) fn new(socket: Arc<TcpStream>, mut tls: Connection, cancel: &Cancel) -> io::Result<TlsStream> {
        socket.set_nonblocking(false)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(LOOK_EVERY))?;
        socket.set_write_timeout(Some(LOOK_EVERY))?;
        keep_alive(&socket)?;
        limit_unsent(&socket);
        tls.set_buffer_limit(Some(OUTPUT_BYTES));
        Ok(TlsStream {
            socket,
            tls,
            input: vec![0; INPUT_BYTES].into_boxed_slice(),
            unread: 0..0,
            traffic: Arc::default(),
            cancel: Some(cancel.clone()),
            began: false,
        })
    }

    /// Adds bytes that were already read from the socket; they precede everything else.
    pub(super) fn with_received(mut self, bytes: &[u8]) -> TlsStream {
        for (to, from) in self.input.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.unread = 0..bytes.len().min(self.input.len());
        self.traffic.received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self
    }

    /// The counters of this connection.
    pub(super) fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    /// The socket, to wait on.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// The cancel of the transfer; `None` after [`TlsStream::stop_looking`].
    pub(super) fn cancel(&self) -> Option<&Cancel> {
        self.cancel.as_ref()
    }

    /// From now on only deadlines end a step.
    pub(super) fn stop_looking(&mut self) {
        self.cancel = None;
    }

    /// The negotiated ALPN.
    pub(super) fn alpn(&self) -> Option<&[u8]> {
        self.tls.alpn_protocol()
    }

    /// 32 bytes that only the two ends of this TLS session know.
    pub(super) fn exporter(&self) -> Result<[u8; 32], WireError> {
        self.tls.export_keying_material([0; 32], EXPORTER_LABEL, None).map_err(WireError::Tls)
    }

    /// Does the TLS handshake.
    pub(crate) fn handshake(&mut self, until: Instant) -> Result<(), WireError> {
        let patience = Deadlines::Until(until);
        while self.tls.is_handshaking() {
            self.flush(patience)?;
            if self.tls.is_handshaking() && self.tls.wants_read() {
                if self.unread.is_empty() {
                    self.fill(Some(patience))?;
                }
                self.feed()?;
            }
        }
        self.flush(patience)
    }

    /// Reads until `buf` is full.
    pub(super) fn read_exact(&mut self, mut buf: &mut [u8], patience: Deadlines) -> Result<(), WireError> {
        while !buf.is_empty() {
            let n = self.read(buf, Some(patience))?;
            buf = buf.get_mut(n..).unwrap_or_default();
        }
        Ok(())
    }

    /// Reads some bytes; without patience only bytes that have already arrived, and 0 if there are none.
    pub(crate) fn read(&mut self, buf: &mut [u8], patience: Option<Deadlines>) -> Result<usize, WireError> {
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
            // Responses of TLS itself, such as to a key update. They are a few bytes. If they do not fit now, the next
            // write sends them, so that a reader does not wait for a peer that does not read.
            if self.tls.wants_write() {
                let _ = self.flush(Deadlines::Until(Instant::now()));
            }
        }
    }

    /// Encrypts and sends all of `bytes` except what waits for [`TlsStream::flush`].
    pub(crate) fn write_all(&mut self, mut bytes: &[u8], patience: Deadlines) -> Result<(), WireError> {
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
    pub(crate) fn flush(&mut self, patience: Deadlines) -> Result<(), WireError> {
        let mut moved = Instant::now();
        while self.tls.wants_write() {
            self.look()?;
            match self.tls.write_tls(&mut &*self.socket) {
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

    /// Closes so that the last bytes arrive: the kernel would discard them if the socket had unread input.
    pub(super) fn part(&mut self, until: Instant) {
        self.stop_looking();
        self.close_writing(until);
        while Instant::now() < until {
            match (&*self.socket).read(&mut self.input) {
                Ok(0) => break,
                Ok(_) => {}
                Err(e) if again(&e) => {}
                Err(_) => break,
            }
        }
    }

    /// Tells the peer that nothing more follows.
    pub(crate) fn close_writing(&mut self, until: Instant) {
        self.tls.send_close_notify();
        let _ = self.flush(Deadlines::Until(until));
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Fails if the transfer was cancelled.
    pub(super) fn look(&self) -> Result<(), WireError> {
        match &self.cancel {
            Some(cancel) => cancel.check().map_err(WireError::Ended),
            None => Ok(()),
        }
    }

    /// Reads bytes from the socket; false if there are none and there is no patience.
    fn fill(&mut self, patience: Option<Deadlines>) -> Result<bool, WireError> {
        let since = Instant::now();
        let flags = if patience.is_some() { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
        loop {
            self.look()?;
            // Bytes may arrive one by one, which must not extend a handshake past its deadline.
            if let Some(until @ Deadlines::Until(_)) = patience {
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

    /// Passes received bytes to TLS until it has plain bytes or no input is left.
    fn feed(&mut self) -> Result<(), WireError> {
        if !self.began {
            self.began = true;
            if let Some(plain) = not_tls(self.input.get(self.unread.clone()).unwrap_or_default()) {
                return Err(plain);
            }
        }
        while !self.unread.is_empty() {
            let mut rest = self.input.get(self.unread.clone()).unwrap_or_default();
            let n = self.tls.read_tls(&mut rest).map_err(WireError::Io)?;
            self.unread.start += n;
            let state = match self.tls.process_new_packets() {
                Ok(state) => state,
                Err(e) => {
                    // Sends the peer the reason; `part` sends it later if there is no room now.
                    let _ = self.flush(Deadlines::Until(Instant::now()));
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

/// What is wrong with the first bytes of a connection: the first TLS record must be a handshake or, from a peer that
/// failed, an alert.
pub(super) fn not_tls(first: &[u8]) -> Option<WireError> {
    if matches!(first.first(), Some(0x15 | 0x16)) {
        return None;
    }
    let first = String::from_utf8_lossy(first.get(..first.len().min(16)).unwrap_or_default());
    Some(WireError::Plain(format!("{first:?}")))
}

/// Fails if the deadline has passed; `since` is when bytes last moved.
fn out_of_patience(
    patience: Deadlines,
    since: Instant,
    stalled: fn(Duration) -> WireError,
) -> Result<(), WireError> {
    match patience {
        Deadlines::Stall(limit) if since.elapsed() >= limit => Err(stalled(limit)),
        Deadlines::Until(end) if Instant::now() >= end => Err(WireError::Late),
        _ => Ok(()),
    }
}

/// Whether the error only means that we should check the cancel and try again. `ETIMEDOUT` does not: the kernel has given the
/// connection up, and says so once; the next call would only say that it is closed.
pub(crate) fn again(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::crypto::ring::{cipher_suite, default_provider};
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
    use rustls::{SupportedCipherSuite, Tls13CipherSuite};

    #[test]
    fn a_connection_that_the_kernel_gave_up_is_over() {
        use rustix::io::Errno;
        let of = |errno: Errno| io::Error::from_raw_os_error(errno.raw_os_error());
        assert!(again(&of(Errno::AGAIN)) && again(&of(Errno::INTR)));
        assert!(!again(&of(Errno::TIMEDOUT)) && !again(&of(Errno::CONNRESET)));
    }

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
        let mut sender = TlsStream::new(socket.into(), tls.into(), &cancel).unwrap();
        let tls = ServerConnection::new(server.into()).unwrap();
        let mut receiver = TlsStream::new(listener.accept().unwrap().0.into(), tls.into(), &cancel).unwrap();

        let until = Instant::now() + Duration::from_secs(20);
        let (patience, data) = (Deadlines::Until(until), vec![9; 1 << 20]);
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
