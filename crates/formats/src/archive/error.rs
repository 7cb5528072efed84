//! Why bytes are no part of an archive.
use thiserror::Error;

/// What is wrong with bytes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ArchiveError {
    /// They do not begin as one, or end too early.
    #[error("not a {0}")]
    Magic(&'static str),
    /// Written by a newer rejoin.
    #[error("segment of version {0}")]
    Version(u32),
    /// The checksum does not fit the bytes.
    #[error("{0}: wrong checksum")]
    Checksum(&'static str),
    /// A number that no writer writes.
    #[error("{0} out of range")]
    Range(&'static str),
    /// The body does not consist of the actions that the header announces.
    #[error("block body: {0}")]
    Body(&'static str),
}
