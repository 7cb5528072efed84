//! From staged files to an installed datadir, and back.
//!
//! Files are staged ([`crate::receive`]) in `.rejoin/` inside the datadir and in one `.rejoin/` on each other
//! filesystem in use ([`roots`]), so that installing is renaming. `.rejoin/` inside the datadir is removed
//! before the server could show it as a database; the previous state and the records are in `#sql-rejoin/`,
//! which no client sees ([`names`]). When everything is verified and synced, [`plan`] computes what goes
//! where, and [`run`] does it: the one point of no return, a roll-forward ([`forward`]) that can be repeated
//! after a crash at any instruction. Replaced files stay until the node has been Synced once ([`kept`]), so
//! that [`rollback`] can restore them. A rollback is a plan of its own, done by the same roll-forward.
//!
//! Their content:
//!
//! | name | content |
//! |---|---|
//! | `roots.json` | every staging root that may exist |
//! | `stage/ID-NAME` | received files, not yet in place; NAME is a fingerprint of their destination; some are patches ([`patch`]) |
//! | `stage/ID-NAME.back` | the bytes that such a patch will replace |
//! | `stage/left-NAME` | files that an interrupted transfer had received |
//! | `copy/ID` | copies before they are renamed into place |
//! | `old/N`, `discard/N` | replaced files of the previous state; files that a rollback discards |
//! | `install.json` | a plan that has begun and must be finished |
//! | `installed.json` | the last finished install, whose previous state is in `old/` |
//! | `released.json` | the previous state is being deleted |
//! | `in-place` | the old datadir is no longer complete |
//! | `receiving.json` | what an unfinished transfer was about to bring ([`unfinished`]) |
//! | `ran-full` | the last transfer filled the disk although it should have fitted |
//! | `grastate.dat` | the provider's state file before the install |
mod carry_out;
pub mod counted_disk;
pub mod dry_run;
pub mod files;
pub mod findings;
pub mod forward;
pub mod guard;
pub mod in_place;
pub mod kept;
mod moves;
pub mod names;
pub mod patch;
pub mod plan;
mod probed;
pub mod record;
pub mod record_check;
pub mod rollback;
pub mod roots;
pub mod run;
mod second_engine;
pub mod steps;
pub mod tidy;
pub mod unfinished;

#[cfg(test)]
mod tests;
