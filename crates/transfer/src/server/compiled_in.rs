//! The datadir that was compiled into a server's program. It applies where neither the command line nor an
//! option file names one, as on Debian, whose option files mention it only in a comment.
//!
//! Only the program itself knows it, so rejoin runs it with `--verbose --help`, which takes about 50 ms. As
//! at every start, the server then creates an empty `HOST.lower-test` in that datadir for a moment, if the
//! user may write there. So root runs it as nobody, without root's environment.
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::options::ServerOptions;
use super::privileges::is_root;
use super::users::user_of_name;
use crate::program::quiet_answer_of;

/// Where packages install the server.
pub(crate) const BASEDIR: &str = "/usr";
/// `PATH` of a service that systemd starts.
pub(crate) const SERVICE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// A user and group that own nothing.
const NOBODY: (u32, u32) = (65534, 65534);
/// How long the program may take. On a host whose processors are all taken it needs much longer than usual.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// Returns `basedir`, or the place where packages install the server.
pub(crate) fn basedir(options: &ServerOptions) -> PathBuf {
    PathBuf::from(options.server("basedir").filter(|dir| !dir.is_empty()).unwrap_or(BASEDIR))
}

/// Programs that could be the server, the likeliest first.
pub(crate) fn programs(basedir: &Path) -> impl Iterator<Item = PathBuf> {
    let dirs = ["sbin", "bin", "libexec"].map(|dir| basedir.join(dir)).into_iter();
    let dirs: Vec<PathBuf> = dirs.chain(std::env::split_paths(SERVICE_PATH)).collect();
    let programs = dirs.into_iter().flat_map(|dir| ["mariadbd", "mysqld"].map(|name| dir.join(name)));
    programs.filter(|path| path.is_file())
}

/// Returns the datadir of the server with these options, when they name none. `None` if no program reports
/// one.
pub fn datadir(options: &ServerOptions) -> Option<PathBuf> {
    programs(&basedir(options)).find_map(|program| ask(&program))
}

/// Returns the datadir of a server installed from a package, regardless of any option.
pub(crate) fn datadir_of_packages() -> Option<PathBuf> {
    programs(Path::new(BASEDIR)).find_map(|program| ask(&program))
}

fn ask(program: &Path) -> Option<PathBuf> {
    let mut command = Command::new(program);
    // The plugin table, which would be read from the datadir, is not needed.
    command.args(["--no-defaults", "--skip-grant-tables", "--verbose", "--help"]);
    command.env_clear().current_dir("/");
    if is_root() {
        let (uid, gid) = user_of_name("nobody").unwrap_or(NOBODY);
        command.uid(uid).gid(gid);
    }
    parse(&quiet_answer_of(&mut command, ANSWERS_WITHIN)?)
}

/// Reads `datadir` from the table of variables at the end of the help.
fn parse(help: &str) -> Option<PathBuf> {
    let value = help.lines().rev().find_map(|line| line.strip_prefix("datadir ")).map(str::trim)?;
    value.starts_with('/').then(|| Path::new(value).components().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_variables_is_read() {
        let help = "  -h, --datadir=name  Path to the database root directory\n\
                    Variables (--variable-name=value)\n\
                    date-format                 %Y-%m-%d\n\
                    datadir                     /var/lib/mysql/\n";
        assert_eq!(parse(help).as_deref(), Some(Path::new("/var/lib/mysql")));
        assert_eq!(parse("datadir (No default value)\n"), None);
        assert_eq!(parse(""), None);
    }
}
