//! Less redo for the copy to replay: after a copy that took long, recovery is made to start at a newer checkpoint.
//!
//! # What is done
//! The copy starts at the server's checkpoint C1. The tail notes every page that a mini-transaction changes
//! ([`Dirty`]). After a pass over the files we read the server's newest checkpoint C2 from its log, read again every
//! page that redo in [C1, C2) changes, and let recovery start at C2: the flat log's checkpoint block names C2, and
//! what lies below is told to the sink as a hole. This is repeated while it makes the rest much smaller.
//!
//! # Why it is right
//! - A checkpoint is written to the log only after every page with a change below its LSN has been written to its
//!   data file, and the file was synced (buf0flu.cc `log_checkpoint`, MariaDB 10.11). The write is complete
//!   then, so a direct read sees it, and so does a buffered one: a direct write drops the cached blocks. So a page
//!   read *after* C2 was seen holds every change below C2; one the server is writing meanwhile holds newer ones as
//!   well, which recovery skips by the page's LSN. Torn reads are read again as ever.
//! - A page read *before* may lack some. It is in the account: the tail has delivered everything below C2, for we
//!   wait until the FILE_CHECKPOINT record of C2 came by, which lies above C2.
//! - **Every kind of record counts.** Changed, initialised and freed pages alike. A cut tablespace (`TRIM_PAGES`, undo
//!   truncation) is read whole. A mini-transaction that cannot be read to its end switches rounds off, and so does an
//!   encrypted log: what it says of pages is not relied upon.
//! - **Lengths.** The copy of a file is as long as the file was *after* its pages were read, never shorter than its
//!   first page says, since a file grows before its first page tells so. Where the file is longer than the copy was,
//!   all of the difference is written, zeros too: bytes there may be from before a cut. Where it is shorter, the
//!   manifest's size cuts the copy; what grows later is written whole in turn, or is recovery's, which extends with
//!   zeros. A cut above C2 is replayed.
//! - **A file without a first page** when it was copied relied on redo to make it: it is read whole.
//! - **Files made** since C1 and not copied yet are read after C2 was seen, as all new files.
//! - **Names.** A file is found by its newest listing and must be the same file (identity, tablespace). One that
//!   cannot be found after a few listings is dropped, or was missed while it was renamed: its copy is renounced, and
//!   if it turns up again it is copied as a new file. So a stale copy never counts. Recovery does not replay renames
//!   and deletions below C2, and need not: the final listing has the final names, and the records at C2's
//!   FILE_CHECKPOINT name all files as they were called at C2.
//! - **IMPORT** writes without redo. Deletions of a tablespace number are remembered from C1 on whatever the
//!   checkpoint is, so that `check_events` declines as without rounds. Numbers are used again by nothing else but undo
//!   truncation.
//! - **The system tablespace's files** share their number; each takes the pages from its first one on.
//!
//! # Memory
//! Of the whole source, whatever the size: 16 MB of redo in the spool and a chunk (1 MiB as a rule), 1 MiB in the
//! tail and as much unparsed, 24 MB for [`Dirty`], a buffer of 1 MiB for each of at most 16 threads, and about 600
//! bytes a file in the catalog and the listing beside it (2 x 20 MB for 33,000 files): 100 MB. A mini-transaction may
//! take 32 MB by the format's limit; a server writes few above 1 MiB.
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use formats::Lsn;
use formats::innodb::redo_header::Checkpoint;
use protocol::inventory::FileId;

use super::catalog::{Catalog, Known};
use super::dirty::Dirty;
use super::listing::{self, Care, Roots};
use super::log_file::LogFile;
use super::login::Login;
use super::redo_out::{REDO, RedoOut};
use super::reread::{self, Copy};
use super::sql::Session;
use crate::cancel::Cancel;
use crate::source::copy::files::CopyFiles;

