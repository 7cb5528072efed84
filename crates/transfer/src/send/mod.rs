//! From bytes that were read to chunks on their way to the joiner.
//!
//! | module | owns |
//! |---|---|
//! | [`queue`] | one queue for each data connection |
//! | `range` | compares, packs and queues the bytes of one range |
//! | `sink` | the queues as a snapshot sees them |
//! | `connection_queue` | the queue of one data connection |
//! | [`connections`] | the threads that send what is in these queues |
//! | [`file_list`] | the final list of files, for the joiner |
//! | [`zeros`] | finding zeros |
//! | [`packer`] | compression with zstd |
//! | `ways` | whether parts of pages are compared, and what is sent is compressed |
//! | [`throttle`] | the rate limit |
mod connection_queue;
pub mod connections;
pub mod file_list;
pub mod in_flight;
pub mod packer;
pub mod queue;
mod range;
mod sink;
pub mod throttle;
mod ways;
pub mod zeros;
