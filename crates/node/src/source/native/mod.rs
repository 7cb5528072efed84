//! The native source: a snapshot of a live server, taken without stopping it for more than a moment.
//!
//! The redo log is followed from the newest checkpoint on while pages are read as they are; then, in a *settled
//! moment* in which the server's backup locks hold DDL and the provider still, what has no redo is read and the end
//! is noted. The copy's own server recovers from the redo as after a crash, at exactly the noted position.
//!
//! | module | owns |
//! |---|---|
//! | [`sql`] | the few statements, as named operations; [`sql_checks`] what must hold before the start |
//! | [`login`] | where the server is, and who we are to it |
//! | [`stage`] | the backup locks, in a guard |
//! | [`log_file`] | reading ranges of the live log by LSN |
//! | [`tail`] | following the log in a thread of its own |
//! | [`spool`] | the bounded queue behind it, in memory and in a bounded file |
//! | [`dirty`] | which pages the redo changes, in bounded memory |
//! | [`redo_out`] | writing what the tail delivers as a flat log, and what it says about files |
//! | [`listing`] | which files there are |
//! | [`catalog`] | what was copied of them; `copying` copies and notes it |
//! | [`reread`] | reading again what a data file's redo below a checkpoint changed |
//! | [`rounds`] | a newer checkpoint, so that less redo is replayed |
//! | [`settle`] | the settled moment |
//! | `checks` | whether what was copied is what the redo leads to |
//! | [`watchdog`] | what is done when that moment hangs |
//! | `manifest` | the head of the log that is sent, and the list of files |
//! | [`snapshot`] | the whole, top to bottom |
pub mod catalog;
mod checks;
mod copying;
pub mod dirty;
pub mod listing;
pub mod log_file;
pub mod login;
mod manifest;
pub mod redo_out;
pub mod reread;
pub mod rounds;
pub mod settle;
pub mod snapshot;
pub mod spool;
pub mod sql;
pub mod sql_checks;
pub mod stage;
pub mod tail;
pub mod watchdog;
