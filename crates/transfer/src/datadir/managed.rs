//! The files that a joiner's install replaces or removes, and those that it must not touch.
//!
//! | files | what happens | why |
//! |---|---|---|
//! | system tablespace files, `undoNNN`, `ib_logfileN`, logs and control file of the second engine (MariaDB: Aria) | replaced as one set | mixing redo, undo and pages of two states corrupts the data |
//! | files of tables and databases (`.frm .ibd .isl .MYD .MYI .MAD .MAI .CSV .CSM .ARZ .ARM .MRG .TRG .TRN .par .cfg db.opt`) | replaced by the donor's; removed where the donor has none | a table the dictionary does not know blocks its name; an old page with a high LSN is skipped by recovery |
//! | links of `DATA DIRECTORY` and `INDEX DIRECTORY`, `.isl`, and their targets | replaced or removed like tables | the file outside is this table's own earlier copy |
//! | `mariadb_upgrade_info`, `mysql_upgrade_info`, the buffer pool dump | replaced or removed | they describe the data |
//! | `ddl_recovery.log` and its backup | removed | an unfinished rename in the old state would be applied to the new tables |
//! | `tc.log` | removed | it would resolve transactions of the old state |
//! | temporary tablespaces (`ibtmp*`), `ib_logfile101`, `ib_buffer_pool.incomplete` | removed | created at each start; the resized log of the old state must not be used for the new one |
//! | binary logs, their index and `.state` | removed | the server resolves prepared transactions and its GTID position from them |
//! | relay logs, their index, `master*.info`, `relay-log*.info`, `multi-master.info` | removed unless `cpat` matches | positions that belong to the old data |
//! | `#sql*` of other engines than InnoDB | removed unless `cpat` matches | leftovers of statements |
//! | `grastate.dat`, `gvwstate.dat`, `galera.cache`, `gcache.page.*` | kept | they belong to the provider, which is running |
//! | `sst_in_progress`, `wsrep_sst.pid`, `tables_flushed`, `sst_error`, `rejoin-lock`, `*.pid`, sockets | kept | they belong to running programs |
//! | `sst_retry_count`, `sst_retry_limit_reached` | kept | they count this node's joins |
//! | `*.pem`, `*.err`, `*.log` | kept | they belong to this host |
//! | directories of databases that the donor does not have | removed if possible | a server would show an empty database |
//! | names that begin with `.`, `lost+found`, directories in `ignore_db_dirs`, of other engines, or without any table file | kept | not a database |
//! | any file not named above, also inside a database | kept | its purpose is unknown |
//! | table files that `[sst] cpat` matches | kept, but a file of the same name from the donor replaces it | the operator asked for it |
//!
//! `cpat` cannot keep files that would act on the new data: the set of the first row, the DDL and coordinator
//! logs, the temporary tablespaces and the binary logs.
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use protocol::inventory::{FileEntry, FileRole, Place};
use serde::{Deserialize, Serialize};

use super::directories::Directories;
use super::found::{Found, What};
use super::layout::Layout;
use super::layout::follow;
use super::walk;
use crate::failure::{Failure, Kind};
use crate::flavor::class::Class;

/// Why a file of the joiner is in the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Managed {
    /// One of the set that is replaced as a whole: system tablespace, undo, redo, the second engine's logs.
    SystemSet,
    /// A file of a table or database in the datadir, or a link to one.
    Table,
    /// A table's file outside the datadir: this node's own earlier copy.
    TableElsewhere {
        /// Path in the datadir of the `.isl` file or link that leads to it.
        owner: String,
    },
    /// Another file that belongs to the data.
    Server,
    /// It must not stay, and the donor has no counterpart.
    RemoveOnly,
    /// A database's directory: it is removed if it is empty in the end. (Or a link to a directory.)
    DatabaseDirectory,
}

/// A file that an install replaces or removes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedFile {
    /// Absolute path.
    pub path: PathBuf,
    /// Why.
    pub what: Managed,
    /// When an install retires it.
    pub class: Class,
    /// Length in bytes.
    pub size: u64,
    /// Bytes allocated: the space that removing it frees.
    pub allocated: u64,
    /// `cpat` matches it, but it would act on the new data: it is removed anyway, which the log should
    /// mention.
    pub keep_overruled: bool,
}

/// Files that an install replaces or removes. There can be very many, and a joiner knows them from the offer to the plan of the
/// install, so they are kept encoded.
#[derive(Clone, Debug, Default)]
pub struct ManagedFiles {
    directories: Directories,
    encoded: Vec<u8>,
    count: usize,
    /// Paths of the tables' files outside the datadir: every file that comes there is looked for among them.
    elsewhere: Vec<PathBuf>,
}

/// A file as it is kept.
#[derive(Serialize, Deserialize)]
struct Encoded<'a> {
    directory: u32,
    #[serde(borrow)]
    name: &'a [u8],
    what: Managed,
    class: Class,
    size: u64,
    allocated: u64,
    keep_overruled: bool,
}

