//! The whole, top to bottom: from a running server to a manifest.
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use formats::Uuid;

use super::catalog::Catalog;
use super::checks::Checks;
use super::dirty::Dirty;
use super::listing::{self, Roots};
use super::log_file::LogFile;
use super::login::Login;
use super::manifest::{manifest, redo_entry, write_around};
use super::redo_out::RedoOut;
use super::rounds::{self, Rounds};
use super::settle::{Moment, Settle};
use super::spool::Spool;
use super::sql::Session;
use super::sql_checks::{self, Facts};
use super::stage::Stage;
use super::tail::{Tail, TailState};
use crate::cancel::Cancel;
use crate::disk::identity::now;
use crate::source::copy::files::CopyFiles;
use crate::source::copy::pages::Copier;
use crate::source::declined::{Declined, SnapshotError};
use crate::source::sink::{Manifest, SnapshotSink};

/// Rounds without a lock stop when one finds fewer new files than this.
const FEW: usize = 4;
/// And at the latest after this many.
const ROUNDS_MAX: u32 = 8;
/// How long the server may take to write its log to the noted end.
const LOG_PATIENCE: Duration = Duration::from_secs(30);
/// Times 10 ms that a range waits for a tail that is about to be overrun.
const MAKE_WAY_MAX: u32 = 100;
/// Moments that are repeated because files changed under the lock.
const MOMENTS_MAX: u32 = 3;

/// How a snapshot is to be taken.
#[derive(Clone, Debug)]
pub struct Options {
    /// The way to the server.
    pub login: Login,
    /// Where its files are.
    pub roots: Roots,
    /// Threads that read data files.
    pub threads: usize,
    /// How long a settled moment may be tried for.
    pub budget: Duration,
    /// Where redo waits that the sink cannot take yet.
    pub spill_dir: PathBuf,
    /// Bytes of it.
    pub spill_max: u64,
    /// Write a checkpoint first, where the account may: less redo for the copy to apply, more writing here.
    pub checkpoint_first: bool,
    /// A copy that took longer than this takes newer checkpoints after it, so that the copy's own server replays no
    /// more redo for a copy that took long: see [`super::rounds`].
    pub round_after: Duration,
    /// Bytes of redo that are few enough for it to replay.
    pub redo_enough: u64,
    /// Deliver damaged pages as they are, and say so.
    pub allow_corrupt_pages: bool,
    /// Put into the new log's creator text behind `Backup `, at most 25 bytes.
    pub creator: String,
}

/// A snapshot that was taken.
#[derive(Debug)]
pub struct Taken {
    /// What the sink got last.
    pub manifest: Manifest,
    /// What the settled moment was like.
    pub moment: Moment,
    /// From the start to the settled moment.
    pub copying: Duration,
    /// All.
    pub total: Duration,
    /// Bytes of data files read.
    pub bytes: u64,
    /// Bytes of redo that are to be replayed.
    pub redo_bytes: u64,
    /// Newer checkpoints that were taken to make them fewer, at which cost.
    pub redo_rounds: rounds::Figures,
    /// Rounds without a lock.
    pub rounds: u32,
    /// Redo that waited to be read at most, in bytes.
    pub redo_behind_max: u64,
    /// Times the log was resized meanwhile.
    pub redo_resized: u64,
    /// Damaged pages that were delivered as they are.
    pub damaged: Vec<String>,
}

