//! What files, directories and sockets of this host say. Opens files for reading only.
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use formats::galera::grastate::{self, GraState};
use formats::wsrep::credentials::Account;
use formats::wsrep::invocation::SstArgs;
use rustix::fs::{Access, access};

use super::facts::{Directory, DirectoryState, Facts, Left, Room, Server};
use super::{ask, network, program};
use crate::datadir::engines::EnginePolicy;
use crate::datadir::layout::Layout;
use crate::datadir::managed;
use crate::datadir::own_position;
use crate::datadir::scan;
use crate::disk::filesystem::{FilesystemId, bytes_available, filesystem_of};
use crate::failure::Failure;
use crate::server::markers;
use crate::server::options::ServerOptions;
use crate::server::sql::{name_of_user, own_user_name, user_of_name};
use crate::server::synced::socket_path;
use crate::settings::Settings;
use crate::sink::files::Disk;
use crate::sink::kept;

/// Whose transfer is checked: the words that a server would hand to its program.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// `--datadir`.
    pub datadir: Option<PathBuf>,
    /// `--defaults-file`.
    pub defaults_file: Option<PathBuf>,
    /// `--defaults-extra-file`.
    pub defaults_extra_file: Option<PathBuf>,
    /// `--defaults-group-suffix`.
    pub defaults_group_suffix: Option<String>,
}

impl Wanted {
    /// As a program of that server is given them; the command line of a running server comes last.
    pub(crate) fn args(&self, command_line: &[String]) -> SstArgs {
        let text = |path: &Option<PathBuf>| path.as_ref().map(|p| p.to_string_lossy().into_owned());
        SstArgs {
            datadir: text(&self.datadir),
            defaults_file: text(&self.defaults_file),
            defaults_extra_file: text(&self.defaults_extra_file),
            defaults_group_suffix: self.defaults_group_suffix.clone(),
            mysqld_args: command_line.to_vec(),
            ..SstArgs::default()
        }
    }
}

/// Whether this process is root's.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The user that the server of this node runs as: the one of the option `user`, else the owner of the datadir.
///
/// # Errors
/// The option files cannot be read, or no datadir is named.
pub fn server_user(wanted: &Wanted) -> Result<Option<(u32, u32)>> {
    let args = wanted.args(&[]);
    let options = ServerOptions::load(&args)?;
    Ok(user_of(&options, &datadir_of(&args, &options)?))
}

fn user_of(options: &ServerOptions, datadir: &Path) -> Option<(u32, u32)> {
    let named = options.server("user").and_then(user_of_name);
    // A server refuses to be root unless told to: a datadir of root's says nothing.
    let owner = || fs::metadata(datadir).ok().map(|m| (m.uid(), m.gid())).filter(|(uid, _)| *uid != 0);
    named.or_else(owner).or_else(|| user_of_name("mysql"))
}

/// Where the datadir is, also when nothing else of the layout can be told.
fn datadir_of(args: &SstArgs, options: &ServerOptions) -> Result<PathBuf> {
    let given = args.datadir.as_deref().or_else(|| options.server("datadir")).unwrap_or("/var/lib/mysql");
    Ok(std::path::absolute(given)?)
}

