//! What the joiner's own files hold, as the donor hears it: so that only what differs is sent.
//!
//! Questions go out on one connection as soon as it is known what will be sent, answers come in on another one. Whoever
//! hands over bytes waits for their answer; never in a settled moment.
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use protocol::inventory::{FileEntry, FileId};
use protocol::limits::RANGE_BYTES;
use protocol::marks::{self, Mark, MarkKey, mark};
use protocol::message::Message;

use crate::cancel::{Cancel, LOOK_EVERY};
use crate::failure::{Failure, Kind};
use crate::peer::link::{Link, PING_EVERY};

/// Ranges of a file that differs which are looked at closely ahead of their turn.
const CLOSER_AHEAD: u32 = 8;

/// What is known of the joiner's files.
pub struct Compare<'a> {
    key: MarkKey,
    files: Mutex<HashMap<FileId, Theirs>>,
    heard: Condvar,
    ask: Sender<Message>,
    asked: Mutex<Option<Receiver<Message>>>,
    /// Bytes that need not be sent.
    same: AtomicU64,
    cancel: &'a Cancel,
}

#[derive(Default)]
struct Theirs {
    /// Length of its file once it has answered; `Some(None)`: it has none.
    size: Option<Option<u64>>,
    /// Marks that were heard; none of a range that was handed over: it may hold something else by now.
    ranges: HashMap<u32, Option<Mark>>,
    blocks: HashMap<u32, Vec<Mark>>,
    /// Ranges whose blocks have been asked for and were not used yet.
    asked: HashSet<u32>,
    differs: bool,
}

impl<'a> Compare<'a> {
    /// Nothing asked yet.
    pub fn new(key: MarkKey, cancel: &'a Cancel) -> Compare<'a> {
        let (ask, asked) = mpsc::channel();
        let asked = Mutex::new(Some(asked));
        let (files, heard, same) = (Mutex::default(), Condvar::new(), AtomicU64::new(0));
        Compare { key, files, heard, ask, asked, same, cancel }
    }

    /// Bytes that the joiner has.
    pub fn same_bytes(&self) -> u64 {
        self.same.load(Ordering::Relaxed)
    }

    /// Asks what the joiner has of a file, once.
    pub fn expect(&self, entry: &FileEntry) {
        let mut new = false;
        lock(&self.files).entry(entry.id).or_insert_with(|| {
            new = true;
            Theirs::default()
        });
        if new {
            self.ask(Message::Look(entry.clone()));
        }
    }

    /// Nothing more is asked.
    pub fn close(&self) {
        self.ask(Message::LooksEnd);
    }

    fn ask(&self, message: Message) {
        // The other end is gone only when the connection is, which the cancel tells.
        let _ = self.ask.send(message);
    }

    /// The connection on which we ask.
    pub fn send_questions(&self, link: &mut Link) -> Result<()> {
        let asked = lock(&self.asked).take().context("the questions are asked already")?;
        link.send(&Message::Asks)?;
        loop {
            self.cancel.check()?;
            match asked.recv_timeout(PING_EVERY.min(LOOK_EVERY)) {
                Ok(message) => {
                    let last = message == Message::LooksEnd;
                    link.send(&message)?;
                    if last {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Timeout) => link.ping("comparing files")?,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    /// The connection on which we hear.
    pub fn hear_answers(&self, link: &mut Link) -> Result<()> {
        link.send(&Message::Answers)?;
        loop {
            match link.recv()? {
                Message::Base { file, size } => self.note(file, |theirs| theirs.size = Some(size))?,
                Message::Marks { file, first, marks } if marks.len() <= marks::MARKS_MAX => {
                    self.note(file, |theirs| {
                        for (range, mark) in (first..).zip(marks) {
                            theirs.ranges.entry(range).or_insert(Some(mark));
                        }
                    })?;
                }
                Message::Blocks { file, range, marks } if marks.len() <= marks::MARKS_MAX => {
                    self.note(file, |theirs| {
                        if theirs.asked.contains(&range) {
                            theirs.blocks.insert(range, marks);
                        }
                    })?;
                }
                Message::AnswersEnd => return Ok(()),
                other => {
                    let text = format!("the joiner said {} among its answers", other.name());
                    return Err(Failure::new(Kind::Peer, text).into());
                }
            }
        }
    }

    fn note(&self, file: FileId, change: impl FnOnce(&mut Theirs)) -> Result<(), Failure> {
        let mut files = lock(&self.files);
        let Some(theirs) = files.get_mut(&file) else {
            let text = format!("the joiner answers about file number {}, which it was not asked for", file.0);
            return Err(Failure::new(Kind::Peer, text));
        };
        change(theirs);
        self.heard.notify_all();
        Ok(())
    }

    /// The parts of a range that the joiner has: start and length, ascending. `wait` for answers, or take what is known.
    /// A range is compared once.
    ///
    /// # Errors
    /// Cancelled.
    pub fn same_parts(&self, file: FileId, offset: u64, bytes: &[u8], wait: bool) -> Result<Vec<(u32, u32)>> {
        let range_bytes = u64::from(RANGE_BYTES);
        if !offset.is_multiple_of(range_bytes) {
            return Ok(Vec::new());
        }
        let Ok(range) = u32::try_from(offset / range_bytes) else { return Ok(Vec::new()) };
        let known = self.wait_for(file, wait, |theirs| match theirs.size {
            None => None,
            Some(Some(size)) if size > offset => {
                let heard = theirs.ranges.get_mut(&range)?.take();
                Some(heard.map(|mark| (size, mark)))
            }
            Some(_) => Some(None),
        })?;
        let Some(Some((size, theirs))) = known else {
            self.note(file, |theirs| {
                theirs.ranges.insert(range, None);
            })?;
            return Ok(Vec::new());
        };
        let held = (size - offset).min(range_bytes) as u32;
        let same = if held as usize == bytes.len() && mark(&self.key, bytes) == theirs {
            vec![(0, held)]
        } else {
            self.look_closer(file, range, size);
            let blocks = self.wait_for(file, wait, |theirs| theirs.blocks.remove(&range))?;
            marks::same_parts(&self.key, bytes, &blocks.unwrap_or_default(), held)
        };
        self.done_with(file, range);
        self.same.fetch_add(same.iter().map(|(_, len)| u64::from(*len)).sum(), Ordering::Relaxed);
        Ok(same)
    }

    /// A file that differs in one range probably differs in those that follow: their blocks are asked for ahead.
    fn look_closer(&self, file: FileId, range: u32, size: u64) {
        let mut files = lock(&self.files);
        let Some(theirs) = files.get_mut(&file) else { return };
        let ahead = if std::mem::replace(&mut theirs.differs, true) { CLOSER_AHEAD } else { 0 };
        let end = marks::ranges(size).min(range.saturating_add(1 + ahead));
        let wanted: Vec<u32> = (range..end).filter(|range| theirs.asked.insert(*range)).collect();
        drop(files);
        for range in wanted {
            self.ask(Message::LookCloser { file, range });
        }
    }

    /// The blocks of a range are used once, or not at all when the range is the same.
    fn done_with(&self, file: FileId, range: u32) {
        if let Some(theirs) = lock(&self.files).get_mut(&file) {
            theirs.asked.remove(&range);
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
