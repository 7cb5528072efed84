//! Whose node a verb is about, in the words of the server's own programs.
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use node::check::collect::{Wanted, is_root, server_user};
use node::server::sql::home_of_user;

/// Exit code when a question could not be answered: the one that monitoring plugins use for "unknown".
pub const UNKNOWN: u8 = 3;

/// Which server.
#[derive(clap::Args)]
pub struct Which {
    /// The server's data directory; without it the one that the option files name
    #[arg(long, value_name = "DIR")]
    datadir: Option<PathBuf>,
    /// Option file of the server; without it the usual ones are read
    #[arg(long, value_name = "FILE")]
    defaults_file: Option<PathBuf>,
    /// Option file that is read after the usual ones
    #[arg(long, value_name = "FILE")]
    defaults_extra_file: Option<PathBuf>,
    /// Groups with this suffix count too
    #[arg(long, value_name = "SUFFIX")]
    defaults_group_suffix: Option<String>,
}

impl Which {
    /// As a value.
    pub fn wanted(&self) -> Wanted {
        Wanted {
            datadir: self.datadir.clone(),
            defaults_file: self.defaults_file.clone(),
            defaults_extra_file: self.defaults_extra_file.clone(),
            defaults_group_suffix: self.defaults_group_suffix.clone(),
        }
    }
}

/// Root sees and may do what the server's programs may not, and the socket lets it in as somebody else. So the question
/// is answered by the server's user: this program again, as that user, with its home. `None`: we are to go on ourselves.
pub fn as_the_servers_user(wanted: &Wanted) -> Result<Option<ExitCode>> {
    if !is_root() {
        return Ok(None);
    }
    let Some((uid, gid)) = server_user(wanted)?.filter(|(uid, _)| *uid != 0) else { return Ok(None) };
    let mut again = Command::new("/proc/self/exe");
    again.args(std::env::args_os().skip(1)).uid(uid).gid(gid).current_dir("/");
    again.env("HOME", home_of_user(uid).unwrap_or_else(|| "/".to_owned()));
    let status = again.status().context("cannot run as the server's user")?;
    Ok(Some(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(UNKNOWN))))
}
