//! What the two nodes of a transfer say to each other, and what they decide from it.
//!
//! No I/O, no clock, no threads: bytes and values in, bytes and values out. The order of a transfer is
//!
//! ```text
//!  joiner (TLS server)                              donor (TLS client, dials)
//!                      <- Hello (control)            versions, capabilities, proof of the secret
//!     Greeting ->                                    chosen version, own proof; or a refusal
//!                      <- Bypass | Offer
//!     Accept ->                                      after Bypass the transfer is over: IST follows
//!                      <- Attempt                    from which source; again when that did not serve
//!     Sample ->                                      when the joiner's files are to be compared
//!                      <- Plan                       then too: about how much will be sent
//!     Ready ->
//!                      <- Hello (worker n)           further connections, same secret, same transfer
//!                      <- Begin, Chunk | Same ..., WorkerDone
//!     WorkerStored ->
//!                      <- Hello (two more workers)   when the joiner's files are compared: one to ask, one to hear
//!                      <- Asks, Look ..., LooksEnd
//!                      <- Answers
//!     Base, Marks, Rebuilt ..., AnswersEnd ->        by which the donor knows what it need not send
//!                      <- Files ..., FilesEnd        what was sent, with its final names, and its position
//!                      <- Complete
//!     Stored ->                                      everything verified and on stable storage
//! ```
//!
//! Either side may send `Ping`, `Note` (a line for the other host's log) and `Abort` (the reason, then silence).
//!
//! | module | owns |
//! |---|---|
//! | [`limits`] | every bound on what a peer may make us allocate or wait for |
//! | [`hello`] | the first bytes each way; frozen for all versions |
//! | [`message`] | the vocabulary after the greeting |
//! | [`chunk`] | bytes of a file on their way |
//! | [`codec`] | frames: messages to bytes and back |
//! | [`inventory`] | what a file of a datadir is called on the wire |
//! | [`marks`] | the fingerprints by which two nodes learn what they both have |
//! | [`delta`] | parts of a page that two nodes have in two versions |
//! | [`sample`] | what a few blocks say before anything is compared |
//! | [`extents`] | sets of bytes of a file |
//! | [`coverage`] | what of which files has arrived |
//! | [`policy`] | what two nodes must agree on before anything moves |
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

pub mod chunk;
pub mod codec;
pub mod coverage;
pub mod delta;
pub mod extents;
pub mod hello;
pub mod inventory;
pub mod limits;
pub mod marks;
pub mod message;
pub mod policy;
pub mod sample;
