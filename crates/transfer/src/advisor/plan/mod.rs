//! `rejoin plan`: predicts how a stopped node would come back, before it is started.
//!
//! Collecting and deciding are separate: [`facts`] is a value, filled by [`collect`] (files of this node,
//! sessions on members); [`choice`] has Galera's rules; [`predict`] combines both for the operator, and
//! `advice` says what would be better;
//! [`deep_ist`] whether an archive of write-sets spares the SST, and [`archives`] which archives are known;
//! [`costs`] which of the ways back is cheapest;
//! [`kind`] whether files or rows travel, and [`snapshot`] where the files come from;
//! [`demand`] what that demands: how long the donor's server stands still, and room here;
//! [`transfer`] estimates what rejoin would send, like a transfer at its start.
mod advice;
pub mod archives;
mod ask;
pub mod choice;
pub mod collect;
pub mod costs;
pub mod deep_ist;
pub mod demand;
pub mod facts;
pub mod kind;
pub mod predict;
pub mod snapshot;
pub mod transfer;