/// Takes a snapshot. On every return the server is as free as it was.
///
/// # Errors
/// A reason to decline, or the transfer is over.
pub fn take(options: &Options, sink: &dyn SnapshotSink, cancel: &Cancel) -> Result<Taken, SnapshotError> {
    let began = Instant::now();
    let patience = options.budget + Duration::from_secs(30);
    let mut observer = Session::open(&options.login, patience)?;
    let facts = sql_checks::check(&mut observer, &options.roots.layout.datadir)?;
    let mut stage = Stage::open(&options.login, patience)?;
    start(&mut stage, &mut observer, options, cancel)?;
    let log_path = options.roots.redo_log();
    if options.checkpoint_first {
        let now = observer.log_position().map_err(|e| Declined::SessionLost(e.to_string()))?.current;
        rounds::make_checkpoint(&options.login, &mut observer, &log_path, now, cancel)?;
    }
    let log = LogFile::open(&log_path)?;
    let (header, checkpoint, encrypted) = (log.header.clone(), log.checkpoint, log.encrypted);
    let dirty = Arc::new(Dirty::new(checkpoint.lsn, log.geometry.capacity));
    sink.announce(&redo_entry(0)).map_err(SnapshotError::from)?;
    let spool = Arc::new(Spool::new(&options.spill_dir, options.spill_max));
    let state = Arc::new(TailState::default());
    let tail = Tail::new(log, &options.login, Arc::clone(&state), Arc::clone(&spool), Arc::clone(&dirty))?;
    let out = RedoOut::new(Arc::clone(&spool), checkpoint);

    let broken = Broken::default();
    let bytes = AtomicU64::new(0);
    let pace = || broken.check().and_then(|()| make_way(&state, cancel));
    let copier = Copier {
        sink,
        threads: options.threads,
        direct: facts.direct,
        allow_corrupt: options.allow_corrupt_pages,
        cancel,
        bytes: &bytes,
        pace: &pace,
    };
    let system_files = &options.roots.system_files();
    let copy = CopyFiles { copier, system_files, damaged: Mutex::default() };
    let work = Work {
        options,
        facts: &facts,
        stage,
        observer,
        copy: &copy,
        state: &state,
        out: &out,
        dirty: &dirty,
        encrypted,
        cancel,
    };
    let done = std::thread::scope(|scope| {
        scope.spawn(|| broken.note(tail.run(), &spool));
        scope.spawn(|| broken.note(out.run(sink), &spool));
        // The locks of the session in it are gone when this returns.
        let done = work.run();
        state.stop();
        if done.is_ok() {
            spool.close()
        } else {
            spool.abandon()
        }
        done
    });
    // Why the log was no longer followed says more than that it was not.
    broken.result()?;
    let Done { catalog, moment, copying, rounds, redo_rounds, uuid } = done?;
    let newest = out.from();
    if !out.saw_checkpoint() {
        return Err(Declined::CheckpointMissing(newest.lsn).into());
    }
    let head = out.flat().head(&header, &options.creator).map_err(anyhow::Error::from)?;
    write_around(sink, &out, head, checkpoint.lsn, moment.end)?;
    let member = uuid.map(|uuid| (uuid, facts.gtid_domain));
    let manifest = manifest(&catalog, &out, newest.lsn, &moment, member);
    sink.finish(&manifest)?;
    Ok(Taken {
        redo_bytes: moment.end.0 - newest.lsn.0,
        redo_rounds,
        manifest,
        moment,
        copying: copying - began,
        total: began.elapsed(),
        bytes: bytes.load(Ordering::Relaxed),
        rounds,
        redo_behind_max: state.behind_max(),
        redo_resized: state.resized(),
        damaged: std::mem::take(&mut *copy.damaged.lock().unwrap_or_else(PoisonError::into_inner)),
    })
}

/// Why a thread of the redo log ended, if it did not end well.
#[derive(Default)]
struct Broken(Mutex<Option<SnapshotError>>);

impl Broken {
    fn note(&self, result: Result<()>, spool: &Spool) {
        if let Err(e) = result {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e.into());
            spool.abandon();
        }
    }

    fn check(&self) -> Result<()> {
        let broken = self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if broken { Err(anyhow::anyhow!("the redo log is no longer followed")) } else { Ok(()) }
    }

    fn result(&self) -> Result<(), SnapshotError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }
}

/// The copy waits while the tail is about to be overrun: pages can be read later, redo cannot.
fn make_way(state: &TailState, cancel: &Cancel) -> Result<()> {
    for _ in 0..MAKE_WAY_MAX {
        if !state.is_pressed() {
            break;
        }
        cancel.sleep(Duration::from_millis(10))?;
    }
    Ok(())
}

fn start(
    stage: &mut Stage,
    observer: &mut Session,
    options: &Options,
    cancel: &Cancel,
) -> Result<(), SnapshotError> {
    let deadline = Instant::now() + options.budget;
    match stage.start(deadline, cancel).map_err(anyhow::Error::from)? {
        Ok(()) => Ok(()),
        Err(e) if e.is_lock_wait() => {
            let holder = super::settle::holder(&observer.running().unwrap_or_default());
            Err(Declined::NoSettledMoment { budget: options.budget, tries: 0, holder }.into())
        }
        Err(e) => Err(Declined::SessionLost(e.to_string()).into()),
    }
}

