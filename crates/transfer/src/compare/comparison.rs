//! What the joiner's own files contain, as the donor learns it, so that only differences are sent.
//!
//! Questions go out on one connection as soon as it is known what will be sent; answers come in on another one. A
//! thread that hands over bytes waits for their answer, but never in a consistency point. If a block differs, its
//! pieces are compared where that pays: it costs one more question and answer, and saves bytes that need not be sent.
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use protocol::chunk::is_zero;
use protocol::delta::Delta;
use protocol::fingerprint::{self, FingerprintKey};
use protocol::inventory::{FileEntry, FileId, batches, groups};
use protocol::limits::RANGE_BYTES;
use protocol::message::{JoinerPace, Message};

use crate::cancel::{Cancel, LOOK_EVERY};
use crate::compare::groups::{Ask, Group, Groups, split};
use crate::compare::pending_rebuilds::PendingRebuilds;
use crate::compare::theirs::{Files, Theirs, one};
use crate::compare::worth::{Prospect, Worth};
use crate::cost::clock::Laps;
use crate::threads::lock;

/// How long one range waits for the joiner's answer while the donor's server blocks writes.
const HELD_STILL_WAIT: Duration = Duration::from_millis(500);

/// The option `delta`: whether only the differing pieces of a block are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    /// If that is cheaper, as measured.
    Auto,
    /// Always.
    Always,
    /// Never: blocks are sent whole.
    Never,
}

/// The parts of a range that need not be sent.
#[derive(Debug, Default)]
pub struct Found {
    /// Parts that the joiner has: start and length in bytes, ascending.
    pub same: Vec<(u32, u32)>,
    /// Blocks that it rebuilds, ascending.
    pub deltas: Vec<Delta>,
    /// The bytes that it needs for that.
    pub literals: Vec<u8>,
    /// The joiner had described the range.
    pub compared: bool,
    /// The joiner's description was waited for in vain.
    pub unanswered: bool,
    /// The pieces of its blocks were compared.
    pub in_parts: bool,
    /// Processor time for blocks, and for pieces.
    pub took: (Duration, Duration),
    /// How long the joiner's answers about blocks were waited for, and those about pieces.
    pub waited: (Duration, Duration),
}

impl Found {
    /// Bytes that the joiner has as they are.
    pub fn same_bytes(&self) -> u64 {
        self.same.iter().map(|(_, len)| u64::from(*len)).sum()
    }

    /// Bytes of blocks that the joiner rebuilds, without the pieces that are sent for them.
    pub fn rebuilt_bytes(&self) -> u64 {
        let blocks: u64 = self.deltas.iter().map(|delta| u64::from(delta.len)).sum();
        blocks - self.literals.len() as u64
    }
}

/// What is known of the joiner's files.
pub struct Compare<'a> {
    pub(super) key: FingerprintKey,
    parts: Parts,
    /// Blocks that the joiner rebuilds.
    pub(super) pending_rebuilds: PendingRebuilds,
    pub(super) files: Mutex<Files>,
    /// An answer has arrived.
    pub(super) answered: Condvar,
    /// Groups of small files.
    pub(super) together: Groups,
    /// The snapshot blocks writes, so answers are not waited for as long as they take.
    held_still: bool,
    /// Whether the rest is compared.
    pub(super) worth: Worth,
    /// `None` once no more questions follow.
    ask: Mutex<Option<Sender<Message>>>,
    /// `None` once the connection has taken it.
    pub(super) asked: Mutex<Option<Receiver<Message>>>,
    /// Bytes that need not be sent.
    pub(super) same: AtomicU64,
    /// Bytes that were handed over by their remembered fingerprints.
    pub(super) unread: AtomicU64,
    /// What the joiner tells of its host.
    pub(super) pace: Mutex<Option<JoinerPace>>,
    /// What the joiner had remembered and found wrong.
    pub(super) wrong: Mutex<Option<String>>,
    pub(super) cancel: &'a Cancel,
}

impl<'a> Compare<'a> {
    /// Nothing has been asked yet.
    pub fn new(key: FingerprintKey, parts: Parts, cancel: &'a Cancel) -> Compare<'a> {
        let (ask, asked) = mpsc::channel();
        let (ask, asked) = (Mutex::new(Some(ask)), Mutex::new(Some(asked)));
        let (files, answered, same) = (Mutex::default(), Condvar::new(), AtomicU64::new(0));
        let (pending_rebuilds, together) = (PendingRebuilds::default(), Groups::default());
        let (unread, wrong) = (AtomicU64::new(0), Mutex::default());
        Compare {
            key,
            parts,
            pending_rebuilds,
            files,
            answered,
            together,
            held_still: false,
            worth: Worth::default(),
            ask,
            asked,
            same,
            unread,
            pace: Mutex::default(),
            wrong,
            cancel,
        }
    }

    /// For a snapshot that blocks writes: clients wait, so a range waits for the joiner's answer only if that is faster
    /// than sending it, and never long.
    pub fn held_still(self) -> Compare<'a> {
        Compare { held_still: true, ..self }
    }

