//! Finds the part of the donor's data that the joiner already has.
//!
//! | module | owns |
//! |---|---|
//! | [`comparison`] | the donor's questions about ranges, blocks and pieces, and its conclusions from the answers; `closer` finds what of a range differs |
//! | [`worth`] | whether comparing costs more than it saves, so that the rest is sent whole |
//! | [`groups`] | small files, many of which are compared with one fingerprint |
//! | `theirs` | what the joiner has said of its files |
//! | `unread` | ranges that are compared without reading them |
//! | `answers` | the connections for questions and answers |
//! | [`pending_rebuilds`] | blocks that the joiner rebuilds from its own, kept until it confirms them |
mod answers;
mod closer;
pub mod comparison;
pub mod groups;
pub mod pending_rebuilds;
mod theirs;
mod unread;
pub mod worth;
