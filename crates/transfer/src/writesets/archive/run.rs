//! `rejoin archive run`: one thread follows the provider's cache, another one writes. The queue between them bounds the
//! memory, and lets the follower go on while the disk is slow. Both work in [shifts](super::shifts).
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use formats::archive::BlockKind;

use super::follow::Follower;
use super::output::{Output, Seen};
use super::read::runs_of;
use super::recognise::last_of;
use super::shifts::{Ended, Shift, in_shifts, may_be_behind_for, may_rest_for};
use super::status::{ENDED, STOPPED, Status};
use super::write::{Block, Retention, Writer};
use crate::cancel::Cancel;
use crate::clock::now_ms;
use crate::disk::filesystem::bytes_available;
use crate::disk::lock::DatadirLock;
use crate::failure::{Failure, Kind, kind_of};
use crate::human::size;
use crate::threads::{Thread, lock, scoped};
use crate::writesets::ist::stand_in::Told;

/// Blocks that wait for the writer.
const QUEUE: usize = 12;
/// How often the status is written.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked what need not be kept.
const RETIRE_EVERY: Duration = Duration::from_secs(10);
/// The rate is that of the last minute.
const RATE_OVER: usize = 60;
/// An archiver that has just been killed still holds the lock for a moment.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);

/// What to archive, where, and how much of it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The server's datadir.
    pub datadir: PathBuf,
    /// The provider's ring file; pages lie beside it.
    pub ring: PathBuf,
    /// The archive's directory.
    pub dir: PathBuf,
    /// What is kept.
    pub keep: Retention,
    /// Nothing is written while less than this is free.
    pub free_floor: u64,
    /// What the stand-in for a relay of IST beside it does.
    pub ist: Told,
}

/// Archives until `cancel` says otherwise.
///
/// # Errors
/// Another archiver writes this archive; the cache cannot be understood; the disk fails.
pub fn run(settings: &Settings, cancel: &Cancel) -> Result<()> {
    let _lock = DatadirLock::take(&settings.dir, "rejoin archive run", LOCK_PATIENCE, cancel)?;
    let writer = Writer::open(&settings.dir)?;
    let last = last_of(&settings.dir)?;
    if let Some(last) = &last {
        tracing::info!("continuing the archive of {} behind seqno {}", last.history, last.seqno);
    }
    let (queue, blocks) = sync_channel(QUEUE);
    let seen = &Mutex::new(Seen::default());
    // A ring that is not there yet may become a small one.
    let ring = std::fs::metadata(&settings.ring).map_or(0, |ring| ring.len());
    let (behind_for, rest) = (may_be_behind_for(ring), may_rest_for(ring));
    std::thread::scope(|scope| {
        let writing = scoped(scope, Thread::ArchiveWriter, move || {
            let mut writing = Writing::new(settings, writer, blocks, seen, cancel);
            let written = in_shifts(Thread::ArchiveWriter, behind_for, |shift| writing.write(shift));
            if let Err(error) = &written {
                cancel.cancel(kind_of(error), format!("{error:#}"));
            }
            written
        });
        let mut output = Output { queue, seen, cancel, pending: None };
        let followed = Follower::new(&settings.ring, last, rest).and_then(|mut follower| {
            in_shifts(Thread::ArchiveReader, behind_for, |shift| follower.follow(&mut output, cancel, shift))
        });
        if let Err(error) = &followed {
            cancel.cancel(kind_of(error), format!("{error:#}"));
        }
        // The writer ends when nobody can send any more.
        drop(output);
        writing.join().and(followed)
    })
}

/// Removes what need not be kept of an archive that nobody writes. Answers segments and bytes.
///
/// # Errors
/// An archiver writes it; the disk fails.
pub fn prune(dir: &Path, keep: Retention) -> Result<(u64, u64)> {
    let _lock = DatadirLock::take(dir, "rejoin archive prune", LOCK_PATIENCE, &Cancel::new())?;
    Writer::open(dir)?.retire(keep)
}

