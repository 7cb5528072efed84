//! Lists the files of the server, and says how each is to be copied.
//!
//! The names come from [`scan`]: both snapshots send the same files. A file that vanishes while it is examined is not
//! listed.
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use protocol::inventory::{FileEntry, FileId, FileRole, Place};
use serde::{Deserialize, Serialize};

use crate::datadir::layout::Layout;
use crate::datadir::scan::{self, ScannedFile, Skipped};
use crate::disk::identity::Look;
use crate::disk::watch::Changed;
use crate::flavor::{Flavor, TableFile};

/// Where files are listed, and what is left out.
#[derive(Clone, Debug)]
pub struct Roots {
    /// Where the server keeps its files.
    pub layout: Layout,
    /// Tables that are left out.
    pub skipped: Skipped,
}

impl Roots {
    /// Files of the system tablespace, in order.
    pub fn system_files(&self) -> Vec<PathBuf> {
        self.layout.system_files.iter().map(|file| file.path.clone()).collect()
    }

    /// The redo log.
    pub fn redo_log(&self) -> PathBuf {
        self.layout.redo_log()
    }
}

/// How a file is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// InnoDB pages, copied at any time: redo brings them up to date.
    Pages,
    /// Copied while DDL is held; again if it changed since it was copied.
    UnderDdlLock,
    /// Copied while commits are held too: logs of the second engine, and tables that statements write besides their own.
    UnderCommitLock,
    /// A symbolic link: it has only a name and a target.
    Link,
}

/// One file. There can be very many, and they are kept for the whole snapshot, so the details are kept encoded.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The directory that its name is relative to, or its whole path. A pointer of one word, not of two.
    base: Arc<PathBuf>,
    encoded: Box<[u8]>,
}

#[derive(Serialize, Deserialize)]
struct Encoded<'a> {
    place: Place,
    name: &'a str,
    role: FileRole,
    look: Look,
    /// The base is the whole path.
    apart: bool,
}

/// Directories that files are in, each kept once.
#[derive(Debug, Default)]
struct Bases(Vec<Arc<PathBuf>>);

impl Bases {
    fn shared(&mut self, path: &Path) -> Arc<PathBuf> {
        if let Some(known) = self.0.iter().rev().take(BASES_SEARCHED).find(|known| known.as_path() == path) {
            return Arc::clone(known);
        }
        let new = Arc::new(path.to_path_buf());
        self.0.push(Arc::clone(&new));
        new
    }
}

/// How many of the newest directories are searched: files of one directory come one after the other.
const BASES_SEARCHED: usize = 8;

/// Lists all files of a snapshot except the redo log.
///
/// # Errors
/// A directory or file cannot be examined.
pub fn list(roots: &Roots) -> Result<Vec<Listed>> {
    let mut files = Vec::new();
    each(roots, &mut |file| files.push(file))?;
    Ok(files)
}

/// As [`list`], one file at a time: there can be very many.
///
/// # Errors
/// As [`list`].
pub fn each(roots: &Roots, take: &mut dyn FnMut(Listed)) -> Result<()> {
    each_told(roots, &mut |_, _| {}, take)
}

/// As [`each`]; `before` is called with each database's directory before it is read.
///
/// # Errors
/// As [`list`].
pub fn each_told(
    roots: &Roots,
    before: &mut dyn FnMut(&str, &Path),
    take: &mut dyn FnMut(Listed),
) -> Result<()> {
    let mut bases = Bases::default();
    let mut listed = |file: ScannedFile| listed(&mut bases, &file).into_iter().for_each(&mut *take);
    scan::list(&roots.layout, &roots.skipped, before, &mut listed)
}

/// As [`each_told`], with only the files that belong to no database and, of the databases, what may have changed.
///
/// # Errors
/// As [`list`].
pub fn each_changed(
    roots: &Roots,
    changes: &HashMap<String, Changed>,
    before: &mut dyn FnMut(&str, &Path),
    take: &mut dyn FnMut(Listed),
) -> Result<()> {
    let mut bases = Bases::default();
    let mut listed = |file: ScannedFile| listed(&mut bases, &file).into_iter().for_each(&mut *take);
    scan::list_changed(&roots.layout, &roots.skipped, changes, before, &mut listed)
}

/// The file in the form in which it is kept; `None` for the redo log.
fn listed(bases: &mut Bases, file: &ScannedFile) -> Option<Listed> {
    let ScannedFile { entry, path, look } = file;
    care(&entry.role, &entry.path)?;
    let directory = path.to_str().and_then(|path| path.strip_suffix(&entry.path)?.strip_suffix('/'));
    let directory = directory.filter(|_| entry.place != Place::External);
    let base = bases.shared(directory.map_or(path, Path::new));
    let (place, name, role) = (entry.place, entry.path.as_str(), entry.role.clone());
    let encoded = Encoded { place, name, role, look: *look, apart: directory.is_none() };
    // Encoding into memory does not fail.
    let encoded = postcard::to_stdvec(&encoded).unwrap_or_default().into();
    Some(Listed { base, encoded })
}

