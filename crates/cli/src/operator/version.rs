//! The output of `rejoin --version`: the release, its commit, and the protocol versions that it supports.
use std::sync::LazyLock;

use protocol::hello::{VERSION_NEWEST, VERSION_OLDEST};

/// The first line is that of `-V`; `rejoin check` reads it from other builds.
pub static LONG: LazyLock<String> = LazyLock::new(|| {
    let commit = option_env!("REJOIN_BUILT_FROM").unwrap_or("unknown (not built from a git repository)");
    let spoken = match (VERSION_OLDEST, VERSION_NEWEST) {
        (oldest, newest) if oldest == newest => newest.to_string(),
        (oldest, newest) => format!("{oldest} to {newest}"),
    };
    format!("{}\ncommit {commit}\nprotocol {spoken}", env!("CARGO_PKG_VERSION"))
});
