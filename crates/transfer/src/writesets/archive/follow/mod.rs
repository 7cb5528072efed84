//! Follows the provider's live cache: takes each action in the order of seqnos once its verdict is final, and hands it on.
//!
//! The files are only read. Headers are walked as the provider writes them and remembered by seqno ([`Places`]); an action
//! is taken when it is the next one and the provider has released it. When the next one is in no file, the whole cache is
//! looked through once more; only then, and where it cannot come any more, a gap is recorded. The cache is also looked through
//! when the provider starts anew, and when it overwrote the place at which the walk was.
mod attach;
mod attached;
mod files;
mod take;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use formats::archive::GapReason;
use formats::galera::gcache;
use formats::{Seqno, Uuid};

use self::attached::{Attached, Standing};
use self::files::{Tail, Walked};
use self::take::{Taken, is_another, take};
use super::output::Output;
use super::recognise::Last;
use super::shifts::{Ended, Shift};
use crate::cancel::Cancel;
use crate::disk::watch::Watch;
use crate::failure::{Kind, kind_of};

/// So long actions are taken until it is looked whether the shift is over.
const TAKEN_FOR: Duration = Duration::from_millis(5);
/// How often it is looked whether the provider's file is another one, or its server another process.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Without progress for so long, the cache is looked through again: a restart may have gone unnoticed.
const STALLED: Duration = Duration::from_secs(10);
/// For so long an action is waited for that may still come: a busy host may be slow to send IST.
const HOLE_PATIENCE: Duration = Duration::from_secs(60);
/// It is no longer waited for when the provider has written so much of the ring meanwhile: what lies behind it would be lost.
const HOLE_LAPS: f64 = 0.25;
/// Looking through a large cache takes time; at most a two-hundredth of the time goes into it.
const LOOK_SHARE: u32 = 200;

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
    /// Where the next buffer of the ring with this inode was when it was looked through, and nothing was taken since.
    ring_next: Option<(u64, u64)>,
    /// An action that is missing though it was not overwritten, since when, and how far the ring had been walked then.
    hole: Option<(Seqno, Instant, f64)>,
    /// When there was nothing left to take, or the rest is over that followed.
    caught_up: Instant,
    /// How long to rest then.
    rest: Duration,
}

impl Follower {
    /// Of the cache with this ring file, behind the last action that is archived. It rests for so long when all was taken.
    ///
    /// # Errors
    /// The system has no more watches.
    pub(super) fn new(ring: &Path, last: Option<Last>, rest: Duration) -> Result<Follower> {
        let (ring, watch) = (ring.to_owned(), Watch::new()?);
        Ok(Follower {
            ring,
            next: None,
            last,
            watch,
            attached: None,
            overtaken: false,
            ring_next: None,
            hole: None,
            caught_up: Instant::now(),
            rest,
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
            let is_sound = |at: &Attached| at.standing == Standing::Sound;
            let is_too_much = matches!(shift, Shift::Low(_)) && !self.attached.as_ref().is_some_and(is_sound);
            if is_too_much || shift.is_over(self.caught_up) {
                return Ok(Ended::Shift);
            }
            let attached = match self.attached.take() {
                Some(attached) if is_sound(&attached) => Ok(Some(attached)),
                before => self.attach(before, cancel),
            };
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
            let walked = at.walk(self.wanted(at.history), self.next, cancel)?;
            self.overtaken |= walked == Walked::Lost;
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
                    (at.progress, at.looked_through) = (Instant::now(), false);
                    // Asked here too: on a busy node there is more to take after each rest.
                    if at.became_another(&self.ring) {
                        return Ok(None);
                    }
                    self.rest(self.rest);
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
                    (self.overtaken, at.standing) = (true, Standing::Missing);
                    return Ok(Some(at));
                }
                // A walk that did not come to the end says nothing of what lies behind.
                Some(first) if next > 0 && walked == Walked::End && !self.may_still_come(&at) => {
                    self.skip(&at, Seqno(first - 1), GapReason::Lost, output)?;
                    at.looked_through = false;
                    continue;
                }
                _ => {}
            }
            // Of a server that was killed: the next one writes the same head.
            let stalled = if at.server.is_none() && at.closed.is_none() { STALLED / 5 } else { STALLED };
            let patience = stalled.max(at.scan_took * LOOK_SHARE);
            if walked == Walked::Lost {
                // A ring is not looked through again and again without a rest.
                self.rest(self.rest.max(at.scan_took));
                at.standing = Standing::Lost;
                return Ok(Some(at));
            }
            if at.progress.elapsed() > patience {
                return Ok(None);
            }
            if at.became_another(&self.ring) {
                return Ok(None);
            }
            self.rest(self.rest);
        }
        Ok(Some(at))
    }

    /// Whether the next action, which is in no file, may be there later: a node that joins may order what the group writes
    /// before it receives by IST what came earlier. What was overwritten does not come again, and neither do older ones.
    fn may_still_come(&mut self, at: &Attached) -> bool {
        let (Some(next), true) = (self.next, at.has_hole) else { return false };
        let known = self.hole.filter(|(hole, ..)| *hole == next);
        let (_, since, laps) = *self.hole.insert(known.unwrap_or_else(|| (next, Instant::now(), at.laps())));
        since.elapsed() < HOLE_PATIENCE && at.laps() < laps + HOLE_LAPS
    }

    /// Waits until more is there than now, or a page is new.
    fn rest(&mut self, rest: Duration) {
        self.caught_up = Instant::now() + rest;
        self.watch.wait(rest);
    }

    /// From which seqno on actions are of interest: also the last archived one, to see that it is the same.
    fn wanted(&self, history: Uuid) -> i64 {
        let before_next = self.next.map_or(0, |next| next.0 - 1);
        self.known(history).map_or(before_next, |(known, _)| before_next.min(known.0))
    }

    /// The last archived action of this history, and its digest.
    fn known(&self, history: Uuid) -> Option<(Seqno, u64)> {
        self.last.filter(|last| last.history == history).and_then(|last| last.known)
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
                at.add(tail);
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
                let known = self.known(at.history).filter(|(known, _)| known.0 == seqno && !at.recognised);
                if let (Some((_, digest)), Some(last)) = (known, self.last) {
                    at.recognised = true;
                    if is_another(tail, place.at, Seqno(seqno), digest)? {
                        self.last = None;
                        let behind = Seqno(last.seqno.0 + 1);
                        output.gap(at.history, behind, last.seqno, GapReason::OtherBranch)?;
                        return Ok(Drained::Again);
                    }
                }
                at.places.remove(&seqno);
                continue;
            }
            if seqno > next.0 {
                break;
            }
            match take(tail, place.at, next, at.closed.as_ref(), at.history, &mut *output)? {
                Taken::Action { digest } => {
                    self.last = Some(Last { history: at.history, seqno: next, known: Some((next, digest)) });
                    self.next = Some(Seqno(next.0 + 1));
                    (self.overtaken, self.ring_next) = (false, None);
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
        at.drop_done_pages(self.next.map_or(0, |next| next.0 - 1));
        Ok(outcome)
    }

    /// Records that everything up to this seqno is missing.
    fn skip(&mut self, at: &Attached, to: Seqno, reason: GapReason, output: &mut Output<'_>) -> Result<()> {
        let Some(next) = self.next else { return Ok(()) };
        // An archive, or a history in it, does not begin with a gap.
        if let Some(last) = self.last.filter(|last| last.history == at.history) {
            output.gap(at.history, next, to, reason)?;
            self.last = Some(Last { seqno: to, ..last });
        }
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
