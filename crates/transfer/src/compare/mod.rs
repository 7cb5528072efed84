//! What of the donor's data the joiner already has.
//!
//! | module | owns |
//! |---|---|
//! | [`comparison`] | the donor's questions about ranges, blocks and pieces, and what follows from the answers |
//! | [`groups`] | small files, compared with one fingerprint for many |
//! | `answers` | the connections on which that is asked and answered |
//! | [`pending_rebuilds`] | blocks that the joiner rebuilds from its own, until it confirms them |
mod answers;
pub mod comparison;
pub mod groups;
pub mod pending_rebuilds;
