//! Collects facts from files, directories and sockets of this host. Files are opened for reading only.
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use formats::galera::grastate::{self, GraState};
use formats::wsrep::state_id::StateId;
use rustix::fs::{Access, access};

use super::facts::{Datadir, Directory, DirectoryState, Facts, Left, Room, Server};
use super::wanted::{Wanted, account, datadir_of, load, user_of};
use super::{ask, network, program};
use crate::cancel::Cancel;
use crate::datadir::engines::EnginePolicy;
use crate::datadir::layout::Layout;
use crate::datadir::managed;
use crate::datadir::own_position;
use crate::datadir::recognise::{Looks, looks};
use crate::datadir::recovered_position::{InnodbFiles, Recovered, recovered_position};
use crate::datadir::scan;
use crate::datadir::server_on;
use crate::datadir::walk::is_packagers;
use crate::disk::filesystem::{FilesystemId, bytes_available, filesystem_of};
use crate::failure::Failure;
use crate::flavor::{self, Flavor, InDatadir};
use crate::install::dry_run;
use crate::install::files::Disk;
use crate::install::kept;
use crate::install::unfinished::Unfinished;
use crate::server::markers;
use crate::server::options::ServerOptions;
use crate::server::retries;
use crate::server::synced::socket_path;
use crate::server::users::{name_of_user, own_user_name};
use crate::settings::Settings;
use crate::snapshot::mariabackup::tool::Tool;

/// Collects everything. `sample` is how long the write rate of a running server is measured.
///
/// # Errors
/// A named option file cannot be read.
pub fn collect(wanted: &Wanted, sample: Duration) -> Result<Facts> {
    let (mut args, mut options) = load(wanted, &[])?;
    let there = Layout::resolve(&args, &options).ok();
    let in_use = there.as_ref().and_then(|layout| own_position::server_using(layout).ok()).flatten();
    let waits = match (&in_use, &there) {
        (None, Some(layout)) => server_on::process_in(&layout.datadir),
        _ => None,
    };
    if let Some(words) = in_use.as_ref().or(waits.as_ref()).and_then(|server| command_line(server.pid?)) {
        (args, options) = load(wanted, &words)?;
    }
    let datadir = datadir_of(&args, &options)?;
    let layout = Layout::resolve(&args, &options);
    let user = user_of(&options, &datadir);
    let pid = in_use.as_ref().or(waits.as_ref()).and_then(|server| server.pid);
    let account = account(&options);
    let server = match (&in_use, &waits) {
        (None, None) => Server::Stopped,
        (None, Some(_)) => Server::Waits { pid },
        (Some(_), _) => {
            let socket = socket_path(options.server("socket"), &datadir);
            match ask::ask(&socket, account.as_ref(), sample) {
                Ok(live) => Server::Running(Box::new(live)),
                Err((why, advice)) => Server::Silent { pid, why, advice },
            }
        }
    };
    let stopped = matches!(server, Server::Stopped);
    let mut left = left(&datadir);
    if stopped && left.unfinished.is_some() {
        left.own_position = layout.as_ref().ok().and_then(own_position_of);
    }
    let version = match &server {
        Server::Running(live) => live.variables.get("version").cloned(),
        _ => program::server_version(pid, &options),
    };
    // A donor checks these first. A joiner's own tables are replaced, so they do not matter.
    let (cannot_travel, travels_badly) = match layout.as_ref() {
        Ok(layout) if in_use.is_some() => tables(layout, &options),
        _ => (vec![], vec![]),
    };
    let version_text = version.clone();
    let mut facts = Facts {
        user: who(user),
        settings: Settings::read(&options).map_err(|e| format!("{e:#}")),
        bad_layout: layout.as_ref().err().map(|e| format!("{e:#}")),
        datadir: Datadir {
            path: datadir.clone(),
            compiled_in: wanted.compiled_in,
            looks: looks(&datadir).map_err(|e| e.to_string()),
        },
        version,
        provider: program::provider(&options),
        program: program::method(pid, &options),
        backup_tool: Tool::find(&options, version_text.as_deref(), &Cancel::new())
            .map(|tool| format!("{}, {}", tool.path.display(), tool.version)),
        no_base_command: None,
        directories: layout.as_ref().map_or_else(|_| vec![], |layout| directories(layout, user)),
        foreign_files: foreign_files(&datadir, user),
        cannot_take: layout.as_ref().map_or_else(|_| vec![], |layout| cannot_take(layout, user)),
        rooms: layout
            .as_ref()
            .map_err(|e| format!("{e:#}"))
            .and_then(|l| rooms(l).map_err(|e| format!("{e:#}"))),
        cannot_travel,
        travels_badly,
        announced: vec![],
        ports: vec![],
        relay: None,
        neighbours: vec![],
        grastate: grastate(&datadir),
        from_the_future: from_the_future(&datadir, SystemTime::now()),
        dangling_links: dangling_links(&datadir),
        left,
        server,
        options,
    };
    facts.no_base_command = no_base_command(&facts);
    facts.announced = network::announced(&facts);
    facts.relay = network::relay(&facts);
    if facts.left.running.is_none() && waits.is_none() {
        facts.ports = network::ports(&facts);
    }
    if stopped {
        facts.neighbours = network::neighbours(&facts);
    }
    Ok(facts)
}

