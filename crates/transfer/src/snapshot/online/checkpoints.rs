//! The server's checkpoints while files are copied: which there are, when one is asked for, and what is better read later.
//!
//! A thread of its own looks at the head of the log. It asks the server for a checkpoint when the estimate says that the redo
//! since the last one costs more ([`super::estimate`]): early in the copy, and again when it is nearly done. Until the one
//! that was asked for is there, pages that it will write are better not copied, or they would be copied twice; for no longer
//! than that saves. What nearly fills the spool makes recovery start at a newer checkpoint at once.
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::Result;
use formats::innodb::redo_header::Checkpoint;
use formats::{Lsn, SpaceId};

use super::dirty::Dirty;
use super::estimate::{Prices, Redo};
use super::holding::{Holding, worth_holding};
use super::log_file::LogFile;
use super::outlook::recovery_in_words;
use super::redo_out::{REDO, RedoOut};
use super::spool::Spool;
use super::sql_checks::grant_of;
use super::tail::TailState;
use crate::cancel::Cancel;
use crate::human::size;
use crate::snapshot::copy::pages;
use crate::snapshot::sink::SnapshotSink;
use crate::sql::Login;
use crate::sql::Session;
use crate::threads::{Thread, lock, scoped};

/// How often the log's head is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How often the estimate is made.
const ESTIMATE_EVERY: Duration = Duration::from_millis(200);
/// How long the first estimate may hold pages back: it is made at once, but a server may be slow to let us in.
const DECIDED_WITHIN: Duration = Duration::from_millis(500);
/// How long the server may take to write a checkpoint.
const CHECKPOINT_PATIENCE: Duration = Duration::from_secs(120);
/// Redo of which both hosts are told when nothing is done about it.
const WORTH_TELLING: u64 = 4 << 20;
/// Checkpoints that are remembered.
const SEEN_MAX: usize = 8;

/// Everything that is known of them.
pub struct Checkpoints<'a> {
    pub(super) log: PathBuf,
    pub(super) login: &'a Login,
    pub(super) dirty: &'a Dirty,
    pub(super) tail: &'a TailState,
    pub(super) out: &'a RedoOut,
    pub(super) spool: &'a Spool,
    pub(super) sink: &'a dyn SnapshotSink,
    /// Bytes of data files that were read.
    pub(super) copied: &'a AtomicU64,
    pub(super) cancel: &'a Cancel,
    /// Bytes of a page.
    page_size: u32,
    /// LSN of the newest one.
    newest: AtomicU64,
    /// Pages are held until a checkpoint at this LSN is there.
    hold_for: AtomicU64,
    /// The first estimate is not made yet: a fast disk would have given all pages until then.
    undecided: AtomicBool,
    stop: AtomicBool,
    began: Instant,
    began_at: Lsn,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    seen: Vec<Checkpoint>,
    /// Somebody waits for one.
    wanted: bool,
    /// The server was asked and has not answered.
    asking: bool,
    hold_until: Instant,
    estimated: Instant,
    /// Both hosts were told that none is worth it.
    told: bool,
    /// Bytes that will have been read when the copy is complete.
    all: u64,
    copy_began: Instant,
    figures: Asked,
}

/// What was asked of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Checkpoints that it made for us.
    pub made: u32,
    /// How long they took.
    pub took: Duration,
    /// Why none is asked for, in the server's words.
    pub refused: Option<String>,
}

/// Where they are told from.
pub struct Ground<'a> {
    /// The log.
    pub log: PathBuf,
    /// The way to the server.
    pub login: &'a Login,
    /// Which pages the redo changes.
    pub dirty: &'a Dirty,
    /// Who follows it.
    pub tail: &'a TailState,
    /// Where recovery starts.
    pub out: &'a RedoOut,
    /// Where redo waits.
    pub spool: &'a Spool,
    /// Where everything goes.
    pub sink: &'a dyn SnapshotSink,
    /// Bytes of data files that were read.
    pub copied: &'a AtomicU64,
    /// Bytes of a page.
    pub page_size: u32,
    /// Ends the transfer.
    pub cancel: &'a Cancel,
}

