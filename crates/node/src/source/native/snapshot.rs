//! The whole, top to bottom: from a running server to a manifest.
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use formats::innodb::tablespace::PageFormat;
use formats::innodb::tablespace::{PAGE0_BYTES, parse_page0};
use formats::wsrep::state_id::StateId;
use formats::{Lsn, Seqno, Uuid};
use protocol::inventory::{FileEntry, FileId, FileRole, Place};

use super::catalog::Catalog;
use super::declined::{Declined, SnapshotError};
use super::direct::{Buffer, Direct};
use super::identity::{look, now};
use super::listing;
use super::log_file::LogFile;
use super::pages::{self, Copier, Wanted, is_further_system_file};
use super::redo_out::{REDO, RedoOut};
use super::settle::{Moment, Settle};
use super::sink::{Manifest, Position, SnapshotSink};
use super::small;
use super::spool::{EventKind, Spool};
use super::sql::{Login, Session};
use super::sql_checks::{self, Facts};
use super::stage::Stage;
use super::tail::{Tail, TailState};
use crate::cancel::Cancel;

/// Rounds without a lock stop when one finds fewer new files than this.
const FEW: usize = 4;
/// And at the latest after this many.
const ROUNDS_MAX: u32 = 8;
/// How long the server may take to write its log to the noted end.
const LOG_PATIENCE: Duration = Duration::from_secs(30);
/// Moments that are repeated because files changed under the lock.
const MOMENTS_MAX: u32 = 3;

/// How a snapshot is to be taken.
#[derive(Clone, Debug)]
pub struct Options {
    /// The way to the server.
    pub login: Login,
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
    /// Deliver damaged pages as they are, and say so.
    pub allow_corrupt_pages: bool,
    /// Put into the new log's creator text behind `Backup `, at most 25 bytes.
    pub creator: String,
}

/// A snapshot that was taken.
#[derive(Clone, Debug)]
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
    /// Bytes of redo.
    pub redo_bytes: u64,
    /// Rounds without a lock.
    pub rounds: u32,
    /// Redo that waited to be read at most, in bytes.
    pub redo_behind_max: u64,
    /// Damaged pages that were delivered as they are.
    pub damaged: Vec<String>,
}

/// Copies files for the rounds and for the settled moment.
pub struct CopyFiles<'a> {
    copier: Copier<'a>,
    facts: &'a Facts,
    allow_corrupt: bool,
    damaged: Mutex<Vec<String>>,
}

/// Takes a snapshot. On every return the server is as free as it was.
///
/// # Errors
/// A reason to decline, or the transfer is over.
pub fn take(options: &Options, sink: &dyn SnapshotSink, cancel: &Cancel) -> Result<Taken, SnapshotError> {
    let began = Instant::now();
    let patience = options.budget + Duration::from_secs(30);
    let mut observer = Session::open(&options.login, patience)?;
    let facts = sql_checks::check(&mut observer)?;
    let mut stage = Stage::open(&options.login, patience)?;
    start(&mut stage, &mut observer, options, cancel)?;
    if options.checkpoint_first
        && let Err(e) = observer.checkpoint_now()
    {
        tracing::info!("no checkpoint before the copy: {e}");
    }
    let log = LogFile::open(&facts.roots.log_home.join("ib_logfile0"))?;
    let header = log.header.clone();
    let checkpoint = log.checkpoint;
    sink.announce(&redo_entry(0)).map_err(SnapshotError::from)?;
    let spool = Arc::new(Spool::new(&options.spill_dir, options.spill_max));
    let state = Arc::new(TailState::default());
    let tail = Tail::new(log, &options.login, Arc::clone(&state), Arc::clone(&spool))?;
    let out = RedoOut::new(Arc::clone(&spool), checkpoint);

    let broken: Mutex<Option<SnapshotError>> = Mutex::new(None);
    let note = |result: Result<()>| {
        if let Err(e) = result {
            broken.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e.into());
            spool.close();
        }
    };
    let bytes = AtomicU64::new(0);
    let pace = || -> Result<()> {
        if broken.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            anyhow::bail!("the redo log is no longer followed");
        }
        Ok(())
    };
    let copier =
        Copier { sink, threads: options.threads, direct: facts.direct, cancel, bytes: &bytes, pace: &pace };
    let copy = CopyFiles {
        copier,
        facts: &facts,
        allow_corrupt: options.allow_corrupt_pages,
        damaged: Mutex::default(),
    };
    let mut work =
        Work { options, facts: &facts, stage, observer, copy: &copy, state: &state, out: &out, cancel };
    let done = std::thread::scope(|scope| {
        scope.spawn(|| note(tail.run()));
        scope.spawn(|| note(out.run(sink)));
        let done = work.run();
        state.stop();
        spool.close();
        done
    });
    drop(work);
    let broke = broken.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(error) = broke {
        return Err(error);
    }
    let Done { catalog, moment, copying, rounds } = done?;
    if !out.saw_checkpoint() {
        return Err(Declined::CheckpointMissing(checkpoint.lsn).into());
    }
    let head = out.flat().head(&header, &options.creator).map_err(anyhow::Error::from)?;
    sink.write(REDO, 0, &head)?;
    let uuid = done_uuid(options, &facts)?;
    let manifest =
        manifest(&catalog, &out, checkpoint.lsn, &moment, uuid.map(|uuid| (uuid, facts.gtid_domain)));
    sink.finish(&manifest)?;
    Ok(Taken {
        redo_bytes: moment.end.0 - checkpoint.lsn.0,
        manifest,
        moment,
        copying: copying - began,
        total: began.elapsed(),
        bytes: bytes.load(Ordering::Relaxed),
        rounds,
        redo_behind_max: state.behind_max(),
        damaged: copy.damaged.into_inner().unwrap_or_else(PoisonError::into_inner),
    })
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

