//! The online snapshot: a snapshot of a running server, which pauses replication only for some tens of milliseconds.
//!
//! The redo log is read from the newest checkpoint on while data files are copied. Then, at a *consistency point* at
//! which the server's backup locks hold DDL and the provider is paused, files without redo are read and the end of the
//! redo is noted. The joiner's server recovers from this redo as after a crash, to exactly the noted position.
//!
//! | module | owns |
//! |---|---|
//! | [`sql_checks`] | privileges and settings, checked before the start |
//! | [`stage`] | the backup locks, in a guard; the server releases them by itself if our session stays silent |
//! | [`log_file`] | reading ranges of the live log by LSN |
//! | [`tail`] | following the log in a thread of its own |
//! | [`spool`] | the bounded queue behind it, in memory and in a file; redo that a newer checkpoint makes needless is dropped there |
//! | [`dirty`] | which pages the redo changes, in bounded memory |
//! | `page_set` | a set of pages of one tablespace |
//! | [`redo_out`] | writing the redo as a flat log, and remembering its file events |
//! | `redo_end` | waiting until the redo up to the consistency point has been written |
//! | [`listing`] | listing the files; `lister` looks again only at what may have changed |
//! | `passes` | listing and copying files without a lock, until few new ones are found |
//! | [`catalog`] | what was copied of each file; `copying` copies and records it |
//! | [`reread`] | reading again the pages that redo below a newer checkpoint changes |
//! | [`checkpoints`] | the server's checkpoints while files are copied, and when one is requested; `holding` says how long pages wait for it |
//! | [`estimate`] | the cost of redo, and of a newer checkpoint; `backlog` says when more is written than can be sent, `stall` while files are copied |
//! | [`outlook`] | the amount of redo, predicted before a transfer |
//! | [`rounds`] | moving the start of recovery to a newer checkpoint, so that less redo is sent and replayed |
//! | `point` | repeating the consistency point until it succeeds, and copying in between |
//! | [`locking`] | one try to hold DDL and the provider, also for the logical snapshot |
//! | [`settle`] | one try of the consistency point, and what is read in it |
//! | `checks` | whether the copy matches its redo, checked after the consistency point |
//! | [`wait`] | pauses between the tries, and when to give up |
//! | [`holders`] | which session holds the lock that we wait for |
//! | `manifest` | the head of the log that is sent, and the list of files |
//! | [`snapshot`] | the whole snapshot from top to bottom; `summary` implements the trait for the donor's role |
mod backlog;
mod barrier;
pub mod catalog;
pub mod checkpoints;
mod checks;
mod consistency_point;
mod copying;
pub mod dirty;
pub mod estimate;
pub mod holders;
mod holding;
mod index;
mod known;
mod lister;
pub mod listing;
pub mod locking;
pub mod log_file;
mod manifest;
pub mod outlook;
mod page_set;
mod passes;
mod point;
mod redo_end;
pub mod redo_out;
pub mod reread;
pub mod rounds;
pub mod settle;
pub mod snapshot;
pub mod spool;
pub mod sql_checks;
pub mod stage;
mod stall;
mod summary;
pub mod tail;
pub mod wait;

pub use summary::Online;