/// Rounds at most.
const ROUNDS_MAX: u32 = 8;
/// Listings in which a file is looked for.
const LISTINGS: u32 = 3;
/// How long the tail may take to the record of a checkpoint that was seen.
const TAIL_PATIENCE: Duration = Duration::from_secs(60);
/// How long the server may take to write a checkpoint.
const CHECKPOINT_PATIENCE: Duration = Duration::from_secs(120);
/// How often the log's head is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(20);

/// What rounds came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Newer checkpoints that were taken.
    pub rounds: u32,
    /// Bytes of data files that were read again.
    pub reread: u64,
    /// Bytes of redo that recovery need not replay for it.
    pub dropped: u64,
}

/// Everything rounds need.
pub struct Rounds<'a> {
    /// For statements.
    pub observer: &'a mut Session,
    /// For a checkpoint.
    pub login: &'a Login,
    /// Where files are.
    pub roots: &'a Roots,
    /// Reads files.
    pub copy: &'a CopyFiles<'a>,
    /// Which pages changed.
    pub dirty: &'a Dirty,
    /// Told where recovery starts.
    pub out: &'a RedoOut,
    /// Bytes of redo that are few enough.
    pub enough: u64,
    /// Ends the transfer.
    pub cancel: &'a Cancel,
}

impl Rounds<'_> {
    /// Takes newer checkpoints while that makes the redo much less.
    ///
    /// # Errors
    /// From the system, the sink, or cancelled.
    pub fn run(mut self, catalog: &mut Catalog) -> Result<Figures> {
        let mut figures = Figures::default();
        while figures.rounds < ROUNDS_MAX {
            let from = self.out.from().lsn;
            let left = self.dirty.noted().0.saturating_sub(from.0);
            if left <= self.enough {
                break;
            }
            if self.dirty.is_blind() {
                tracing::info!("all redo is kept: a record in it is not understood");
                break;
            }
            let Some(newer) = self.newer_checkpoint(from)? else { break };
            self.dirty.cut();
            let hole = self.out.start_at(newer);
            self.copy.copier.sink.drop_redo(REDO, hole)?;
            let reread = self.refresh(catalog, newer.lsn)?;
            self.dirty.forget(newer.lsn);
            figures.rounds += 1;
            figures.reread += reread;
            figures.dropped += newer.lsn.0 - from.0;
            let now = self.dirty.noted().0.saturating_sub(newer.lsn.0);
            tracing::info!(
                "recovery starts at LSN {} now: {left} bytes of redo became {now}, {reread} bytes read again",
                newer.lsn
            );
            if now > left / 4 * 3 {
                break;
            }
        }
        Ok(figures)
    }

    /// One above `from` whose record the tail has passed.
    fn newer_checkpoint(&mut self, from: Lsn) -> Result<Option<Checkpoint>> {
        let log = &self.roots.redo_log();
        let target = self.dirty.noted();
        self.dirty.cut();
        let mut newest = LogFile::open(log)?.checkpoint;
        if target.0.saturating_sub(newest.lsn.0) > self.enough {
            make_checkpoint(self.login, self.observer, log, target, self.cancel)?;
            newest = LogFile::open(log)?.checkpoint;
        }
        if newest.lsn <= from {
            return Ok(None);
        }
        let began = Instant::now();
        while !self.dirty.passed(&newest) {
            if began.elapsed() > TAIL_PATIENCE {
                tracing::info!(
                    "all redo is kept: it is not yet followed to the checkpoint at {}",
                    newest.lsn
                );
                return Ok(None);
            }
            (self.copy.copier.pace)()?;
            self.cancel.sleep(LOOK)?;
        }
        Ok(Some(newest))
    }

    /// Reads again what redo below `below` changes. Answers the bytes read.
    fn refresh(&mut self, catalog: &mut Catalog, below: Lsn) -> Result<u64> {
        let mut read = 0;
        let mut left: Option<Vec<FileId>> = None;
        for _ in 0..LISTINGS {
            catalog.update(listing::list(self.roots)?);
            renounce(catalog, |file| !file.present);
            let is_copy = |f: &&Known| f.present && is_copy(f);
            let there = catalog.files().iter().filter(is_copy).map(|f| f.id);
            let todo = there.filter(|id| left.as_ref().is_none_or(|left| left.contains(id)));
            let mut missed = Vec::new();
            for id in todo.collect::<Vec<_>>() {
                match self.refresh_one(catalog, id, below)? {
                    Some(bytes) => read += bytes,
                    None => missed.push(id),
                }
            }
            let done = missed.is_empty();
            left = Some(missed);
            if done {
                break;
            }
        }
        let missed = left.unwrap_or_default();
        renounce(catalog, |file| missed.contains(&file.id));
        Ok(read)
    }

    /// `None` when the file was not there.
    fn refresh_one(&self, catalog: &mut Catalog, id: FileId, below: Lsn) -> Result<Option<u64>> {
        let Some((file, bytes)) = catalog.get(id).and_then(|file| Some((file, file.copied?))) else {
            return Ok(Some(0));
        };
        if file.space.is_some_and(|space| !self.dirty.touches(space, below)) {
            return Ok(Some(0));
        }
        let copy = Copy { wanted: self.copy.known(file)?, space: file.space, bytes };
        let mut damage = Vec::new();
        let fresh = reread::refresh(self.copy.copier, &copy, self.dirty, below, &mut damage)?;
        self.copy.note(damage)?;
        Ok(fresh.map(|fresh| {
            catalog.copied(id, Some(fresh.bytes), None, fresh.space);
            if fresh.first_lsn.is_some() {
                catalog.first_page(id, fresh.first_lsn);
            }
            if let Some(head) = fresh.head {
                catalog.head(id, head);
            }
            fresh.read
        }))
    }
}

