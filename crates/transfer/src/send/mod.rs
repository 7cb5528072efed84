//! From bytes that were read to chunks on their way to the joiner.
//!
//! | module | owns |
//! |---|---|
//! | [`queue`] | what a snapshot hands its bytes to |
//! | `connections` | one queue for each data connection |
//! | [`file_list`] | what tells the joiner at the end which files the state consists of |
//! | [`zeros`] | finding zeros |
//! | [`packer`] | zstd where it pays |
//! | [`cost_model`] | which of two ways costs less, as measured |
//! | [`throttle`] | the rate limit |
mod connections;
pub mod cost_model;
pub mod file_list;
pub mod packer;
pub mod queue;
pub mod throttle;
pub mod zeros;
