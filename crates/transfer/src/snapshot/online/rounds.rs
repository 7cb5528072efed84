//! Moves the start of recovery to a newer checkpoint than the one at which the copy began, so that less redo is sent
//! and replayed.
//!
//! # What is done
//! The copy starts at the server's checkpoint C1. The tail notes every page that a mini-transaction changes
//! ([`Dirty`]), and the redo waits in the spool. Newer checkpoints C2 are noted as they appear in the head of the log
//! ([`Checkpoints`]). After a pass over the files, every page that redo in [C1, C2) changes and that was read before C2
//! was seen is read again, and recovery is moved to C2: the checkpoint block of the flat log names C2, and redo below
//! it is not sent. This is repeated while the estimate says that it pays.
//!
//! # Why it is right
//! - A checkpoint is written to the log only after every page with a change below its LSN has been written to its data
//!   file and the file was synced (buf0flu.cc `log_checkpoint`, MariaDB 10.11). A direct read sees that write, and so
//!   does a buffered one, because a direct write drops the cached blocks. So a page read *after* C2 was seen holds
//!   every change below C2. It may hold newer changes as well, which recovery skips by the page's LSN. Torn reads are
//!   repeated as always.
//! - **The checkpoint is noted before the read.** Before a part of a file is given to a thread, the newest checkpoint
//!   seen so far is noted for it (`Freshness`). Parts of a file are given out in order, so this holds for all later
//!   parts.
//! - A page read *before* C2 was seen may lack changes. [`Dirty`] contains it: the tail has delivered everything below
//!   C2, because we wait until it has read the FILE_CHECKPOINT record of C2, which lies above C2.
//! - **Every kind of record counts:** changed, initialised and freed pages. A truncated tablespace (`TRIM_PAGES`, undo
//!   truncation) is read whole. A mini-transaction that cannot be parsed to its end disables rounds, and so does an
//!   encrypted log, because its page numbers are not relied upon.
//! - **Lengths.** The copy of a file is as long as the file was *after* its pages were read, and never shorter than its
//!   first page says, because a file grows before its first page says so. If the file is longer than the copy was, the
//!   whole difference is written, zeros too, because the copy may hold bytes there from before a truncation. If it is
//!   shorter, the size in the manifest truncates the copy. Pages added later are written in full by a later round, or
//!   left to recovery, which extends the file with zeros. A truncation above C2 is replayed.
//! - **A file without a first page** when it was copied relied on redo to create it, so it is read whole.
//! - **Files created** since C1 and not copied yet are read after C2 was seen, like all new files.
//! - **Names.** A file is found by its newest listing and must be the same file (identity, tablespace). If several
//!   listings do not find it, it was dropped, or was missed while it was renamed: its copy is discarded, and if it
//!   appears again it is copied as a new file. So a stale copy is never used. Recovery does not replay renames and
//!   deletions below C2, and need not: the final listing has the final names, and the records at C2's FILE_CHECKPOINT
//!   name all files as they were called at C2.
//! - **IMPORT** writes without redo. Deletions of a tablespace number are remembered from C1 on, whatever the
//!   checkpoint is, so that `Checks::events` declines as it would without rounds. Only undo truncation uses a number
//!   again.
//! - **The files of the system tablespace** share one number; each file takes the pages from its own first page on.
//!
//! # Memory
//! The whole snapshot takes, whatever the size of the data: 16 MB of redo in the spool and one chunk (usually 1 MiB), 1
//! MiB in the tail and as much that is not parsed yet, 24 MB for [`Dirty`], and a buffer of 1 MiB for each of at most
//! 16 threads. The catalog of files comes on top (docs/figures.md gives the memory of the program by number of tables).
//! A mini-transaction may take 32 MB by the format's limit; a server writes few above 1 MiB.
use std::time::{Duration, Instant};

use anyhow::Result;
use formats::Lsn;
use formats::innodb::redo_header::Checkpoint;
use protocol::inventory::FileId;

