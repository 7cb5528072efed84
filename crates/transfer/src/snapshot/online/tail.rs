//! Follows the live redo log, in a thread and a session of its own.
//!
//! Only bytes below the LSN that the server called durable *before* they were read are parsed: the rest of the block
//! that holds the log's end is garbage, which can pass for mini-transactions while the server rewrites it. The bytes
//! are used only if the LSN queried *after* the read shows that the ring has not come round to them.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use formats::Lsn;
use formats::innodb::redo::FileEvent;
use formats::innodb::redo_flat::push_mtr;
use formats::innodb::redo_mtr::{BadMtr, Mtr, MtrReader};

use super::dirty::Dirty;
use super::log_file::LogFile;
use super::spool::{Chunk, Event, EventKind, Spool};
use crate::disk::direct::Buffer;
use crate::snapshot::declined::Declined;
use crate::sql::Login;
use crate::sql::{LogPosition, Session};

/// Bytes read at once.
const READ: usize = 1 << 20;
/// The server may be writing this much beyond the end it reports: one block.
const BLOCK: u64 = 4096;
/// How long bytes below the durable LSN may fail to parse as mini-transactions.
const BAD_PATIENCE: Duration = Duration::from_secs(5);
/// Pause when nothing is left to read; shorter while much is written.
const POLL: Duration = Duration::from_millis(20);
/// How long a status query may take; normally it is answered at once.
const ANSWER: Duration = Duration::from_secs(60);
/// How many sessions may be lost in a row.
const LOST_MAX: u32 = 3;

/// State that the tail shares with the rest of the snapshot.
#[derive(Debug)]
pub struct TailState {
    /// LSN up to which mini-transactions were delivered.
    reached: AtomicU64,
    /// LSN up to which the file is known to be written, although perhaps not durable.
    written: AtomicU64,
    /// End of what the server had logged when it was last asked.
    current: AtomicU64,
    /// Nothing at or above this LSN is read: it is the end of the snapshot, once that is known.
    end: AtomicU64,
    stop: AtomicBool,
    /// Most bytes of the log that were ever waiting to be read.
    behind_max: AtomicU64,
    /// How often another file took the place of the log.
    resized: AtomicU64,
    /// More than a third of the log waits to be read.
    pressed: AtomicBool,
    /// Connection ID of the tail's session.
    session: AtomicU32,
}

impl Default for TailState {
    fn default() -> Self {
        TailState {
            reached: AtomicU64::new(0),
            written: AtomicU64::new(0),
            current: AtomicU64::new(0),
            end: AtomicU64::new(u64::MAX),
            stop: AtomicBool::new(false),
            behind_max: AtomicU64::new(0),
            resized: AtomicU64::new(0),
            pressed: AtomicBool::new(false),
            session: AtomicU32::new(0),
        }
    }
}

impl TailState {
    /// Called before the end is noted: redo logged from now on is not read until [`TailState::end_at`], because redo
    /// behind the end must not be in the copy.
    pub fn hold(&self) {
        self.end.store(0, Ordering::SeqCst);
    }

    /// Follows the log to this LSN and no further.
    pub fn end_at(&self, lsn: Lsn) {
        self.end.store(lsn.0, Ordering::SeqCst);
    }

    /// Removes the end: the log is followed further.
    pub fn go_on(&self) {
        self.end.store(u64::MAX, Ordering::SeqCst);
    }

    /// LSN up to which mini-transactions were delivered.
    pub fn reached(&self) -> Lsn {
        Lsn(self.reached.load(Ordering::Acquire))
    }

    /// End of what the server had logged when it was last asked.
    pub fn current(&self) -> Lsn {
        Lsn(self.current.load(Ordering::Relaxed))
    }

    /// The log is known to be written up to here, although perhaps not durable.
    pub fn is_written(&self, lsn: Lsn) {
        self.written.fetch_max(lsn.0, Ordering::AcqRel);
    }

    /// Ends the tail.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// More than a third of the log waits to be read: other work should pause.
    pub fn is_pressed(&self) -> bool {
        self.pressed.load(Ordering::Relaxed)
    }

    /// Connection ID of the tail's session.
    pub fn session(&self) -> u32 {
        self.session.load(Ordering::Relaxed)
    }

    /// How often another file took the place of the log.
    pub fn resized(&self) -> u64 {
        self.resized.load(Ordering::Relaxed)
    }

    /// Most bytes of the log that were ever waiting to be read.
    pub fn behind_max(&self) -> u64 {
        self.behind_max.load(Ordering::Relaxed)
    }
}

/// The tail; [`Tail::run`] is its thread.
pub struct Tail {
    log: LogFile,
    reader: MtrReader,
    session: Session,
    login: Login,
    state: Arc<TailState>,
    spool: Arc<Spool>,
    dirty: Arc<Dirty>,
    buffer: Buffer,
    bad_since: Option<(Instant, BadMtr)>,
}

impl Tail {
    /// Prepares to follow `log` from its checkpoint.
    ///
    /// # Errors
    /// No login.
    pub fn new(
        log: LogFile,
        login: &Login,
        state: Arc<TailState>,
        spool: Arc<Spool>,
        dirty: Arc<Dirty>,
    ) -> Result<Tail, Declined> {
        let reader = MtrReader::new(log.geometry, log.encrypted, log.checkpoint.lsn);
        state.reached.store(log.checkpoint.lsn.0, Ordering::Release);
        let session = Session::open(login, ANSWER)?;
        state.session.store(session.id(), Ordering::Relaxed);
        let login = login.clone();
        Ok(Tail {
            log,
            reader,
            session,
            login,
            state,
            spool,
            dirty,
            buffer: Buffer::new(READ),
            bad_since: None,
        })
    }

