//! What a transfer takes: the one model that is asked wherever two ways lead to the same result.
//!
//! A byte passes several stages, all of which work at the same time: the link, the processors of both hosts, and the donor's
//! threads, which wait for the joiner's answers. The transfer is as fast as the slowest of them. [`stages`] computes from what
//! each piece of work takes how long each stage has a byte in each way; `send::ways` measures and takes the cheapest way, and
//! [`crate::compare::worth`] asks whether to compare at all. Work is measured in processor time and bytes, never by how long a range
//! takes: that depends on the ranges before it and on what else waits.
//!
//! | module | content |
//! |---|---|
//! | [`pace`] | processor time per byte for each kind of work, assumed until it is measured |
//! | [`stages`] | the seconds that each stage has a byte, in each way |
//! | [`link`] | how fast the link is, of what was sent on it |
//! | [`processors`] | the processors that this program can have |
//! | [`clock`] | the processor time of a thread, and how long it waited for a processor |
//! | [`joiner`] | measures the joiner's work, and tells the donor |
pub mod clock;
pub mod joiner;
pub mod link;
pub mod pace;
pub mod processors;
pub mod stages;
