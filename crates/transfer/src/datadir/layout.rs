//! The paths of this node's files: the configuration resolved to absolute paths, as the server would resolve
//! them.
//!
//! The server changes into its datadir before an engine opens anything, so relative directories are
//! relative to the datadir. Directories need not exist yet: a new joiner has none.
use std::path::{Component, Path, PathBuf};

use anyhow::{Result, anyhow};
use formats::wsrep::invocation::SstArgs;
use protocol::inventory::{FileEntry, FileRole, Place};
use protocol::policy::{NodeFacts, SystemFile};

use super::KEPT_DIRECTORY;
use super::accept::accept;
use super::cpat::KeepPattern;
use super::log_names;
use super::system_files::{self, DataFile};
use crate::failure::{Failure, Kind};
use crate::flavor::Flavor;
use crate::flavor::mariadb::MariaDb;
use crate::server::options::ServerOptions;

/// A file of the system tablespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemFileAt {
    /// Absolute path.
    pub path: PathBuf,
    /// Configured size in bytes.
    pub size: u64,
    /// The file may grow.
    pub autoextend: bool,
}

/// All paths and names of a node that a transfer needs. All paths are absolute.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The flavor of this node's server.
    pub flavor: &'static dyn Flavor,
    /// The datadir.
    pub datadir: PathBuf,
    /// `innodb_data_home_dir`; the datadir when it is empty or not set.
    pub data_home: PathBuf,
    /// Files of `innodb_data_file_path`, in order.
    pub system_files: Vec<SystemFileAt>,
    /// Files of `innodb_temp_data_file_path`.
    pub temp_files: Vec<PathBuf>,
    /// `innodb_log_group_home_dir`.
    pub log_home: PathBuf,
    /// `innodb_undo_directory`.
    pub undo_dir: PathBuf,
    /// The directory of the second engine's logs (MariaDB: `aria_log_dir_path`), if there is such an engine.
    pub second_log_dir: Option<PathBuf>,
    /// Base name of the binary logs without an extension; `None` when `log_bin` is off.
    pub binlog: Option<PathBuf>,
    /// Index of the binary logs.
    pub binlog_index: Option<PathBuf>,
    /// Base name of the relay logs.
    pub relay_log: PathBuf,
    /// Index of the relay logs.
    pub relay_log_index: PathBuf,
    /// `log_ddl_recovery` and its backup.
    pub ddl_logs: Vec<PathBuf>,
    /// `log_tc`.
    pub tc_log: PathBuf,
    /// `innodb_buffer_pool_filename`.
    pub buffer_pool_dump: PathBuf,
    /// Directories that are not databases, `ignore_db_dirs`.
    pub ignore_db_dirs: Vec<String>,
    /// `innodb_page_size`.
    pub page_size: u32,
    /// `lower_case_table_names`.
    pub lower_case_table_names: u8,
    /// Key management plugins, sorted.
    pub key_plugins: Vec<String>,
    /// `[sst] cpat`: the files that a joiner keeps.
    pub keep: Option<KeepPattern>,
}

impl Layout {
    /// Resolves the server's arguments and options.
    ///
    /// # Errors
    /// A configuration failure naming the option that is invalid.
    pub fn resolve(args: &SstArgs, options: &ServerOptions) -> Result<Layout> {
        let flavor = &MariaDb;
        let datadir = datadir(args, options)?;
        let dir = |name| absolute(&datadir, options.server(name).unwrap_or_default());
        let home = options.server("innodb-data-home-dir");
        let files = |option, default| data_files(&datadir, home, options, option, default);
        let system_files = files("innodb-data-file-path", system_files::DATA_DEFAULT)?;
        let temp_files = files("innodb-temp-data-file-path", system_files::TEMP_DEFAULT)?;
        let basename = log_names::basename(options);
        let data_home = absolute(&datadir, home.unwrap_or_default());
        let (binlog, binlog_index) = log_names::binlog(&datadir, options, &basename);
        let (relay_log, relay_log_index) = log_names::relay_log(&datadir, options, &basename);
        let dump = options.server("innodb-buffer-pool-filename").filter(|name| !name.is_empty());
        Ok(Layout {
            system_files,
            temp_files: temp_files.into_iter().map(|file| file.path).collect(),
            log_home: dir("innodb-log-group-home-dir"),
            undo_dir: dir("innodb-undo-directory"),
            second_log_dir: flavor.second_engine().map(|engine| dir(engine.directory)),
            flavor,
            binlog,
            binlog_index,
            relay_log,
            relay_log_index,
            ddl_logs: log_names::ddl_logs(&datadir, options),
            tc_log: absolute(
                &datadir,
                options.server("log-tc").filter(|n| !n.is_empty()).unwrap_or("tc.log"),
            ),
            buffer_pool_dump: data_home.join(dump.unwrap_or("ib_buffer_pool")),
            ignore_db_dirs: ignore_db_dirs(options),
            page_size: page_size(options)?,
            lower_case_table_names: lower_case_table_names(options)?,
            key_plugins: key_plugins(options),
            keep: options.sst("cpat").map(|cpat| KeepPattern::new(cpat, &datadir)).transpose()?,
            data_home,
            datadir,
        })
    }

