//! What one node does to its disk, its server and its peer.
//!
//! Each module uses only those above it in this list.
pub mod cancel;
pub mod disk;
pub mod failure;
pub mod source;