struct Work<'a> {
    options: &'a Options,
    facts: &'a Facts,
    stage: Stage,
    observer: Session,
    copy: &'a CopyFiles<'a>,
    state: &'a TailState,
    out: &'a RedoOut,
    dirty: &'a Dirty,
    encrypted: bool,
    cancel: &'a Cancel,
}

struct Done {
    catalog: Catalog,
    moment: Moment,
    copying: Instant,
    rounds: u32,
    redo_rounds: rounds::Figures,
    uuid: Option<Uuid>,
}

impl Work<'_> {
    fn run(mut self) -> Result<Done, SnapshotError> {
        let uuid = self.history()?;
        let mut catalog = Catalog::new(now());
        let began = Instant::now();
        let mut rounds = self.rounds(&mut catalog)?;
        let mut redo_rounds = rounds::Figures::default();
        if began.elapsed() >= self.options.round_after && !self.encrypted {
            redo_rounds = self.redo_rounds().run(&mut catalog)?;
            rounds += self.rounds(&mut catalog)?;
        }
        let copying = Instant::now();
        let mut last = String::new();
        for _ in 0..MOMENTS_MAX {
            let moment = Settle {
                stage: &mut self.stage,
                observer: &mut self.observer,
                roots: &self.options.roots,
                catalog: &mut catalog,
                copy: self.copy,
                dirty: self.dirty,
                tail: self.state,
                galera: self.facts.galera,
                log_bin: self.facts.log_bin,
                encrypted: self.encrypted,
                budget: self.options.budget,
                cancel: self.cancel,
            }
            .run()?;
            self.reach(&moment)?;
            let checks = Checks { catalog: &mut catalog, moment: &moment, out: self.out, dirty: self.dirty };
            match checks.run()? {
                None => return Ok(Done { catalog, moment, copying, rounds, redo_rounds, uuid }),
                Some(why) => {
                    tracing::info!("not settled: {why}");
                    last = why;
                }
            }
            self.state.go_on();
            start(&mut self.stage, &mut self.observer, self.options, self.cancel)?;
        }
        Err(Declined::NotSettled(format!("{MOMENTS_MAX} times, the last time {last}")).into())
    }

    /// The cluster's history that positions are of.
    fn history(&mut self) -> Result<Option<Uuid>, SnapshotError> {
        if !self.facts.galera {
            return Ok(None);
        }
        let text = self.observer.status("wsrep_local_state_uuid");
        let text = text.map_err(|e| Declined::SessionLost(e.to_string()))?;
        Ok(text.and_then(|text| text.parse().ok()))
    }

    /// Without a lock, until few new files are found.
    fn rounds(&mut self, catalog: &mut Catalog) -> Result<u32, SnapshotError> {
        for round in 1..=ROUNDS_MAX {
            let mut listing = listing::list(&self.options.roots)?;
            // Lists of names that resemble their neighbours travel in half the bytes.
            listing.sort_by(|a, b| a.name.cmp(&b.name));
            let todo = catalog.update(listing);
            let found = todo.pages.len() + todo.small.len();
            self.copy.pages(catalog, &todo.pages)?;
            self.copy.small(catalog, &todo.small)?;
            self.copy.small(catalog, &todo.late)?;
            if found < FEW {
                return Ok(round);
            }
        }
        Ok(ROUNDS_MAX)
    }

    fn redo_rounds(&mut self) -> Rounds<'_> {
        Rounds {
            observer: &mut self.observer,
            login: &self.options.login,
            roots: &self.options.roots,
            copy: self.copy,
            dirty: self.dirty,
            out: self.out,
            enough: self.options.redo_enough,
            cancel: self.cancel,
        }
    }

    /// Waits until the redo has arrived up to the noted end.
    fn reach(&mut self, moment: &Moment) -> Result<(), SnapshotError> {
        let began = Instant::now();
        while self.out.written() < moment.end {
            self.cancel.check().map_err(anyhow::Error::from)?;
            (self.copy.copier.pace)()?;
            if self.state.reached() < moment.end {
                let flushed = self.observer.flush_engine_logs();
                if flushed.is_ok() && self.facts.log_follows_flush {
                    self.state.is_written(moment.end);
                }
                if began.elapsed() > LOG_PATIENCE {
                    let reached = self.state.reached();
                    let waited = began.elapsed();
                    return Err(Declined::RedoNotWritten { wanted: moment.end, reached, waited }.into());
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}
