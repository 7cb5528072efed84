//! Takes the stream of mariadb-backup apart and hands its files over, range by range, as every snapshot does.
use std::collections::HashMap;
use std::io::Read;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, PoisonError};

use anyhow::{Context, Result};
use formats::mariadb::mbstream::{Decoder, Event};
use protocol::entries::Entries;
use protocol::inventory::{FileEntry, FileId, FileRole};
use protocol::limits::{FILES_MAX, RANGE_BYTES};

use super::names::{Names, Use};
use crate::cancel::{Cancel, LOOK_EVERY};
use crate::snapshot::declined::Declined;
use crate::snapshot::sink::SnapshotSink;
use crate::threads::{Thread, lock, scoped};

/// Pieces for each thread that hands them over: one that it works on, and the next.
const PIECES_A_THREAD: usize = 2;
/// Bytes that are read at once: what a pipe holds, as a rule.
const READ_BYTES: usize = 256 << 10;
/// Files that are kept for ourselves are not longer: the head of a binary log can be, with very many servers in it.
const KEPT_BYTES_MAX: usize = 16 << 20;

/// A backup that was handed over.
#[derive(Debug, Default)]
pub(super) struct Unpacked {
    /// Its files, with their lengths.
    pub files: Entries,
    /// What the file with the cluster's position says.
    pub position: Option<Vec<u8>>,
    /// The newest binary log: the server begins one under the backup's locks.
    pub binlog: Option<Vec<u8>>,
}

/// Bytes of a file, within one range.
struct Piece {
    file: FileId,
    offset: u64,
    bytes: Vec<u8>,
}

/// Reads the stream to its end. `threads` threads compare and pack what is read.
///
/// # Errors
/// [`Declined::Backup`] where the stream is not one; from the sink; cancelled.
pub(super) fn unpack(
    stream: &mut dyn Read,
    names: &mut Names<'_>,
    sink: &dyn SnapshotSink,
    threads: usize,
    cancel: &Cancel,
) -> Result<Unpacked> {
    let threads = threads.max(1);
    // As many pieces as are not handed over at most, so that giving one never waits: nobody may be left to take it.
    let most = PIECES_A_THREAD * threads.max(1);
    let (give, taken) = sync_channel(most);
    let (taken, idle) = (Mutex::new(Some(taken)), Idle::default());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| scoped(scope, Thread::BackupReader, || hand_over(&taken, &idle, sink, cancel)))
            .collect();
        let mut files = Files {
            names,
            sink,
            give,
            most,
            shared: &taken,
            idle: &idle,
            cancel,
            open: HashMap::new(),
            current: None,
            buffer: Vec::new(),
            start: 0,
        };
        let read = read(stream, &mut files);
        // Closes the channel.
        let Files { open, give, .. } = files;
        drop(give);
        let mut handed_over = Ok(());
        for worker in workers {
            handed_over = handed_over.and(worker.join());
        }
        handed_over?;
        read?;
        finish(open)
    })
}

type Pieces = Mutex<Option<Receiver<Piece>>>;

/// Hands over pieces until there are no more. An error ends the other threads too, and the reader.
fn hand_over(taken: &Pieces, idle: &Idle, sink: &dyn SnapshotSink, cancel: &Cancel) -> Result<()> {
    loop {
        let piece = lock(taken).as_ref().and_then(|pieces| pieces.recv().ok());
        let Some(Piece { file, offset, bytes }) = piece else { return Ok(()) };
        let written = cancel.check().map_err(anyhow::Error::from);
        let written = written.and_then(|()| sink.write(file, offset, &bytes));
        idle.handed_over();
        if let Err(error) = written {
            drop(lock(taken).take());
            return Err(error);
        }
    }
}

/// How many pieces are not handed over yet.
#[derive(Default)]
struct Idle {
    pieces: Mutex<usize>,
    fewer: Condvar,
}

impl Idle {
    fn given(&self) {
        *lock(&self.pieces) += 1;
    }

    fn handed_over(&self) {
        *lock(&self.pieces) -= 1;
        self.fewer.notify_all();
    }

