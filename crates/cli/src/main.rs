//! `rejoin`: the state transfer (SST) method of a Galera cluster, and the commands for its operator.
//!
//! One program under two names. The server runs it as `wsrep_sst_rejoin` with its own arguments
//! ([`rejoin_cli::server_mode`]); an operator runs it as `rejoin VERB` ([`rejoin_cli::operator`]).
use std::process::ExitCode;

use rejoin_cli::{operator, server_mode};

fn main() -> ExitCode {
    transfer::allocator::keep_little();
    transfer::panics::name_them();
    // Inherited descriptors are closed before anything is opened.
    let by_server = called_by_server();
    if by_server {
        transfer::server::descriptors::close_inherited();
    }
    let words: Vec<String> = std::env::args_os().skip(1).map(|w| w.to_string_lossy().into_owned()).collect();
    match by_server {
        true if server_mode::is_question(&words) => server_mode::about(&words),
        true => server_mode::run(&own_name(), &words),
        false => operator::run(),
    }
}

/// The server calls us by a name that starts with `wsrep_sst_`; a copy under another name is recognised by
/// `--role`. Arguments that begin with a verb come from an operator, or from us: the cleanup process gets the
/// server's arguments after its verb.
fn called_by_server() -> bool {
    let name = own_name();
    let mut words = std::env::args_os().skip(1).map(|w| w.to_string_lossy().into_owned()).peekable();
    let verb = words.peek().is_some_and(|first| !first.starts_with("--"));
    name.starts_with("wsrep_sst_") || (!verb && words.any(|w| w == "--role" || w.starts_with("--role=")))
}

/// The name by which we were called, without a path.
fn own_name() -> String {
    let name = std::env::args_os().next().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.rsplit('/').next().unwrap_or_default().to_owned()
}
