//! Predictions and checks before a transfer. Nothing here changes a datadir or a server.
//!
//! | module | question |
//! |---|---|
//! | [`check`] | would the next transfer to or from this node fail, and on what |
//! | [`plan`] | how does a node that is down come back: IST or SST, from which donor, with how many bytes |
//! | [`node_metrics`] | what does this node keep and cache, in figures for a monitoring system |
//! | [`verify`] | do two datadirs hold the same data |
pub mod check;
pub mod node_metrics;
pub mod plan;
pub mod verify;
