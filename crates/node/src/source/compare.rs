//! What the joiner's own files hold, as the donor hears it: so that only what differs is sent.
//!
//! Questions go out on one connection as soon as it is known what will be sent, answers come in on another one. Whoever
//! hands over bytes waits for their answer; never in a settled moment. Of a block that differs the parts that do are asked
//! for where that pays: a question and an answer more, against the bytes that need not be sent.
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use protocol::chunk::is_zero;
use protocol::delta::{self, Delta};
use protocol::inventory::{FileEntry, FileId, batches, groups};
use protocol::limits::RANGE_BYTES;
use protocol::marks::{self, BLOCK_BYTES, Mark, MarkKey};
use protocol::message::Message;

use super::cheaper::Cheaper;
use super::together::{Ask, Group, Together, split};
use super::unconfirmed::{Block, Unconfirmed};
use crate::cancel::{Cancel, LOOK_EVERY};
use crate::threads::lock;

/// Ranges of a file that differs which are looked at closely ahead of their turn, at most.
const CLOSER_AHEAD: u32 = 8;

/// Parts of pages cost the joiner reads, and both hosts work, that are not measured here: they must save half. Where the
/// link is what limits they save more.
const WORTH_IT: f64 = 0.5;

/// `delta`: whether parts of pages are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    /// Where that is cheaper, as measured.
    Auto,
    /// Always.
    Always,
    /// Never: pages are sent whole.
    Never,
}

/// What of a range need not be sent.
#[derive(Debug, Default)]
pub struct Found {
    /// Parts that the joiner has: start and length, ascending.
    pub same: Vec<(u32, u32)>,
    /// Blocks that it rebuilds, ascending.
    pub deltas: Vec<Delta>,
    /// What it takes for that.
    pub literals: Vec<u8>,
    /// Parts of blocks were looked for.
    looked_inside: bool,
}

/// What is known of the joiner's files.
pub struct Compare<'a> {
    key: MarkKey,
    parts: Parts,
    /// Whole, or in parts.
    way: Mutex<Cheaper>,
    /// Blocks that the joiner rebuilds.
    unconfirmed: Unconfirmed,
    pub(super) files: Mutex<HashMap<FileId, Theirs>>,
    pub(super) heard: Condvar,
    /// Small files.
    together: Together,
    /// Until nothing more is asked.
    ask: Mutex<Option<Sender<Message>>>,
    /// Until the connection takes it.
    pub(super) asked: Mutex<Option<Receiver<Message>>>,
    /// Bytes that need not be sent.
    same: AtomicU64,
    pub(super) cancel: &'a Cancel,
}

pub(super) struct Theirs {
    /// What it was asked for as.
    entry: FileEntry,
    /// Length of its file once it has answered; `Some(None)`: it has none.
    pub size: Option<Option<u64>>,
    /// Marks that were heard; none of a range that was handed over: it may hold something else by now.
    pub ranges: HashMap<u32, Option<Mark>>,
    pub blocks: HashMap<u32, Vec<Mark>>,
    /// Marks of pieces of the blocks that were asked for.
    pub pieces: HashMap<u32, Vec<Vec<u8>>>,
    /// Ranges whose blocks have been asked for and were not used yet.
    pub asked: HashSet<u32>,
    /// Ranges that are looked at closely ahead: more with each that differs, fewer with each that does not.
    ahead: u32,
}

impl Theirs {
    fn unknown(entry: &FileEntry) -> Theirs {
        Theirs {
            entry: entry.clone(),
            size: None,
            ranges: HashMap::new(),
            blocks: HashMap::new(),
            pieces: HashMap::new(),
            asked: HashSet::new(),
            ahead: 0,
        }
    }
}

