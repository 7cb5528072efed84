//! What the joiner's own files hold, and what an earlier transfer had received of them: marks, for a donor that asks.
//!
//! The donor asks file by file in the order in which it will send them. Threads of ours read and mark a little ahead of it;
//! nothing is held but what waits to be answered.
use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
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
use crate::sink::held::{Old, Origin};
use crate::sink::staging::Staging;

/// Ranges that one thread marks before it takes another piece: few enough for all threads to work on what comes next.
const PIECE: u32 = 4;

/// The old files, by the numbers of an attempt.
pub(super) struct Base<'a> {
    layout: &'a Layout,
    staging: &'a Staging,
    key: MarkKey,
    threads: u16,
    cancel: &'a Cancel,
    known: Mutex<HashMap<FileId, Known>>,
    todo: Mutex<Todo>,
    changed: Condvar,
}

/// What there is of one file.
#[derive(Clone, Default)]
struct Known {
    old: Option<Old>,
    /// What an earlier transfer had received, and its length: what is there is taken before what is in the old file.
    received: Option<(PathBuf, u64)>,
    /// Ranges that were marked as received.
    from_received: HashSet<u32>,
}

impl Known {
    fn size(&self) -> Option<u64> {
        let old = self.old.as_ref().map(|old| old.look.signature.size);
        old.max(self.received.as_ref().map(|(_, size)| *size))
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
}

impl<'a> Base<'a> {
    /// Files as they lie in `layout`, marked with `key`.
    pub fn new(
        layout: &'a Layout,
        staging: &'a Staging,
        key: MarkKey,
        threads: u16,
        cancel: &'a Cancel,
    ) -> Base<'a> {
        let (known, todo) = (Mutex::default(), Mutex::default());
        Base { layout, staging, key, threads, cancel, known, todo, changed: Condvar::new() }
    }

    /// Where a range of a file is, once the donor has heard its mark.
    pub fn origin(&self, file: FileId, offset: u64) -> Option<Origin> {
        let known = lock(&self.known);
        let known = known.get(&file)?;
        let range = u32::try_from(offset / u64::from(RANGE_BYTES)).ok()?;
        match known.from_received.contains(&range) {
            true => Some(Origin::Received),
            false => known.old.clone().map(Origin::Old),
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
        let known = self.find(entry)?;
        lock(&self.known).insert(entry.id, known);
        self.put(|todo| todo.pieces.push_back(Piece::From { file: entry.id, range: 0 }));
        Ok(())
    }

    /// Redo and Aria logs are of one life of one server; a link has no content.
    fn find(&self, entry: &FileEntry) -> Result<Known> {
        if matches!(entry.role, FileRole::Redo | FileRole::AriaLog | FileRole::Link { .. }) {
            return Ok(Known::default());
        }
        let path = self.layout.target_of(entry)?;
        let received = self.staging.adopt(entry, &path)?;
        let mut known = Known { received, ..Known::default() };
        if let Ok(file) = File::open(&path) {
            let look = look_at(&file).with_context(|| format!("cannot look at {}", path.display()))?;
            known.old = look.is_file.then_some(Old { path, look });
        }
        Ok(known)
    }

    fn known(&self, file: FileId) -> Known {
        lock(&self.known).get(&file).cloned().unwrap_or_default()
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
                    && range + PIECE < marks::ranges(self.known(file).size().unwrap_or(0))
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
        let known = self.known(file);
        if first == 0 {
            answers.push(Message::Base { file, size: known.size() });
        }
        let end = marks::ranges(known.size().unwrap_or(0)).min(first.saturating_add(PIECE));
        let mut marks: Vec<Mark> = Vec::new();
        for range in first..end {
            let bytes = self.read(file, &known, range, buffer)?;
            marks.push(marks::mark(&self.key, bytes));
        }
        if !marks.is_empty() {
            answers.push(Message::Marks { file, first, marks });
        }
        Ok(answers)
    }

    fn mark_blocks(&self, file: FileId, range: u32, buffer: &mut [u8]) -> Result<Message> {
        let bytes = self.read(file, &self.known(file), range, buffer)?;
        Ok(Message::Blocks { file, range, marks: marks::block_marks(&self.key, bytes) })
    }

    /// A range as it was received before or, where nothing was, as it is in the old file.
    fn read<'b>(&self, file: FileId, known: &Known, range: u32, buffer: &'b mut [u8]) -> Result<&'b [u8]> {
        let at = u64::from(range) * u64::from(RANGE_BYTES);
        if let Some((path, size)) = &known.received
            && let Ok(opened) = File::open(path)
            && has_data(&opened, at)
        {
            if let Some(known) = lock(&self.known).get_mut(&file) {
                known.from_received.insert(range);
            }
            return read_range(&opened, path, at, *size, buffer);
        }
        match &known.old {
            Some(old) if old.look.signature.size > at => {
                let path = &old.path;
                let opened = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
                read_range(&opened, path, at, old.look.signature.size, buffer)
            }
            _ => Ok(&[]),
        }
    }
}

/// Something was written to a range.
fn has_data(file: &File, at: u64) -> bool {
    let end = at + u64::from(RANGE_BYTES);
    rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)).is_ok_and(|data| data < end)
}

/// A range of a file that is `size` bytes long; what cannot be read is marked as nothing that anybody has, and comes from
/// the donor.
fn read_range<'b>(file: &File, path: &Path, at: u64, size: u64, buffer: &'b mut [u8]) -> Result<&'b [u8]> {
    let len = size.saturating_sub(at).min(u64::from(RANGE_BYTES)) as usize;
    let bytes = buffer.get_mut(..len).context("a range longer than its buffer")?;
    if let Err(error) = file.read_exact_at(bytes, at) {
        tracing::warn!("{} cannot be read at {at} ({error}): the donor sends it", path.display());
        return Ok(&[]);
    }
    Ok(bytes)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