use super::catalog::{Catalog, Known};
use super::checkpoints::Checkpoints;
use super::copying::AT_ONCE;
use super::dirty::Dirty;
use super::estimate::{Again, Prices, Redo, pays};
use super::lister::Lister;
use super::listing::Care;
use super::redo_out::{REDO, RedoOut};
use super::reread::{self, Copy};
use crate::cancel::Cancel;
use crate::human::size;
use crate::snapshot::copy::files::CopyFiles;
use crate::snapshot::copy::page_file::Damage;
use crate::threads::{Thread, each_in_threads};

/// Maximum number of rounds.
const ROUNDS_MAX: u32 = 8;
/// Number of listings in which a missing file is looked for.
const LISTINGS: u32 = 3;
/// How long the tail may take to read the record of a checkpoint that was seen.
const TAIL_PATIENCE: Duration = Duration::from_secs(10);
/// How long the server may take for a checkpoint that is requested between rounds, at most and at least. Within these bounds it may
/// take as long as the checkpoint saves.
const ASKED_PATIENCE: Duration = Duration::from_secs(120);
const ASKED_LEAST: Duration = Duration::from_secs(1);

/// What the rounds saved, and what they cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Newer checkpoints that recovery was moved to.
    pub rounds: u32,
    /// Bytes of data files that were read again.
    pub reread: u64,
    /// Bytes of redo that need not be replayed.
    pub dropped: u64,
}

/// When recovery is moved to a newer checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// If the estimate says that it pays.
    AsItPays,
    /// Whenever there is a newer one; at least one is requested.
    Always,
    /// Never.
    Never,
}

/// What the rounds need.
pub struct Rounds<'a, 'r> {
    /// When recovery is moved.
    pub policy: Policy,
    /// The server's checkpoints.
    pub checkpoints: &'a Checkpoints<'a>,
    /// Finds files that were renamed, and those that are gone.
    pub lister: &'a mut Lister<'r>,
    /// Reads files.
    pub copy: &'a CopyFiles<'a>,
    /// Which pages the redo changes.
    pub dirty: &'a Dirty,
    /// Is told where recovery starts.
    pub out: &'a RedoOut,
    /// Bytes per page.
    pub page_size: u32,
    /// The server may be asked for checkpoints; otherwise only those that it makes by itself are used.
    pub asks: bool,
    /// Ends the transfer.
    pub cancel: &'a Cancel,
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// All redo is sent.
    Stay,
    /// Recovery is moved to this checkpoint.
    Take(Checkpoint),
    /// The server is asked for a checkpoint, which saves this much time.
    Ask(Duration),
}

impl Rounds<'_, '_> {
    /// Takes newer checkpoints while that pays.
    ///
    /// # Errors
    /// From the system, the sink, or cancelled.
    pub fn run(mut self, catalog: &mut Catalog) -> Result<Figures> {
        let mut figures = Figures::default();
        let mut asked = !self.asks;
        self.out.fix(false);
        while figures.rounds < ROUNDS_MAX {
            self.checkpoints.catch_up(TAIL_PATIENCE)?;
            match self.choose(catalog, asked) {
                Next::Stay => break,
                Next::Ask(saved) => {
                    asked = true;
                    // Waiting longer than that costs more than it saves. A checkpoint that comes too late is of no use here.
                    self.checkpoints.request(saved.max(ASKED_LEAST), saved)?;
                }
                Next::Take(newer) => self.take(catalog, newer, &mut figures)?,
            }
        }
        // From here on the start of recovery is fixed. If it was moved because the spool was full, the pages are read
        // again now.
        self.out.fix(true);
        if self.out.owed().is_some() {
            let from = self.out.from();
            self.take(catalog, from, &mut figures)?;
        }
        Ok(figures)
    }

