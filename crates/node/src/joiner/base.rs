//! What the joiner's own files hold, and what an earlier transfer had received of them: marks, for a donor that asks.
//!
//! The donor asks file by file in the order in which it will send them. Threads of ours read and mark a little ahead of it;
//! nothing is held but what waits to be answered.
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use protocol::delta;
use protocol::extents::Extents;
use protocol::inventory::{FileEntry, FileId, FileRole, Place};
use protocol::limits::{FILES_MAX, RANGE_BYTES};
use protocol::marks::{self, Mark, MarkKey};
use protocol::message::Message;

use super::unexpected;
use crate::cancel::{Cancel, LOOK_EVERY};
use crate::datadir::layout::Layout;
use crate::disk::identity::look_at;
use crate::failure::{Failure, Kind};
use crate::peer::link::Link;
use crate::peer::relay::relay;
use crate::sink::held::Old;
use crate::sink::origin::{Marked, Opened, Origin};
use crate::sink::staging::Staging;

/// Ranges that one thread marks before it takes another piece: few enough for all threads to work on what comes next.
const PIECE: u32 = 4;

/// Ranges whose block marks are kept: 4 MiB of them. Those that are forgotten are made again.
const RECENT_MAX: usize = 4096;

/// The old files, by the numbers of an attempt.
pub(super) struct Base<'a> {
    layout: &'a Layout,
    staging: &'a Staging,
    /// A prepared backup.
    backup: Option<&'a Path>,
    key: MarkKey,
    threads: u16,
    cancel: &'a Cancel,
    known: Mutex<HashMap<FileId, Arc<Origin>>>,
    /// What of ranges had been received when they were marked first.
    received: Mutex<HashMap<(FileId, u32), Extents>>,
    /// Marks of the blocks of ranges that were marked last: the donor asks for them where the range differs.
    recent: Mutex<Recent>,
    todo: Mutex<Todo>,
    changed: Condvar,
    /// For those who rebuild pages, until the donor asks no more.
    say: Mutex<Option<mpsc::SyncSender<Message>>>,
}

/// Marks of blocks, of a few thousand ranges.
#[derive(Default)]
struct Recent {
    marks: HashMap<(FileId, u32), Vec<Mark>>,
    order: VecDeque<(FileId, u32)>,
}

impl Recent {
    fn add(&mut self, range: (FileId, u32), marks: Vec<Mark>) {
        if self.order.len() >= RECENT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.marks.remove(&oldest);
        }
        self.order.push_back(range);
        self.marks.insert(range, marks);
    }

    fn take(&mut self, range: (FileId, u32)) -> Option<Vec<Mark>> {
        self.marks.remove(&range)
    }
}

#[derive(Default)]
struct Todo {
    pieces: VecDeque<Piece>,
    /// The donor asks no more.
    closed: bool,
}

enum Piece {
    /// A file from a range on, to its end.
    From { file: FileId, range: u32 },
    /// The blocks of one range.
    Blocks { file: FileId, range: u32 },
    /// The pieces of some blocks of one range.
    Pieces { file: FileId, range: u32, blocks: Vec<u8> },
}