/// Collects everything. `sample` is how long a running server's writing is measured.
///
/// # Errors
/// An option file that was named cannot be read.
pub fn collect(wanted: &Wanted, sample: Duration) -> Result<Facts> {
    let (mut args, mut options) = load(wanted, &[])?;
    let in_use =
        Layout::resolve(&args, &options).ok().and_then(|l| own_position::server_using(&l).ok()).flatten();
    if let Some(words) = in_use.as_ref().and_then(|server| command_line(server.pid?)) {
        (args, options) = load(wanted, &words)?;
    }
    let datadir = datadir_of(&args, &options)?;
    let layout = Layout::resolve(&args, &options);
    let user = user_of(&options, &datadir);
    let pid = in_use.as_ref().and_then(|server| server.pid);
    let account = account(&options);
    let server = match &in_use {
        None => Server::Stopped,
        Some(_) => {
            let socket = socket_path(options.server("socket"), &datadir);
            match ask::ask(&socket, account.as_ref(), sample) {
                Ok(live) => Server::Running(Box::new(live)),
                Err(why) => Server::Silent { pid, why },
            }
        }
    };
    let stopped = matches!(server, Server::Stopped);
    let left = left(&datadir);
    let version = match &server {
        Server::Running(live) => live.variables.get("version").cloned(),
        _ => program::server_version(pid, &options),
    };
    // What a donor would look at first; a joiner's own tables go.
    let (cannot_travel, travels_badly) = match layout.as_ref() {
        Ok(layout) if !stopped => tables(layout, &options),
        _ => (vec![], vec![]),
    };
    let mut facts = Facts {
        user: who(user),
        settings: Settings::read(&options).map_err(|e| format!("{e:#}")),
        bad_layout: layout.as_ref().err().map(|e| format!("{e:#}")),
        version,
        provider: program::provider(&options),
        program: program::method(pid, &options),
        directories: layout.as_ref().map_or_else(|_| vec![], |layout| directories(layout, user)),
        foreign_files: foreign_files(&datadir, user),
        rooms: layout
            .as_ref()
            .map_err(|e| format!("{e:#}"))
            .and_then(|l| rooms(l).map_err(|e| format!("{e:#}"))),
        cannot_travel,
        travels_badly,
        announced: vec![],
        ports: vec![],
        neighbours: vec![],
        grastate: grastate(&datadir),
        from_the_future: from_the_future(&datadir, SystemTime::now()),
        left,
        server,
        options,
    };
    facts.announced = network::announced(&facts);
    if facts.left.running.is_none() {
        facts.ports = network::ports(&facts);
    }
    if stopped {
        facts.neighbours = network::neighbours(&facts);
    }
    Ok(facts)
}

pub(crate) fn load(wanted: &Wanted, command_line: &[String]) -> Result<(SstArgs, ServerOptions)> {
    let args = wanted.args(command_line);
    let options = ServerOptions::load(&args)?;
    Ok((args, options))
}

/// The running server's own words: what it was started with counts more than the files.
fn command_line(pid: u32) -> Option<Vec<String>> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = bytes.split(|&b| b == 0).filter(|word| !word.is_empty());
    Some(words.skip(1).map(|word| String::from_utf8_lossy(word).into_owned()).collect())
}

/// The account as a donor's program gets it: the server's setting, else `[sst]`.
pub(crate) fn account(options: &ServerOptions) -> Option<Account> {
    let given = options.server("wsrep-sst-auth").filter(|text| !text.is_empty());
    given.or_else(|| options.sst("wsrep-sst-auth")).and_then(Account::from_pair)
}

fn who(server: Option<(u32, u32)>) -> (String, Option<String>) {
    let own = rustix::process::geteuid().as_raw();
    let name = |uid: u32| name_of_user(uid).unwrap_or_else(|| uid.to_string());
    let other = server.filter(|(uid, _)| *uid != own).map(|(uid, _)| name(uid));
    (own_user_name().unwrap_or_else(|| own.to_string()), other)
}

fn directories(layout: &Layout, user: Option<(u32, u32)>) -> Vec<Directory> {
    let own = rustix::process::geteuid().as_raw();
    let look = |path: &Path| match fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => DirectoryState::Missing,
        Err(e) => DirectoryState::Unusable(e.to_string()),
        Ok(meta) if !meta.is_dir() => DirectoryState::Unusable("it is no directory".to_owned()),
        Ok(meta) => DirectoryState::There {
            // Only the user itself can ask: access lists and read-only mounts count too.
            writable: user
                .filter(|(uid, _)| *uid == own)
                .map(|_| access(path, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK).is_ok()),
            owned: user.is_none_or(|(uid, _)| meta.uid() == uid),
        },
    };
    let all = layout.directories().into_iter();
    all.map(|path| Directory { path: path.to_owned(), there: look(path) }).collect()
}

/// What somebody else put into the datadir or a database: the server, or the install, cannot replace it or write to it.
fn foreign_files(datadir: &Path, user: Option<(u32, u32)>) -> Option<(PathBuf, usize)> {
    let (uid, _) = user?;
    let mut found: Option<(PathBuf, usize)> = None;
    let mut look = |dir: &Path| -> Vec<PathBuf> {
        let mut below = Vec::new();
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            // The directory that a filesystem keeps for itself.
            if entry.file_name() == "lost+found" {
                continue;
            }
            if meta.uid() != uid {
                found = Some(found.take().map_or((entry.path(), 1), |(first, n)| (first, n + 1)));
            }
            if meta.is_dir() {
                below.push(entry.path());
            }
        }
        below
    };
    for database in look(datadir) {
        look(&database);
    }
    found
}