    fn choose(&self, catalog: &Catalog, asked: bool) -> Next {
        let (prices, from) = (self.checkpoints.prices(), self.out.from().lsn);
        let usable = self.checkpoints.usable(from);
        match (self.policy, usable.last()) {
            (Policy::Never, _) => return Next::Stay,
            (Policy::Always, _) if !asked => return Next::Ask(ASKED_PATIENCE),
            (Policy::Always, Some(newest)) => return Next::Take(*newest),
            (Policy::Always, None) => return Next::Stay,
            (Policy::AsItPays, _) => {}
        }
        // Pages that must be read again anyway are part of the cost of every choice.
        let owed = self.out.owed().map(|lsn| self.again(catalog, lsn));
        let redo = self.checkpoints.redo_from(from);
        self.checkpoints.backlog().note(redo.bytes, Instant::now());
        let stay = owed.map_or_else(|| prices.redo(redo), |again| prices.round(again, redo));
        let mut best = (stay, Next::Stay);
        for newer in usable {
            let again = self.again(catalog, newer.lsn);
            let cost = prices.round(again, self.checkpoints.redo_from(newer.lsn));
            if cost < best.0 {
                best = (cost, Next::Take(newer));
            }
        }
        if !asked && !self.dirty.is_blind() {
            let newest =
                self.checkpoints.redo_from(self.checkpoints.usable(Lsn(0)).last().map_or(from, |c| c.lsn));
            let again = self.again(catalog, self.dirty.noted());
            // A checkpoint that the server is already making costs nothing more.
            let making = if self.checkpoints.is_asking() { 0.0 } else { prices.checkpoint(newest.touched) };
            let cost = making + prices.round(again, Redo::default());
            if pays(best.0, cost) {
                let saved = Duration::from_secs_f64((best.0 - cost).min(ASKED_PATIENCE.as_secs_f64()));
                best = (cost, Next::Ask(saved));
            }
        }
        tracing::debug!("redo: {redo:?} would take {stay:.2} s, best is {:?} with {:.2} s", best.1, best.0);
        let asks = matches!(best.1, Next::Ask(_));
        if asks || pays(stay, best.0) { best.1 } else { self.stay(prices, redo) }
    }

    /// All redo is sent. If redo is written faster than it can be sent, both hosts are told the consequence.
    fn stay(&self, prices: Prices, redo: Redo) -> Next {
        if let Some(words) = self.checkpoints.backlog().in_words(prices, redo.bytes, Instant::now()) {
            self.copy.copier.sink.tell(&words);
        }
        Next::Stay
    }

    /// What would be read and sent again if recovery started at `below`.
    fn again(&self, catalog: &Catalog, below: Lsn) -> Again {
        let mut again = Again::default();
        for file in catalog.files().iter().filter(|file| file.present && is_copy(file)) {
            let stale = file.stale(below).min(file.copied().unwrap_or(0));
            if stale == 0 {
                continue;
            }
            let page = u64::from(self.page_size);
            let pages = 0..stale.div_ceil(page).min(u64::from(u32::MAX)) as u32;
            let bytes = match file.space().and_then(|space| self.dirty.count(space, below, &pages)) {
                Some(pages) => pages * page,
                None => file.copied().unwrap_or(0),
            };
            again.bytes += bytes;
            again.files += u64::from(bytes > 0);
        }
        again
    }

    fn take(&mut self, catalog: &mut Catalog, newer: Checkpoint, figures: &mut Figures) -> Result<()> {
        let from = self.out.from().lsn;
        let left = self.dirty.noted().0.saturating_sub(from.0);
        self.dirty.cut();
        if let Some(hole) = self.out.start_at(newer) {
            self.copy.copier.sink.drop_redo(REDO, hole)?;
        }
        self.copy.copier.sink.more(self.again(catalog, newer.lsn).bytes);
        let reread = self.refresh(catalog, newer.lsn)?;
        self.out.is_fresh(newer.lsn);
        self.dirty.forget(newer.lsn);
        figures.rounds += 1;
        figures.reread += reread;
        figures.dropped += newer.lsn.0 - from.0;
        let now = self.dirty.noted().0.saturating_sub(newer.lsn.0);
        tracing::info!(
            "recovery now starts at LSN {}: {} of redo to replay became {}, and {} of pages were read again",
            newer.lsn,
            size(left),
            size(now),
            size(reread)
        );
        Ok(())
    }

