//! The program mariadb-backup of this host.
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use formats::wsrep::credentials::Account;
use protocol::policy::series;
use rustix::fs::{MemfdFlags, Mode, fchmod, memfd_create};

use crate::cancel::Cancel;
use crate::program::{answer_of, without_credentials};
use crate::server::compiled_in::{SERVICE_PATH, basedir};
use crate::server::options::ServerOptions;

/// Its name, and the one that it had before 10.5.
const NAMES: [&str; 2] = ["mariadb-backup", "mariabackup"];

/// mariadb-backup, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Where it is.
    pub path: PathBuf,
    /// The version of the server that it was built with.
    pub version: String,
}

impl Tool {
    /// Finds it: where the option `mariabackup` says, beside the server, or where programs are. It must be of the series of a
    /// server of this version.
    ///
    /// # Errors
    /// Why there is none that can be used.
    pub fn find(options: &ServerOptions, server: Option<&str>, cancel: &Cancel) -> Result<Tool, String> {
        let path = match options.sst("mariabackup").filter(|path| !path.is_empty()) {
            Some(path) => PathBuf::from(path),
            None => candidates(options)
                .find(|path| path.is_file())
                .ok_or("mariadb-backup is not installed (package mariadb-backup)")?,
        };
        let version = version_of(&path, cancel)?;
        let tool = Tool { path, version };
        tool.fits(server)?;
        Ok(tool)
    }

    /// Whether it can be used with what a server of this version writes: another series may write another redo log.
    ///
    /// # Errors
    /// It cannot.
    pub fn fits(&self, server: Option<&str>) -> Result<(), String> {
        let of = |text: Option<&str>| series(&text.map(str::to_owned));
        let (own, theirs) = (of(Some(&self.version)), of(server));
        if own.is_some() && own == theirs {
            return Ok(());
        }
        let path = self.path.display();
        let server = server.unwrap_or("of an unknown version");
        Err(format!("{path} is of {} and the server is {server}: both must be of one series", self.version))
    }

    /// The program, without arguments: nothing of the server's environment that it does not need.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        without_credentials(&mut command);
        command
    }
}

fn candidates(options: &ServerOptions) -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = [basedir(options).join("bin")]
        .into_iter()
        .chain(std::env::split_paths(&path).filter(|dir| dir.is_absolute()))
        .chain(std::env::split_paths(SERVICE_PATH))
        .collect();
    dirs.into_iter().flat_map(|dir| NAMES.map(|name| dir.join(name)))
}

/// It says it on standard error.
fn version_of(path: &Path, cancel: &Cancel) -> Result<String, String> {
    let mut command = Command::new(path);
    without_credentials(&mut command);
    let said = answer_of("mariadb-backup", command.arg("--version"), cancel).map_err(|e| format!("{e:#}"))?;
    let none = || format!("{} does not say its version as mariadb-backup does", path.display());
    parse_version(&said).ok_or_else(none)
}

/// `mariadb-backup based on MariaDB server 10.11.19-MariaDB debian-linux-gnu (x86_64)`
fn parse_version(said: &str) -> Option<String> {
    let mut words = said.lines().find(|line| line.contains("based on MariaDB server"))?.split_whitespace();
    words.find(|word| *word == "server")?;
    words.next().map(str::to_owned)
}

/// An option file in memory, which nobody else can read and which has no name: how to log in at the server's socket.
///
/// # Errors
/// From the system.
pub fn login_file(socket: &Path, account: Option<&Account>, user: &str) -> Result<OwnedFd> {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut text = format!("[mariabackup]\nsocket={}\n", quoted(&socket.display().to_string()));
    text += &format!("user={}\n", quoted(account.map_or(user, |account| &account.user)));
    if let Some(account) = account {
        text += &format!("password={}\n", quoted(account.password.reveal()));
    }
    let memory = memfd_create("login", MemfdFlags::CLOEXEC).context("cannot make a file in memory")?;
    // A file that others may write to is ignored.
    fchmod(&memory, Mode::RUSR | Mode::WUSR)?;
    let mut file = std::fs::File::from(memory);
    file.write_all(text.as_bytes())?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};

    use formats::mariadb::option_file::{Item, OptionFile};

    use super::*;

    #[test]
    fn versions_are_compared_by_series() {
        let said = "mariadb-backup based on MariaDB server 10.11.19-MariaDB debian-linux-gnu (x86_64)\n";
        let version = parse_version(said).unwrap();
        assert_eq!(version, "10.11.19-MariaDB");
        assert_eq!(parse_version("xtrabackup version 8.0.35 based on MySQL server 8.0.35"), None);
        let tool = Tool { path: "/usr/bin/mariadb-backup".into(), version };
        assert_eq!(tool.fits(Some("10.11.6-MariaDB-1")), Ok(()));
        for other in [Some("11.8.6-MariaDB"), Some("10.6.19-MariaDB"), Some("nonsense"), None] {
            assert!(tool.fits(other).unwrap_err().contains("10.11.19"), "{other:?}");
        }
    }

    #[test]
    fn any_password_survives_the_option_file() {
        for password in ["secret", "", " a b ", "a\"b'c", "back\\slash\\n", "#no=comment;", "\u{e9}\\\""] {
            let account = Account::from_pair(&format!("us\"er:{password}")).unwrap();
            let mut file =
                std::fs::File::from(login_file(Path::new("/run/s.sock"), Some(&account), "x").unwrap());
            file.rewind().unwrap();
            let mut text = Vec::new();
            file.read_to_end(&mut text).unwrap();
            let options: Vec<(String, Option<String>)> = OptionFile::parse(&text)
                .lines
                .into_iter()
                .filter_map(|line| match line.item {
                    Item::Option { name, value } => Some((name, value)),
                    _ => None,
                })
                .collect();
            let expected = [("socket", "/run/s.sock"), ("user", "us\"er"), ("password", password)]
                .map(|(name, value)| (name.to_owned(), Some(value.to_owned())));
            assert_eq!(options, expected);
        }
    }
}
