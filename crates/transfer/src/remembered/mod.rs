//! What this node remembers of its files: the fingerprints of their ranges, with the state that each file had. A range
//! whose fingerprint is remembered need not be read while its file is in that state (decision 0045).
//!
//! | module | owns |
//! |---|---|
//! | [`trust`] | when a fingerprint may be remembered, and when it counts later |
//! | [`in_flight`] | when no write to a disk was in flight |
//! | [`store`] | the two files: the key, and the encrypted list |
//! | [`recall`] | the list in one transfer, and which ranges are read anyway |
//! | [`front`] | the first pages of a tablespace |
//! | [`learn`] | files that are read now, whose fingerprints may be remembered |
//! | [`memory`] | all of that in one transfer |
//! | [`arrived`] | what a joiner remembers of the files that it installed |
//! | `waiting` | the same until the install has ended |
pub mod arrived;
pub mod front;
pub mod in_flight;
pub mod learn;
pub mod memory;
pub mod recall;
pub mod store;
#[cfg(test)]
pub(crate) mod testing;
pub mod trust;
mod waiting;
