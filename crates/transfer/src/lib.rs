//! What one node does to its disk, its server and its peer. A transfer is [`donor`] and [`joiner`], each readable from
//! top to bottom; they call everything else.
//!
//! Each module uses only those above it in this table.
//!
//! | module | owns |
//! |---|---|
//! | [`clock`], [`cancel`], [`failure`], [`panics`], [`threads`], [`human`], [`allocator`] | the time; ending early; why something failed; what a panic does; every thread; human-readable figures; how much free memory the C library keeps |
//! | [`disk`] | durable writes, filesystems |
//! | [`program`] | running another program |
//! | [`server`] | our own server: options, stdout, parent, logs |
//! | [`sql`] | the one client for our own server |
//! | [`writesets`] | write-sets on disk: the provider's cache, read only |
//! | [`flavor`], [`datadir`] | what the files of a server are; which files there are, on either side |
//! | [`peer`] | the other node: TLS, secret, messages |
//! | [`remembered`] | fingerprints that are kept between transfers |
//! | [`cost`] | what the ways in which bytes can travel take |
//! | [`snapshot`], [`compare`], [`send`] | the donor's data: its source, what the joiner already has, the queues |
//! | [`receive`], [`install`] | the joiner's data: staging and verifying; install, rollback |
//! | [`private_server`], [`loading`] | a server of ours on a new datadir in staging; what makes files of a logical snapshot with it |
//! | [`load`] | how fast the donor reads beside a server that works |
//! | [`limits`], [`settings`], [`job`], [`invitation`], [`cleanup`] | one run: its options and what they permit, how the two nodes connect, cleanup |
//! | [`donor`], [`joiner`] | the transfer |
//! | [`running_joiner`] | the transfer to a server that runs already |
//! | [`advisor`] | checks and predictions before a transfer: [`advisor::check`], [`advisor::plan`], [`advisor::verify`] |
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests start threads as they like"))]
pub mod advisor;
pub mod allocator;
pub mod cancel;
pub mod cleanup;
pub mod clock;
pub mod compare;
pub mod cost;
pub mod datadir;
pub mod disk;
pub mod donor;
pub mod failure;
pub mod flavor;
pub mod human;
pub mod install;
pub mod invitation;
pub mod job;
pub mod joiner;
pub mod limits;
pub mod load;
pub mod loading;
pub mod panics;
pub mod peer;
pub mod private_server;
pub mod program;
pub mod receive;
pub mod remembered;
pub mod running_joiner;
pub mod send;
pub mod server;
pub mod settings;
pub mod snapshot;
pub mod sql;
pub mod threads;
pub mod writesets;
