//! The command line of `rejoin`. It is a library so that the manual pages and completions (crates/manual) are
//! generated from the program's own definition.
//!
//! One program under two names. The server runs it as `wsrep_sst_rejoin` with its own arguments
//! ([`server_mode`]); an operator runs it as `rejoin VERB` ([`operator`]).
pub mod operator;
pub mod server_mode;
