//! Which files there are at the moment, and how each is to be copied.
//!
//! Names and directories as the server itself reports them (its variables), not as an option file has them. What
//! vanishes while it is looked at is not listed.
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use formats::mariadb::file_kind::{self, FileKind, TableFile};
use protocol::inventory::{FileRole, Place};

use super::identity::{Look, look};

/// Where the server keeps what. All paths are absolute.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    /// `datadir`
    pub datadir: PathBuf,
    /// Files of `innodb_data_file_path`, in order.
    pub system_files: Vec<PathBuf>,
    /// `innodb_undo_directory`
    pub undo_dir: PathBuf,
    /// `aria_log_dir_path`
    pub aria_log_dir: PathBuf,
    /// `innodb_log_group_home_dir`
    pub log_home: PathBuf,
    /// `ignore_db_dirs`
    pub ignore_db_dirs: Vec<String>,
}

/// How a file is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// InnoDB pages, at any time: redo brings them to the end. The n-th file of the system tablespace, or 0.
    Pages,
    /// As it is while DDL is held; again there when it changed since it was copied.
    UnderDdlLock,
    /// As it is while commits are held too: logs of Aria, tables that statements write besides their own.
    UnderCommitLock,
    /// A symbolic link: its name and target are all there is.
    Link,
}

/// One file.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Where it is.
    pub path: PathBuf,
    /// The directory it has on the wire.
    pub place: Place,
    /// Its name there; absolute for [`Place::External`].
    pub name: String,
    /// What it is.
    pub role: FileRole,
    /// How it is copied.
    pub care: Care,
    /// Which file it is and in which state.
    pub look: Look,
}

/// Lists all files of a snapshot.
///
/// # Errors
/// A directory or file that cannot be looked at.
pub fn list(roots: &Roots) -> Result<Vec<Listed>> {
    let mut listed = Vec::new();
    for (index, path) in roots.system_files.iter().enumerate() {
        let role = FileRole::SystemTablespace { index: index as u16 };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        add(&mut listed, path.clone(), Place::DataHome, name, role, Care::Pages)?;
    }
    for name in names(&roots.undo_dir)? {
        if file_kind::top_level(&name) == FileKind::Undo {
            add(&mut listed, roots.undo_dir.join(&name), Place::UndoDir, name, FileRole::Undo, Care::Pages)?;
        }
    }
    aria_logs(&mut listed, roots)?;
    for name in names(&roots.datadir)? {
        let path = roots.datadir.join(&name);
        if file_kind::top_level(&name) == FileKind::UpgradeInfo {
            add(&mut listed, path, Place::Datadir, name, FileRole::Server, Care::UnderDdlLock)?;
        } else if file_kind::database_directory(&name)
            && !roots.ignore_db_dirs.contains(&name)
            && path.is_dir()
        {
            database(&mut listed, &path, &name)?;
        }
    }
    Ok(listed)
}

/// Only the files that are copied under the lock on commits.
///
/// # Errors
/// As [`list`].
pub fn list_late(roots: &Roots) -> Result<Vec<Listed>> {
    let mut listed = Vec::new();
    aria_logs(&mut listed, roots)?;
    database(&mut listed, &roots.datadir.join("mysql"), "mysql")?;
    listed.retain(|file| file.care == Care::UnderCommitLock);
    Ok(listed)
}

fn aria_logs(listed: &mut Vec<Listed>, roots: &Roots) -> Result<()> {
    for name in names(&roots.aria_log_dir)? {
        if matches!(file_kind::top_level(&name), FileKind::AriaLog | FileKind::AriaControl) {
            let path = roots.aria_log_dir.join(&name);
            add(listed, path, Place::AriaLogDir, name, FileRole::AriaLog, Care::UnderCommitLock)?;
        }
    }
    Ok(())
}

fn database(listed: &mut Vec<Listed>, dir: &Path, database: &str) -> Result<()> {
    for file in names(dir)? {
        let kind = file_kind::in_database(&file);
        let temporary = file_kind::is_temporary(&file);
        let care = match kind {
            TableFile::InnodbTablespace => Care::Pages,
            TableFile::InnodbLink => Care::UnderDdlLock,
            TableFile::Unknown | TableFile::InnodbImport | TableFile::ArchiveTemp => continue,
            // Tables of statements under way; what InnoDB knows of them its recovery undoes.
            _ if temporary => continue,
            _ if database == "mysql" && written_aside(&file) => Care::UnderCommitLock,
            _ => Care::UnderDdlLock,
        };
        let (path, name) = (dir.join(&file), format!("{database}/{file}"));
        if kind == TableFile::InnodbLink {
            linked_tablespace(listed, &path, &name)?;
        }
        if kind != TableFile::InnodbTablespace && is_link(&path) {
            linked_file(listed, path, name, care)?;
        } else {
            add(listed, path, Place::Datadir, name, FileRole::Table, care)?;
        }
    }
    Ok(())
}

/// Tables of `mysql` that statements write besides their own: logs, statistics, the transaction registry. The
/// backup lock on DDL does not hold them, the one on commits does (sql/backup.cc, MariaDB 10.11).
fn written_aside(file: &str) -> bool {
    let table = file.split('.').next().unwrap_or_default();
    table.ends_with("_stats") || matches!(table, "general_log" | "slow_log" | "transaction_registry")
}

/// The tablespace that an `.isl` file leads to.
fn linked_tablespace(listed: &mut Vec<Listed>, link: &Path, name: &str) -> Result<()> {
    let text = match fs::read_to_string(link) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", link.display())),
    };
    let target = text.trim_end_matches(['\n', '\r']).to_owned();
    let role = FileRole::TableElsewhere { owner: name.to_owned() };
    add(listed, PathBuf::from(&target), Place::External, target, role, Care::Pages)
}

/// A symbolic link and the file behind it, as `DATA DIRECTORY` makes them for MyISAM and Aria.
fn linked_file(listed: &mut Vec<Listed>, path: PathBuf, name: String, care: Care) -> Result<()> {
    let Ok(target) = fs::canonicalize(&path) else { return Ok(()) };
    let text = target.to_string_lossy().into_owned();
    let role = FileRole::TableElsewhere { owner: name.clone() };
    add(listed, target, Place::External, text.clone(), role, care)?;
    add(listed, path, Place::Datadir, name, FileRole::Link { target: text }, Care::Link)
}

fn is_link(path: &Path) -> bool {
    path.extension().is_some_and(|e| e != "frm") && fs::symlink_metadata(path).is_ok_and(|m| m.is_symlink())
}

fn add(
    listed: &mut Vec<Listed>,
    path: PathBuf,
    place: Place,
    name: String,
    role: FileRole,
    care: Care,
) -> Result<()> {
    match look(&path).with_context(|| format!("cannot look at {}", path.display()))? {
        Some(look) if look.is_file => listed.push(Listed { path, place, name, role, care, look }),
        _ => {}
    }
    Ok(())
}

/// Names in a directory; those that are not UTF-8 belong to no table. None when there is no such directory.
fn names(dir: &Path) -> Result<Vec<String>> {
    let read = || -> std::io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            if let Some(name) = OsStr::to_str(&entry?.file_name()) {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    };
    match read() {
        Ok(names) => Ok(names),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e).with_context(|| format!("cannot list {}", dir.display())),
    }
}
