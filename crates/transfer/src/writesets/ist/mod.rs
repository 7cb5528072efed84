//! Deep IST: write-sets that no provider has any more, put in front of what a donor's provider sends.
//!
//! | module | owns |
//! |---|---|
//! | [`relay`] | the process between the donor's provider and ours, and what the joiner's program says to it |
//! | `session` | one connection through it |
//! | [`spool`] | the write-sets that came from the donor's archive, on the joiner's disk |
//! | [`trust`] | whether a joiner's own files may be the start of it |
//! | [`cost`] | whether replaying is cheaper than a transfer of files |
pub mod cost;
pub mod relay;
mod session;
pub mod spool;
pub mod trust;