/// The writing thread.
struct Writing<'a> {
    settings: &'a Settings,
    writer: Writer,
    blocks: Receiver<Block>,
    seen: &'a Mutex<Seen>,
    cancel: &'a Cancel,
    /// Each second: actions and bytes written since the beginning.
    rate: VecDeque<(Instant, u64, u64)>,
    actions: u64,
    bytes: u64,
    told: Option<Instant>,
    retired: Instant,
    /// When there was nothing left to write.
    caught_up: Instant,
}

impl<'a> Writing<'a> {
    fn new(
        settings: &'a Settings,
        writer: Writer,
        blocks: Receiver<Block>,
        seen: &'a Mutex<Seen>,
        cancel: &'a Cancel,
    ) -> Writing<'a> {
        let (rate, now) = (VecDeque::new(), Instant::now());
        let (retired, caught_up) = (now, now);
        Writing {
            settings,
            writer,
            blocks,
            seen,
            cancel,
            rate,
            actions: 0,
            bytes: 0,
            told: None,
            retired,
            caught_up,
        }
    }

    /// Writes what comes, until nobody can send any more or the shift is over.
    fn write(&mut self, shift: &Shift) -> Result<Ended> {
        self.tell_if_due(None)?;
        loop {
            if shift.is_over(self.caught_up) {
                return Ok(Ended::Shift);
            }
            match self.next() {
                Ok(block) => {
                    if !self.append(&block)? {
                        break;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.writer.sync_if_due()?;
            self.retire_if_due()?;
            self.tell_if_due(None)?;
        }
        self.writer.close()?;
        self.told = None;
        self.tell(Some(ENDED)).map(|()| Ended::Work)
    }

    /// The next block, which may be waited for.
    fn next(&mut self) -> Result<Block, RecvTimeoutError> {
        match self.blocks.try_recv() {
            Err(TryRecvError::Empty) => {
                let next = self.blocks.recv_timeout(STATUS_EVERY);
                self.caught_up = Instant::now();
                next
            }
            there => there.map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    fn retire_if_due(&mut self) -> Result<()> {
        if self.retired.elapsed() < RETIRE_EVERY {
            return Ok(());
        }
        self.retired = Instant::now();
        let (count, bytes) = self.writer.retire(self.settings.keep)?;
        if count > 0 {
            tracing::info!("removed {count} segments, {}", size(bytes));
        }
        Ok(())
    }

    /// Appends a block once there is room for it. False if that was not before the end: then nothing may follow it either.
    fn append(&mut self, block: &Block) -> Result<bool> {
        let mut said = false;
        loop {
            let free = bytes_available(&self.settings.dir)?;
            if free >= self.settings.free_floor {
                match self.writer.append(block) {
                    Ok(()) => break,
                    Err(error) if kind_of(&error) == Kind::Space => {}
                    Err(error) => return Err(error),
                }
            }
            let floor = self.settings.free_floor;
            let text = format!("{STOPPED}: {} are free, --free-floor is {}", size(free), size(floor));
            if !std::mem::replace(&mut said, true) {
                tracing::warn!("{text}");
            }
            self.tell_if_due(Some(&text))?;
            // What need not be kept may be what takes the room.
            self.retire_if_due()?;
            if self.cancel.sleep(STATUS_EVERY).is_err() {
                // What is in the queue is lost to this archive; the next archiver takes it from the cache, or finds a gap.
                return Ok(false);
            }
        }
        if matches!(block.kind, BlockKind::Actions | BlockKind::LastPart) {
            self.actions += block.last.0.abs_diff(block.first.0) + 1;
        }
        self.bytes = self.writer.segments().iter().map(|segment| segment.len).sum();
        Ok(true)
    }

    fn tell_if_due(&mut self, state: Option<&str>) -> Result<()> {
        match self.told {
            Some(told) if told.elapsed() < STATUS_EVERY => Ok(()),
            _ => self.tell(state),
        }
    }

    fn tell(&mut self, state: Option<&str>) -> Result<()> {
        let now = Instant::now();
        self.told = Some(now);
        self.rate.push_back((now, self.actions, self.bytes));
        while self.rate.len() > RATE_OVER {
            self.rate.pop_front();
        }
        let (since, actions, bytes) = self.rate.front().copied().unwrap_or((now, 0, 0));
        let seconds = now.duration_since(since).as_secs_f64();
        let per_second = |n: u64| if seconds > 0.0 { n as f64 / seconds } else { 0.0 };
        let segments = self.writer.segments();
        let mut status = {
            let seen = lock(self.seen);
            Status {
                pid: std::process::id(),
                state: state.map_or_else(|| seen.state.clone(), str::to_owned),
                updated_ms: now_ms(),
                datadir: self.settings.datadir.to_string_lossy().into_owned(),
                ist: self.settings.ist.text(),
                history: seen.history.map(|history| history.to_string()),
                provider_newest: seen.newest.map(|seqno| seqno.0),
                bytes: segments.iter().map(|segment| segment.len).sum(),
                action_bytes: segments.iter().map(|segment| segment.body_bytes).sum(),
                segments: segments.len() as u64,
                actions_per_second: per_second(self.actions - actions),
                bytes_per_second: per_second(self.bytes.saturating_sub(bytes)),
                ..Status::default()
            }
        };
        let (runs, gaps) = runs_of(segments);
        status.name(&runs, &gaps);
        match status.write(&self.settings.dir) {
            // A full disk keeps nobody from following.
            Err(error) if kind_of(&error) != Kind::Space => Err(error),
            _ => Ok(()),
        }
    }
}

/// Refuses an archive within the datadir.
///
/// # Errors
/// It would be there.
pub fn refuse_inside(datadir: &Path, dir: &Path) -> Result<()> {
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if !real(dir).starts_with(real(datadir)) {
        return Ok(());
    }
    let text = format!("the archive {} lies within the datadir", dir.display());
    let hint = "the server takes a directory there for a database, and other SST methods empty it: choose another place \
                with --archive";
    bail!(Failure::new(Kind::Configuration, text).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(seqno: i64) -> Block {
        let (first, last) = (formats::Seqno(seqno), formats::Seqno(seqno));
        let history = formats::Uuid([seqno as u8; 16]);
        Block {
            history,
            kind: BlockKind::Gap(formats::archive::GapReason::Lost),
            first,
            last,
            body: Vec::new(),
        }
    }

    #[test]
    fn below_the_floor_old_segments_are_removed_and_nothing_is_appended() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(dir.path()).unwrap();
        // Each history has a segment of its own.
        (1..4).for_each(|seqno| writer.append(&block(seqno)).unwrap());
        let settings = Settings {
            datadir: dir.path().to_owned(),
            ring: dir.path().join("galera.cache"),
            dir: dir.path().to_owned(),
            keep: Retention { bytes: Some(1), time: None },
            free_floor: u64::MAX,
            ist: Told::default(),
        };
        let (queue, blocks) = sync_channel(QUEUE);
        let (seen, cancel) = (Mutex::default(), Cancel::new());
        let mut writing = Writing::new(&settings, writer, blocks, &seen, &cancel);
        writing.retired = Instant::now().checked_sub(RETIRE_EVERY).unwrap();
        (4..6).for_each(|seqno| queue.send(block(seqno)).unwrap());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(100));
                cancel.cancel(Kind::Stopped, "told to end");
            });
            assert_eq!(writing.write(&Shift::Usual(Instant::now())).unwrap(), Ended::Work);
        });
        assert_eq!(writing.blocks.try_iter().count(), 1, "what follows a lost block would hide the hole");
        let left = super::super::Archive::open(dir.path()).unwrap();
        assert_eq!(left.segments().iter().map(|segment| segment.header.serial).collect::<Vec<_>>(), [3]);
    }
}