fn is_copy(file: &Known) -> bool {
    file.listed.care == Care::Pages && file.copied.is_some()
}

fn renounce(catalog: &mut Catalog, which: impl Fn(&Known) -> bool) {
    let ids: Vec<_> = catalog.files().iter().filter(|f| is_copy(f) && which(f)).map(|f| f.id).collect();
    ids.into_iter().for_each(|id| catalog.renounce(id));
}

/// Has the server write a checkpoint at or above `target`. In a session of its own, which is ended then: under load
/// the server's end of the log runs ahead of its checkpoints, and the statement tries again and again (`checkpoint_now_set`,
/// handler/ha_innodb.cc, MariaDB 10.11). That it may not, or does not in time, is said and harmless.
///
/// # Errors
/// From the system, or cancelled.
pub fn make_checkpoint(
    login: &Login,
    observer: &mut Session,
    log: &Path,
    target: Lsn,
    cancel: &Cancel,
) -> Result<()> {
    let began = Instant::now();
    let mut session = Session::open(login, CHECKPOINT_PATIENCE)?;
    let id = session.id();
    std::thread::scope(|scope| {
        let asked = scope.spawn(move || session.checkpoint_now());
        let is_reached = || -> Result<bool> {
            cancel.sleep(LOOK)?;
            Ok(LogFile::open(log)?.checkpoint.lsn >= target)
        };
        let mut reached = Ok(false);
        while !asked.is_finished() && matches!(reached, Ok(false)) && began.elapsed() < CHECKPOINT_PATIENCE {
            reached = is_reached();
        }
        if !asked.is_finished()
            && let Err(e) = observer.kill(id)
        {
            tracing::debug!("the session that makes a checkpoint cannot be ended: {e}");
        }
        match asked.join() {
            Ok(Err(e)) if !e.is_lost() => tracing::info!("no checkpoint was made: {e}"),
            _ => tracing::info!("a checkpoint took {:.1} s", began.elapsed().as_secs_f64()),
        }
        reached.map(drop)
    })
}
