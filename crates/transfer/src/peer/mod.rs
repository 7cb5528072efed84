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
//! | [`tls`], `own_certificates` | which certificates either side accepts; the operator's own |
//! | `side`, `terms` | the two roles; what a node offers, and what both agree on |
//! | `socket` | options of a socket |
//! | `traffic` | counters of a connection |
//! | `tls_stream` | the TLS byte stream: every blocking step, its deadline and its counters |
//! | `end` | a connection of other programs, plain or with TLS |
//! | [`link`] | one authenticated connection for messages |
//! | `keep_alive` | a link while its own side does long work |
//! | [`relay`] | messages of other threads, sent over one link |
//! | `bind` | resolves an advertised address to listening sockets |
//! | `screen` | which connections may be the donor's, by their first packet |
//! | `handshake` | which connections are accepted, and the reason that a refused one gets |
//! | [`listen`] | the joiner's listener |
//! | [`dial`] | the donor's connections to it |
mod bind;
pub mod dial;
pub(crate) mod end;
mod handshake;
mod keep_alive;
pub mod link;
pub mod listen;
pub(crate) mod own_certificates;
pub mod relay;
mod screen;
pub mod secret;
mod side;
pub(crate) mod socket;
mod terms;
pub mod tls;
pub(crate) mod tls_stream;
mod traffic;

pub use dial::Dialer;
pub use link::Link;
pub use listen::Listener;
pub use own_certificates::OwnCertificates;
pub use secret::{Invitation, Pin, TransferSecret};
pub use side::Side;
pub use terms::{Established, Terms};
pub use traffic::Traffic;
