//! The port where donors of IST connect, and whose turn it is to listen there.
//!
//! The relay of a state transfer claims it as long as it lives, by an `flock` on the datadir, which the kernel ends with its
//! process and which leaves no file. The stand-in of the archiver listens only while nobody claims it. It holds nothing that
//! the relay would have to wait for: it looks often, and leaves.
use std::fs::File;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::cancel::{Cancel, LOOK_EVERY};
use crate::server::ist_endpoints::IstEndpoints;

/// How often a claim, or a port, that another process has is tried again.
const TRY_EVERY: Duration = Duration::from_millis(20);

/// The port is ours until this is dropped, or this process ends.
#[derive(Debug)]
pub(super) struct Claim(#[expect(dead_code, reason = "its end is what counts")] File);

/// Claims the port; waits for the relay of an earlier life of the server.
///
/// # Errors
/// There is none in time, or no datadir.
pub(super) fn claim(datadir: &Path, within: Duration, cancel: &Cancel) -> Result<Claim> {
    let failed = || format!("cannot lock {}", datadir.display());
    let dir = File::open(datadir).with_context(failed)?;
    let until = Instant::now() + within;
    loop {
        match flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Claim(dir)),
            Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < until => cancel.sleep(TRY_EVERY)?,
            Err(errno) => return Err(std::io::Error::from(errno)).with_context(failed),
        }
    }
}

/// Whether the relay of a state transfer has claimed the port.
pub(super) fn is_claimed(datadir: &Path) -> bool {
    let Ok(dir) = File::open(datadir) else { return false };
    // Held for an instant only; a process that claims the port meanwhile tries again.
    flock(&dir, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
}

/// Listens on every address that the name means, waiting for another process to leave.
///
/// # Errors
/// It cannot; [`ErrorKind::AddrInUse`] if another process has the port for all that time.
pub(super) fn listen(
    endpoints: &IstEndpoints,
    within: Duration,
    cancel: &Cancel,
) -> Result<Vec<TcpListener>> {
    let (host, port) = &endpoints.advertised;
    let addresses: Vec<SocketAddr> = (host.as_str(), *port)
        .to_socket_addrs()
        .with_context(|| format!("ist.recv_addr={host} does not resolve"))?
        .filter(|address| *address != endpoints.provider)
        .collect();
    let until = Instant::now() + within;
    loop {
        let mut failed = None;
        let bind = |address: &SocketAddr| TcpListener::bind(address).map_err(|error| (*address, error));
        let mut listeners = Vec::new();
        for bound in addresses.iter().map(bind) {
            match bound {
                Ok(listener) => {
                    listener.set_nonblocking(true)?;
                    listeners.push(listener);
                }
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some((_, error)) if error.kind() == ErrorKind::AddrInUse && Instant::now() < until => {
                drop(listeners);
                cancel.sleep(TRY_EVERY)?;
            }
            Some((address, error)) if listeners.is_empty() => {
                return Err(error).with_context(|| format!("cannot listen at {address} (ist.recv_addr)"));
            }
            _ => return Ok(listeners),
        }
    }
}

/// Waits a moment for a connection.
pub(super) fn accept(listeners: &[TcpListener], wait: Duration) -> Result<Option<(TcpStream, SocketAddr)>> {
    let mut fds: Vec<PollFd<'_>> = listeners.iter().map(|l| PollFd::new(l, PollFlags::IN)).collect();
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
    if !matches!(poll(&mut fds, Some(&timeout)), Ok(1..)) {
        return Ok(None);
    }
    for listener in listeners {
        match listener.accept() {
            Ok((stream, from)) => {
                return Ok(Some((stream, SocketAddr::new(from.ip().to_canonical(), from.port()))));
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => {}
            // Too many descriptors, say: not for ever.
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                std::thread::sleep(LOOK_EVERY);
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_claims_it_and_a_look_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let cancel = Cancel::new();
        assert!(!is_claimed(dir.path()));
        let claim_now = || claim(dir.path(), Duration::ZERO, &cancel);
        let first = claim_now().unwrap();
        assert!(is_claimed(dir.path()) && is_claimed(dir.path()));
        assert!(claim_now().is_err());
        drop(first);
        assert!(!is_claimed(dir.path()));
        std::thread::scope(|scope| {
            let looking = scope.spawn(|| (0..20_000).filter(|_| is_claimed(dir.path())).count());
            for _ in 0..20 {
                drop(claim(dir.path(), Duration::from_secs(20), &cancel).unwrap());
            }
            looking.join().unwrap();
        });
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "a file is left");
        assert!(!is_claimed(&dir.path().join("nowhere")));
        assert!(claim(&dir.path().join("nowhere"), Duration::ZERO, &cancel).is_err());
    }
}
