//! Follows the provider's live cache: takes each action in the order of seqnos once its verdict is final, and hands it on.
//!
//! The files are only read. Headers are walked as the provider writes them and remembered by seqno ([`Places`]); an action
//! is taken when it is the next one and the provider has released it. When the next one is in no file, the whole cache is
//! looked through once more, and only then a gap is recorded. The same happens when the provider starts anew.
mod attached;
mod files;
mod take;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use formats::archive::GapReason;
use formats::galera::gcache;
use formats::{Seqno, Uuid};

use self::attached::{Attached, Places};
use self::files::Tail;
pub use self::take::digest;
use self::take::{Taken, take};
use super::output::Output;
use super::shifts::{Ended, Shift};
use crate::cancel::Cancel;
use crate::disk::watch::Watch;
use crate::failure::{Kind, kind_of};
use crate::writesets::gcache::{Gcache, InUse};

/// So long actions are taken until it is looked whether the shift is over.
const TAKEN_FOR: Duration = Duration::from_millis(5);
/// How long to wait when everything was taken: one after the other would cost a busy server more than many at once.
const IDLE: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_millis(100);
/// How often it is looked whether the provider's file is another one, or its server another process.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Without progress for so long, the cache is looked through again: a restart may have gone unnoticed.
const STALLED: Duration = Duration::from_secs(10);
/// Looking through a large cache takes time; at most a two-hundredth of the time goes into it.
const LOOK_SHARE: u32 = 200;

/// The last action that is in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Last {
    /// Its history.
    pub history: Uuid,
    /// Its seqno.
    pub seqno: Seqno,
    /// What [`take::digest`] makes of it; `None` where it is too large to be read back.
    pub digest: Option<u64>,
}

/// Takes the actions out of a provider's cache.
pub(super) struct Follower {
    ring: PathBuf,
    /// The next seqno of the history that is followed; `None`: whichever the cache begins with.
    next: Option<Seqno>,
    last: Option<Last>,
    watch: Watch,
    /// The provider that was followed when the last shift ended.
    attached: Option<Attached>,
    /// The provider overwrote what was to be taken next.
    overtaken: bool,
    /// When there was nothing left to take.
    caught_up: Instant,
    /// How long to wait then.
    idle: Duration,
}

impl Follower {
    /// Of the cache with this ring file, behind the last action that is archived. It may be behind for so long.
    ///
    /// # Errors
    /// The system has no more watches.
    pub(super) fn new(ring: &Path, last: Option<Last>, behind_for: Duration) -> Result<Follower> {
        let (ring, watch) = (ring.to_owned(), Watch::new()?);
        let idle = (behind_for / 10).clamp(*IDLE.start(), *IDLE.end());
        Ok(Follower {
            ring,
            next: None,
            last,
            watch,
            attached: None,
            overtaken: false,
            caught_up: Instant::now(),
            idle,
        })
    }

    /// Follows until `cancel` says otherwise, or the shift is over.
    ///
    /// # Errors
    /// The output failed, or the cache cannot be read and waiting would not help.
    pub(super) fn follow(
        &mut self,
        output: &mut Output<'_>,
        cancel: &Cancel,
        shift: &Shift,
    ) -> Result<Ended> {
        while cancel.check().is_ok() {
            // To look through a whole cache takes seconds at the lowest priority.
            let is_too_much = matches!(shift, Shift::Low(_)) && self.attached.is_none();
            if is_too_much || shift.is_over(self.caught_up) {
                return Ok(Ended::Shift);
            }
            let attached =
                self.attached.take().map_or_else(|| self.attach(cancel), |attached| Ok(Some(attached)));
            let (state, wait) = match attached {
                Ok(Some(attached)) => {
                    self.attached = self.stay(attached, output, cancel, shift)?;
                    output.tick()?;
                    continue;
                }
                // No server has been here yet, or it is being replaced.
                Ok(None) => ("waiting for the server's write-set cache".to_owned(), LOOK_EVERY),
                Err(error) if kind_of(&error) == Kind::Configuration => return Err(error),
                Err(error) => (format!("waiting: {error:#}"), Duration::from_secs(1)),
            };
            output.waits(&state);
            let _ = cancel.sleep(wait);
            self.caught_up = Instant::now();
            output.tick()?;
        }
        output.flush().map(|()| Ended::Work)
    }

    fn dir(&self) -> &Path {
        self.ring.parent().unwrap_or(Path::new("."))
    }

