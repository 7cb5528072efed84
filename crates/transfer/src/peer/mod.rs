//! The connections between the two nodes of a transfer: authentication, encryption and transport.
//!
//! The joiner listens ([`listen::Listener`]) and is the TLS server; the donor dials ([`dial::Dialer`]). The
//! joiner's `ready` line ([`secret::Invitation`]) lets each side authenticate the other: it has a one-time
//! secret, which the donor proves on each connection without sending it, and the digest of the joiner's
//! certificate.
//!
//! | module | owns |
//! |---|---|
//! | [`secret`] | the invitation and the proofs made from it |
//! | [`tls`] | which certificates either side accepts |
//! | `traffic` | counters of a connection |
//! | `tls_stream` | the TLS byte stream: every blocking step, its deadline and its counters |
//! | [`link`] | one authenticated connection for messages |
//! | [`relay`] | messages of other threads, sent over one link |
//! | `bind` | resolves an advertised address to listening sockets |
//! | `screen` | which connections may be the donor's, by their first packet |
//! | `handshake` | which connections are accepted, and the reason that a refused one gets |
//! | [`listen`] | the joiner's listener |
//! | [`dial`] | the donor's connections to it |
use std::time::Duration;

use protocol::hello;

mod bind;
pub mod dial;
mod handshake;
pub mod link;
pub mod listen;
pub mod relay;
mod screen;
pub mod secret;
pub mod tls;
mod tls_stream;
mod traffic;

pub use dial::Dialer;
pub use link::Link;
pub use listen::Listener;
pub use secret::{Invitation, Pin, TransferSecret};
pub use tls::OwnCertificates;
pub use traffic::Traffic;

/// The two roles of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It has the data, and dials.
    Donor,
    /// It gets the data, and listens.
    Joiner,
}

impl Side {
    /// The word for logs.
    pub fn name(self) -> &'static str {
        match self {
            Side::Donor => "donor",
            Side::Joiner => "joiner",
        }
    }

    /// The side at the other end of a link.
    pub fn other(self) -> Side {
        match self {
            Side::Donor => Side::Joiner,
            Side::Joiner => Side::Donor,
        }
    }
}

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
