//! The connections between the two nodes of a transfer: who may speak, and how bytes get there and back.
//!
//! The joiner listens ([`listen::Door`]) and is the TLS server; the donor dials ([`dial::Dialer`]). What makes each
//! sure of the other travels beforehand in the joiner's `ready` line ([`secret::Invitation`]): a one-time secret,
//! which the donor proves on each connection without sending it, and the digest of the joiner's certificate.
//!
//! | module | owns |
//! |---|---|
//! | [`secret`] | the invitation and the proofs made from it |
//! | [`tls`] | what is accepted as a certificate on either side |
//! | `traffic` | counters of a connection |
//! | `wire` | the TLS byte stream: every blocking step, its deadline and its counters |
//! | [`link`] | one authenticated connection: messages in, messages out |
//! | [`relay`] | what other threads have to say, over one link |
//! | `bind` | which sockets an advertised address means |
//! | `greet` | who is let in, and what a refused one is told |
//! | [`listen`] | the joiner's door |
//! | [`dial`] | the donor's way to it |
use std::time::Duration;

use protocol::hello;

mod bind;
pub mod dial;
mod greet;
pub mod link;
pub mod listen;
pub mod relay;
pub mod secret;
pub mod tls;
mod traffic;
mod wire;

pub use dial::Dialer;
pub use link::Link;
pub use listen::Door;
pub use secret::{Invitation, Pin, TransferSecret};
pub use tls::OwnCertificates;
pub use traffic::Traffic;

/// The two roles of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Has the data; dials.
    Donor,
    /// Gets the data; listens.
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

/// What this node brings to every connection of a transfer.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Program name and version, for the peer's log.
    pub program: String,
    /// Oldest and newest protocol version spoken.
    pub versions: (u16, u16),
    /// The [`hello::capability`] bits offered.
    pub capabilities: u64,
    /// How long a peer may be silent, or take nothing of what we send.
    pub stall: Duration,
    /// The operator's certificates; without them a one-time certificate and the pin do the work.
    pub certificates: Option<OwnCertificates>,
}

impl Terms {
    /// What this program can do, and a stall timeout of two minutes.
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

/// A control connection whose two ends know each other, and what they agreed on.
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
