//! The online snapshot: a snapshot of a live server, taken without stopping it for more than a moment.
//!
//! The redo log is followed from the newest checkpoint on while pages are read as they are; then, at a *consistency
//! point* at which the server's backup locks hold DDL and the provider still, what has no redo is read and the end
//! is noted. The copy's own server recovers from the redo as after a crash, at exactly the noted position.
//!
//! | module | owns |
//! |---|---|
//! | [`sql_checks`] | what must hold before the start |
//! | [`stage`] | the backup locks, in a guard that the server ends by itself when it hears nothing from us |
//! | [`log_file`] | reading ranges of the live log by LSN |
//! | [`tail`] | following the log in a thread of its own |
//! | [`spool`] | the bounded queue behind it, in memory and in a bounded file: what a newer checkpoint makes needless is dropped there |
//! | [`dirty`] | which pages the redo changes, in bounded memory |
//! | [`redo_out`] | writing what the tail delivers as a flat log, and what it says about files |
//! | [`listing`] | which files there are; `lister` looks again only at what may have changed |
//! | [`catalog`] | what was copied of them; `copying` copies and notes it |
//! | [`reread`] | reading again what a data file's redo below a checkpoint changed |
//! | [`checkpoints`] | the server's checkpoints while files are copied, and when one is asked for |
//! | [`estimate`] | what redo costs, and what a newer checkpoint would |
//! | [`outlook`] | what redo will come to, told before a transfer |
//! | [`rounds`] | a newer checkpoint, so that less redo is sent and replayed |
//! | `point` | from the copy to the consistency point |
//! | [`settle`] | the consistency point |
//! | `checks` | whether what was copied is what the redo leads to |
//! | [`wait`] | the wait for it: when it is tried again, and when it is over |
//! | [`holders`] | who holds the lock that is waited for |
//! | `manifest` | the head of the log that is sent, and the list of files |
//! | [`snapshot`] | the whole, top to bottom; `summary` is what the donor's role sees of it |
mod by_identity;
pub mod catalog;
pub mod checkpoints;
mod checks;
mod copying;
pub mod dirty;
pub mod estimate;
pub mod holders;
mod holding;
mod known;
mod lister;
pub mod listing;
pub mod log_file;
mod manifest;
pub mod outlook;
mod point;
pub mod redo_out;
pub mod reread;
pub mod rounds;
pub mod settle;
pub mod snapshot;
pub mod spool;
pub mod sql_checks;
pub mod stage;
mod summary;
pub mod tail;
pub mod wait;

pub use summary::Online;
