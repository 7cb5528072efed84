//! TCP ports that no other node of any lab on this machine uses.
//!
//! Ports are handed out in blocks, below the range the kernel takes outgoing ports from. A block belongs to the
//! process that holds an abstract unix socket of its name: that lock needs no file and ends with its process.

use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result, bail};

const FIRST: u16 = 21_000;
const BLOCK: u16 = 10;
const BLOCKS: u16 = 1_100;

/// The ports of one node, reserved as long as this value lives.
#[derive(Debug)]
pub struct Ports {
    base: u16,
    _lock: UnixListener,
}

impl Ports {
    /// Reserves a block none of whose ports is in use.
    pub fn reserve() -> Result<Self> {
        static TRIED: AtomicU16 = AtomicU16::new(0);
        // Processes start at different places, so that a port just left in TIME_WAIT is rarely met again.
        let start = (std::process::id() % u32::from(BLOCKS)) as u16;
        for _ in 0..BLOCKS {
            let turn = TRIED.fetch_add(1, Ordering::Relaxed) % BLOCKS;
            let base = FIRST + (start + turn) % BLOCKS * BLOCK;
            let Ok(lock) = lock(base) else { continue };
            let ports = Self { base, _lock: lock };
            if ports.busy().is_empty() {
                return Ok(ports);
            }
        }
        bail!("no free block of {BLOCK} ports from {FIRST} on")
    }

    /// For clients.
    pub fn client(&self) -> u16 {
        self.base
    }

    /// For the group channel of Galera.
    pub fn group(&self) -> u16 {
        self.base + 1
    }

    /// Where the node receives IST.
    pub fn ist(&self) -> u16 {
        self.base + 2
    }

    /// Where the node receives SST.
    pub fn sst(&self) -> u16 {
        self.base + 3
    }

    /// Further ports of the block for a test's own use, 0 to 5.
    pub fn spare(&self, n: u16) -> u16 {
        assert!(n < BLOCK - 4, "a block has {} spare ports", BLOCK - 4);
        self.base + 4 + n
    }

    /// Which ports of the block something listens on.
    pub fn busy(&self) -> Vec<u16> {
        (self.base..self.base + BLOCK).filter(|&port| is_busy(port)).collect()
    }
}

/// Whether a listener on `port` would be refused.
pub fn is_busy(port: u16) -> bool {
    // std sets SO_REUSEADDR: connections in TIME_WAIT do not count, listeners do.
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_err()
}

fn lock(base: u16) -> Result<UnixListener> {
    let name = SocketAddr::from_abstract_name(format!("rejoin-lab-ports-{base}"))?;
    UnixListener::bind_addr(&name).with_context(|| format!("ports from {base} on are taken"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_reservations_never_share_a_port() {
        let (a, b) = (Ports::reserve().unwrap(), Ports::reserve().unwrap());
        assert!(a.client().abs_diff(b.client()) >= BLOCK);
    }

    #[test]
    fn a_block_with_a_listener_is_seen_as_busy() {
        let ports = Ports::reserve().unwrap();
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, ports.sst())).unwrap();
        assert_eq!(ports.busy(), [ports.sst()]);
    }
}