    /// Follows the log until it is stopped or cannot continue. Closes the spool.
    ///
    /// # Errors
    /// A [`Declined`] reason, or from the system.
    pub fn run(mut self) -> Result<()> {
        let result = self.follow();
        self.spool.close();
        result
    }

    fn follow(&mut self) -> Result<()> {
        let mut known = self.ask()?;
        while !self.state.stop.load(Ordering::Acquire) {
            if self.log.is_replaced() {
                self.follow_replaced()?;
            }
            // `known` was queried before the end is read here, so a hold that was set meanwhile is never overtaken.
            let limit = known.flushed.0.max(self.state.written.load(Ordering::Acquire));
            let limit = limit.min(self.state.end.load(Ordering::SeqCst));
            let wants = self.reader.wants();
            if wants.0 >= limit {
                self.note_pressure(0);
                std::thread::sleep(self.pause(known));
                known = self.ask()?;
                continue;
            }
            self.note_pressure(limit - wants.0);
            let bytes = self.log.read(wants, limit - wants.0, &mut self.buffer)?.to_vec();
            known = self.ask()?;
            self.check_overrun(wants, known)?;
            self.reader.feed(&bytes);
            if !self.deliver()? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn note_pressure(&self, waiting: u64) {
        self.state.behind_max.fetch_max(waiting, Ordering::Relaxed);
        self.state.pressed.store(waiting > self.log.geometry.capacity / 3, Ordering::Relaxed);
    }

    /// The pause is shorter if the log is small, which must not come round meanwhile.
    fn pause(&self, known: LogPosition) -> Duration {
        let waiting = known.current.0.saturating_sub(self.reader.at().0);
        if self.log.geometry.capacity < 64 << 20 || waiting > self.log.geometry.capacity / 8 {
            POLL / 10
        } else {
            POLL
        }
    }

    fn check_overrun(&self, wants: Lsn, known: LogPosition) -> Result<(), Declined> {
        let capacity = self.log.geometry.capacity;
        if known.current.0 + BLOCK <= wants.0 + capacity {
            return Ok(());
        }
        let behind = known.current.0 - wants.0;
        Err(Declined::RedoOverrun { behind, capacity, wanted: (behind * 2).next_multiple_of(1 << 20) })
    }

    /// Hands on all complete mini-transactions. Returns false if the spool accepts no more.
    fn deliver(&mut self) -> Result<bool> {
        let mut chunk = Chunk { start: self.reader.at(), ..Chunk::default() };
        let bad = loop {
            match self.reader.next_mtr() {
                Ok(Some(mtr)) => {
                    note_events(&mut chunk.events, &mtr);
                    self.dirty.note(&mtr);
                    push_mtr(&mut chunk.bytes, &mtr);
                    chunk.end = mtr.end;
                }
                Ok(None) => break None,
                Err(bad) => break Some(bad),
            }
        };
        if !chunk.bytes.is_empty() {
            self.bad_since = None;
            let end = chunk.end;
            if !self.spool.push(chunk).context("cannot keep redo that waits to be sent")? {
                return Ok(false);
            }
            self.state.reached.store(end.0, Ordering::Release);
        }
        if let Some(bad) = bad {
            self.read_again(bad)?;
        }
        Ok(true)
    }

    /// Handles bytes below the durable LSN that are not a mini-transaction: perhaps the log was just replaced, or a
    /// cached block was old. They are read again for a while.
    fn read_again(&mut self, bad: BadMtr) -> Result<(), Declined> {
        let (since, _) = *self.bad_since.get_or_insert((Instant::now(), bad));
        if since.elapsed() > BAD_PATIENCE {
            return Err(Declined::RedoUnreadable { at: bad.at, why: bad.to_string() });
        }
        self.reader.rewind(self.log.geometry);
        std::thread::sleep(POLL / 4);
        Ok(())
    }

    /// The log was resized. Both files contain everything since the resizing began; the old one ends here.
    fn follow_replaced(&mut self) -> Result<()> {
        let new = self.log.reopen()?;
        if new.geometry.first_lsn <= self.reader.at() {
            tracing::info!(
                "the donor's redo log was resized: its capacity is {} bytes now",
                new.geometry.capacity
            );
            self.state.resized.fetch_add(1, Ordering::Relaxed);
            self.reader.rewind(new.geometry);
            self.log = new;
        }
        Ok(())
    }

    fn ask(&mut self) -> Result<LogPosition, Declined> {
        let mut lost = 0;
        loop {
            match self.session.log_position() {
                Ok(position) => {
                    self.state.current.store(position.current.0, Ordering::Relaxed);
                    return Ok(position);
                }
                Err(e) if lost >= LOST_MAX || !e.is_lost() => {
                    return Err(Declined::SessionLost(e.to_string()));
                }
                Err(e) => {
                    lost += 1;
                    tracing::warn!(
                        "the session that follows the redo log was lost ({e}); a new one is opened"
                    );
                    self.session = Session::open(&self.login, ANSWER)?;
                    self.state.session.store(self.session.id(), Ordering::Relaxed);
                }
            }
        }
    }
}

fn note_events(events: &mut Vec<Event>, mtr: &Mtr<'_>) {
    let text = |name: Option<&[u8]>| name.map(|name| String::from_utf8_lossy(name).into_owned());
    for event in mtr.file_events() {
        let kind = match event {
            FileEvent::Create { name, .. } => EventKind::Create(text(name)),
            FileEvent::Delete { space, .. } => EventKind::Delete(space),
            FileEvent::Rename { names, .. } => EventKind::Rename(text(names.map(|(_, new)| new))),
            FileEvent::Checkpoint { lsn } => EventKind::Checkpoint(lsn),
            FileEvent::Modify { .. } => continue,
        };
        events.push(Event { lsn: mtr.start, kind });
    }
}
