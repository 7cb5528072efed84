//! The donor's side of the data: files that hold still, read in ranges, packed and paced.
//!
//! | module | owns |
//! |---|---|
//! | [`binlog_state`] | the GTID state of the donor's binary log |
//! | [`frozen`] | the moment in which the server keeps all its files still |
//! | [`native`] | the snapshot of a server that goes on working |
//! | [`ranges`] | the queue of ranges that the workers share |
//! | [`reader`] | reading a range and finding its zeros |
//! | [`packer`] | zstd where it pays |
//! | [`throttle`] | the rate limit |
//! | [`sender`] | a worker: from a range to the wire |
pub mod binlog_state;
pub mod frozen;
pub mod native;
pub mod packer;
pub mod ranges;
pub mod reader;
pub mod sender;
pub mod throttle;
