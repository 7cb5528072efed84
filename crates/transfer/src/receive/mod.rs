//! The joiner's side of the data: what it already has, and what arrives.
//!
//! | module | owns |
//! |---|---|
//! | [`base`] | the answers to what the donor asks about the joiner's files |
//! | `fingerprinting` | reading those files and fingerprinting them |
//! | [`reusable`] | a previous file whose bytes may be reused |
//! | [`leftovers`] | what an interrupted transfer had staged |
//! | [`corruption`] | pages of previous files that are damaged |
//! | [`origin`] | where the bytes of each range come from |
//! | `rebuild` | blocks rebuilt from the previous version and the parts that travelled |
//! | [`receiver`] | messages on a data connection, checked |
//! | `rested` | staged files by their numbers, small ones in few bytes |
//! | [`staging`], `staged`, [`writer`] | files under their numbers, until the list of names is known |
//! | `settling` | what is the same, taken from previous files at the end |
//! | `read_back` | proof that what is staged is what the donor read |
pub mod base;
pub mod corruption;
mod fingerprinting;
pub mod leftovers;
pub mod origin;
mod read_back;
mod rebuild;
pub mod receiver;
mod rested;
pub mod reusable;
mod settling;
mod staged;
pub mod staging;
pub mod writer;