impl<'a> Checkpoints<'a> {
    /// Of a log that ends at `end` now.
    pub fn new(ground: Ground<'a>, end: Lsn) -> Checkpoints<'a> {
        let Ground { log, login, dirty, tail, out, spool, sink, copied, page_size, cancel } = ground;
        let now = Instant::now();
        let state = State {
            seen: Vec::new(),
            wanted: false,
            asking: false,
            hold_until: now,
            estimated: now - ESTIMATE_EVERY,
            told: false,
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
            state: Mutex::new(state),
        }
    }

    /// The thread: until it is told to stop.
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
            // Before the tail has read what was there, the first estimate knows too little to say that none is worth it.
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

    /// So many bytes of files are about to be copied.
    pub fn expect(&self, bytes: u64) {
        let mut state = self.lock();
        state.all = self.copied.load(Ordering::Relaxed) + bytes;
        state.copy_began = Instant::now();
    }

    /// What was asked of the server.
    pub fn asked(&self) -> Asked {
        self.lock().figures.clone()
    }

    /// What things cost at the moment.
    pub fn prices(&self) -> Prices {
        let rate = self.sink.rate();
        let written = self.tail.current().0.saturating_sub(self.began_at.0) as f64;
        Prices::new(rate.link, rate.limit, written / self.began.elapsed().as_secs_f64().max(0.1))
    }

    /// One was asked for and is not there yet.
    pub fn is_asking(&self) -> bool {
        self.lock().asking
    }

    /// Redo that would be replayed if recovery began at this LSN.
    pub fn redo_from(&self, lsn: Lsn) -> Redo {
        let bytes = self.dirty.noted().0.saturating_sub(lsn.0);
        Redo { bytes, touched: self.dirty.touched(lsn) }
    }

    /// Those at which recovery may begin: newer than `from`, and the tail has passed their records.
    pub fn usable(&self, from: Lsn) -> Vec<Checkpoint> {
        if self.dirty.is_blind() {
            return Vec::new();
        }
        let seen = self.lock().seen.clone();
        seen.into_iter().filter(|c| c.lsn > from && self.dirty.passed(c)).collect()
    }

    /// Has the server make one, and waits until it is there, or there is no use in waiting; at most so long.
    ///
    /// # Errors
    /// Cancelled.
    pub fn request(&self, at_most: Duration) -> Result<()> {
        let until = Instant::now() + at_most;
        let target = self.dirty.noted();
        let mut state = self.lock();
        let made = state.figures.made;
        state.wanted = !state.asking;
        drop(state);
        loop {
            self.cancel.sleep(LOOK)?;
            let newest = Lsn(self.newest.load(Ordering::Acquire));
            let state = self.lock();
            if state.figures.refused.is_some() || Instant::now() > until {
                return Ok(());
            }
            // It counts once the tail has passed its record.
            let usable = state.seen.last().is_none_or(|c| c.lsn == newest && self.dirty.passed(c));
            if (newest >= target || state.figures.made > made) && usable {
                return Ok(());
            }
        }
    }

    /// Waits until the tail has passed the record of the newest one that was seen, at most so long: all redo up to there is
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
        // What is noted from now on lies above it for the most part.
        self.dirty.cut();
        let mut state = self.lock();
        if state.seen.len() >= SEEN_MAX {
            // The newest ones and some older ones.
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

    /// The progress counts the redo that would be sent if the copy were complete now.
    fn tell_redo(&self) {
        if !self.out.is_fixed() {
            let newest = self.newest.load(Ordering::Acquire);
            self.sink.expect_redo(self.tail.current().0.saturating_sub(newest), false);
        }
    }

    /// There is hardly any room for more redo: recovery starts at the newest checkpoint, and what that needs is read again
    /// when the copy is complete.
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
                "{} of redo below the server's newer checkpoint at LSN {} are not sent; the pages that it changes are read \
                 again later",
                size(dropped),
                newest.lsn
            );
        }
        Ok(())
    }

    /// Why a checkpoint is to be asked for now.
    fn is_due(&self) -> Option<String> {
        let mut state = self.lock();
        if state.figures.refused.is_some() {
            return None;
        }
        if std::mem::take(&mut state.wanted) {
            return Some("the copy is complete".to_owned());
        }
        // Nothing is asked of the server while it holds locks for us.
        if self.out.is_fixed() || state.estimated.elapsed() < ESTIMATE_EVERY {
            return None;
        }
        state.estimated = Instant::now();
        let copied = self.copied.load(Ordering::Relaxed);
        let left = state.all.saturating_sub(copied) as f64;
        let left = left * state.copy_began.elapsed().as_secs_f64() / copied.max(1) as f64;
        let nearly_done = copied > 0 && left <= state.figures.took.as_secs_f64() * 1.5 + 0.2;
        let first = state.figures.made == 0;
        drop(state);
        if !first && !nearly_done && !self.spool.is_nearly_full() {
            return None;
        }
        let newest = Lsn(self.newest.load(Ordering::Acquire));
        let redo = self.redo_from(newest);
        // Much of it is known before the tail has read it.
        let end = self.tail.current().max(self.began_at);
        let redo = Redo { bytes: redo.bytes.max(end.0.saturating_sub(newest.0)), ..redo };
        let known = self.dirty.noted() >= self.began_at;
        let prices = self.prices();
        let Some(worth) = prices.ask_early(redo) else {
            if first
                && known
                && redo.bytes >= WORTH_TELLING
                && !std::mem::replace(&mut self.lock().told, true)
            {
                self.sink.tell(&format!(
                    "redo: {} since the donor's last checkpoint ({}): a newer one would save less than it costs",
                    size(redo.bytes),
                    recovery_in_words(redo)
                ));
            }
            return None;
        };
        if first {
            self.lock().hold_until = Instant::now() + worth_holding(prices, redo, self.page_size);
        }
        Some(format!(
            "{} of redo since the last one{} would take about {:.1} s to send and to replay",
            size(redo.bytes),
            // A fast start asks before the tail has read it.
            if known { format!(" ({})", recovery_in_words(redo)) } else { String::new() },
            worth.as_secs_f64()
        ))
    }

    /// Has the server write one. In a session of its own, which is ended then: under load the server's end of the log runs
    /// ahead of its checkpoints, and the statement tries again and again (`checkpoint_now_set`, handler/ha_innodb.cc, MariaDB
    /// 10.11). That it may not, or does not in time, is said and harmless.
    fn ask(&self, why: &str) {
        let began = Instant::now();
        self.lock().asking = true;
        let asked = self.try_ask(why);
        self.hold_for.store(0, Ordering::Release);
        let mut state = self.lock();
        state.asking = false;
        match asked {
            Ok(()) => {
                state.figures.made += 1;
                state.figures.took = began.elapsed();
                tracing::info!("a checkpoint took {:.1} s", began.elapsed().as_secs_f64());
            }
            Err(e) => {
                self.sink.tell(&format!("no checkpoint is asked for: {e}; {why}"));
                state.figures.refused = Some(e);
            }
        }
    }

    /// More is known than when the server was asked: the tail has read more of the redo, and the server has written pages.
    fn hold_on(&self, holding: &Holding, dirty_pages: Option<u64>) {
        let redo = self.redo_from(Lsn(self.newest.load(Ordering::Acquire)));
        let worth = worth_holding(self.prices(), redo, self.page_size);
        let until = holding.until(Instant::now(), dirty_pages, worth);
        let mut state = self.lock();
        if state.figures.made == 0 {
            state.hold_until = state.hold_until.max(until);
        }
    }

    fn try_ask(&self, why: &str) -> Result<(), String> {
        let began = Instant::now();
        let mut observer = Session::open(self.login, CHECKPOINT_PATIENCE).map_err(|e| e.to_string())?;
        let mut session = Session::open(self.login, CHECKPOINT_PATIENCE).map_err(|e| e.to_string())?;
        let id = session.id();
        let target = observer.log_position().map_err(|e| e.to_string())?.current;
        let holding = Holding::new(began, observer.dirty_pages().map_err(|e| e.to_string())?);
        self.sink.tell(&format!("the server is asked for a checkpoint: {why}"));
        self.dirty.cut();
        self.hold_for.store(target.0, Ordering::Release);
        self.undecided.store(false, Ordering::Release);
        let over = || {
            self.newest.load(Ordering::Acquire) >= target.0
                || self.stop.load(Ordering::Acquire)
                || self.cancel.check().is_err()
                || began.elapsed() > CHECKPOINT_PATIENCE
        };
        std::thread::scope(|scope| {
            let asked = scoped(scope, Thread::Checkpoint, move || Ok(session.checkpoint_now()));
            let mut estimated = began;
            while !asked.is_finished() && !over() {
                std::thread::sleep(LOOK);
                if estimated.elapsed() >= ESTIMATE_EVERY {
                    estimated = Instant::now();
                    let dirty_pages = observer.dirty_pages().ok().flatten();
                    self.hold_on(&holding, dirty_pages);
                }
                self.look();
                // A spool that fills up meanwhile is no reason to end the transfer here: the next look does.
                let _ = self.make_room();
            }
            if !asked.is_finished()
                && let Err(e) = observer.kill(id)
            {
                tracing::debug!("the session that makes a checkpoint cannot be ended: {e}");
            }
            match asked.join() {
                Ok(Err(e)) if e.is_denied() => {
                    let account = observer.current_user().unwrap_or_default();
                    Err(format!(
                        "{e}; with {} the redo since the last one need not be sent",
                        grant_of(&account, &["SUPER"])
                    ))
                }
                Ok(Err(e)) if !e.is_lost() => Err(e.to_string()),
                Err(e) => Err(format!("{e:#}")),
                Ok(_) => {
                    self.look();
                    Ok(())
                }
            }
        })
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
        // Before the tail has read what was logged when the copy began, it may be any page.
        self.dirty.noted() < self.began_at || self.dirty.count(space, Lsn(u64::MAX), pages) != Some(0)
    }
}