fn left(datadir: &Path) -> Left {
    let running = markers::running_transfer(&datadir.join("wsrep_sst.pid"));
    let names = ["sst_in_progress", "wsrep_sst.pid", "tables_flushed", "sst_error"];
    let there = names.iter().map(|name| datadir.join(name)).filter(|path| path.exists());
    Left {
        kept: kept::status(&Disk, datadir, kept::allocated).map_err(|e| format!("{e:#}")),
        stale: if running.is_some() { vec![] } else { there.collect() },
        running,
    }
}

/// Data that is here and room beside it, filesystem by filesystem: the donor has about as much.
fn rooms(layout: &Layout) -> Result<Vec<Room>> {
    let mut rooms: Vec<(FilesystemId, Room)> = Vec::new();
    for at in layout.directories() {
        let filesystem = filesystem_of(at)?;
        if !rooms.iter().any(|(known, _)| *known == filesystem) {
            rooms.push((filesystem, Room { at: at.to_owned(), data: 0, available: bytes_available(at)? }));
        }
    }
    for file in managed::managed(layout)? {
        let Some(directory) = file.path.parent() else { continue };
        // A file that the server removed meanwhile takes no room.
        let Ok(filesystem) = filesystem_of(directory) else { continue };
        match rooms.iter_mut().find(|(known, _)| *known == filesystem) {
            Some((_, room)) => room.data += file.allocated,
            None => {
                let room = Room {
                    at: directory.to_owned(),
                    data: file.allocated,
                    available: bytes_available(directory)?,
                };
                rooms.push((filesystem, room));
            }
        }
    }
    Ok(rooms.into_iter().map(|(_, room)| room).collect())
}

/// Tables that a transfer from this node refuses, and those it warns of.
fn tables(layout: &Layout, options: &ServerOptions) -> (Vec<Failure>, Vec<String>) {
    match scan::scan(layout, &EnginePolicy::from_options(options)) {
        Ok(scan) => (scan.refusals, scan.warnings),
        // Said by the finding about space, which looks at the same files.
        Err(_) => (vec![], vec![]),
    }
}

pub(crate) fn grastate(datadir: &Path) -> Option<Result<GraState, String>> {
    match fs::read(datadir.join(grastate::FILE_NAME)) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => Some(Err(e.to_string())),
        Ok(bytes) => Some(GraState::parse(&String::from_utf8_lossy(&bytes)).map_err(|e| e.to_string())),
    }
}

/// A clock that was put back shows in files that a server wrote before.
fn from_the_future(datadir: &Path, now: SystemTime) -> Option<Duration> {
    let names = [grastate::FILE_NAME, "ib_logfile0", "ibdata1", "aria_log_control"];
    let written = names.iter().filter_map(|name| fs::metadata(datadir.join(name)).ok()?.modified().ok());
    written.max().and_then(|newest| newest.duration_since(now).ok()).filter(|ahead| !ahead.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_future_and_of_others_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(from_the_future(dir.path(), SystemTime::now()), None);
        fs::write(dir.path().join("ibdata1"), "x").unwrap();
        let yesterday = SystemTime::now() - Duration::from_secs(86_400);
        assert!(from_the_future(dir.path(), yesterday).unwrap() > Duration::from_secs(86_000));

        let own = rustix::process::geteuid().as_raw();
        assert_eq!(foreign_files(dir.path(), Some((own, 0))), None);
        let (first, count) = foreign_files(dir.path(), Some((own + 1, 0))).unwrap();
        assert_eq!((first, count), (dir.path().join("ibdata1"), 1));
    }

    #[test]
    fn marks_of_no_running_transfer_are_stale() {
        let dir = tempfile::tempdir().unwrap();
        assert!(left(dir.path()).stale.is_empty());
        fs::write(dir.path().join("sst_in_progress"), "").unwrap();
        assert_eq!(left(dir.path()).stale, [dir.path().join("sst_in_progress")]);
    }

    #[test]
    fn the_state_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        assert!(grastate(dir.path()).is_none());
        fs::write(dir.path().join("grastate.dat"), "nothing").unwrap();
        assert!(grastate(dir.path()).unwrap().is_err());
    }
}
