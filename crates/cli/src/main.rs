//! `rejoin`: a Galera node comes back by receiving a verified copy, staged beside its old datadir.
//!
//! One program under two names. The server runs it as `wsrep_sst_rejoin` with its own arguments
//! ([`server_mode`]); an operator runs it as `rejoin VERB` ([`operator`]).
mod operator;
mod server_mode;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Inherited descriptors must go before anything is opened.
    let by_server = called_by_server();
    if by_server {
        node::server::descriptors::close_inherited();
    }
    let words: Vec<String> = std::env::args_os().skip(1).map(|w| w.to_string_lossy().into_owned()).collect();
    if by_server { server_mode::run(&words) } else { operator::run() }
}

/// The server's name for us starts with `wsrep_sst_`; a copy under another name is known by `--role`. Words that begin
/// with a verb are an operator's, or our own: the waiting process gets the server's words behind its verb.
fn called_by_server() -> bool {
    let mut words = std::env::args_os().map(|w| w.to_string_lossy().into_owned());
    let name = words.next().unwrap_or_default();
    let name = name.rsplit('/').next().unwrap_or_default();
    let mut words = words.peekable();
    let verb = words.peek().is_some_and(|first| !first.starts_with("--"));
    name.starts_with("wsrep_sst_") || (!verb && words.any(|w| w == "--role" || w.starts_with("--role=")))
}
