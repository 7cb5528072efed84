//! What a node offers on its connections, and what both agree on.
use std::time::Duration;

use protocol::hello;

use super::link::Link;
use super::own_certificates::OwnCertificates;

/// What this node offers on every connection of a transfer.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Program name and version, for the peer's log.
    pub program: String,
    /// Oldest and newest supported protocol version.
    pub versions: (u16, u16),
    /// The [`hello::capability`] bits offered.
    pub capabilities: u64,
    /// How long a peer may be silent, or accept no data.
    pub stall: Duration,
    /// The operator's certificates; without them a one-time certificate and the pin are used.
    pub certificates: Option<OwnCertificates>,
}

impl Terms {
    /// The features of this program, and a stall timeout of two minutes.
    pub fn of_this_program() -> Terms {
        Terms {
            program: concat!("rejoin ", env!("CARGO_PKG_VERSION")).to_owned(),
            versions: (hello::VERSION_OLDEST, hello::VERSION_NEWEST),
            capabilities: hello::capability::ALL,
            stall: Duration::from_secs(120),
            certificates: None,
        }
    }
}

/// An authenticated control connection, and what both sides agreed on.
#[derive(Debug)]
pub struct Established {
    /// The connection.
    pub link: Link,
    /// The protocol version both speak.
    pub version: u16,
    /// The capabilities both have.
    pub capabilities: u64,
    /// Program name and version of the peer.
    pub program: String,
}
