//! The position that InnoDB's crash recovery will show, from files alone.
//!
//! Each commit writes the position into a rollback segment header, and the files hold what the last checkpoint left. So
//! redo is played, in memory, on the pages that matter. A transaction that was prepared when the server ended has its
//! position in its undo log: a server without a binary log commits it during its recovery, one with a binary log asks
//! that.
//!
//! The answer is right or "unknown", never a guess. It is held against `--wsrep-recover` of killed servers
//! (crates/lab/tests/position.rs) and against what the native source notes (the `native_rounds` example).
use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Result;
pub use formats::innodb::redo_page::Gap;
use formats::innodb::undo_header::follow_prepared;
use formats::innodb::wsrep_position::StoredPosition;
use formats::mariadb::file_kind::{FileKind, top_level};
use formats::{Lsn, PageNo, SpaceId};

use super::layout::Layout;
use super::page_files::PageFiles;
use super::played_pages::{Id, PlayedPages};
pub use super::redo_file::{BadLog, changes_pages};
use super::redo_file::{RedoFile, has_pages};
use super::walk::{entries, file_name};

/// Times the log is read. Once nearly always; see [`super::played_pages`].
const READS_MAX: usize = 3;

/// The files of an InnoDB instance that hold its position, whatever their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InnodbFiles {
    /// Files of the system tablespace, in order.
    pub system: Vec<PathBuf>,
    /// Undo tablespaces, in any order.
    pub undo: Vec<PathBuf>,
    /// The redo log: `ib_logfile0` of 10.8 or later, or a flat one made by a snapshot.
    pub redo: PathBuf,
    /// A binary log is there, which a server asks what to do with prepared transactions.
    pub binlog: bool,
}

impl InnodbFiles {
    /// Of a node whose server is down.
    ///
    /// # Errors
    /// The undo directory cannot be read.
    pub fn of(layout: &Layout) -> Result<InnodbFiles> {
        let undo = entries(&layout.undo_dir)?.into_iter().map(|entry| entry.path());
        Ok(InnodbFiles {
            system: layout.system_files.iter().map(|file| file.path.clone()).collect(),
            undo: undo.filter(|path| top_level(file_name(path)) == FileKind::Undo).collect(),
            redo: layout.log_home.join("ib_logfile0"),
            binlog: layout.binlog.is_some(),
        })
    }
}

/// What recovery will show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// This position.
    Known(StoredPosition),
    /// No position: the node was never in a cluster.
    None,
    /// It cannot be told.
    Unknown(Unknown),
}

/// Why a position cannot be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// The system tablespace is not there, or its first page does not read.
    #[error("the system tablespace has no readable first page")]
    NoSystemTablespace,
    /// The redo log.
    #[error(transparent)]
    Log(#[from] BadLog),
    /// The redo is encrypted, and changes pages from this LSN on.
    #[error("the redo log is encrypted, and changes pages from LSN {0} on")]
    EncryptedRedo(Lsn),
    /// A record that is none.
    #[error("a redo record in the mini-transaction at LSN {0} is not understood")]
    BadRecord(Lsn),
    /// A page that counts has no known content.
    #[error("page {page} of tablespace {space} {1}", space = .0.0, page = .0.1)]
    Page((SpaceId, PageNo), Gap),
    /// A page was changed after the log's end: they do not belong together.
    #[error("page {page} of tablespace {space} is newer than the end of the redo log at LSN {1}", space = .0.0, page = .0.1)]
    PageAhead((SpaceId, PageNo), Lsn),
    /// More undo logs than are looked at.
    #[error("{0} pages of undo logs would have to be followed")]
    TooManyUndoLogs(usize),
    /// The pages that count kept changing.
    #[error("the redo log names rollback segments that were never made")]
    NeverMade,
    /// Prepared by a user's XA transaction, or outside the cluster.
    #[error("a transaction that is none of the cluster's was prepared when the server ended")]
    PreparedElsewhere,
    /// The server will ask its binary log.
    #[error("transactions were prepared when the server ended, and its binary log decides on them")]
    BinlogDecides,
}

/// The position that a server will recover from these files. No server may have them open.
///
/// Reads the redo log once, a window at a time, and a few pages.
///
/// # Errors
/// A file is there and cannot be read.
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
        // Of an encrypted record only type and length can be trusted.
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
