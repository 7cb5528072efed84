//! The provider's cache of write-sets on disk, read without disturbing it: of a server that is stopped, that crashed,
//! or that is writing it right now.
//!
//! Files are opened for reading only and read in windows of 1 MiB, so memory does not grow with the ring: beside
//! the window there is a mark for each MiB of it, and, where checksums are verified, one write-set.
//!
//! ```no_run
//! use node::gcache::{Gcache, Payload};
//! # use rejoin_node as node;
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
mod report;
pub mod sizing;
mod window;

pub use files::{Entry, Gcache, InUse, Page, Payload, Source, Visited};
pub use report::{Bad, Rate, Report, events_of, verify};