    /// Whether the snapshot blocks writes.
    pub fn is_held_still(&self) -> bool {
        self.held_still
    }

    /// What the joiner has told of its host since the last call.
    pub fn take_pace(&self) -> Option<JoinerPace> {
        lock(&self.pace).take()
    }

    /// Comparing ends midway if it costs more than it saves, as measured over `window` bytes at a time. `prospect`: what the
    /// joiner may have in all.
    pub fn may_stop(self, prospect: Prospect, window: u64) -> Compare<'a> {
        Compare { worth: Worth::new(prospect, window), ..self }
    }

    /// Whether only the differing pieces of a block may be sent.
    pub fn parts(&self) -> Parts {
        self.parts
    }

    /// Blocks that the joiner rebuilds and has not confirmed yet.
    pub fn pending_rebuilds(&self) -> &PendingRebuilds {
        &self.pending_rebuilds
    }

    /// Bytes that the joiner has.
    pub fn same_bytes(&self) -> u64 {
        self.same.load(Ordering::Relaxed)
    }

    /// The groups of small files.
    pub fn together(&self) -> &Groups {
        &self.together
    }

    /// Asks what the joiner has of files that will be read in this order. Each file is asked about once.
    pub fn expect(&self, entries: &mut dyn Iterator<Item = &FileEntry>) {
        if self.worth.is_stopped() {
            return;
        }
        let mut new = Vec::new();
        let mut files = lock(&self.files);
        for entry in entries {
            if !files.asked.contains(entry.id) {
                files.asked.insert(entry);
                files.open.insert(entry.id, Theirs::unknown(entry));
                new.push(entry.clone());
            }
        }
        drop(files);
        for ask in self.together.by_memory(new).into_iter().flat_map(split) {
            match ask {
                Ask::Each(entries) => {
                    batches(&entries).for_each(|batch| self.ask(Message::CompareFiles(batch.to_vec())));
                }
                Ask::Grouped(entries) => batches(&entries).for_each(|batch| {
                    groups(batch).for_each(|group| self.together.expect(group.to_vec(), &self.key));
                    self.ask(Message::CompareGroups(batch.to_vec()));
                }),
            }
        }
    }

    /// True if the joiner has all of a complete group.
    ///
    /// # Errors
    /// Cancelled.
    pub fn is_same_group(&self, group: &Group) -> Result<bool> {
        let ours = group.fingerprint(&self.key);
        let began = Instant::now();
        loop {
            self.cancel.check()?;
            if self.worth.is_stopped() {
                return Ok(false);
            }
            let Some(theirs) = self.together.theirs(group.first()) else {
                if self.held_still && began.elapsed() >= HELD_STILL_WAIT {
                    return Ok(false);
                }
                continue;
            };
            if ours == theirs {
                self.same.fetch_add(group.total_bytes(), Ordering::Relaxed);
                self.worth.same(group.total_bytes());
                self.used_up(&group.entries);
            }
            return Ok(ours == theirs);
        }
    }

    /// Files of an equal group are not asked about again: what is read of them later is not compared.
    pub(super) fn used_up(&self, entries: &[FileEntry]) {
        let mut files = lock(&self.files);
        for entry in entries {
            if let Some(theirs) = files.get_mut(entry.id) {
                theirs.size = Some(Some(entry.size));
                theirs.use_up(0);
            }
            files.close_if_done(entry.id);
        }
    }

    /// Asks about each file of a group.
    pub fn ask_apart(&self, group: &Group) {
        if self.worth.is_stopped() {
            return;
        }
        self.ask(Message::SplitGroup { first: group.first() });
    }

    /// True if the joiner knows a file by this entry: it has answered about it, alone or in a group.
    pub fn is_known(&self, entry: &FileEntry) -> bool {
        let files = lock(&self.files);
        let is_open = |theirs: &Theirs| theirs.size.is_none() && !self.together.is_answered(entry.id);
        files.asked.get(entry.id).as_ref() == Some(entry) && !files.open.get(&entry.id).is_some_and(is_open)
    }

    /// The entry with which a file was asked about.
    pub fn entry(&self, file: FileId) -> Option<FileEntry> {
        lock(&self.files).asked.get(file)
    }

    /// No more questions follow.
    pub fn close(&self) {
        drop(lock(&self.ask).take());
    }

    pub(super) fn ask(&self, message: Message) {
        // Sending fails only if the connection is gone, and the transfer is cancelled then.
        if let Some(ask) = &*lock(&self.ask) {
            let _ = ask.send(message);
        }
    }

    /// What the joiner has of a range. `wait`: wait for answers, instead of using what is known; `parts`: compare the
    /// pieces of blocks that differ. A range is compared once.
    ///
    /// # Errors
    /// Cancelled.
    pub fn look(&self, file: FileId, offset: u64, bytes: &[u8], wait: bool, parts: bool) -> Result<Found> {
        let range_bytes = u64::from(RANGE_BYTES);
        if !offset.is_multiple_of(range_bytes) {
            return Ok(Found::default());
        }
        let Ok(range) = u32::try_from(offset / range_bytes) else { return Ok(Found::default()) };
        if self.worth.is_stopped() {
            self.done_with(file, range);
            return Ok(Found::default());
        }
        let (began, mut found) = (Instant::now(), Found::default());
        let known = self.wait_for(file, wait, |theirs| {
            if theirs.used.overlaps(one(range)) {
                return Some(None);
            }
            match theirs.size? {
                Some(size) if range < theirs.ranges_asked() => {
                    Some(Some((size, *theirs.ranges.get(&range)?)))
                }
                _ => Some(None),
            }
        })?;
        found.waited.0 = began.elapsed();
        found.unanswered = wait && known.is_none();
        let Some(Some((size, theirs))) = known else {
            self.done_with(file, range);
            return Ok(found);
        };
        let held = (size - offset).min(range_bytes) as u32;
        found.compared = true;
        let mut laps = Laps::begin();
        let ours = fingerprint::block_fingerprints(&self.key, bytes);
        let is_same =
            held as usize == bytes.len() && fingerprint::range_fingerprint(&self.key, &ours) == theirs;
        found.took.0 = laps.lap();
        if is_same {
            found.same = vec![(0, held)];
            self.look_less_far(file);
        } else if !is_zero(bytes) {
            // Zeros are not sent in any case; InnoDB's doublewrite buffer is an example.
            self.compare_blocks(file, range);
            let began = Instant::now();
            let blocks = self.wait_for(file, wait, |theirs| theirs.close().blocks.remove(&range))?;
            found.waited.0 += began.elapsed();
            found.same =
                fingerprint::same_parts(&ours, bytes.len() as u32, &blocks.unwrap_or_default(), held);
            if wait && parts {
                laps.lap();
                self.compare_pieces(file, range, bytes, &ours, held, &mut found)?;
                found.took.1 = laps.lap();
            }
        }
        self.done_with(file, range);
        self.same.fetch_add(found.same_bytes() + found.rebuilt_bytes(), Ordering::Relaxed);
        Ok(found)
    }

    /// Records that a range of `len` bytes was handed over, of which the joiner had `saved`. `comparing_or_not`: what a byte takes if
    /// this share of the bytes differs, with and without comparing. If comparing is given up for that, returns the reason, once.
    pub fn weigh(
        &self,
        len: u64,
        found: &Found,
        comparing_or_not: impl FnOnce(f64) -> (f64, f64),
    ) -> Option<String> {
        let saved = found.same_bytes() + found.rebuilt_bytes();
        let reason = self.worth.weigh(len, saved, found.compared, comparing_or_not);
        if reason.is_some() {
            self.answered.notify_all();
        }
        // What the joiner rebuilds, it confirms on the connection that ends with the questions.
        if self.worth.is_stopped() && self.pending_rebuilds.lock().is_empty() {
            self.close();
        }
        reason
    }

    /// Drops what was received for a range: it is used once.
    pub(super) fn done_with(&self, file: FileId, range: u32) {
        let mut files = lock(&self.files);
        if let Some(theirs) = files.get_mut(file) {
            theirs.use_up(range);
        }
        files.close_if_done(file);
    }

    pub(super) fn wait_for<T>(
        &self,
        file: FileId,
        wait: bool,
        mut get: impl FnMut(&mut Theirs) -> Option<T>,
    ) -> Result<Option<T>> {
        let began = Instant::now();
        let is_late = || self.held_still && began.elapsed() >= HELD_STILL_WAIT;
        let mut files = lock(&self.files);
        loop {
            let Some(theirs) = files.get_mut(file) else { return Ok(None) };
            let found = get(theirs);
            if found.is_some() || !wait || is_late() || self.worth.is_stopped() {
                return Ok(found);
            }
            self.cancel.check()?;
            files = self.answered.wait_timeout(files, LOOK_EVERY).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
#[path = "comparison_tests.rs"]
mod tests;