fn no_base_command(facts: &Facts) -> Option<String> {
    let program = facts.settings.as_ref().ok()?.base_command.as_ref()?.program();
    let why = match access(program, Access::EXEC_OK) {
        Ok(()) if program.is_file() => return None,
        Ok(()) => "it is not a file".to_owned(),
        Err(errno) => errno.to_string(),
    };
    Some(format!("{}: {why}", program.display()))
}

/// The running server's command line. It overrides the option files.
fn command_line(pid: u32) -> Option<Vec<String>> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = bytes.split(|&b| b == 0).filter(|word| !word.is_empty());
    Some(words.skip(1).map(|word| String::from_utf8_lossy(word).into_owned()).collect())
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
        Ok(meta) if !meta.is_dir() => DirectoryState::Unusable("it is not a directory".to_owned()),
        Ok(meta) => DirectoryState::There {
            // Only the user itself can check this, because access lists and read-only mounts count too.
            writable: user
                .filter(|(uid, _)| *uid == own)
                .map(|_| access(path, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK).is_ok()),
            owned: user.is_none_or(|(uid, _)| meta.uid() == uid),
        },
    };
    let all = layout.directories().into_iter();
    let is_data = |path: &Path| matches!(looks(path), Ok(Looks::Datadir | Looks::Empty));
    all.map(|path| Directory { path: path.to_owned(), is_data: is_data(path), there: look(path) }).collect()
}

/// Returns what would stop an install here, as far as that is visible without a donor. Only the server's user
/// can check it.
fn cannot_take(layout: &Layout, user: Option<(u32, u32)>) -> Vec<Failure> {
    let own = rustix::process::geteuid().as_raw();
    if user.is_none_or(|(uid, _)| uid != own) {
        return vec![];
    }
    let configured: BTreeSet<&Path> = layout.directories().into_iter().collect();
    let managed = managed::managed(layout).unwrap_or_default();
    // These are already covered by another finding.
    let of_files: BTreeSet<&Path> =
        managed.directories().filter(|directory| !configured.contains(directory)).collect();
    dry_run::directories(&Disk, of_files).refusals
}

/// Returns dangling links, behind which a donor's database of the same name could not be installed.
fn dangling_links(datadir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(datadir).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_database = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_@$".contains(&b))
    };
    let mut links: Vec<PathBuf> =
        entries.filter(|path| path.is_symlink() && !path.exists() && is_database(path)).collect();
    links.sort();
    links
}