    /// Waits until at most `left` are not, or nobody hands over any more.
    fn wait(&self, left: usize, taken: &Pieces, cancel: &Cancel) -> Result<()> {
        let mut pieces = lock(&self.pieces);
        while *pieces > left {
            cancel.check()?;
            let waited = self.fewer.wait_timeout(pieces, LOOK_EVERY);
            pieces = waited.unwrap_or_else(PoisonError::into_inner).0;
            // A thread that waits for a piece holds this lock, but then none is missing.
            if *pieces > left && taken.try_lock().is_ok_and(|taken| taken.is_none()) {
                anyhow::bail!("the files of the backup cannot be handed over");
            }
        }
        Ok(())
    }
}

fn read(stream: &mut dyn Read, files: &mut Files<'_, '_>) -> Result<()> {
    let (mut decoder, mut block) = (Decoder::new(), vec![0; READ_BYTES]);
    loop {
        let read = stream.read(&mut block).context("cannot read the stream of mariadb-backup")?;
        if read == 0 {
            anyhow::ensure!(decoder.is_between_chunks(), backup("its stream breaks off"));
            return Ok(());
        }
        let mut input = block.get(..read).unwrap_or_default();
        while let Some(event) = decoder.next(&mut input).map_err(|error| backup(error.to_string()))? {
            match event {
                Event::Chunk { replaces } => files.begin(decoder.path(), replaces)?,
                Event::Data { offset, bytes } => files.data(offset, bytes)?,
                Event::ChunkEnd { end } => files.chunk_end(end)?,
                Event::FileEnd => {
                    files.begin(decoder.path(), false)?;
                    files.end()?;
                }
                Event::Removed => files.removed(decoder.path()),
                Event::Renamed => files.renamed(decoder.path(), decoder.new_path())?,
            }
        }
    }
}

/// A file that has begun.
struct File {
    what: Use,
    entry: FileEntry,
    /// Where its next byte belongs.
    at: u64,
    /// Its length so far.
    size: u64,
    ended: bool,
    kept: Vec<u8>,
}

/// All files of a stream, and the bytes that do not make a range yet: a chunk is of one file, so there is one buffer.
struct Files<'a, 'n> {
    names: &'a mut Names<'n>,
    sink: &'a dyn SnapshotSink,
    give: SyncSender<Piece>,
    /// So many pieces may wait or be worked on.
    most: usize,
    shared: &'a Pieces,
    idle: &'a Idle,
    cancel: &'a Cancel,
    open: HashMap<String, File>,
    current: Option<String>,
    buffer: Vec<u8>,
    /// Where in the file the buffer begins.
    start: u64,
}

impl Files<'_, '_> {
    /// Bytes of this file follow. If it is complete, it may be replaced by another one of its name.
    fn begin(&mut self, path: &str, replaces: bool) -> Result<()> {
        if self.current.as_deref() != Some(path) {
            self.current = Some(path.to_owned());
        }
        match self.open.get(path) {
            Some(File { ended: false, at, .. }) => self.start = *at,
            Some(_) if !replaces => return Err(backup(format!("it contains {path} twice")).into()),
            _ => {
                anyhow::ensure!(self.open.len() < FILES_MAX as usize, backup("it has too many files"));
                let (what, entry) = self.names.of(path);
                if what == Use::Sent || what == Use::Position {
                    if entry.role == FileRole::Backup && entry.size > 0 {
                        self.sink.expect(&mut std::iter::once(&entry));
                    }
                    self.sink.announce(&entry)?;
                }
                self.start = 0;
                let file = File { what, entry, at: 0, size: 0, ended: false, kept: Vec::new() };
                self.open.insert(path.to_owned(), file);
            }
        }
        Ok(())
    }

    /// A file that the state does not have.
    fn removed(&mut self, path: &str) {
        self.open.remove(path);
    }

