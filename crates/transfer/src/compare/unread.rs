//! Ranges that the donor hands over without reading them: their fingerprints are remembered, and the joiner has the same.
use std::sync::atomic::Ordering;

use anyhow::Result;
use protocol::fingerprint::Fingerprint;
use protocol::inventory::FileId;
use protocol::limits::RANGE_BYTES;

use crate::compare::comparison::Compare;
use crate::compare::groups::Standing;
use crate::compare::theirs::one;
use crate::snapshot::declined::Declined;
use crate::threads::lock;

impl Compare<'_> {
    /// Bytes that were not read, because their fingerprints are remembered and the joiner has the same.
    pub fn unread_bytes(&self) -> u64 {
        self.unread.load(Ordering::Relaxed)
    }

    /// Fails if the joiner has found that what it remembered is wrong: its answers are worth nothing.
    ///
    /// # Errors
    /// [`Declined::WrongFingerprints`].
    pub fn refuse_wrong_answers(&self) -> Result<(), Declined> {
        lock(&self.wrong).clone().map_or(Ok(()), |what| Err(Declined::WrongFingerprints(what)))
    }

    /// Whether the joiner has exactly this range, whose fingerprint is remembered here. It then counts as handed over. `wait`
    /// as in [`Compare::look`].
    ///
    /// # Errors
    /// Cancelled.
    pub fn has(&self, file: FileId, offset: u64, len: u32, ours: &Fingerprint, wait: bool) -> Result<bool> {
        let Ok(range) = u32::try_from(offset / u64::from(RANGE_BYTES)) else { return Ok(false) };
        // A server that blocks writes is not made to wait for answers: what is not answered yet is read.
        let wait = wait && !self.is_held_still();
        if self.worth.is_stopped() {
            return Ok(false);
        }
        let is_same = match self.together.standing(file) {
            Standing::MustBeRead => false,
            Standing::Same => true,
            Standing::Asked(first, ours) => self.has_group(first, &ours, wait)?,
            Standing::Apart => self.has_range(file, range, offset, len, ours, wait)?,
        };
        if is_same {
            self.done_with(file, range);
            self.same.fetch_add(u64::from(len), Ordering::Relaxed);
            self.unread.fetch_add(u64::from(len), Ordering::Relaxed);
            self.worth.same(u64::from(len));
        }
        Ok(is_same)
    }

    fn has_group(&self, first: FileId, ours: &Fingerprint, wait: bool) -> Result<bool> {
        // Under locks not even for a moment.
        if !wait && !self.together.is_answered(first) {
            return Ok(false);
        }
        loop {
            self.cancel.check()?;
            if self.worth.is_stopped() {
                return Ok(false);
            }
            match self.together.theirs(first) {
                Some(theirs) if theirs == *ours => {
                    let settled = self.together.settle_unread(first);
                    settled.iter().for_each(|entries| self.used_up(entries));
                    return Ok(settled.is_some());
                }
                Some(_) => return Ok(false),
                None => {}
            }
        }
    }

    fn has_range(
        &self,
        file: FileId,
        range: u32,
        offset: u64,
        len: u32,
        ours: &Fingerprint,
        wait: bool,
    ) -> Result<bool> {
        let known = self.wait_for(file, wait, |theirs| {
            if theirs.used.overlaps(one(range)) {
                return Some(false);
            }
            match theirs.size? {
                Some(size) if range < theirs.ranges_asked() => {
                    let held = (size - offset).min(u64::from(RANGE_BYTES));
                    Some(*theirs.ranges.get(&range)? == *ours && held == u64::from(len))
                }
                _ => Some(false),
            }
        })?;
        Ok(known == Some(true))
    }
}
