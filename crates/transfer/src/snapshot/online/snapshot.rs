//! The whole online snapshot from top to bottom: from a running server to a manifest.
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use formats::Uuid;

use super::barrier::barrier;
use super::catalog::Catalog;
use super::checkpoints::{Asked, Checkpoints, CopyContext};
use super::checks::Checks;
use super::consistency_point::ConsistencyPoint;
use super::dirty::Dirty;
use super::estimate::{Prices, Redo};
use super::lister::Lister;
use super::listing::Roots;
use super::log_file::LogFile;
use super::manifest::{manifest, redo_entry, write_around};
use super::redo_out::RedoOut;
use super::rounds::{self, Policy, Rounds};
use super::spool::{self, Spool};
use super::sql_checks::{self, Facts};
use super::tail::{Tail, TailState};
use crate::cancel::Cancel;
use crate::disk::identity::now;
use crate::panics::caught;
use crate::remembered::memory::Memory;
use crate::snapshot::copy::files::CopyFiles;
use crate::snapshot::copy::pages::{self, Copier};
use crate::snapshot::declined::{Declined, SnapshotError};
use crate::snapshot::sink::{Manifest, SnapshotSink};
use crate::sql::Login;
use crate::sql::Session;
use crate::threads::{Thread, scoped};

/// How long the server may take to answer a query.
pub(super) const ANSWER: Duration = Duration::from_secs(60);
/// How often reading a range pauses for 10 ms while the tail is close to being overrun.
const MAKE_WAY_MAX: u32 = 100;
/// Maximum number of consistency points, if files change under the lock.
const POINTS_MAX: u32 = 3;

/// How a snapshot is taken.
#[derive(Clone, Debug)]
pub struct Options {
    /// How to log in to the server.
    pub login: Login,
    /// Where its files are.
    pub roots: Roots,
    /// Threads that read data files.
    pub threads: usize,
    /// How long to wait for the consistency point.
    pub budget: Duration,
    /// How often the server has desynced its provider by itself: once for a transfer that it has started.
    pub desynced: i64,
    /// Directory of the file in which redo waits that cannot be sent yet.
    pub spill_dir: PathBuf,
    /// Maximum size of that file in bytes.
    pub spill_max: Option<u64>,
    /// When recovery is moved to a newer checkpoint: see [`super::rounds`].
    pub newer: Policy,
    /// Send corrupt pages as they are, and report them.
    pub allow_corrupt_pages: bool,
    /// What this node remembers of its files.
    pub memory: Option<Arc<Memory>>,
    /// Written into the creator text of the new log behind `Backup `, at most 25 bytes.
    pub creator: String,
}

/// A finished snapshot.
#[derive(Debug)]
pub struct TakenOnline {
    /// What the sink got at the end.
    pub manifest: Manifest,
    /// The consistency point and what it cost.
    pub point: ConsistencyPoint,
    /// From the start to the first try of the consistency point.
    pub copying: Duration,
    /// From the start to the end.
    pub total: Duration,
    /// Bytes of data files that were read.
    pub bytes: u64,
    /// Redo that the joiner replays, and what it touches.
    pub redo: Redo,
    /// Costs on this donor, link and joiner at the end.
    pub prices: Prices,
    /// Newer checkpoints that recovery was moved to, and their cost.
    pub redo_rounds: rounds::Figures,
    /// Checkpoints that the server was asked for.
    pub asked: Asked,
    /// Passes over the files without a lock.
    pub passes: u32,
    /// Most bytes of redo that were ever waiting to be read.
    pub redo_behind_max: u64,
    /// How often the log was resized meanwhile.
    pub redo_resized: u64,
    /// Corrupt pages that were sent as they are.
    pub damaged: Vec<String>,
}

