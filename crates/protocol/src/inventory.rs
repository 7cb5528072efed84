//! How a file of the donor's datadir is named on the wire: a place, a path in it, and a role.
//!
//! The joiner never uses a donor's path unchecked: [`FileEntry::check`] refuses any path that could leave its
//! place, and the joiner maps places and system tablespace files to its own directories and names.
use serde::{Deserialize, Serialize};

use crate::limits::{FILES_PER_MESSAGE_MAX, HEADER_BYTES_MAX, PATH_BYTES_MAX, RANGE_BYTES};

/// The maximum encoded size of an entry without its paths.
const NUMBERS_BYTES_MAX: usize = 64;

/// Number of a file within one transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileId(pub u32);

/// A directory that every node has, possibly elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Place {
    /// `datadir`
    Datadir,
    /// `innodb_data_home_dir`
    DataHome,
    /// `innodb_log_group_home_dir`
    LogHome,
    /// `innodb_undo_directory`
    UndoDir,
    /// The directory of the logs of an engine beside InnoDB (MariaDB: `aria_log_dir_path`).
    SecondLogDir,
    /// Anywhere else: the path is absolute, as `DATA DIRECTORY` and `INDEX DIRECTORY` tables have it.
    External,
    /// Nowhere: a part of a logical snapshot, from which the joiner's server makes its files.
    Parts,
}

/// The role of a file, as far as the joiner must treat it specially.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileRole {
    /// The n-th file of `innodb_data_file_path`; the joiner has its own name for it.
    SystemTablespace {
        /// Position in `innodb_data_file_path`, from 0.
        index: u16,
    },
    /// An undo tablespace.
    Undo,
    /// A redo log file.
    Redo,
    /// A log or the control file of an engine beside InnoDB (MariaDB: Aria).
    SecondLog,
    /// A file of a table or of a database.
    Table,
    /// A table's file outside the datadir.
    TableElsewhere {
        /// Path in the datadir of the `.isl` file or symbolic link that leads to it.
        owner: String,
    },
    /// A symbolic link in the datadir.
    Link {
        /// Where it points, absolute.
        target: String,
    },
    /// Another file of the server that belongs to the data (for example the buffer pool dump).
    Server,
    /// Rows or definitions of a logical snapshot ([`crate::logical`]): loaded, never installed.
    Part,
    /// A file that belongs to a backup and to no datadir: what mariadb-backup needs to prepare the others. Its path is that in
    /// the backup.
    Backup,
}

impl FileRole {
    /// The path in the role.
    fn text(&self) -> &str {
        match self {
            FileRole::TableElsewhere { owner: text } | FileRole::Link { target: text } => text,
            _ => "",
        }
    }
}

/// One file the donor sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its number in this transfer.
    pub id: FileId,
    /// The directory it lies in.
    pub place: Place,
    /// Path relative to the place; absolute for [`Place::External`].
    pub path: String,
    /// Length in bytes.
    pub size: u64,
    /// Bytes that are allocated on the donor, without holes: the joiner needs this much room.
    pub allocated: u64,
    /// Its role.
    pub role: FileRole,
}

/// A path that the joiner refuses to use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the donor named a file that cannot be accepted: {path:?}: {why}")]
pub struct BadPath {
    /// The path as sent.
    pub path: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl FileEntry {
    /// Refuses paths that could name a file outside their place, or that belong to rejoin or to the provider.
    pub fn check(&self) -> Result<(), BadPath> {
        check_path(&self.path, self.place == Place::External)?;
        match &self.role {
            FileRole::Link { target } => check_path(target, true),
            FileRole::TableElsewhere { owner } => check_path(owner, false),
            _ => Ok(()),
        }
    }
}

/// Splits a list into batches that fit into one message.
pub fn batches(mut files: &[FileEntry]) -> impl Iterator<Item = &[FileEntry]> {
    std::iter::from_fn(move || {
        let mut room = HEADER_BYTES_MAX as usize / 2;
        let fits = |file: &&FileEntry| {
            let bytes = file.path.len() + file.role.text().len() + NUMBERS_BYTES_MAX;
            room = room.saturating_sub(bytes);
            room > 0
        };
        let count = files.iter().take(FILES_PER_MESSAGE_MAX).take_while(fits).count();
        let (batch, rest) = files.split_at(count.max(1).min(files.len()));
        files = rest;
        (!batch.is_empty()).then_some(batch)
    })
}

/// Splits the small files of one message into groups that share a fingerprint: as many files as make a range.
pub fn groups(mut files: &[FileEntry]) -> impl Iterator<Item = &[FileEntry]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |file: &&FileEntry| {
            let fits = bytes < u64::from(RANGE_BYTES);
            bytes = bytes.saturating_add(file.size);
            fits
        };
        let count = files.iter().take_while(fits).count();
        let (group, rest) = files.split_at(count);
        files = rest;
        (!group.is_empty()).then_some(group)
    })
}

fn check_path(path: &str, absolute: bool) -> Result<(), BadPath> {
    let bad = |why| Err(BadPath { path: path.to_owned(), why });
    if path.is_empty() || path.len() > PATH_BYTES_MAX {
        return bad("empty or too long");
    }
    if path.bytes().any(|b| b == 0 || b == b'\n') {
        return bad("contains a NUL or a line break");
    }
    if path.starts_with('/') != absolute {
        return bad(if absolute { "must be absolute" } else { "must be relative" });
    }
    let inner = path.strip_prefix('/').unwrap_or(path);
    for part in inner.split('/') {
        match part {
            "" | "." | ".." => return bad("contains an empty, '.' or '..' component"),
            ".rejoin" | "#sql-rejoin" => return bad("lies in the program's own directory"),
            _ => {}
        }
    }
    Ok(())
}
