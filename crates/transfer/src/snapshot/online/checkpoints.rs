//! The server's checkpoints while files are copied: which ones exist, when one is requested, and which pages are better
//! read later.
//!
//! A thread watches the head of the log. It asks the server for a checkpoint when the estimate ([`super::estimate`])
//! says that the redo since the last one costs more: early in the copy, and again when the copy is nearly done. Until
//! the requested checkpoint is there, pages that it will write are held back, because they would have to be copied
//! twice, but no longer than that saves. When the spool is nearly full, recovery is moved to a newer checkpoint at
//! once. A server that is strained is not asked: what the redo costs instead is the transfer's time.
mod asking;
mod due;
mod telling;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::Result;
use formats::innodb::redo_header::Checkpoint;
use formats::{Lsn, SpaceId};

use super::backlog::Backlog;
use super::dirty::Dirty;
use super::estimate::{Prices, Redo};
use super::holding::OldRedo;
use super::log_file::LogFile;
use super::redo_out::{REDO, RedoOut};
use super::spool::Spool;
use super::stall::Stall;
use super::tail::TailState;
use crate::cancel::Cancel;
use crate::human::size;
use crate::snapshot::copy::pages;
use crate::snapshot::sink::SnapshotSink;
use crate::sql::Login;
use crate::threads::lock;

/// How often the head of the log is read.
const LOOK: Duration = Duration::from_millis(20);
/// How often the estimate is renewed.
const ESTIMATE_EVERY: Duration = Duration::from_millis(200);
/// How long pages may be held back until the first estimate is made. It is made at once, but the login may be slow.
const DECIDED_WITHIN: Duration = Duration::from_millis(500);
/// Number of checkpoints that are remembered.
const SEEN_MAX: usize = 8;

/// The checkpoints that were seen, and the decision when to ask for one.
pub struct Checkpoints<'a> {
    log: PathBuf,
    login: &'a Login,
    dirty: &'a Dirty,
    tail: &'a TailState,
    out: &'a RedoOut,
    spool: &'a Spool,
    sink: &'a dyn SnapshotSink,
    /// Bytes of data files that were read.
    copied: &'a AtomicU64,
    cancel: &'a Cancel,
    /// Bytes per page.
    page_size: u32,
    /// LSN of the newest checkpoint that was seen.
    newest: AtomicU64,
    /// Pages are held back until a checkpoint at or above this LSN is seen.
    hold_for: AtomicU64,
    /// The first estimate is not made yet. Pages are held back until then, or a fast disk would already have read all
    /// of them.
    undecided: AtomicBool,
    stop: AtomicBool,
    began: Instant,
    began_at: Lsn,
    backlog: Mutex<Backlog>,
    stall: Mutex<Stall>,
    old_redo: OldRedo,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    seen: Vec<Checkpoint>,
    /// A caller is waiting for a checkpoint.
    wanted: bool,
    /// The server was asked and has not answered.
    asking: bool,
    hold_until: Instant,
    estimated: Instant,
    /// Both hosts were told that a checkpoint is not worth its cost.
    told: bool,
    /// Both hosts were told that the server is strained.
    told_of_strain: bool,
    /// Bytes that will have been read when the copy is complete.
    all: u64,
    copy_began: Instant,
    figures: Asked,
}

/// Checkpoints that the server was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// How many it made.
    pub made: u32,
    /// How long the last one took.
    pub took: Duration,
    /// The error for which no further one is requested.
    pub refused: Option<String>,
}

/// The copy that the checkpoints belong to, for [`Checkpoints::new`].
pub struct CopyContext<'a> {
    /// Path of the redo log.
    pub log: PathBuf,
    /// How to log in to the server.
    pub login: &'a Login,
    /// Which pages the redo changes.
    pub dirty: &'a Dirty,
    /// State of the thread that follows the redo log.
    pub tail: &'a TailState,
    /// Knows and changes where recovery starts.
    pub out: &'a RedoOut,
    /// Redo that waits to be sent.
    pub spool: &'a Spool,
    /// Receives the files and the redo.
    pub sink: &'a dyn SnapshotSink,
    /// Bytes of data files that were read.
    pub copied: &'a AtomicU64,
    /// Bytes per page.
    pub page_size: u32,
    /// Ends the transfer.
    pub cancel: &'a Cancel,
}

