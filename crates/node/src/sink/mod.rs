//! From received bytes to an installed datadir, and back.
//!
//! Files arrive in [`staging`], in `.rejoin/` inside the datadir and in one `.rejoin/` on each other filesystem in use
//! ([`roots`]): installing is renaming. Inside the datadir `.rejoin/` is gone when the server may show it as a database;
//! what is kept and the records are in `#sql-rejoin/`, which no client sees ([`names`]). When everything is verified and synced, [`plan`] says what goes where, and
//! [`install`] does it: the one point of no return, a roll-forward ([`forward`]) that may be repeated after a crash
//! at any instruction. Replaced files are kept until the node was once Synced ([`kept`]), so that [`rollback`] can put
//! them back; the rollback is a plan of its own, done by the same roll-forward.
//!
//! What lies in them:
//!
//! | name | what |
//! |---|---|
//! | `roots.json` | every staging root that may exist |
//! | `stage/ID-NAME` | received files, not yet in place; NAME is a fingerprint of where they go; some are patches ([`patch`]) |
//! | `stage/ID-NAME.back` | what such a patch will replace |
//! | `stage/left-NAME` | what a broken transfer had received |
//! | `copy/ID` | copies on their way into place |
//! | `old/N`, `discard/N` | replaced files that are kept; files that a rollback drops |
//! | `install.json` | a plan that has begun and must be finished |
//! | `installed.json` | the last finished install; what it kept is in `old/` |
//! | `released.json` | what was kept is being deleted |
//! | `in-place` | the old datadir is no longer complete |
//! | `ran-full` | the last transfer filled the disk, though it was to fit |
//! | `grastate.dat` | the provider's state file as it was before |
pub mod base;
pub mod class;
pub mod files;
pub mod forward;
pub mod held;
pub mod in_place;
pub mod install;
pub mod kept;
pub mod leftovers;
mod marking;
pub mod names;
pub mod origin;
pub mod patch;
pub mod plan;
mod read_back;
mod rebuild;
pub mod receiver;
pub mod rollback;
pub mod roots;
pub mod rot;
mod settling;
mod staged;
pub mod staging;
pub mod steps;
pub mod tidy;
pub mod writer;

#[cfg(test)]
mod tests;