    /// Looks through the cache and begins where the archive ends.
    fn attach(&mut self, cancel: &Cancel) -> Result<Option<Attached>> {
        if !self.ring.exists() {
            return Ok(None);
        }
        let began = Instant::now();
        // Pages that are created from now on are reported.
        self.watch.clear();
        let dir = self.dir().to_owned();
        self.watch.add("cache", &dir);
        let cache = Gcache::open_unless(&self.ring, cancel)?;
        let history = cache.preamble().history;
        if history.is_nil() {
            return Ok(None);
        }
        self.next = match self.last.filter(|last| last.history == history) {
            Some(last) => Some(Seqno(last.seqno.0 + 1)),
            None => cache.range().map(|(first, _)| first),
        };
        // A provider that resets its ring clears only its first header: what lies behind may be of another history.
        let begins = files::change_at_start(&self.ring, history)?;
        let fresh = self.last.is_none_or(|last| last.history != history);
        if fresh && begins.is_some() {
            self.next = begins;
        }
        let ring = Tail::ring(&self.ring, &cache, self.next, begins, self.overtaken)?;
        let mut attached = Attached {
            history,
            server: match cache.in_use() {
                InUse::By(pid) => Some(pid),
                _ => None,
            },
            head: ring.head()?,
            inode: ring.inode(),
            closed: cache.preamble().synced,
            tails: vec![Some(ring)],
            places: Places::new(),
            newest_before: cache.range().map_or(0, |(_, last)| last.0),
            scan_took: Duration::ZERO,
            looked: Instant::now(),
            progress: Instant::now(),
            looked_through: false,
        };
        for page in cache.pages().iter().filter(|page| page.live) {
            attached.tails.extend(Tail::page(&page.path)?.map(Some));
        }
        attached.scan_took = began.elapsed();
        Ok(Some(attached))
    }

    /// Follows one provider until it is another one. Answers it where it is still the same when the shift is over.
    fn stay(
        &mut self,
        mut at: Attached,
        output: &mut Output<'_>,
        cancel: &Cancel,
        shift: &Shift,
    ) -> Result<Option<Attached>> {
        output.follows(at.history, at.server);
        while cancel.check().is_ok() && !shift.is_over(self.caught_up) {
            self.take_new_pages(&mut at)?;
            let lost = at.walk(self.wanted(), cancel)?;
            self.overtaken |= lost;
            output.sees(Seqno(at.newest()));
            let taken = self.drain(&mut at, output)?;
            output.tick()?;
            match taken {
                Drained::Again => return Ok(None),
                Drained::Part => {
                    (at.progress, at.looked_through) = (Instant::now(), false);
                    continue;
                }
                Drained::All => {
                    self.caught_up = Instant::now();
                    (at.progress, at.looked_through) = (self.caught_up, false);
                    self.watch.wait(self.idle);
                    continue;
                }
                Drained::Nothing => self.caught_up = Instant::now(),
            }
            let next = self.next.map_or(0, |next| next.0);
            let ahead = at.places.first_key_value().map(|(seqno, _)| *seqno).filter(|first| *first > next);
            match ahead {
                // In no file, though a later one is: looked for everywhere before it counts as lost.
                Some(_) if !at.looked_through => {
                    // What is oldest may be overwritten before it is taken.
                    self.overtaken |= at.newest() > at.newest_before;
                    match self.attach(cancel)? {
                        Some(again) if again.history == at.history => at = again.adopting(at),
                        _ => return Ok(None),
                    }
                    at.looked_through = true;
                    continue;
                }
                Some(first) if next > 0 => {
                    self.skip(&at, Seqno(first - 1), GapReason::Lost, output)?;
                    at.looked_through = false;
                    continue;
                }
                _ => {}
            }
            // Of a server that was killed: the next one writes the same head.
            let stalled = if at.server.is_none() && !at.closed { STALLED / 5 } else { STALLED };
            let patience = stalled.max(at.scan_took * LOOK_SHARE);
            if lost {
                // A small ring is not looked through again and again without a rest.
                self.watch.wait(self.idle);
                return Ok(None);
            }
            if at.progress.elapsed() > patience {
                return Ok(None);
            }
            if at.looked.elapsed() > LOOK_EVERY {
                at.looked = Instant::now();
                if at.is_another(&self.ring) {
                    return Ok(None);
                }
            }
            self.watch.wait(self.idle);
        }
        Ok(Some(at))
    }