impl Listed {
    fn decoded(&self) -> Encoded<'_> {
        let nothing = || Encoded {
            place: Place::External,
            name: "",
            role: FileRole::Server,
            look: Look::default(),
            apart: true,
        };
        postcard::from_bytes(&self.encoded).unwrap_or_else(|_| nothing())
    }

    /// How it is copied.
    pub fn care(&self) -> Care {
        let Encoded { role, name, .. } = self.decoded();
        // The redo log, which alone has none, is not listed.
        care(&role, name).unwrap_or(Care::UnderDdlLock)
    }

    /// Its path.
    pub fn path(&self) -> PathBuf {
        match self.decoded() {
            Encoded { apart: true, .. } => self.base.to_path_buf(),
            Encoded { name, .. } => self.base.join(name),
        }
    }

    /// Its name relative to its [`Place`], as it is sent; absolute for [`Place::External`].
    pub fn name(&self) -> &str {
        // Only the beginning is decoded: very many are sorted by their names.
        postcard::take_from_bytes::<(Place, &str)>(&self.encoded).map_or("", |((_, name), _)| name)
    }

    /// Its role.
    pub fn role(&self) -> FileRole {
        self.decoded().role
    }

    /// Its identity and its state.
    pub fn look(&self) -> Look {
        self.decoded().look
    }

    /// Its entry for the peer, with this number; the size is that of the listing.
    pub fn entry(&self, id: FileId) -> FileEntry {
        let Encoded { place, name, role, look, .. } = self.decoded();
        let path = name.to_owned();
        FileEntry { id, place, path, size: look.signature.size, allocated: look.allocated, role }
    }

    /// The database in whose directory the file is listed, and its name there; `None` for files of the whole server.
    pub fn in_database(&self) -> Option<(Cow<'_, str>, Cow<'_, str>)> {
        match self.decoded() {
            Encoded { role: FileRole::TableElsewhere { owner }, .. } => owner
                .split_once('/')
                .map(|(database, name)| (database.to_owned().into(), name.to_owned().into())),
            Encoded { place: Place::Datadir, name, .. } => {
                name.split_once('/').map(|(database, name)| (database.into(), name.into()))
            }
            _ => None,
        }
    }

    /// True for a file outside of its database's directory and for the link to one: only examining it shows a change.
    pub fn is_elsewhere(&self) -> bool {
        let Encoded { role, name, .. } = self.decoded();
        let elsewhere = matches!(role, FileRole::TableElsewhere { .. } | FileRole::Link { .. });
        elsewhere || name.ends_with(".isl")
    }

    /// True if the server writes the file in place, through descriptors that stay open, and without redo: only
    /// examining it shows a change. Definitions, triggers and the like are written and closed, or replaced.
    pub fn is_written_in_place(&self, flavor: &dyn Flavor) -> bool {
        let replaced = |name: &str| flavor.in_database(name).is_some_and(TableFile::is_replaced);
        let in_database = self.in_database().map(|(_, name)| name);
        matches!(self.care(), Care::UnderDdlLock | Care::UnderCommitLock)
            && !in_database.is_some_and(|name| replaced(&name))
    }
}

/// Lists only the files that are copied under the lock on commits.
///
/// # Errors
/// As [`list`].
pub fn list_late(roots: &Roots) -> Result<Vec<Listed>> {
    let (mut files, mut bases) = (Vec::new(), Bases::default());
    let mut take = |file: ScannedFile| {
        files.extend(listed(&mut bases, &file).filter(|file| file.care() == Care::UnderCommitLock));
    };
    scan::list_database(&roots.layout, "mysql", &roots.skipped, &mut take)?;
    Ok(files)
}

/// `None` for the redo log, which is followed instead; a part of a logical snapshot is no file of a server.
fn care(role: &FileRole, name: &str) -> Option<Care> {
    Some(match role {
        FileRole::Redo | FileRole::Part => return None,
        FileRole::SystemTablespace { .. } | FileRole::Undo => Care::Pages,
        FileRole::Table | FileRole::TableElsewhere { .. } if name.ends_with(".ibd") => Care::Pages,
        FileRole::SecondLog => Care::UnderCommitLock,
        FileRole::Link { .. } => Care::Link,
        FileRole::Table if name.strip_prefix("mysql/").is_some_and(written_aside) => Care::UnderCommitLock,
        FileRole::Table | FileRole::TableElsewhere { .. } | FileRole::Server | FileRole::Backup => {
            Care::UnderDdlLock
        }
    })
}

/// Tables of `mysql` that statements write besides their own: logs, statistics, the transaction registry. The backup
/// lock on DDL does not stop these writes, the one on commits does (sql/backup.cc, MariaDB 10.11).
fn written_aside(file: &str) -> bool {
    let table = file.split('.').next().unwrap_or_default();
    table.ends_with("_stats") || matches!(table, "general_log" | "slow_log" | "transaction_registry")
}
