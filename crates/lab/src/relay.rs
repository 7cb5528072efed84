//! A relay of TCP between two programs of a test: the link between two hosts, which can be cut, or swallow what is sent.
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// So little is on its way that a link which swallows is noticed.
const BUFFER: usize = 64 << 10;
const LOOK: Duration = Duration::from_millis(20);

/// Passes on what arrives at its port, until it is cut or dropped.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    to: u16,
    /// Bytes that went there.
    passed: AtomicU64,
    swallows: AtomicBool,
    cut: AtomicBool,
    connections: Mutex<Vec<TcpStream>>,
}

impl Relay {
    /// To a port on loopback.
    pub fn to(port: u16) -> Result<Relay> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("a port for a relay")?;
        // Connections have what their listener has.
        rustix::net::sockopt::set_socket_recv_buffer_size(&listener, BUFFER)?;
        listener.set_nonblocking(true)?;
        let relay = Relay {
            port: listener.local_addr()?.port(),
            shared: Arc::new(Shared { to: port, ..Shared::default() }),
        };
        let shared = Arc::clone(&relay.shared);
        std::thread::spawn(move || shared.serve(&listener));
        Ok(relay)
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits until so many bytes have passed.
    pub fn wait_passed(&self, bytes: u64) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(60);
        while self.shared.passed.load(Ordering::Relaxed) < bytes {
            ensure!(Instant::now() < until, "{:?} bytes passed, not {bytes}", self.shared.passed);
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// From now on nothing passes, nobody is told, and connections are taken anyway.
    pub fn swallow(&self) {
        self.shared.swallows.store(true, Ordering::Release);
    }

    /// Ends [`Relay::swallow`]: what was not taken yet passes now.
    pub fn pass_again(&self) {
        self.shared.swallows.store(false, Ordering::Release);
    }

    /// Ends all connections, and takes no more.
    pub fn cut(&self) {
        self.shared.cut.store(true, Ordering::Release);
        for connection in self.shared.connections().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.cut();
    }
}

impl Shared {
    fn connections(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(self: Arc<Self>, listener: &TcpListener) {
        while !self.cut.load(Ordering::Acquire) {
            match listener.accept() {
                Ok((client, _)) => drop(self.connect(client)),
                Err(_) => std::thread::sleep(LOOK),
            }
        }
    }

    fn connect(self: &Arc<Self>, client: TcpStream) -> Result<()> {
        client.set_nonblocking(false)?;
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, self.to))?;
        let ways = [(client.try_clone()?, server.try_clone()?, true), (server, client, false)];
        for (from, to, counts) in ways {
            from.set_read_timeout(Some(LOOK))?;
            self.connections().push(from.try_clone()?);
            let shared = Arc::clone(self);
            std::thread::spawn(move || {
                let _ = shared.pass(&from, &to, counts);
                let _ = to.shutdown(Shutdown::Write);
            });
        }
        Ok(())
    }

    fn pass(&self, mut from: &TcpStream, mut to: &TcpStream, counts: bool) -> Result<()> {
        let mut buffer = vec![0; BUFFER];
        while !self.cut.load(Ordering::Acquire) {
            if self.swallows.load(Ordering::Acquire) {
                std::thread::sleep(LOOK);
                continue;
            }
            match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => {
                    to.write_all(&buffer[..n])?;
                    self.passed.fetch_add(if counts { n as u64 } else { 0 }, Ordering::Relaxed);
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_passes_swallows_and_is_cut() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let relay = Relay::to(server.local_addr().unwrap().port()).unwrap();
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, relay.port())).unwrap();
        let (mut end, _) = server.accept().unwrap();
        let mut byte = [0];
        client.write_all(b"a").unwrap();
        end.read_exact(&mut byte).unwrap();
        end.write_all(b"b").unwrap();
        client.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"b");
        relay.wait_passed(1).unwrap();
        relay.swallow();
        // A read that has begun still passes its bytes.
        std::thread::sleep(LOOK * 3);
        client.write_all(b"c").unwrap();
        end.set_read_timeout(Some(LOOK * 5)).unwrap();
        assert!(end.read(&mut byte).is_err());
        relay.pass_again();
        end.set_read_timeout(None).unwrap();
        end.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"c");
        relay.cut();
        assert_eq!(end.read(&mut byte).unwrap_or(0), 0);
        assert_eq!(client.read(&mut byte).unwrap_or(0), 0);
    }
}