impl<'a> Base<'a> {
    /// Files as they lie in `layout`, those that are not there as they lie in `backup`, marked with `key`.
    pub fn new(
        layout: &'a Layout,
        staging: &'a Staging,
        backup: Option<&'a Path>,
        key: MarkKey,
        threads: u16,
        cancel: &'a Cancel,
    ) -> Base<'a> {
        let (known, received, todo) = (Mutex::default(), Mutex::default(), Mutex::default());
        let (changed, say, recent) = (Condvar::new(), Mutex::default(), Mutex::default());
        Base { layout, staging, backup, key, threads, cancel, known, received, recent, todo, changed, say }
    }

    /// What is here of a file.
    fn origin(&self, file: FileId) -> Arc<Origin> {
        lock(&self.known).get(&file).cloned().unwrap_or_default()
    }

    /// What was here of the range in which a byte is, as the donor heard of it.
    pub fn marked(&self, file: FileId, offset: u64) -> Marked {
        let range = u32::try_from(offset / u64::from(RANGE_BYTES)).unwrap_or(u32::MAX);
        let received = lock(&self.received).get(&(file, range)).cloned().unwrap_or_default();
        Marked { origin: self.origin(file), received }
    }

    /// What marks are made with.
    pub fn key(&self) -> &MarkKey {
        &self.key
    }

    /// Tells the donor what became of the blocks of a chunk that were to be rebuilt.
    pub fn rebuilt(&self, file: FileId, offset: u64, failed: Vec<u32>) {
        let say = lock(&self.say).clone();
        if let Some(say) = say {
            // A connection that is gone is known to whoever had it.
            let _ = say.send(Message::Rebuilt { file, offset, failed });
        }
    }

    /// The connection on which the donor asks.
    pub fn hear(&self, link: &mut Link) -> Result<()> {
        loop {
            match link.recv()? {
                Message::Look(entry) => self.look(&entry)?,
                Message::LookCloser { file, range } => {
                    self.put(|todo| todo.pieces.push_front(Piece::Blocks { file, range }));
                }
                Message::LookInside { file, range, blocks } if blocks.len() <= marks::MARKS_MAX => {
                    self.put(|todo| todo.pieces.push_front(Piece::Pieces { file, range, blocks }));
                }
                Message::LooksEnd => {
                    self.put(|todo| {
                        todo.pieces.clear();
                        todo.closed = true;
                    });
                    // After that, so that whoever begins to answer only now does not wait for it.
                    drop(lock(&self.say).take());
                    return Ok(());
                }
                other => return Err(unexpected(&other, "Look or LooksEnd").into()),
            }
        }
    }

    fn look(&self, entry: &FileEntry) -> Result<()> {
        entry.check()?;
        if entry.id.0 >= FILES_MAX {
            return Err(Failure::new(Kind::Peer, "the donor asks for a file beyond the limit").into());
        }
        let known = self.find(entry)?;
        lock(&self.known).insert(entry.id, Arc::new(known));
        self.put(|todo| todo.pieces.push_back(Piece::From { file: entry.id, range: 0 }));
        Ok(())
    }

    /// Redo is of one life of one server; a link has no content. Aria's log is what the donor's was when the last transfer came
    /// from there, where little was written to Aria's tables.
    fn find(&self, entry: &FileEntry) -> Result<Origin> {
        if matches!(entry.role, FileRole::Redo | FileRole::Link { .. }) {
            return Ok(Origin::default());
        }
        let path = self.layout.target_of(entry)?;
        let received = self.staging.adopt(entry, &path)?;
        let mut known = Origin { received, ..Origin::default() };
        known.old = match look_for(path)? {
            None => self.backup.map(|backup| look_for(backup.join(in_backup(entry)))).transpose()?.flatten(),
            here => here,
        };
        Ok(known)
    }

    fn put(&self, change: impl FnOnce(&mut Todo)) {
        change(&mut lock(&self.todo));
        self.changed.notify_all();
    }

    /// The connection on which the donor hears.
    pub fn answer(&self, link: &mut Link) -> Result<()> {
        let (say, said) = mpsc::sync_channel(64);
        self.put(|todo| {
            if !todo.closed {
                *lock(&self.say) = Some(say.clone());
            }
        });
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                let say = say.clone();
                scope.spawn(move || {
                    if let Err(error) = self.mark_pieces(&say) {
                        self.cancel.cancel_by_worker(&error);
                    }
                });
            }
            drop(say);
            let sent = relay(link, &said, &Message::AnswersEnd, "comparing files", self.cancel);
            if sent.is_err() {
                // Whoever marks must not wait for a reader that is gone.
                self.put(|todo| todo.closed = true);
            }
            drop(lock(&self.say).take());
            drop(said);
            sent
        })
    }

    fn mark_pieces(&self, say: &mpsc::SyncSender<Message>) -> Result<()> {
        let mut buffer = vec![0; RANGE_BYTES as usize];
        while let Some(piece) = self.next()? {
            let answers = match piece {
                Piece::From { file, range } => self.mark_from(file, range, &mut buffer)?,
                Piece::Blocks { file, range } => vec![self.mark_blocks(file, range, &mut buffer)?],
                Piece::Pieces { file, range, blocks } => {
                    vec![self.mark_inside(file, range, &blocks, &mut buffer)?]
                }
            };
            for answer in answers {
                if say.send(answer).is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn next(&self) -> Result<Option<Piece>> {
        let mut todo = lock(&self.todo);
        loop {
            self.cancel.check()?;
            if let Some(piece) = todo.pieces.pop_front() {
                if let Piece::From { file, range } = piece
                    && range + PIECE < marks::ranges(self.origin(file).size().unwrap_or(0))
                {
                    // The rest is the next thread's.
                    todo.pieces.push_front(Piece::From { file, range: range + PIECE });
                }
                return Ok(Some(piece));
            }
            if todo.closed {
                return Ok(None);
            }
            todo = self.changed.wait_timeout(todo, LOOK_EVERY).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn mark_from(&self, file: FileId, first: u32, buffer: &mut [u8]) -> Result<Vec<Message>> {
        let mut answers = Vec::new();
        let known = self.origin(file);
        if first == 0 {
            answers.push(Message::Base { file, size: known.size() });
        }
        let end = marks::ranges(known.size().unwrap_or(0)).min(first.saturating_add(PIECE));
        let mut marks: Vec<Mark> = Vec::new();
        for range in first..end {
            let bytes = self.read(file, &known, range, buffer)?;
            let blocks = marks::block_marks(&self.key, bytes);
            marks.push(marks::range_mark(&self.key, &blocks));
            lock(&self.recent).add((file, range), blocks);
        }
        if !marks.is_empty() {
            answers.push(Message::Marks { file, first, marks });
        }
        Ok(answers)
    }

    fn mark_blocks(&self, file: FileId, range: u32, buffer: &mut [u8]) -> Result<Message> {
        if let Some(marks) = lock(&self.recent).take((file, range)) {
            return Ok(Message::Blocks { file, range, marks });
        }
        let bytes = self.read(file, &self.origin(file), range, buffer)?;
        Ok(Message::Blocks { file, range, marks: marks::block_marks(&self.key, bytes) })
    }

    fn mark_inside(&self, file: FileId, range: u32, blocks: &[u8], buffer: &mut [u8]) -> Result<Message> {
        let bytes = self.read(file, &self.origin(file), range, buffer)?;
        let block = |number: u8| bytes.chunks(marks::BLOCK_BYTES as usize).nth(usize::from(number));
        let marks = |number: &u8| block(*number).map(|block| delta::piece_marks(&self.key, block));
        let marks = blocks.iter().map(|number| marks(number).unwrap_or_default()).collect();
        Ok(Message::Pieces { file, range, marks })
    }

    /// A range of what is here; what cannot be read is marked as nothing that anybody has, and comes from the donor.
    fn read<'b>(&self, file: FileId, origin: &Origin, range: u32, buffer: &'b mut [u8]) -> Result<&'b [u8]> {
        let at = u64::from(range) * u64::from(RANGE_BYTES);
        let len = origin.size().unwrap_or(0).saturating_sub(at).min(u64::from(RANGE_BYTES)) as usize;
        let bytes = buffer.get_mut(..len).context("a range longer than its buffer")?;
        let received = |opened: &Opened| {
            let find = || opened.received_in(at..at + len as u64);
            lock(&self.received).entry((file, range)).or_insert_with(find).clone()
        };
        let read = origin.open().and_then(|opened| match origin.received {
            Some(_) => opened.read(at, bytes, &received(&opened)),
            None => opened.read(at, bytes, &Extents::default()),
        });
        if let Err(error) = read {
            let path = origin.old.as_ref().map(|old| old.path.display().to_string()).unwrap_or_default();
            tracing::warn!("{path} cannot be read at {at} ({error}): the donor sends it");
            return Ok(&[]);
        }
        Ok(bytes)
    }
}

/// A file that can be read, as it is now.
fn look_for(path: PathBuf) -> Result<Option<Old>> {
    let Ok(file) = File::open(&path) else { return Ok(None) };
    let look = look_at(&file).with_context(|| format!("cannot look at {}", path.display()))?;
    Ok(look.is_file.then_some(Old { path, look }))
}

/// A backup has everything below one directory; of a table elsewhere it has the database and the name (mariabackup 10.11).
fn in_backup(entry: &FileEntry) -> PathBuf {
    match entry.place {
        Place::External => {
            let parts: Vec<&str> = entry.path.rsplit('/').take(2).collect();
            parts.into_iter().rev().collect()
        }
        _ => PathBuf::from(&entry.path),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
