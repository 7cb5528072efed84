//! Bytes to meaning and back, for everything `rejoin` reads or writes that another program defined.
//!
//! No I/O, no clock, no panic on any input. (table filled in below)

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

mod bytes;
pub mod galera;
pub mod ids;
pub mod innodb;
pub mod mariadb;
pub mod wsrep;

pub use ids::{Lsn, PageNo, Seqno, SpaceId, Uuid};