    /// The same names in one directory, without binary logs: how a backup has them, or the datadir of a node with no other
    /// directory.
    pub fn gathered_in(&self, dir: &Path) -> Layout {
        let inside = |path: &Path| dir.join(path.file_name().unwrap_or_default());
        let all = |paths: &[PathBuf]| paths.iter().map(|path| inside(path)).collect();
        let system = |file: &SystemFileAt| SystemFileAt { path: inside(&file.path), ..*file };
        Layout {
            datadir: dir.to_owned(),
            data_home: dir.to_owned(),
            system_files: self.system_files.iter().map(system).collect(),
            temp_files: all(&self.temp_files),
            log_home: dir.to_owned(),
            undo_dir: dir.to_owned(),
            second_log_dir: self.second_log_dir.as_ref().map(|_| dir.to_owned()),
            binlog: None,
            binlog_index: None,
            relay_log: inside(&self.relay_log),
            relay_log_index: inside(&self.relay_log_index),
            ddl_logs: all(&self.ddl_logs),
            tc_log: inside(&self.tc_log),
            buffer_pool_dump: inside(&self.buffer_pool_dump),
            keep: None,
            ..self.clone()
        }
    }

    /// The facts that the peer must know about this node.
    pub fn facts(&self, server_version: Option<String>) -> NodeFacts {
        let system_file = |file: &SystemFileAt| SystemFile { size: file.size, autoextend: file.autoextend };
        NodeFacts {
            server_version,
            page_size: self.page_size,
            lower_case_table_names: self.lower_case_table_names,
            system_files: self.system_files.iter().map(system_file).collect(),
            key_plugins: self.key_plugins.clone(),
            encrypted: None,
        }
    }

    /// The directory of a place; `None` for [`Place::External`] and [`Place::Parts`].
    pub fn directory(&self, place: Place) -> Option<&Path> {
        match place {
            Place::Datadir => Some(&self.datadir),
            Place::DataHome => Some(&self.data_home),
            Place::LogHome => Some(&self.log_home),
            Place::UndoDir => Some(&self.undo_dir),
            Place::SecondLogDir => self.second_log_dir.as_deref(),
            Place::External | Place::Parts => None,
        }
    }

    /// The control file of the second engine.
    pub fn second_control(&self) -> Option<PathBuf> {
        Some(self.second_log_dir.as_ref()?.join(self.flavor.second_engine()?.control))
    }

    /// The redo log, or its first file.
    pub fn redo_log(&self) -> PathBuf {
        self.log_home.join(self.flavor.redo_log())
    }

    /// All directories of this node that a transfer writes to, each once, the datadir first.
    pub fn directories(&self) -> Vec<&Path> {
        let mut all: Vec<&Path> = Vec::new();
        let places = [Place::Datadir, Place::DataHome, Place::LogHome, Place::UndoDir, Place::SecondLogDir];
        let system = self.system_files.iter().filter_map(|file| file.path.parent());
        let binlog = self.binlog.iter().filter_map(|base| base.parent());
        for dir in places.into_iter().filter_map(|place| self.directory(place)).chain(system).chain(binlog) {
            if !all.contains(&dir) {
                all.push(dir);
            }
        }
        all
    }

    /// Returns the path of a donor's file on this node.
    ///
    /// # Errors
    /// The donor's path is not acceptable, or this node has no counterpart for the file.
    pub fn target_of(&self, entry: &FileEntry) -> Result<PathBuf, Failure> {
        entry.check().map_err(|bad| Failure::new(Kind::Peer, bad.to_string()))?;
        accept(self.flavor, entry).map_err(|why| {
            Failure::new(Kind::Peer, format!("the donor named a file that cannot be accepted: {why}"))
        })?;
        match &entry.role {
            FileRole::SystemTablespace { index } => {
                let file = self.system_files.get(usize::from(*index)).ok_or_else(|| {
                    Failure::new(
                        Kind::Configuration,
                        format!("this node has no file {} in innodb_data_file_path", u32::from(*index) + 1),
                    )
                    .hint("give the joiner the donor's innodb_data_file_path")
                })?;
                Ok(follow(&file.path))
            }
            FileRole::Server if entry.place == Place::DataHome => Ok(follow(&self.buffer_pool_dump)),
            // A part is loaded where it is staged: this is never the path of a file.
            FileRole::Part => Ok(self.datadir.join(KEPT_DIRECTORY).join("parts").join(&entry.path)),
            _ => match self.directory(entry.place) {
                // An operator's link to a log on another disk stays; a table's link belongs to the server and
                // is replaced.
                Some(dir) if entry.place != Place::Datadir => Ok(follow(&dir.join(&entry.path))),
                Some(dir) => Ok(dir.join(&entry.path)),
                None => self.external(&entry.path),
            },
        }
    }

