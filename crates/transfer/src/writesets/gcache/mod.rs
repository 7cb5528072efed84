//! Reads the provider's write-set cache on disk without disturbing it. The server may be running, stopped or
//! crashed.
//!
//! Files are opened read-only and read in windows of 1 MiB, so memory does not grow with the ring: there is
//! one window, one mark for each MiB of the ring, and one write-set while checksums are verified.
//!
//! ```no_run
//! use transfer::writesets::gcache::{Gcache, Payload};
//! # use rejoin_transfer as transfer;
//! # fn main() -> anyhow::Result<()> {
//! let cache = Gcache::open("/var/lib/mysql".as_ref())?;
//! if let Some((first, last)) = cache.range() {
//!     println!("{}: {first} to {last}", cache.preamble().history);
//! }
//! cache.visit(&mut |entry, source| {
//!     if let Payload::Valid(bytes) = source.payload(entry)? {
//!         println!("{} has {} bytes", entry.seqno, bytes.len());
//!     }
//!     Ok(true)
//! })?;
//! # Ok(()) }
//! ```

mod files;
mod mapped;
mod ordered;
mod report;
pub mod sizing;
mod window;

pub(crate) use ordered::RingPlace;
pub(crate) use window::{Window, read_up_to};

pub use files::{Entry, Gcache, InUse, Page, Payload, Source, Visited};
pub use report::{Bad, Rate, Report, events_of, verify};
