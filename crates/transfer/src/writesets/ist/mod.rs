//! Deep IST: write-sets that no provider has any more, put in front of what a donor's provider sends.
//!
//! | module | owns |
//! |---|---|
//! | [`relay`] | what the joiner's program says to the process between the donor's provider and ours |
//! | [`passage`] | that process |
//! | [`stand_in`] | the same for a server that was started without a state transfer, beside the archiver |
//! | `port` | where donors connect, and which of the two listens there |
//! | `callers` | connections to it that may be a donor's |
//! | `session` | one connection through it |
//! | `certificates` | TLS as providers speak it |
//! | [`spool`] | the write-sets that came from the donor's archive, on the joiner's disk |
//! | [`trust`] | whether a joiner's own files may be the start of it |
//! | [`cost`] | whether replaying is cheaper than a transfer of files |
//! | [`rate`] | how fast this node's server applied write-sets last |
mod callers;
mod certificates;
pub mod cost;
pub mod passage;
mod port;
pub mod rate;
pub mod relay;
mod session;
pub mod spool;
pub mod stand_in;
pub mod trust;