    /// Returns the path of a file outside all places of this node. Inside one it could collide with another
    /// file.
    fn external(&self, path: &str) -> Result<PathBuf, Failure> {
        let path = PathBuf::from(path);
        let parent = path.parent().map(follow).unwrap_or_default();
        if parent.starts_with(follow(&self.datadir)) {
            return Err(Failure::new(
                Kind::Configuration,
                format!("the donor has a table in {}, which is inside this node's datadir", path.display()),
            )
            .hint("the datadir of one node must not contain a DATA DIRECTORY of another"));
        }
        Ok(path)
    }
}

/// Resolves `path` against `base`, without `.` components and trailing slashes; an empty path is `base`. `..`
/// stays, because its meaning depends on symbolic links.
pub fn absolute(base: &Path, path: &str) -> PathBuf {
    base.join(path).components().filter(|part| *part != Component::CurDir).collect()
}

/// Appends text to the last component of the path.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut text = path.as_os_str().to_owned();
    text.push(suffix);
    PathBuf::from(text)
}

fn bad(option: &str, value: &str, why: &str) -> anyhow::Error {
    anyhow!(Failure::new(Kind::Configuration, format!("{option}={value:?} cannot be used: {why}")))
}

fn datadir(args: &SstArgs, options: &ServerOptions) -> Result<PathBuf> {
    let given = args.datadir.as_deref().or_else(|| options.server("datadir")).filter(|dir| !dir.is_empty());
    let given = given.ok_or_else(|| {
        anyhow!(
            Failure::new(
                Kind::Configuration,
                "datadir is not set, neither by --datadir nor in an option file"
            )
            .hint("give --datadir, or the server's --defaults-file")
        )
    })?;
    let working_dir = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    Ok(absolute(&working_dir, given))
}

/// The server puts a configured home in front of every name, even of absolute ones; without a home the names
/// are complete (tested on 10.11.19).
fn data_files(
    datadir: &Path,
    home: Option<&str>,
    options: &ServerOptions,
    option: &str,
    default: &str,
) -> Result<Vec<SystemFileAt>> {
    let value = options.server(option).unwrap_or(default);
    let files = system_files::parse(value).map_err(|why| bad(option, value, &why))?;
    let place = |file: DataFile| {
        let path = match home.filter(|home| !home.is_empty()) {
            Some(home) => absolute(datadir, &format!("{home}/{}", file.name)),
            None => absolute(datadir, &file.name),
        };
        SystemFileAt { path, size: file.size, autoextend: file.autoextend }
    };
    Ok(files.into_iter().map(place).collect())
}

/// Each use of the option adds a name; an empty one clears the names before it.
fn ignore_db_dirs(options: &ServerOptions) -> Vec<String> {
    let mut dirs = Vec::new();
    for value in options.server_all("ignore-db-dirs") {
        if value.is_empty() {
            dirs.clear();
        } else {
            dirs.push(value.to_owned());
        }
    }
    dirs
}

fn page_size(options: &ServerOptions) -> Result<u32> {
    let size = options.server_size("innodb-page-size")?.unwrap_or(16384);
    match u32::try_from(size) {
        Ok(size @ (4096 | 8192 | 16384 | 32768 | 65536)) => Ok(size),
        _ => Err(bad("innodb_page_size", &size.to_string(), "it is not 4k, 8k, 16k, 32k or 64k")),
    }
}

fn lower_case_table_names(options: &ServerOptions) -> Result<u8> {
    match options.server("lower-case-table-names") {
        // Without a value the server uses 1.
        Some("") => Ok(1),
        None => Ok(0),
        Some(value) => match value.parse() {
            Ok(number @ 0..=2) => Ok(number),
            _ => Err(bad("lower_case_table_names", value, "it is not 0, 1 or 2")),
        },
    }
}

/// Returns the key management plugins: named by `plugin-load` or `plugin-load-add`, as a library, as
/// `name=library`, or several separated by `;`; or implied by an option of the plugin. A plugin installed
/// with `INSTALL SONAME` is not visible.
fn key_plugins(options: &ServerOptions) -> Vec<String> {
    const KNOWN: [&str; 3] = ["file_key_management", "hashicorp_key_management", "aws_key_management"];
    let loads = options.server_all("plugin-load").into_iter().chain(options.server_all("plugin-load-add"));
    let name = |part: &str| part.trim().trim_end_matches(".so").to_ascii_lowercase();
    // An unknown plugin may hold keys just as a known one does.
    let loaded = loads.flat_map(|value| value.split([';', '='])).map(name);
    let mut found: Vec<String> = loaded.filter(|name| name.contains("key_management")).collect();
    let has_options = |plugin: &str| options.server_has_prefix(&format!("{}-", plugin.replace('_', "-")));
    found.extend(KNOWN.iter().filter(|plugin| has_options(plugin)).map(|plugin| (*plugin).to_owned()));
    found.sort();
    found.dedup();
    found
}

/// The path behind links, or itself when nothing is there.
pub(crate) fn follow(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