impl<'a> Compare<'a> {
    /// Nothing asked yet.
    pub fn new(key: MarkKey, parts: Parts, cancel: &'a Cancel) -> Compare<'a> {
        let (ask, asked) = mpsc::channel();
        let (ask, asked) = (Mutex::new(Some(ask)), Mutex::new(Some(asked)));
        let (files, heard, same) = (Mutex::default(), Condvar::new(), AtomicU64::new(0));
        let (way, unconfirmed) = (Mutex::new(Cheaper::new(WORTH_IT)), Unconfirmed::default());
        let together = Together::default();
        Compare { key, parts, way, unconfirmed, files, heard, together, ask, asked, same, cancel }
    }

    /// Blocks that the joiner rebuilds and has not spoken of yet.
    pub fn unconfirmed(&self) -> &Unconfirmed {
        &self.unconfirmed
    }

    /// Bytes that the joiner has.
    pub fn same_bytes(&self) -> u64 {
        self.same.load(Ordering::Relaxed)
    }

    /// Small files that are compared as one.
    pub fn together(&self) -> &Together {
        &self.together
    }

    /// Asks what the joiner has of files that will be read in this order; of each once.
    pub fn expect(&self, entries: &mut dyn Iterator<Item = &FileEntry>) {
        let mut new = Vec::new();
        let mut files = lock(&self.files);
        for entry in entries {
            files.entry(entry.id).or_insert_with(|| {
                new.push(entry.clone());
                Theirs::unknown(entry)
            });
        }
        drop(files);
        for ask in split(new) {
            match ask {
                Ask::Each(entries) => {
                    batches(&entries).for_each(|batch| self.ask(Message::Look(batch.to_vec())));
                }
                Ask::Together(entries) => batches(&entries).for_each(|batch| {
                    groups(batch).for_each(|group| self.together.expect(group.to_vec()));
                    self.ask(Message::LookTogether(batch.to_vec()));
                }),
            }
        }
    }

    /// The joiner has all of a group that is whole.
    ///
    /// # Errors
    /// Cancelled.
    pub fn is_same_together(&self, group: &Group) -> Result<bool> {
        let ours = group.mark(&self.key);
        loop {
            self.cancel.check()?;
            let Some(theirs) = self.together.theirs(group.first()) else { continue };
            if ours == theirs {
                self.same.fetch_add(group.total_bytes(), Ordering::Relaxed);
                self.used_up(group);
            }
            return Ok(ours == theirs);
        }
    }

    /// Files that are the same together are not asked for again: what is read of them later is compared with nothing.
    fn used_up(&self, group: &Group) {
        let mut files = lock(&self.files);
        for entry in &group.entries {
            if let Some(theirs) = files.get_mut(&entry.id) {
                theirs.size = Some(Some(entry.size));
                theirs.ranges.insert(0, None);
            }
        }
    }

    /// Asks for each file of a group.
    pub fn ask_apart(&self, group: &Group) {
        self.ask(Message::LookApart { first: group.first() });
    }

    /// The joiner knows a file as this one: it has answered about it, alone or with others.
    pub fn is_known(&self, entry: &FileEntry) -> bool {
        let known = |theirs: &Theirs| theirs.size.is_some() || self.together.is_answered(entry.id);
        lock(&self.files).get(&entry.id).is_some_and(|theirs| theirs.entry == *entry && known(theirs))
    }

    /// Nothing more is asked.
    pub fn close(&self) {
        drop(lock(&self.ask).take());
    }

    fn ask(&self, message: Message) {
        // The other end is gone only when the connection is, which the cancel tells.
        if let Some(ask) = &*lock(&self.ask) {
            let _ = ask.send(message);
        }
    }

    /// What of a range the joiner has. `wait` for answers, or take what is known. A range is compared once.
    ///
    /// # Errors
    /// Cancelled.
    pub fn look(&self, file: FileId, offset: u64, bytes: &[u8], wait: bool) -> Result<Found> {
        let range_bytes = u64::from(RANGE_BYTES);
        if !offset.is_multiple_of(range_bytes) {
            return Ok(Found::default());
        }
        let Ok(range) = u32::try_from(offset / range_bytes) else { return Ok(Found::default()) };
        let known = self.wait_for(file, wait, |theirs| match theirs.size {
            None => None,
            Some(Some(size)) if size > offset => {
                let heard = *theirs.ranges.get(&range)?;
                Some(heard.map(|mark| (size, mark)))
            }
            Some(_) => Some(None),
        })?;
        let Some(Some((size, theirs))) = known else {
            self.done_with(file, range);
            return Ok(Found::default());
        };
        let held = (size - offset).min(range_bytes) as u32;
        let (mut found, ours) = (Found::default(), marks::block_marks(&self.key, bytes));
        if held as usize == bytes.len() && marks::range_mark(&self.key, &ours) == theirs {
            found.same = vec![(0, held)];
            self.look_less_far(file);
        } else if !is_zero(bytes) {
            // Of zeros nothing is sent anyway: InnoDB's doublewrite buffer, for one.
            self.look_closer(file, range, size);
            let blocks = self.wait_for(file, wait, |theirs| theirs.blocks.remove(&range))?;
            found.same = marks::same_parts(&ours, bytes.len() as u32, &blocks.unwrap_or_default(), held);
            if wait && self.want_parts() {
                self.look_inside(file, range, bytes, &ours, held, &mut found)?;
            }
        }
        self.done_with(file, range);
        let same: u64 = found.same.iter().map(|(_, len)| u64::from(*len)).sum();
        let rebuilt: u64 = found.deltas.iter().map(|delta| u64::from(delta.len)).sum();
        self.same.fetch_add(same + rebuilt - found.literals.len() as u64, Ordering::Relaxed);
        Ok(found)
    }

    fn want_parts(&self) -> bool {
        match self.parts {
            Parts::Never => false,
            Parts::Always => true,
            Parts::Auto => lock(&self.way).choose_second(),
        }
    }

    /// So many bytes that were not the same are on their way after so long: what it cost to look inside, or not to.
    pub fn learn(&self, found: &Found, bytes: usize, took: Duration) {
        lock(&self.way).learn(found.looked_inside, bytes, took);
    }

    /// Of blocks that the joiner has in another version, the parts that differ.
    fn look_inside(
        &self,
        file: FileId,
        range: u32,
        bytes: &[u8],
        ours: &[Mark],
        held: u32,
        found: &mut Found,
    ) -> Result<()> {
        found.looked_inside = true;
        let block_bytes = BLOCK_BYTES as usize;
        let is_same = |start: usize| {
            found.same.iter().any(|(from, len)| (*from..*from + *len).contains(&(start as u32)))
        };
        let differs = |(number, block): &(usize, &[u8])| {
            let start = number * block_bytes;
            // The end of a file that is longer on one side.
            let their_end = (held as usize).min(start + block_bytes);
            start + block.len() == their_end && !is_same(start) && !is_zero(block)
        };
        let blocks: Vec<(usize, &[u8])> = bytes.chunks(block_bytes).enumerate().filter(differs).collect();
        if blocks.is_empty() {
            return Ok(());
        }
        let numbers = blocks.iter().map(|(number, _)| *number as u8).collect();
        self.ask(Message::LookInside { file, range, blocks: numbers });
        let marks = self.wait_for(file, true, |theirs| theirs.pieces.remove(&range))?.unwrap_or_default();
        let offset = u64::from(range) * u64::from(RANGE_BYTES);
        let mut kept = Vec::new();
        for ((number, block), marks) in blocks.into_iter().zip(marks) {
            let (start, whole) = (number * block_bytes, ours[number]);
            let made = delta::diff(&self.key, start as u32, block, whole, &marks, &mut found.literals);
            if let Some(delta) = made {
                found.deltas.push(delta);
                kept.push(Block { file, offset: offset + start as u64, bytes: block.to_vec() });
            }
        }
        if !kept.is_empty() {
            self.unconfirmed.keep(file, offset, kept);
        }
        Ok(())
    }

    /// A file that differs in some ranges probably differs in those that follow: their blocks are asked for ahead, the
    /// further the more of them did.
    fn look_closer(&self, file: FileId, range: u32, size: u64) {
        let mut files = lock(&self.files);
        let Some(theirs) = files.get_mut(&file) else { return };
        let end = marks::ranges(size).min(range.saturating_add(1 + theirs.ahead));
        theirs.ahead = (theirs.ahead * 2).clamp(1, CLOSER_AHEAD);
        let wanted: Vec<u32> = (range..end).filter(|range| theirs.asked.insert(*range)).collect();
        drop(files);
        for range in wanted {
            self.ask(Message::LookCloser { file, range });
        }
    }

    /// A range of it was the same.
    fn look_less_far(&self, file: FileId) {
        if let Some(theirs) = lock(&self.files).get_mut(&file) {
            theirs.ahead /= 2;
        }
    }

    /// What was heard of a range is used once.
    fn done_with(&self, file: FileId, range: u32) {
        if let Some(theirs) = lock(&self.files).get_mut(&file) {
            theirs.ranges.insert(range, None);
            theirs.asked.remove(&range);
            theirs.pieces.remove(&range);
            theirs.blocks.remove(&range);
        }
    }

    fn wait_for<T>(
        &self,
        file: FileId,
        wait: bool,
        mut get: impl FnMut(&mut Theirs) -> Option<T>,
    ) -> Result<Option<T>> {
        let mut files = lock(&self.files);
        loop {
            let Some(theirs) = files.get_mut(&file) else { return Ok(None) };
            let found = get(theirs);
            if found.is_some() || !wait {
                return Ok(found);
            }
            self.cancel.check()?;
            files = self.heard.wait_timeout(files, LOOK_EVERY).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
