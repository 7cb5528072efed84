//! `rejoin check`: what would go wrong in the next transfer of this node.
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result};
use node::check::collect::{Wanted, collect, is_root, server_user};
use node::check::{Finding, Level, judge};
use node::server::sql::home_of_user;
use serde_json::json;

use super::say;

/// How long a running server's writing is measured.
const SAMPLE: Duration = Duration::from_secs(1);
/// Exit code when the check could not be made: the one that monitoring plugins use for "unknown".
pub const UNKNOWN: u8 = 3;

/// Which server.
#[derive(clap::Args)]
pub struct Options {
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
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print only what is not ok
    #[arg(long)]
    quiet: bool,
}

/// Checks and answers with the exit code: 0 nothing wrong (notes may be there), 1 warnings, 2 errors.
pub fn run(options: &Options) -> Result<ExitCode> {
    let wanted = Wanted {
        datadir: options.datadir.clone(),
        defaults_file: options.defaults_file.clone(),
        defaults_extra_file: options.defaults_extra_file.clone(),
        defaults_group_suffix: options.defaults_group_suffix.clone(),
    };
    if let Some(code) = as_the_servers_user(&wanted)? {
        return Ok(code);
    }
    let findings = judge(&collect(&wanted, SAMPLE)?);
    let worst = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
    if options.json {
        say(&format!("{:#}", json!({"worst": worst, "findings": findings})));
    } else {
        let shown = findings.iter().filter(|finding| !options.quiet || finding.level > Level::Ok);
        shown.for_each(|finding| say(&line(finding)));
    }
    Ok(ExitCode::from(match worst {
        Level::Ok | Level::Note => 0,
        Level::Warning => 1,
        Level::Error => 2,
    }))
}

fn line(finding: &Finding) -> String {
    let Finding { level, subject, text, fix } = finding;
    let fix = fix.as_ref().map_or(String::new(), |fix| format!(" (hint: {fix})"));
    format!("{:<8} {subject:<10} {text}{fix}", level.name())
}

/// Root sees and may do what the server's programs may not, and the socket lets it in as somebody else. So the check is
/// made by the server's user: this program again, as that user, with its home. `None`: we are to go on ourselves.
fn as_the_servers_user(wanted: &Wanted) -> Result<Option<ExitCode>> {
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