    /// A file that was sent has another name.
    fn renamed(&mut self, path: &str, new: &str) -> Result<()> {
        match self.open.remove(path) {
            Some(File { ended: false, .. }) => {
                Err(backup(format!("it renames {path} before its end")).into())
            }
            Some(mut file) => {
                self.names.rename(&mut file.entry, new);
                self.open.insert(new.to_owned(), file);
                Ok(())
            }
            // A table that it never copied. What the datadir has counts.
            None if self.names.have_no_redo(path) => Ok(()),
            None => Err(backup(format!("it renames {path}, which it does not contain")).into()),
        }
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let Some((at, size)) = self.file().map(|file| (file.at, file.size)) else { return Ok(()) };
        if offset != at {
            self.flush()?;
            if offset < size {
                // What is there must have been handed over before something else is.
                self.idle.wait(0, self.shared, self.cancel)?;
            }
            self.move_to(offset.min(size));
            self.zeros_to(offset)?;
        }
        let Some(file) = self.file() else { return Ok(()) };
        if matches!(file.what, Use::Position | Use::Binlog) && file.kept.len() + bytes.len() <= KEPT_BYTES_MAX
        {
            file.kept.extend_from_slice(bytes);
        }
        self.append(bytes)
    }

    fn move_to(&mut self, offset: u64) {
        self.start = offset;
        if let Some(file) = self.file() {
            file.at = offset;
        }
    }

    fn chunk_end(&mut self, end: u64) -> Result<()> {
        self.zeros_to(end)?;
        self.flush()
    }

    fn end(&mut self) -> Result<()> {
        self.flush()?;
        if let Some(file) = self.file() {
            file.ended = true;
        }
        Ok(())
    }

    fn file(&mut self) -> Option<&mut File> {
        self.open.get_mut(self.current.as_deref()?)
    }

    /// A hole of the stream is zeros of the file.
    fn zeros_to(&mut self, offset: u64) -> Result<()> {
        let Some(at) = self.file().map(|file| file.at) else { return Ok(()) };
        let zeros = [0; 64 << 10];
        let mut missing = offset.saturating_sub(at);
        while missing > 0 {
            let now = missing.min(zeros.len() as u64);
            self.append(zeros.get(..now as usize).unwrap_or_default())?;
            missing -= now;
        }
        Ok(())
    }

    /// Collects bytes until they reach the end of their range.
    fn append(&mut self, mut bytes: &[u8]) -> Result<()> {
        let range = u64::from(RANGE_BYTES);
        while !bytes.is_empty() {
            let Some(at) = self.file().map(|file| file.at) else { return Ok(()) };
            let (now, rest) = bytes.split_at(bytes.len().min((range - at % range) as usize));
            bytes = rest;
            let Some(file) = self.file() else { return Ok(()) };
            file.at = at + now.len() as u64;
            file.size = file.size.max(file.at);
            let sent = matches!(file.what, Use::Sent | Use::Position);
            if sent {
                self.buffer.extend_from_slice(now);
            } else {
                self.start = at + now.len() as u64;
            }
            if (at + now.len() as u64).is_multiple_of(range) {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let Some(file) = self.current.as_ref().and_then(|path| self.open.get(path)) else { return Ok(()) };
        if self.buffer.is_empty() {
            self.start = file.at;
            return Ok(());
        }
        let next = Vec::with_capacity(RANGE_BYTES as usize);
        let bytes = std::mem::replace(&mut self.buffer, next);
        let piece = Piece { file: file.entry.id, offset: self.start, bytes };
        self.start = file.at;
        self.idle.wait(self.most - 1, self.shared, self.cancel)?;
        // It fails only if a thread has failed, whose error counts.
        self.idle.given();
        self.give.send(piece).map_err(|_| anyhow::anyhow!("the files of the backup cannot be handed over"))
    }
}

fn finish(open: HashMap<String, File>) -> Result<Unpacked> {
    let mut unpacked = Unpacked::default();
    let mut files: Vec<File> = Vec::with_capacity(open.len());
    for (path, file) in open {
        anyhow::ensure!(file.ended, backup(format!("{path} has no end")));
        match file.what {
            Use::Position => unpacked.position = Some(file.kept.clone()),
            Use::Binlog => {
                unpacked.binlog = Some(file.kept);
                continue;
            }
            Use::Left => continue,
            Use::Sent => {}
        }
        files.push(file);
    }
    files.sort_by_key(|file| file.entry.id);
    for File { entry, size, .. } in files {
        // A file that is as it was listed keeps its entry: the joiner knows it by its number.
        let allocated = if entry.size == size { entry.allocated } else { size };
        unpacked.files.insert(&FileEntry { size, allocated, ..entry });
    }
    Ok(unpacked)
}

fn backup(why: impl Into<String>) -> Declined {
    Declined::Backup(why.into())
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
