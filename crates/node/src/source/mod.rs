//! The donor's side of the data: from files to chunks on their way to the joiner.
//!
//! | module | owns |
//! |---|---|
//! | [`binlog_state`] | the GTID state of the donor's binary log |
//! | [`frozen`] | the moment in which the server keeps all its files still |
//! | [`still`] | copying them in that moment |
//! | [`declined`] | every reason for which a source does not serve |
//! | [`copy`] | reading files as they are, pages checked |
//! | [`native`] | the snapshot of a server that goes on working |
//! | [`compare`] | what of it the joiner has |
//! | [`together`] | small files, compared with one mark for many |
//! | `answers` | the connections on which that is asked and heard |
//! | [`unconfirmed`] | pages that the joiner rebuilds from its own, until it says that it has them |
//! | [`cheaper`] | which of two ways costs less, as measured |
//! | [`zeros`] | finding zeros |
//! | [`packer`] | zstd where it pays |
//! | [`throttle`] | the rate limit |
//! | [`sink`] | where a source puts it |
//! | [`outbox`] | what either source hands its bytes to |
//! | `lanes` | its queues to the connections |
mod answers;
pub mod binlog_state;
pub mod cheaper;
pub mod compare;
pub mod copy;
pub mod declined;
pub mod frozen;
mod lanes;
pub mod native;
pub mod outbox;
pub mod packer;
pub mod sink;
pub mod still;
pub mod throttle;
pub mod together;
pub mod unconfirmed;
pub mod zeros;