impl ManagedFiles {
    fn push(&mut self, file: ManagedFile) {
        let (directory, name) = match (file.path.parent(), file.path.file_name()) {
            (Some(directory), Some(name)) => (directory, name),
            _ => (Path::new(""), file.path.as_os_str()),
        };
        let encoded = Encoded {
            directory: self.directories.number(directory),
            name: name.as_bytes(),
            what: file.what,
            class: file.class,
            size: file.size,
            allocated: file.allocated,
            keep_overruled: file.keep_overruled,
        };
        if matches!(encoded.what, Managed::TableElsewhere { .. }) {
            self.elsewhere.push(file.path.clone());
        }
        // Encoding into memory does not fail.
        self.encoded.extend(postcard::to_stdvec(&encoded).unwrap_or_default());
        self.count += 1;
    }

    /// All of them, in the order in which they were found; the directories of databases come last.
    pub fn iter(&self) -> impl Iterator<Item = ManagedFile> + '_ {
        let mut rest = self.encoded.as_slice();
        std::iter::from_fn(move || {
            let (file, after) = postcard::take_from_bytes::<Encoded<'_>>(rest).ok()?;
            rest = after;
            Some(ManagedFile {
                path: self.directories.get(file.directory)?.join(OsStr::from_bytes(file.name)),
                what: file.what,
                class: file.class,
                size: file.size,
                allocated: file.allocated,
                keep_overruled: file.keep_overruled,
            })
        })
    }

    /// The directories that they are in, each once.
    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        self.directories.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Lists the files that an install replaces or removes. Missing directories are empty.
///
/// # Errors
/// A directory or file cannot be read.
pub fn managed(layout: &Layout) -> Result<ManagedFiles> {
    let mut files = ManagedFiles::default();
    let mut take = |found: Found| {
        let (what, class, keepable) = match found.what {
            What::Travels { role, path, .. } => {
                let class = layout.flavor.class(&role, Path::new(&path));
                let (what, keepable) = of_role(role);
                (what, class, keepable)
            }
            What::Past { keepable } => (Managed::RemoveOnly, Class::Table, keepable),
            What::Own | What::LeftOut(_) => return,
        };
        let wanted = layout.keep.as_ref().is_some_and(|keep| keep.keeps(&found.path));
        if wanted && keepable {
            return;
        }
        let (size, allocated) = found.look.map_or((0, 0), |look| (look.signature.size, look.allocated));
        files.push(ManagedFile { path: found.path, what, class, size, allocated, keep_overruled: wanted });
    };
    let databases = walk::walk(layout, &mut |_, _| {}, &mut take)?.databases;
    // Last, so that a list processed in order empties a directory before its own entry.
    for path in databases {
        files.push(ManagedFile {
            path,
            what: Managed::DatabaseDirectory,
            class: Class::Table,
            size: 0,
            allocated: 0,
            keep_overruled: false,
        });
    }
    files.encoded.shrink_to_fit();
    Ok(files)
}

/// The kind of a file of that role on this node, and whether `cpat` may keep it.
fn of_role(role: FileRole) -> (Managed, bool) {
    match role {
        FileRole::SystemTablespace { .. } | FileRole::Undo | FileRole::Redo | FileRole::SecondLog => {
            (Managed::SystemSet, false)
        }
        FileRole::Table | FileRole::Link { .. } => (Managed::Table, true),
        FileRole::TableElsewhere { owner } => (Managed::TableElsewhere { owner }, true),
        // A node has no parts and no files of a backup among its own.
        FileRole::Server | FileRole::Part | FileRole::Backup => (Managed::Server, true),
    }
}

/// Returns files at paths of donor's files outside the datadir that are not this node's own earlier copies.
/// The transfer must not begin while there are any, because their owner is unknown.
pub fn foreign_files_at_targets(entries: &[FileEntry], managed: &ManagedFiles) -> Vec<Failure> {
    if !entries.iter().any(|entry| entry.place == Place::External) {
        // This is checked for each file that begins.
        return Vec::new();
    }
    let own: HashSet<PathBuf> = managed.elsewhere.iter().map(|path| follow(path)).collect();
    let outside = entries.iter().filter(|entry| entry.place == Place::External);
    let foreign = outside.filter(|entry| {
        fs::symlink_metadata(&entry.path).is_ok() && !own.contains(&follow(entry.path.as_ref()))
    });
    foreign
        .map(|entry| {
            let owner = match &entry.role {
                FileRole::TableElsewhere { owner } => owner.as_str(),
                _ => "a table",
            };
            Failure::new(
                Kind::Configuration,
                format!(
                    "{} exists on this node and is not an earlier copy of the donor's {owner}",
                    entry.path
                ),
            )
            .hint("find out whose file it is and move it away, then start the node again")
        })
        .collect()
}

#[cfg(test)]
#[path = "managed_tests.rs"]
mod tests;
