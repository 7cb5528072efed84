//! What the joiner's own files hold: marks of them, for a donor that asks.
//!
//! The donor asks file by file in the order in which it will send them. Threads of ours read and mark a little ahead of it;
//! nothing is held but what waits to be answered.
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use protocol::inventory::{FileEntry, FileId, FileRole};
use protocol::limits::{FILES_MAX, RANGE_BYTES};
use protocol::marks::{self, Mark, MarkKey};
use protocol::message::Message;

use super::unexpected;
use crate::cancel::{Cancel, LOOK_EVERY};
use crate::datadir::layout::Layout;
use crate::disk::identity::look_at;
use crate::failure::{Failure, Kind};
use crate::peer::link::{Link, PING_EVERY};
use crate::sink::held::Old;

/// Ranges that one thread marks before it takes another piece: few enough for all threads to work on what comes next.
const PIECE: u32 = 4;

/// The old files, by the numbers of an attempt.
pub(super) struct Base<'a> {
    layout: &'a Layout,
    key: MarkKey,
    threads: u16,
    cancel: &'a Cancel,
    known: Mutex<HashMap<FileId, Old>>,
    todo: Mutex<Todo>,
    changed: Condvar,
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
}

impl<'a> Base<'a> {
    /// Files as they lie in `layout`, marked with `key`.
    pub fn new(layout: &'a Layout, key: MarkKey, threads: u16, cancel: &'a Cancel) -> Base<'a> {
        let (known, todo) = (Mutex::default(), Mutex::default());
        Base { layout, key, threads, cancel, known, todo, changed: Condvar::new() }
    }

    /// The old file that a number stands for, once the donor has asked for it.
    pub fn old(&self, file: FileId) -> Option<Old> {
        lock(&self.known).get(&file).cloned()
    }

    /// The connection on which the donor asks.
    pub fn hear(&self, link: &mut Link) -> Result<()> {
        loop {
            match link.recv()? {
                Message::Look(entry) => self.look(&entry)?,
                Message::LookCloser { file, range } => {
                    self.put(|todo| todo.pieces.push_front(Piece::Blocks { file, range }));
                }
                Message::LooksEnd => {
                    self.put(|todo| {
                        todo.pieces.clear();
                        todo.closed = true;
                    });
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
        if let Some(old) = self.find(entry)? {
            lock(&self.known).insert(entry.id, old);
        }
        self.put(|todo| todo.pieces.push_back(Piece::From { file: entry.id, range: 0 }));
        Ok(())
    }

    /// Redo and Aria logs are of one life of one server; a link has no content.
    fn find(&self, entry: &FileEntry) -> Result<Option<Old>> {
        if matches!(entry.role, FileRole::Redo | FileRole::AriaLog | FileRole::Link { .. }) {
            return Ok(None);
        }
        let path = self.layout.target_of(entry)?;
        let Ok(file) = File::open(&path) else { return Ok(None) };
        let look = look_at(&file).with_context(|| format!("cannot look at {}", path.display()))?;
        Ok(look.is_file.then_some(Old { path, look }))
    }

    fn put(&self, change: impl FnOnce(&mut Todo)) {
        change(&mut lock(&self.todo));
        self.changed.notify_all();
    }

    /// The connection on which the donor hears.
    pub fn answer(&self, link: &mut Link) -> Result<()> {
        let (say, said) = mpsc::sync_channel(64);
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
            let sent = self.send(link, &said);
            if sent.is_err() {
                // Whoever marks must not wait for a reader that is gone.
                self.put(|todo| todo.closed = true);
            }
            drop(said);
            sent
        })
    }

    fn send(&self, link: &mut Link, said: &mpsc::Receiver<Message>) -> Result<()> {
        loop {
            self.cancel.check()?;
            match said.recv_timeout(PING_EVERY.min(LOOK_EVERY)) {
                Ok(message) => link.send(&message)?,
                Err(RecvTimeoutError::Timeout) => link.ping("comparing files")?,
                Err(RecvTimeoutError::Disconnected) => return link.send(&Message::AnswersEnd),
            }
        }
    }

    fn mark_pieces(&self, say: &mpsc::SyncSender<Message>) -> Result<()> {
        let mut buffer = vec![0; RANGE_BYTES as usize];
        while let Some(piece) = self.next()? {
            let answers = match piece {
                Piece::From { file, range } => self.mark_from(file, range, &mut buffer)?,
                Piece::Blocks { file, range } => vec![self.mark_blocks(file, range, &mut buffer)?],
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
                    && let Some(old) = self.old(file)
                    && range + PIECE < marks::ranges(old.look.signature.size)
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
        let old = self.old(file);
        if first == 0 {
            answers.push(Message::Base { file, size: old.as_ref().map(|old| old.look.signature.size) });
        }
        let Some(old) = old else { return Ok(answers) };
        let opened = open(&old.path)?;
        let end = marks::ranges(old.look.signature.size).min(first + PIECE);
        let mut marks: Vec<Mark> = Vec::new();
        for range in first..end {
            let bytes = read(&opened, &old, range, buffer)?;
            marks.push(marks::mark(&self.key, bytes));
        }
        if !marks.is_empty() {
            answers.push(Message::Marks { file, first, marks });
        }
        Ok(answers)
    }

    fn mark_blocks(&self, file: FileId, range: u32, buffer: &mut [u8]) -> Result<Message> {
        let Some(old) = self.old(file) else {
            let text = format!("the donor asks for blocks of file number {}, which is not here", file.0);
            return Err(Failure::new(Kind::Peer, text).into());
        };
        let bytes = read(&open(&old.path)?, &old, range, buffer)?;
        Ok(Message::Blocks { file, range, marks: marks::block_marks(&self.key, bytes) })
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("cannot open {}", path.display()))
}

/// A range of an old file, as long as the file was when it was first looked at; what cannot be read is marked as nothing
/// that anybody has, and comes from the donor.
fn read<'b>(file: &File, old: &Old, range: u32, buffer: &'b mut [u8]) -> Result<&'b [u8]> {
    let at = u64::from(range) * u64::from(RANGE_BYTES);
    let len = old.look.signature.size.saturating_sub(at).min(u64::from(RANGE_BYTES)) as usize;
    let bytes = buffer.get_mut(..len).context("a range longer than its buffer")?;
    if let Err(error) = file.read_exact_at(bytes, at) {
        tracing::warn!("{} cannot be read at {at} ({error}): the donor sends it", old.path.display());
        return Ok(&[]);
    }
    Ok(bytes)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