    /// From which seqno on actions are of interest: also the last archived one, to see that it is the same.
    fn wanted(&self) -> i64 {
        self.next.map_or(0, |next| next.0 - 1)
    }

    /// Opens page files as soon as they are there: one may be deleted within a second.
    fn take_new_pages(&mut self, at: &mut Attached) -> Result<()> {
        use crate::disk::watch::Changed;
        let changed = match self.watch.changes()? {
            // Events were dropped.
            None => Some(Changed::All),
            Some(mut all) => all.remove("cache"),
        };
        let names: Vec<_> = match changed {
            None => return Ok(()),
            Some(Changed::Names(names)) => names.into_iter().collect(),
            Some(Changed::All) => self.dir().read_dir()?.flatten().map(|entry| entry.file_name()).collect(),
        };
        for name in names.iter().filter(|name| gcache::is_page_name(&name.to_string_lossy())) {
            let path = self.dir().join(name);
            if let Some(tail) = Tail::page(&path)?
                && !at.tails.iter().flatten().any(|known| known.is_same(&tail))
            {
                at.tails.push(Some(tail));
            }
        }
        Ok(())
    }

    /// Takes what can be taken.
    fn drain(&mut self, at: &mut Attached, output: &mut Output<'_>) -> Result<Drained> {
        let (mut outcome, began) = (Drained::Nothing, Instant::now());
        while let Some((&seqno, &place)) = at.places.first_key_value() {
            let Some(next) = self.next else {
                self.next = Some(Seqno(seqno));
                continue;
            };
            let Some(tail) = at.tails.get_mut(place.tail).and_then(Option::as_mut) else {
                at.places.remove(&seqno);
                continue;
            };
            if seqno < next.0 {
                let same = self.last.filter(|last| last.seqno.0 == seqno && last.digest.is_some());
                if let Some(last) = same.filter(|last| last.history == at.history)
                    && let Taken::Action { digest, .. } = take(tail, place.at, Seqno(seqno), true, None)?
                    && Some(digest) != last.digest
                {
                    self.last = None;
                    output.gap(at.history, Seqno(seqno + 1), Seqno(seqno), GapReason::OtherBranch)?;
                    return Ok(Drained::Again);
                }
                // Once is enough.
                if let Some(last) = self.last.as_mut().filter(|last| last.seqno.0 == seqno) {
                    last.digest = None;
                }
                at.places.remove(&seqno);
                continue;
            }
            if seqno > next.0 {
                break;
            }
            match take(tail, place.at, next, at.closed, Some((at.history, &mut *output)))? {
                Taken::Action { digest, large } => {
                    let digest = Some(digest).filter(|_| !large);
                    self.last = Some(Last { history: at.history, seqno: next, digest });
                    self.next = Some(Seqno(next.0 + 1));
                    self.overtaken = false;
                    at.places.remove(&seqno);
                    outcome = Drained::All;
                }
                Taken::NotFinal => break,
                Taken::Overwritten => {
                    self.overtaken = true;
                    at.places.remove(&seqno);
                    at.forget_overwritten(Seqno(seqno + 1))?;
                }
                Taken::Damaged(what) => {
                    tracing::error!("write-set {next} is damaged in the provider's cache: {what}");
                    at.places.remove(&seqno);
                    self.skip(at, next, GapReason::Damaged, output)?;
                }
            }
            if began.elapsed() > TAKEN_FOR {
                outcome = Drained::Part;
                break;
            }
            output.tick()?;
        }
        at.drop_done_pages(self.wanted());
        Ok(outcome)
    }

    /// Records that everything up to this seqno is missing.
    fn skip(&mut self, at: &Attached, to: Seqno, reason: GapReason, output: &mut Output<'_>) -> Result<()> {
        let Some(next) = self.next else { return Ok(()) };
        // An archive, or a history in it, does not begin with a gap.
        if self.last.is_some_and(|last| last.history == at.history) {
            output.gap(at.history, next, to, reason)?;
        }
        self.last = Some(Last { history: at.history, seqno: to, digest: None });
        self.next = Some(Seqno(to.0 + 1));
        Ok(())
    }
}

/// What came of looking for actions.
enum Drained {
    /// Some were taken, and more may be there.
    Part,
    /// All that are there were taken.
    All,
    /// None is there yet.
    Nothing,
    /// The cache has to be looked through anew.
    Again,
}
