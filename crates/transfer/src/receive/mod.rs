//! The joiner's side of the data: what it already has, and what it receives.
//!
//! | module | owns |
//! |---|---|
//! | [`base`] | answers to the donor's questions about the joiner's files |
//! | `questions` | the donor's open questions |
//! | `fingerprinting` | reading those files and fingerprinting them |
//! | [`reusable`] | a previous file whose bytes may be reused |
//! | [`leftovers`] | files that an interrupted transfer had staged |
//! | [`corruption`] | corrupt pages of previous files |
//! | [`origin`] | where the bytes of each range come from |
//! | `rebuild` | blocks rebuilt from the previous version and the pieces that were sent |
//! | [`receiver`] | messages on a data connection, checked |
//! | `rested`, `encoded` | staged files by their numbers; small ones are kept encoded |
//! | [`staging`], `staged`, [`writer`] | received files, under their numbers until the final names are known |
//! | `staging_roots` | the directories in which they are staged, and the space reserved there |
//! | `settling` | final lengths and names, and unchanged bytes from previous files |
//! | [`prepared`] | files of a backup, which another program prepares |
//! | `moving` | files that a program on this node has made |
//! | `digests` | digests of what was written |
//! | `read_back` | the check that staged files are what the donor read |
pub mod base;
pub mod corruption;
mod digests;
mod encoded;
mod fingerprinting;
pub mod leftovers;
mod moving;
pub mod origin;
pub mod prepared;
mod questions;
mod read_back;
mod rebuild;
pub mod receiver;
mod rested;
pub mod reusable;
mod settling;
pub(crate) mod staged;
pub mod staging;
mod staging_roots;
pub mod writer;
