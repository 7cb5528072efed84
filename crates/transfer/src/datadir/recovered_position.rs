//! The position that InnoDB's crash recovery will reach, computed from files alone.
//!
//! Each commit writes the position into a rollback segment header, and the files hold the state of the last
//! checkpoint. So redo is applied, in memory, to the relevant pages. A transaction that was prepared when the
//! server ended has its position in its undo log: a server without a binary log commits it during recovery;
//! one with a binary log consults that log.
//!
//! The result is correct or "unknown", never a guess. Tests compare it with `--wsrep-recover` of killed
//! servers (crates/lab/tests/servers/position.rs), and with the position that the online snapshot records (`lab
//! storm`).
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;
use formats::Lsn;
pub use formats::innodb::redo_page::Gap;
use formats::innodb::undo_header::follow_prepared;
use formats::innodb::wsrep_position::StoredPosition;
use protocol::inventory::{FileRole, Place};

use super::found::entries;
use super::layout::Layout;
use super::page_files::PageFiles;
use super::played_pages::{Id, PlayedPages};
pub use super::redo_file::{BadLog, changes_pages};
use super::redo_file::{RedoFile, has_pages};
pub use super::unknown_position::Unknown;
use super::walk::file_name;
use crate::flavor::Numbered;

/// How often the log is read at most. Once is nearly always enough; see [`super::played_pages`].
const READS_MAX: usize = 3;

/// The files of an InnoDB instance that determine its position, whatever their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InnodbFiles {
    /// Files of the system tablespace, in order.
    pub system: Vec<PathBuf>,
    /// Undo tablespaces, in any order.
    pub undo: Vec<PathBuf>,
    /// The redo log: `ib_logfile0` of 10.8 or later, or a flat one created by a snapshot.
    pub redo: PathBuf,
    /// There is a binary log, which a server consults about prepared transactions.
    pub binlog: bool,
}

impl InnodbFiles {
    /// The files of a node whose server is stopped.
    ///
    /// # Errors
    /// The undo directory cannot be read.
    pub fn of(layout: &Layout) -> Result<InnodbFiles> {
        let undo = entries(&layout.undo_dir)?.into_iter().map(|entry| entry.path());
        Ok(InnodbFiles {
            system: layout.system_files.iter().map(|file| file.path.clone()).collect(),
            undo: undo.filter(|path| is_undo(layout, path)).collect(),
            redo: layout.redo_log(),
            binlog: layout.binlog.is_some(),
        })
    }
}

fn is_undo(layout: &Layout, path: &Path) -> bool {
    layout.flavor.numbered(Place::UndoDir, file_name(path)) == Some(Numbered::Data(FileRole::Undo))
}

/// The result of recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// This position.
    Known(StoredPosition),
    /// No position: the node was never in a cluster.
    None,
    /// It cannot be determined.
    Unknown(Unknown),
}

/// Returns the position that a server will recover to from these files. No server may have them open.
///
/// Reads the redo log once, a window at a time, and a few pages.
///
/// # Errors
/// A file exists but cannot be read.
pub fn recovered_position(files: &InnodbFiles) -> Result<Recovered> {
    let unknown = |why: Unknown| Ok(Recovered::Unknown(why));
    let Some(pages) = PageFiles::open(&files.system, &files.undo)? else {
        return unknown(Unknown::NoSystemTablespace);
    };
    let log = match RedoFile::open(&files.redo)? {
        Ok(log) => log,
        Err(bad) => return unknown(bad.into()),
    };
    let mut wanted = BTreeSet::new();
    for _ in 0..READS_MAX {
        let (played, end) = match play(&pages, &log, wanted.clone())? {
            Ok(played) => played,
            Err(why) => return unknown(why),
        };
        let incomplete = played.incomplete();
        if !incomplete.is_empty() {
            wanted.extend(incomplete);
            continue;
        }
        return match played.found(end) {
            Ok(found) => Ok(decide(found.stored, found.prepared, files.binlog)),
            Err(why) => unknown(why),
        };
    }
    unknown(Unknown::NeverMade)
}

fn play<'f>(
    files: &'f PageFiles,
    log: &RedoFile,
    wanted: BTreeSet<Id>,
) -> Result<Result<(PlayedPages<'f>, Lsn), Unknown>> {
    let mut pages = match PlayedPages::new(files, wanted)? {
        Ok(pages) => pages,
        Err(why) => return Ok(Err(why)),
    };
    let mut failed = None;
    let end = log.read(|mtr| {
        // Only type and length of an encrypted record can be trusted.
        if failed.is_none() && log.encrypted && has_pages(mtr) {
            failed = Some(Unknown::EncryptedRedo(mtr.start));
        } else if failed.is_none() {
            failed = pages.play(mtr)?.err();
        }
        Ok(())
    })?;
    Ok(match (failed, end) {
        (_, Err(bad)) => Err(bad.into()),
        (Some(why), _) => Err(why),
        (None, Ok(end)) => Ok((pages, end)),
    })
}

fn decide(stored: Option<StoredPosition>, prepared: Vec<StoredPosition>, binlog: bool) -> Recovered {
    let reached = follow_prepared(stored, prepared.clone());
    let after = |one: &StoredPosition| stored.is_none_or(|stored| one.state.seqno > stored.state.seqno);
    if binlog && prepared.iter().any(after) {
        return Recovered::Unknown(Unknown::BinlogDecides);
    }
    reached.map_or(Recovered::None, Recovered::Known)
}
