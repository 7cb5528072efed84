//! The connections to a running joiner's server. The SQL client of this program connects to a socket of ours, in a directory that
//! only we can enter, and for each of its connections a thread connects to the server and passes on what both say.
//!
//! It puts TLS around a connection where the server offers it: with an operator's CA (`ssl-ca` under `[sst]`) only for a server that
//! the CA signed, and then never without TLS; otherwise for any server, which keeps out who listens, but not who puts
//! himself in between. So a server that no CA vouches for never gets the password itself, whatever it asks for.
mod connection;

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::ClientConfig;

use crate::cancel::{Cancel, LOOK_EVERY};
use crate::failure::{Failure, Kind};
use crate::panics::caught;
use crate::peer::OwnCertificates;
use crate::peer::secret::random_bytes;
use crate::peer::tls;
use crate::send::throttle::Throttle;
use crate::server::progress::Moved;
use crate::threads::{self, Thread, lock};

/// The proxy for one server, with a socket of its own.
pub(super) struct Proxy {
    directory: PathBuf,
    shared: Arc<Shared>,
}

struct Shared {
    host: String,
    port: u16,
    tls: Arc<ClientConfig>,
    /// The server's certificate must be of the operator's CA.
    verified: bool,
    /// How long the server may take nothing that is sent to it, and its host may not answer.
    gone_after: Duration,
    /// The last connection had TLS.
    encrypted: AtomicBool,
    /// Limits the bytes that go to the server in a second.
    throttle: Arc<Throttle>,
    /// Bytes that went to the server.
    sent: AtomicU64,
    /// Nobody connects any more.
    over: AtomicBool,
    /// On how many connections the server did not answer any more.
    silent: AtomicU64,
    /// Why the first connection failed that did.
    why: Mutex<Option<Failure>>,
    cancel: Cancel,
}

impl Proxy {
    /// Listens for our own client. The server is gone if it takes nothing for `gone_after`, and gets no more than `throttle` permits.
    ///
    /// # Errors
    /// The operator's certificates cannot be used, or there is no place for a socket.
    pub fn to(
        host: &str,
        port: u16,
        own: Option<&OwnCertificates>,
        gone_after: Duration,
        throttle: Arc<Throttle>,
        cancel: &Cancel,
    ) -> Result<Proxy> {
        let shared = Arc::new(Shared {
            host: host.to_owned(),
            port,
            tls: tls::client_of_server(own)?,
            verified: own.is_some(),
            gone_after,
            encrypted: AtomicBool::new(false),
            throttle,
            sent: AtomicU64::new(0),
            over: AtomicBool::new(false),
            silent: AtomicU64::new(0),
            why: Mutex::default(),
            cancel: cancel.clone(),
        });
        let name: String = random_bytes()?.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let directory = std::env::temp_dir().join(format!("rejoin-{name}"));
        let cannot = || format!("cannot make {} for a socket", directory.display());
        DirBuilder::new().mode(0o700).create(&directory).with_context(cannot)?;
        let proxy = Proxy { directory, shared };
        let listener =
            UnixListener::bind(proxy.socket()).with_context(|| proxy.socket().display().to_string())?;
        listener.set_nonblocking(true)?;
        let shared = Arc::clone(&proxy.shared);
        threads::spawn(Thread::SqlListener, move || shared.serve(&listener))?;
        Ok(proxy)
    }

    /// Where our client connects.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("s")
    }

    /// The server's address.
    pub fn server(&self) -> String {
        self.shared.name()
    }

    /// Whether what we say to the server is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.shared.encrypted.load(Ordering::Acquire)
    }

    /// Bytes that went to the server.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Counts these bytes, also when the proxy is gone.
    pub fn counter(&self) -> impl Fn() -> Moved + Send + use<> {
        let shared = Arc::clone(&self.shared);
        move || {
            let bytes = shared.sent.load(Ordering::Relaxed);
            Moved { bytes, steps: bytes }
        }
    }

    /// Why a connection failed, if one has.
    pub fn why(&self) -> Option<Failure> {
        lock(&self.shared.why).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Shared {
    fn name(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire) || self.cancel.check().is_err()
    }

    fn serve(self: &Arc<Self>, listener: &UnixListener) {
        while !self.is_over() {
            wait(&mut [PollFd::new(listener, PollFlags::IN)]);
            let Ok((client, _)) = listener.accept() else { continue };
            let shared = Arc::clone(self);
            let passes = move || {
                let passed = caught(|| shared.pass(&client));
                if let Err(error) = passed
                    && !shared.is_over()
                {
                    tracing::debug!("{error:#}");
                    let failure = error.downcast::<Failure>();
                    let failure =
                        failure.unwrap_or_else(|error| Failure::new(Kind::Peer, format!("{error:#}")));
                    lock(&shared.why).get_or_insert(failure);
                }
            };
            // The client notices that nobody answers.
            if let Err(failure) = threads::spawn(Thread::SqlConnection, passes) {
                lock(&self.why).get_or_insert(failure);
            }
        }
    }
}

/// Waits until one of them can be read, or it is time to look at something else.
fn wait(fds: &mut [PollFd<'_>]) {
    let timeout = Timespec { tv_sec: 0, tv_nsec: LOOK_EVERY.subsec_nanos().into() };
    let _ = poll(fds, Some(&timeout));
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
