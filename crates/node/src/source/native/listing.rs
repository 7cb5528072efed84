//! Which files there are at the moment, and how each is to be copied.
//!
//! The names are those of [`scan`]: both sources send the same files. What vanishes while it is looked at is not listed.
use std::path::PathBuf;

use anyhow::Result;
use protocol::inventory::{FileRole, Place};

use crate::datadir::layout::Layout;
use crate::datadir::scan::{self, ScannedFile, Skipped};
use crate::disk::identity::Look;

/// What is listed.
#[derive(Clone, Debug)]
pub struct Roots {
    /// Where the server keeps what.
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
        self.layout.log_home.join("ib_logfile0")
    }
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

/// Lists all files of a snapshot but the redo log.
///
/// # Errors
/// A directory or file that cannot be looked at.
pub fn list(roots: &Roots) -> Result<Vec<Listed>> {
    let files = scan::list(&roots.layout, &roots.skipped)?;
    Ok(files.into_iter().filter_map(|file| Some((care(&file)?, file))).map(listed).collect())
}

/// Only the files that are copied under the lock on commits.
///
/// # Errors
/// As [`list`].
pub fn list_late(roots: &Roots) -> Result<Vec<Listed>> {
    let files = scan::list_database(&roots.layout, "mysql", &roots.skipped)?.into_iter();
    let late = files.filter_map(|file| Some((care(&file)?, file)));
    Ok(late.filter(|(care, _)| *care == Care::UnderCommitLock).map(listed).collect())
}

fn listed((care, file): (Care, ScannedFile)) -> Listed {
    let ScannedFile { entry, path, look } = file;
    Listed { path, place: entry.place, name: entry.path, role: entry.role, care, look }
}

/// `None` for the redo log, which is followed instead.
fn care(file: &ScannedFile) -> Option<Care> {
    let entry = &file.entry;
    Some(match &entry.role {
        FileRole::Redo => return None,
        FileRole::SystemTablespace { .. } | FileRole::Undo => Care::Pages,
        FileRole::Table | FileRole::TableElsewhere { .. } if entry.path.ends_with(".ibd") => Care::Pages,
        FileRole::AriaLog => Care::UnderCommitLock,
        FileRole::Link { .. } => Care::Link,
        FileRole::Table if entry.path.strip_prefix("mysql/").is_some_and(written_aside) => {
            Care::UnderCommitLock
        }
        FileRole::Table | FileRole::TableElsewhere { .. } | FileRole::Server => Care::UnderDdlLock,
    })
}

/// Tables of `mysql` that statements write besides their own: logs, statistics, the transaction registry. The
/// backup lock on DDL does not hold them, the one on commits does (sql/backup.cc, MariaDB 10.11).
fn written_aside(file: &str) -> bool {
    let table = file.split('.').next().unwrap_or_default();
    table.ends_with("_stats") || matches!(table, "general_log" | "slow_log" | "transaction_registry")
}