    /// Reads again the pages that redo below `below` changes. Returns the bytes read.
    fn refresh(&mut self, catalog: &mut Catalog, below: Lsn) -> Result<u64> {
        let mut read = 0;
        let mut left: Option<Vec<FileId>> = None;
        for _ in 0..LISTINGS {
            // What is new stays to be copied by the next pass.
            self.lister.refresh(catalog)?;
            discard(catalog, |file| !file.present);
            let is_copy = |f: &&Known| f.present && is_copy(f);
            let there = catalog.files().iter().filter(is_copy).map(|f| f.id);
            let todo = there.filter(|id| left.as_ref().is_none_or(|left| left.contains(id)));
            let todo: Vec<_> = todo.collect();
            let (bytes, missed) = self.refresh_all(catalog, &todo, below)?;
            read += bytes;
            let done = missed.is_empty();
            left = Some(missed);
            if done {
                break;
            }
        }
        let missed = left.unwrap_or_default();
        discard(catalog, |file| missed.contains(&file.id));
        Ok(read)
    }

    /// Returns the bytes read, and the files that were not found.
    fn refresh_all(&self, catalog: &mut Catalog, ids: &[FileId], below: Lsn) -> Result<(u64, Vec<FileId>)> {
        let (mut read, mut missed) = (0, Vec::new());
        for some in ids.chunks(AT_ONCE) {
            let (bytes, gone) = self.refresh_some(catalog, some, below)?;
            read += bytes;
            missed.extend(gone);
        }
        Ok((read, missed))
    }

    fn refresh_some(&self, catalog: &mut Catalog, ids: &[FileId], below: Lsn) -> Result<(u64, Vec<FileId>)> {
        let (mut small, mut large) = (Vec::new(), Vec::new());
        for file in ids.iter().filter_map(|id| catalog.get(*id)) {
            let (Some(bytes), stale) = (file.copied(), file.stale(below)) else { continue };
            if stale == 0 || file.space().is_some_and(|space| !self.dirty.touches(space, below)) {
                continue;
            }
            let copy = Copy { wanted: self.copy.known(file)?, space: file.space(), bytes, stale };
            if bytes > reread::ALONE { large.push(copy) } else { small.push(copy) }
        }
        // Several small files are read at a time; a large one is read in several parts.
        let one = |copy: Copy| {
            let mut damage = Vec::new();
            let fresh = reread::refresh(self.copy.copier, &copy, self.dirty, below, &mut damage)?;
            Ok((copy.wanted.entry.id, fresh, damage))
        };
        let mut done: Vec<(FileId, Option<reread::Fresh>, Vec<Damage>)> =
            each_in_threads(Thread::PageRereader, self.copy.copier.threads, small, &one)?;
        for copy in large {
            done.push(one(copy)?);
        }
        let (mut read, mut missed) = (0, Vec::new());
        for (id, fresh, damage) in done {
            self.copy.note(damage)?;
            let Some(fresh) = fresh else {
                missed.push(id);
                continue;
            };
            read += fresh.read;
            catalog.copied(id, Some(fresh.bytes), None, fresh.space);
            catalog.fresh(id, vec![(below, 0)]);
            if fresh.first_lsn.is_some() {
                catalog.first_page(id, fresh.first_lsn);
            }
            if let Some(head) = fresh.head {
                catalog.head(id, head);
            }
        }
        Ok((read, missed))
    }
}

fn is_copy(file: &Known) -> bool {
    file.care == Care::Pages && file.copied().is_some()
}

fn discard(catalog: &mut Catalog, which: impl Fn(&Known) -> bool) {
    let ids: Vec<_> = catalog.files().iter().filter(|f| is_copy(f) && which(f)).map(|f| f.id).collect();
    ids.into_iter().for_each(|id| catalog.discard(id));
}
