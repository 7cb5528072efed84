//! The protocol between the two nodes of a transfer, and the decisions that follow from it.
//!
//! No I/O, no clock, no threads: bytes and values in, bytes and values out. The order of a transfer is
//!
//! ```text
//!  joiner (TLS server)                              donor (TLS client, dials)
//!                      <- Hello (control)            versions, capabilities, proof of the secret
//!     Greeting ->                                    chosen version, own proof; or a refusal
//!                      <- Bypass | Offer             before a Bypass perhaps ArchiveReach
//!     OwnKey, Accept ->                              after Bypass the transfer is over: IST follows
//!                      <- ArchiveReach, AskIst       when the donor has an archive of write-sets
//!     CanIst, PageTime, Sample ->                    then WriteSets, WriteSetBytes ..., WriteSetsEnd and Stored may be all
//!                      <- AskPrepare                 before an attempt that mariadb-backup makes
//!     CanPrepare ->
//!                      <- Attempt                    from which source; again when that did not serve
//!     PageTime, Sample ->                            when the joiner's files are to be compared
//!                      <- Plan                       then too: about how much will be sent
//!     Ready ->
//!                      <- Hello (worker n)           further connections, same secret, same transfer
//!                      <- Begin, Chunk | Same ..., WorkerDone
//!     WorkerStored ->
//!                      <- Hello (two more workers)   if files are compared: one for questions, one for answers
//!                      <- Asks, CompareFiles ..., CompareEnd   the end may come long before the last range
//!                      <- Answers
//!     JoinersFile, RangeFingerprints, Rebuilt ..., AnswersEnd ->   what the donor need not send; or WrongFingerprints
//!                      <- Files ..., FilesEnd        what was sent, with its final names, and its position
//!                      <- Complete
//!     Stored ->                                      everything verified and on stable storage; or NotPrepared
//! ```
//!
//! Either side may send `Ping`, `Note` (a line for the other host's log) and `Abort` (the reason, after which it closes).
//! While it sends, the donor tells the joiner the `Total` of bytes whenever that changes.
//!
//! | module | owns |
//! |---|---|
//! | [`limits`] | limits on everything that a peer may make us allocate or wait for |
//! | [`hello`] | the first bytes each way; frozen for all versions |
//! | [`message`] | the messages after the greeting |
//! | [`chunk`] | a part of a file in transit |
//! | [`codec`] | frames: messages to bytes and back |
//! | [`inventory`] | what a file of a datadir is called on the wire |
//! | [`fingerprint`] | the fingerprints by which two nodes learn what they both have |
//! | [`entries`] | many files' entries in few bytes |
//! | [`delta`] | parts of a page that two nodes have in two versions |
//! | [`remembered`] | the fingerprints that a node keeps between transfers |
//! | [`sample`] | what a few blocks say before anything is compared |
//! | [`extents`] | sets of bytes of a file |
//! | [`coverage`] | which bytes of which files have arrived |
//! | [`policy`] | what two nodes must agree on before data is transferred |
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

pub mod chunk;
pub mod codec;
pub mod coverage;
pub mod delta;
pub mod entries;
pub mod extents;
pub mod fingerprint;
pub mod hello;
pub mod inventory;
pub mod limits;
pub mod logical;
pub mod message;
pub mod policy;
pub mod remembered;
pub mod sample;