impl<'a> Checkpoints<'a> {
    /// `end`: LSN at which the log ends now.
    pub fn new(context: CopyContext<'a>, end: Lsn) -> Checkpoints<'a> {
        let CopyContext { log, login, dirty, tail, out, spool, sink, copied, page_size, cancel } = context;
        let now = Instant::now();
        let state = State {
            seen: Vec::new(),
            wanted: false,
            asking: false,
            hold_until: now,
            estimated: now - ESTIMATE_EVERY,
            told: false,
            told_of_strain: false,
            all: 0,
            copy_began: now,
            figures: Asked::default(),
        };
        Checkpoints {
            log,
            login,
            dirty,
            tail,
            out,
            spool,
            sink,
            copied,
            cancel,
            page_size,
            newest: AtomicU64::new(out.from().lsn.0),
            hold_for: AtomicU64::new(0),
            undecided: AtomicBool::new(true),
            stop: AtomicBool::new(false),
            began: now,
            began_at: end,
            backlog: Mutex::new(Backlog::new(now)),
            stall: Mutex::default(),
            old_redo: OldRedo::new(now, out.from().lsn, end),
            state: Mutex::new(state),
        }
    }

    /// The loop of the watching thread, until [`Checkpoints::stop`].
    ///
    /// # Errors
    /// From the sink.
    pub fn watch(&self) -> Result<()> {
        while !self.stop.load(Ordering::Acquire) && self.cancel.check().is_ok() {
            self.look();
            self.make_room()?;
            let due = self.is_due();
            if let Some(why) = &due {
                self.ask(why);
            }
            // Until the tail has read the redo that existed at the start, the estimate is too low to rule a checkpoint
            // out.
            if due.is_some() || self.dirty.noted() >= self.began_at {
                self.undecided.store(false, Ordering::Release);
            }
            self.tell_redo();
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// This many bytes of files are about to be copied.
    pub fn expect(&self, bytes: u64) {
        let mut state = self.lock();
        state.all = self.copied.load(Ordering::Relaxed) + bytes;
        state.copy_began = Instant::now();
    }

    /// Checkpoints that the server was asked for.
    pub fn asked(&self) -> Asked {
        self.lock().figures.clone()
    }

    /// The current speed of the link, the limit, the rate at which redo is written, and what is known of the joiner's disk.
    pub fn prices(&self) -> Prices {
        let rate = self.sink.rate();
        let written = self.tail.current().0.saturating_sub(self.began_at.0) as f64;
        let written = written / self.began.elapsed().as_secs_f64().max(0.1);
        Prices::new(rate.link, rate.limit, written).reading_at(rate.reading).recovering_at(rate.page_time)
    }

    /// The redo that waits, from estimate to estimate.
    pub fn backlog(&self) -> MutexGuard<'_, Backlog> {
        lock(&self.backlog)
    }

    /// True while the server is working on a requested checkpoint.
    pub fn is_asking(&self) -> bool {
        self.lock().asking
    }

    /// The redo that would be replayed if recovery started at this LSN.
    pub fn redo_from(&self, lsn: Lsn) -> Redo {
        let bytes = self.dirty.noted().0.saturating_sub(lsn.0);
        Redo { bytes, touched: self.dirty.touched(lsn) }
    }

    /// Checkpoints at which recovery may start: newer than `from`, and with a record that the tail has read.
    pub fn usable(&self, from: Lsn) -> Vec<Checkpoint> {
        if self.dirty.is_blind() {
            return Vec::new();
        }
        let seen = self.lock().seen.clone();
        seen.into_iter().filter(|c| c.lsn > from && self.dirty.passed(c)).collect()
    }

    /// Asks the server for a checkpoint and waits until it is usable or was refused, for `at_most`. A strained server is
    /// asked once it is calm if that is within `calm_within`, otherwise not at all.
    ///
    /// # Errors
    /// Cancelled.
    pub fn request(&self, at_most: Duration, calm_within: Duration) -> Result<()> {
        let began = Instant::now();
        let target = self.dirty.noted();
        let mut state = self.lock();
        let made = state.figures.made;
        state.wanted = !state.asking;
        drop(state);
        loop {
            self.cancel.sleep(LOOK)?;
            let newest = Lsn(self.newest.load(Ordering::Acquire));
            let mut state = self.lock();
            let given_up = state.wanted && began.elapsed() >= calm_within && self.sink.is_strained();
            let refused = state.figures.refused.is_some() || began.elapsed() > at_most;
            // It is usable once the tail has read its record.
            let usable = state.seen.last().is_none_or(|c| c.lsn == newest && self.dirty.passed(c));
            if given_up || refused || (newest >= target || state.figures.made > made) && usable {
                state.wanted = false;
                return Ok(());
            }
        }
    }

    /// Waits until the tail has read the record of the newest checkpoint seen, for `at_most`. All redo up to there is
    /// read in any case.
    ///
    /// # Errors
    /// Cancelled.
    pub fn catch_up(&self, at_most: Duration) -> Result<()> {
        let until = Instant::now() + at_most;
        let newest = self.lock().seen.last().copied();
        while newest.is_some_and(|newest| !self.dirty.passed(&newest)) && Instant::now() < until {
            self.cancel.sleep(LOOK)?;
        }
        Ok(())
    }

    fn look(&self) {
        match LogFile::open(&self.log) {
            Ok(log) => self.note(log.checkpoint),
            Err(e) => tracing::debug!("the log's head is not read: {e:#}"),
        }
    }

    fn note(&self, checkpoint: Checkpoint) {
        if checkpoint.lsn.0 <= self.newest.load(Ordering::Acquire) {
            return;
        }
        // Changes noted from now on are mostly above this checkpoint.
        self.dirty.cut();
        let mut state = self.lock();
        if state.seen.len() >= SEEN_MAX {
            // Keep every second one: the newest, and some older ones.
            let mut at = 0;
            state.seen.retain(|_| {
                at += 1;
                at % 2 == 0
            });
        }
        state.seen.push(checkpoint);
        drop(state);
        self.newest.store(checkpoint.lsn.0, Ordering::Release);
    }

    /// When the spool is nearly full, moves recovery to the newest checkpoint. The pages that the dropped redo changes
    /// are read again when the copy is complete.
    fn make_room(&self) -> Result<()> {
        if !self.spool.is_nearly_full() {
            return Ok(());
        }
        let Some(newest) = self.usable(self.out.from().lsn).pop() else { return Ok(()) };
        let before = self.spool.waiting();
        if let Some(hole) = self.out.make_room(newest) {
            self.sink.drop_redo(REDO, hole)?;
        }
        let dropped = before.saturating_sub(self.spool.waiting());
        if dropped > 0 {
            tracing::info!(
                "the queue of redo is nearly full, so {} below the server's newer checkpoint at LSN {} are not sent; the pages \
                 that they change are read again later",
                size(dropped),
                newest.lsn
            );
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl pages::Checkpoints for Checkpoints<'_> {
    fn seen(&self) -> Lsn {
        Lsn(self.newest.load(Ordering::Acquire))
    }

    fn is_holding(&self) -> bool {
        if self.undecided.load(Ordering::Acquire) && self.began.elapsed() < DECIDED_WITHIN {
            return true;
        }
        let target = self.hold_for.load(Ordering::Acquire);
        target > self.newest.load(Ordering::Acquire) && Instant::now() < self.lock().hold_until
    }

    fn hold(&self, space: SpaceId, pages: &Range<u32>) -> bool {
        let noted = self.dirty.noted();
        self.dirty.count(space, Lsn(u64::MAX), pages) != Some(0)
            || self.old_redo.is_waited_for(noted, Instant::now())
    }
}