fn done_uuid(options: &Options, facts: &Facts) -> Result<Option<Uuid>, SnapshotError> {
    if !facts.galera {
        return Ok(None);
    }
    let mut session = Session::open(&options.login, LOG_PATIENCE)?;
    let text = session.status("wsrep_local_state_uuid").map_err(|e| Declined::SessionLost(e.to_string()))?;
    Ok(text.and_then(|text| text.parse().ok()))
}

struct Work<'a> {
    options: &'a Options,
    facts: &'a Facts,
    stage: Stage,
    observer: Session,
    copy: &'a CopyFiles<'a>,
    state: &'a TailState,
    out: &'a RedoOut,
    cancel: &'a Cancel,
}

struct Done {
    catalog: Catalog,
    moment: Moment,
    copying: Instant,
    rounds: u32,
}

impl Work<'_> {
    fn run(&mut self) -> Result<Done, SnapshotError> {
        let mut catalog = Catalog::new(now());
        let rounds = self.rounds(&mut catalog)?;
        let copying = Instant::now();
        for _ in 0..MOMENTS_MAX {
            let moment = Settle {
                stage: &mut self.stage,
                observer: &mut self.observer,
                roots: &self.facts.roots,
                catalog: &mut catalog,
                copy: self.copy,
                tail: self.state,
                galera: self.facts.galera,
                budget: self.options.budget,
                cancel: self.cancel,
            }
            .run()?;
            self.reach(&moment)?;
            match self.check_events(&mut catalog, &moment)? {
                None => return Ok(Done { catalog, moment, copying, rounds }),
                Some(why) => tracing::info!("not settled: {why}"),
            }
            self.state.go_on();
            start(&mut self.stage, &mut self.observer, self.options, self.cancel)?;
        }
        Err(Declined::NotSettled(format!("{MOMENTS_MAX} times")).into())
    }

    /// Without a lock, until few new files are found.
    fn rounds(&mut self, catalog: &mut Catalog) -> Result<u32, SnapshotError> {
        for round in 1..=ROUNDS_MAX {
            let todo = catalog.update(listing::list(&self.facts.roots)?);
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

    /// What the log says about files from the checkpoint to the end, against what was listed. `Some` = again.
    fn check_events(&self, catalog: &mut Catalog, moment: &Moment) -> Result<Option<String>, SnapshotError> {
        let mut again = None;
        for event in self.out.events_since(Lsn(0)) {
            let under_lock = event.lsn >= moment.list_lsn;
            match event.kind {
                EventKind::Create(space, name) | EventKind::Rename(space, name) if under_lock => {
                    again = Some(format!(
                        "tablespace {space} ({}) came under the lock",
                        name.unwrap_or_default()
                    ));
                }
                EventKind::Delete(space, _) => {
                    let found = catalog.files().iter().find(|f| f.present && f.space == Some(space));
                    let Some((id, path, identity)) =
                        found.map(|f| (f.id, f.path().clone(), f.listed.look.identity))
                    else {
                        continue;
                    };
                    let there = look(&path).context("cannot look at a file")?;
                    if under_lock || there.is_none_or(|now| now.identity != identity) {
                        // The file of a statement that failed, or one whose deletion was under way.
                        catalog.forget(id);
                    } else {
                        let name = path.display().to_string();
                        return Err(Declined::Import { space: space.0, name }.into());
                    }
                }
                _ => {}
            }
        }
        Ok(again)
    }
}

impl CopyFiles<'_> {
    /// Copies data files and notes it.
    ///
    /// # Errors
    /// From the system, the sink, cancelled, or [`Declined::CorruptPages`].
    pub fn pages(&self, catalog: &mut Catalog, ids: &[FileId]) -> Result<()> {
        let mut wanted = Vec::new();
        for known in ids.iter().filter_map(|id| catalog.get(*id)) {
            let entry = known.entry();
            let system = if is_further_system_file(&entry) { self.further(&entry)? } else { None };
            let identity = known.listed.look.identity;
            wanted.push(Wanted { entry, path: known.path().clone(), identity, system });
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let (copied, damage) = pages::copy(self.copier, &wanted)?;
        for file in copied {
            catalog.copied(file.id, file.bytes, None, file.space);
        }
        if let Some(first) = damage.first() {
            if !self.allow_corrupt {
                let (count, first) = (damage.len() as u64, first.text.clone());
                return Err(Declined::CorruptPages { count, first }.into());
            }
            let mut all = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(damage.into_iter().map(|d| d.text));
        }
        Ok(())
    }

    /// Copies files without pages and notes it.
    ///
    /// # Errors
    /// From the system, the sink, or cancelled.
    pub fn small(&self, catalog: &mut Catalog, ids: &[FileId]) -> Result<()> {
        for id in ids {
            (self.copier.pace)()?;
            let Some(known) = catalog.get(*id) else { continue };
            match small::copy(self.copier.sink, known, self.copier.cancel)? {
                Some((bytes, signature)) => catalog.copied(*id, Some(bytes), Some(signature), None),
                None => catalog.forget(*id),
            }
        }
        Ok(())
    }

    /// Format and first page number of a further file of the system tablespace: those before it have fixed sizes.
    fn further(&self, entry: &FileEntry) -> Result<Option<(PageFormat, u32)>> {
        let FileRole::SystemTablespace { index } = entry.role else { return Ok(None) };
        let files = &self.facts.roots.system_files;
        let before = files.get(..usize::from(index)).unwrap_or_default();
        let mut pages = 0;
        for path in before {
            pages += look(path)?.map_or(0, |l| l.signature.size) / u64::from(self.facts.page_size);
        }
        let first = files.first().context("no system tablespace")?;
        let mut buffer = Buffer::new(PAGE0_BYTES);
        Direct::open(first, self.facts.direct)?.read(buffer.bytes(), 0)?;
        let header = parse_page0(buffer.bytes()).context("the system tablespace has no first page")?;
        Ok(Some((header.format, pages as u32)))
    }
}

fn redo_entry(size: u64) -> FileEntry {
    FileEntry {
        id: REDO,
        place: Place::LogHome,
        path: "ib_logfile0".to_owned(),
        size,
        allocated: size,
        role: FileRole::Redo,
    }
}

fn manifest(
    catalog: &Catalog,
    out: &RedoOut,
    checkpoint: Lsn,
    moment: &Moment,
    member: Option<(Uuid, Option<u32>)>,
) -> Manifest {
    let (mut files, removed) = catalog.result();
    files.insert(0, redo_entry(out.flat().file_size(moment.end)));
    let position = match (member, moment.seqno) {
        (Some((uuid, domain)), Some(seqno)) => {
            Some(Position { state: StateId { uuid, seqno: Seqno(seqno) }, domain })
        }
        _ => None,
    };
    Manifest { files, removed, redo: REDO, checkpoint, end: moment.end, position }
}