/// Takes a snapshot. On return, whatever the result, the server holds no lock for us.
///
/// # Errors
/// A reason to decline, or the transfer is over.
pub fn take(
    options: &Options,
    sink: &dyn SnapshotSink,
    cancel: &Cancel,
) -> Result<TakenOnline, SnapshotError> {
    let began = Instant::now();
    let mut observer = Session::open(&options.login, ANSWER)?;
    let facts = sql_checks::check(&mut observer, &options.roots.layout.datadir)?;
    let since = now();
    let barrier = barrier(&options.login, cancel)?.is_none();
    let log_path = options.roots.redo_log();
    let logged = observer.log_position().map_err(|e| Declined::SessionLost(e.to_string()))?.current;
    let log = LogFile::open(&log_path)?;
    let (header, checkpoint, encrypted) = (log.header.clone(), log.checkpoint, log.encrypted);
    let dirty = Arc::new(Dirty::new(checkpoint.lsn, log.geometry.capacity));
    sink.announce(&redo_entry(0)).map_err(SnapshotError::from)?;
    let spill_max = options.spill_max.unwrap_or_else(|| spool::default_max(&options.spill_dir));
    let spool = Arc::new(Spool::new(&options.spill_dir, spill_max));
    let state = Arc::new(TailState::default());
    let tail = Tail::new(log, &options.login, Arc::clone(&state), Arc::clone(&spool), Arc::clone(&dirty))?;
    let out = RedoOut::new(Arc::clone(&spool), checkpoint);
    // Page numbers in an encrypted log are not relied upon: all of it is sent as it is produced.
    let watched = !encrypted && options.newer != Policy::Never;
    if watched {
        spool.hold();
    }

    let broken = Broken::default();
    let bytes = AtomicU64::new(0);
    let pace = || broken.check().and_then(|()| make_way(&state, cancel));
    let context = CopyContext {
        log: log_path,
        login: &options.login,
        dirty: &dirty,
        tail: &state,
        out: &out,
        spool: &spool,
        sink,
        copied: &bytes,
        page_size: facts.page_size,
        cancel,
    };
    let checkpoints = Checkpoints::new(context, logged);
    let copier = Copier {
        sink,
        threads: options.threads,
        direct: facts.direct,
        allow_corrupt: options.allow_corrupt_pages,
        cancel,
        bytes: &bytes,
        pace: &pace,
        checkpoints: watched.then_some(&checkpoints as &dyn pages::Checkpoints),
        memory: options.memory.as_deref(),
        live: true,
    };
    let system_files = &options.roots.system_files();
    let copy = CopyFiles { copier, system_files, damaged: Mutex::default() };
    let work = Work {
        options,
        facts: &facts,
        since,
        barrier,
        hanging: None,
        observer,
        lister: Lister::new(&options.roots),
        copy: &copy,
        state: &state,
        out: &out,
        dirty: &dirty,
        checkpoints: watched.then_some(&checkpoints),
        cancel,
        encrypted,
    };
    let done = std::thread::scope(|scope| {
        scoped(scope, Thread::RedoReader, || {
            broken.note(tail.run(), &spool);
            Ok(())
        });
        scoped(scope, Thread::RedoWriter, || {
            broken.note(out.run(sink), &spool);
            Ok(())
        });
        if watched {
            scoped(scope, Thread::CheckpointWatch, || {
                broken.note(checkpoints.watch(), &spool);
                Ok(())
            });
        } else {
            scoped(scope, Thread::CheckpointWatch, || {
                checkpoints.tell();
                Ok(())
            });
        }
        let done = caught(|| Ok(work.run())).unwrap_or_else(|panic| Err(SnapshotError::Failed(panic)));
        checkpoints.stop();
        state.stop();
        if done.is_ok() {
            spool.close()
        } else {
            spool.abandon()
        }
        done
    });
    // An error of a redo thread is returned first, because it caused the others.
    broken.result()?;
    let Done { catalog, point, copying, passes, redo_rounds, uuid } = done?;
    let newest = out.from();
    if !out.saw_checkpoint() {
        return Err(Declined::CheckpointMissing(newest.lsn).into());
    }
    let head = out.flat().head(&header, &options.creator).map_err(anyhow::Error::from)?;
    write_around(sink, &out, head, out.began(), point.end)?;
    let member = uuid.map(|uuid| (uuid, facts.gtid_domain));
    let manifest = manifest(catalog, &out, newest.lsn, &point, member);
    sink.finish(&manifest)?;
    Ok(TakenOnline {
        redo: Redo { bytes: point.end.0 - newest.lsn.0, touched: dirty.touched(newest.lsn) },
        prices: checkpoints.prices(),
        redo_rounds,
        asked: checkpoints.asked(),
        manifest,
        point,
        copying: copying - began,
        total: began.elapsed(),
        bytes: bytes.load(Ordering::Relaxed),
        passes,
        redo_behind_max: state.behind_max(),
        redo_resized: state.resized(),
        damaged: std::mem::take(&mut *copy.damaged.lock().unwrap_or_else(PoisonError::into_inner)),
    })
}

