//! The options that select a server, with the names that the server's own programs use. All verbs have them.
use std::path::PathBuf;

use anyhow::Result;
use transfer::advisor::check::wanted::{Wanted, server_user};
use transfer::server::options::ServerOptions;
use transfer::server::privileges::{become_user, is_root};

/// Exit code for "not known", as monitoring plugins use it.
pub const UNKNOWN: u8 = 3;

/// Which server.
#[derive(clap::Args)]
pub struct Which {
    /// Data directory; default: from the option files, else the server's own
    #[arg(long, value_name = "DIR")]
    datadir: Option<PathBuf>,
    /// Option file of the server, instead of the usual ones
    #[arg(long, value_name = "FILE")]
    defaults_file: Option<PathBuf>,
    /// Option file that is read after the usual ones
    #[arg(long, value_name = "FILE")]
    defaults_extra_file: Option<PathBuf>,
    /// Also read the groups whose names end with this suffix
    #[arg(long, value_name = "SUFFIX")]
    defaults_group_suffix: Option<String>,
}

impl Which {
    /// Resolves the options to the datadir. Must run before root becomes another user.
    ///
    /// # Errors
    /// An option file cannot be read, or nothing names a datadir.
    pub fn wanted(&self) -> Result<Wanted> {
        Ok(self.wanted_with_options()?.0)
    }

    /// As [`Which::wanted`], with what the option files contain, which are read once.
    ///
    /// # Errors
    /// As [`Which::wanted`].
    pub fn wanted_with_options(&self) -> Result<(Wanted, ServerOptions)> {
        let wanted = Wanted {
            datadir: self.datadir.clone(),
            defaults_file: self.defaults_file.clone(),
            defaults_extra_file: self.defaults_extra_file.clone(),
            defaults_group_suffix: self.defaults_group_suffix.clone(),
            compiled_in: false,
        };
        wanted.with_options()
    }
}

/// Root may do more than the server's programs, and the socket lets it in as another user. So a check runs as
/// the server's user.
pub fn become_the_servers_user(wanted: &Wanted) -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    match server_user(wanted)?.filter(|(uid, _)| *uid != 0) {
        Some((uid, group)) => become_user(uid, group),
        None => Ok(()),
    }
}
