//! What one node does to its disk, its server and its peer. The story of a transfer is [`donor`] and [`joiner`], each
//! read from top to bottom; everything else is what they call.
//!
//! Each module uses only those above it in this table.
//!
//! | module | owns |
//! |---|---|
//! | [`cancel`], [`failure`], [`threads`], [`words`] | ending early; why something failed; work that is shared; figures as people say them |
//! | [`disk`] | durable writes, filesystems |
//! | [`server`] | our own server: options, stdout, parent, logs |
//! | [`gcache`] | the provider's write-set cache on disk, read only |
//! | [`datadir`] | which files there are, on either side |
//! | [`peer`] | the other node: TLS, secret, messages |
//! | [`source`] | the donor's data: still files, ranges, zstd |
//! | [`sink`] | the joiner's data: staging, install, rollback |
//! | [`settings`], [`job`], [`invitation`], [`keeper`] | one run: what was told, how the two meet, what remains to do |
//! | [`donor`], [`joiner`] | the transfer |
//! | [`check`], [`plan`], [`verify`] | what would go wrong in the next one; how a node that is down comes back; whether two are the same |
pub mod cancel;
pub mod check;
pub mod datadir;
pub mod disk;
pub mod donor;
pub mod failure;
pub mod gcache;
pub mod invitation;
pub mod job;
pub mod joiner;
pub mod keeper;
pub mod peer;
pub mod plan;
pub mod server;
pub mod settings;
pub mod sink;
pub mod source;
pub mod threads;
pub mod verify;
pub mod words;