/// Returns a file in the datadir or a database that belongs to another user, and the number of such files:
/// the server or the install cannot replace it or write to it.
fn foreign_files(datadir: &Path, user: Option<(u32, u32)>) -> Option<(PathBuf, usize)> {
    let (uid, _) = user?;
    let mut found: Option<(PathBuf, usize)> = None;
    let mut look = |dir: &Path| -> Vec<PathBuf> {
        let mut below = Vec::new();
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            // Files of the filesystem and of the packages belong to root, and disturb nothing.
            let name = entry.file_name();
            let name = name.to_str().unwrap_or_default();
            if name == "lost+found"
                || is_packagers(name)
                || flavor::ALL.iter().any(|flavor| flavor.in_datadir(name) == InDatadir::Data)
            {
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
    let running = markers::running_transfer(datadir);
    let names = ["sst_in_progress", "wsrep_sst.pid", "tables_flushed", "sst_error"];
    let there = names.iter().map(|name| datadir.join(name)).filter(|path| path.is_file());
    Left {
        kept: kept::status(&Disk, datadir, kept::allocated).map_err(|e| format!("{e:#}")),
        failed_joins: retries::failed_joins(datadir),
        unfinished: Unfinished::read(datadir),
        own_position: None,
        stale: if running.is_some() { vec![] } else { there.collect() },
        running,
    }
}

/// The position to which a server would recover these files.
fn own_position_of(layout: &Layout) -> Option<StateId> {
    match recovered_position(&InnodbFiles::of(layout).ok()?).ok()? {
        Recovered::Known(position) => Some(position.state),
        Recovered::None | Recovered::Unknown(_) => None,
    }
}

/// Returns size of the data and free space for each filesystem: the donor has about as much data.
fn rooms(layout: &Layout) -> Result<Vec<Room>> {
    let mut rooms: Vec<(FilesystemId, Room)> = Vec::new();
    for at in layout.directories() {
        let filesystem = filesystem_of(at)?;
        if !rooms.iter().any(|(known, _)| *known == filesystem) {
            rooms.push((filesystem, Room { at: at.to_owned(), data: 0, available: bytes_available(at)? }));
        }
    }
    for file in managed::managed(layout)?.iter() {
        let Some(directory) = file.path.parent() else { continue };
        // A file that the server has just removed takes no space.
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

/// Returns the tables that a transfer from this node refuses, and those that it warns about.
fn tables(layout: &Layout, options: &ServerOptions) -> (Vec<Failure>, Vec<String>) {
    match scan::scan(layout, &EnginePolicy::from_options(options)) {
        Ok(scan) => (scan.refusals, scan.warnings),
        // The finding about space reports it, since it reads the same files.
        Err(_) => (vec![], vec![]),
    }
}

/// Reads `grastate.dat`, or says why it has no usable position.
pub(crate) fn grastate(datadir: &Path) -> Option<Result<GraState, String>> {
    match fs::read(datadir.join(grastate::FILE_NAME)) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => Some(Err(format!("grastate.dat cannot be read: {e}"))),
        Ok(bytes) if bytes.trim_ascii().is_empty() => {
            Some(Err("grastate.dat is empty (a start failed)".to_owned()))
        }
        Ok(bytes) => Some(
            GraState::parse(&String::from_utf8_lossy(&bytes))
                .map_err(|e| format!("grastate.dat cannot be understood: {e}")),
        ),
    }
}

/// A clock that was set back shows in files that a server wrote before.
fn from_the_future(datadir: &Path, now: SystemTime) -> Option<Duration> {
    let controls = |flavor: &&dyn Flavor| Some(flavor.second_engine()?.control);
    let of_engines =
        flavor::ALL.iter().flat_map(|flavor| [Some(flavor.redo_log()), controls(flavor)]).flatten();
    let written = of_engines
        .chain([grastate::FILE_NAME, "ibdata1"])
        .filter_map(|name| fs::metadata(datadir.join(name)).ok()?.modified().ok());
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
        // Files that Debian's packages create as root.
        for name in ["debian-10.11.flag", "mysql_upgrade_info"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(foreign_files(dir.path(), Some((own + 1, 0))).map(|(_, count)| count), Some(1));
    }

    #[test]
    fn markers_of_no_running_transfer_are_stale() {
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
        assert!(grastate(dir.path()).unwrap().unwrap_err().contains("cannot be understood"));
        fs::write(dir.path().join("grastate.dat"), "\n").unwrap();
        assert!(grastate(dir.path()).unwrap().unwrap_err().contains("is empty"));
    }
}
