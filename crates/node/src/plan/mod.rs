//! `rejoin plan`: how a node that is down would come back, told before it is started.
//!
//! Collecting and deciding are apart: [`facts`] is a value, filled by [`collect`] (files of this node, sessions on
//! members); [`choice`] has Galera's rules, and [`predict`] makes of both what an operator wants to know; [`transfer`]
//! estimates what rejoin would send, as a transfer itself does when it begins.
mod ask;
pub mod choice;
pub mod collect;
pub mod facts;
pub mod predict;
pub mod transfer;
