//! `rejoin plan`: predicts how a stopped node would come back, before it is started.
//!
//! Collecting and deciding are separate: [`facts`] is a value, filled by [`collect`] (files of this node,
//! sessions on members); [`choice`] has Galera's rules; [`predict`] combines both for the operator;
//! [`deep_ist`] whether an archive of write-sets spares the SST;
//! [`costs`] which of the ways back is cheapest;
//! [`kind`] whether files or rows travel;
//! [`transfer`] estimates what rejoin would send, like a transfer at its start.
mod ask;
pub mod choice;
pub mod collect;
pub mod costs;
pub mod deep_ist;
pub mod facts;
pub mod kind;
pub mod predict;
pub mod transfer;