/// The first error of a thread that handles redo.
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

/// Pauses the copy while the tail is close to being overrun: pages can be read later, redo cannot.
fn make_way(state: &TailState, cancel: &Cancel) -> Result<()> {
    for _ in 0..MAKE_WAY_MAX {
        if !state.is_pressed() {
            break;
        }
        cancel.sleep(Duration::from_millis(10))?;
    }
    Ok(())
}

/// A snapshot in progress.
pub(super) struct Work<'a> {
    pub(super) options: &'a Options,
    pub(super) facts: &'a Facts,
    /// When the snapshot began, in nanoseconds since the epoch.
    pub(super) since: i128,
    /// True once it is known that no IMPORT TABLESPACE is running that began before the copy.
    pub(super) barrier: bool,
    /// A session of ours that was killed and still waits for the provider.
    pub(super) hanging: Option<u32>,
    pub(super) observer: Session,
    pub(super) lister: Lister<'a>,
    pub(super) copy: &'a CopyFiles<'a>,
    pub(super) state: &'a TailState,
    pub(super) out: &'a RedoOut,
    pub(super) dirty: &'a Dirty,
    pub(super) encrypted: bool,
    /// `None` if recovery always starts at the first checkpoint.
    pub(super) checkpoints: Option<&'a Checkpoints<'a>>,
    pub(super) cancel: &'a Cancel,
}

struct Done {
    catalog: Catalog,
    point: ConsistencyPoint,
    copying: Instant,
    passes: u32,
    redo_rounds: rounds::Figures,
    uuid: Option<Uuid>,
}

impl<'a> Work<'a> {
    fn run(mut self) -> Result<Done, SnapshotError> {
        let uuid = self.history()?;
        let mut catalog = Catalog::new(self.since);
        let mut passes = self.passes(&mut catalog)?;
        let mut redo_rounds = rounds::Figures::default();
        if let Some(checkpoints) = self.checkpoints {
            redo_rounds = self.redo_rounds(checkpoints).run(&mut catalog)?;
            if redo_rounds.rounds > 0 {
                passes += self.passes(&mut catalog)?;
            }
        } else {
            self.out.fix(true);
        }
        let copying = Instant::now();
        let mut last = String::new();
        for _ in 0..POINTS_MAX {
            let point = self.settle(&mut catalog)?;
            self.reach(&point)?;
            let checks = Checks { catalog: &mut catalog, point: &point, out: self.out, dirty: self.dirty };
            match checks.run()? {
                None => return Ok(Done { catalog, point, copying, passes, redo_rounds, uuid }),
                Some(why) => {
                    tracing::info!("the consistency point was not valid: {why}");
                    last = why;
                }
            }
            self.state.go_on();
        }
        Err(Declined::NotSettled(format!("{POINTS_MAX} times, the last time {last}")).into())
    }

    /// UUID of the cluster's history.
    fn history(&mut self) -> Result<Option<Uuid>, SnapshotError> {
        if !self.facts.galera {
            return Ok(None);
        }
        let text = self.observer.status("wsrep_local_state_uuid");
        let text = text.map_err(|e| Declined::SessionLost(e.to_string()))?;
        Ok(text.and_then(|text| text.parse().ok()))
    }

    pub(super) fn redo_rounds(&mut self, checkpoints: &'a Checkpoints<'a>) -> Rounds<'_, 'a> {
        Rounds {
            policy: self.options.newer,
            checkpoints,
            lister: &mut self.lister,
            copy: self.copy,
            dirty: self.dirty,
            out: self.out,
            page_size: self.facts.page_size,
            asks: true,
            cancel: self.cancel,
        }
    }
}
