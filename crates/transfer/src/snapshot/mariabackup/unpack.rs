//! Takes the stream of mariadb-backup apart and hands its files over, range by range, as every snapshot does.
use std::collections::HashMap;
use std::io::Read;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::{Context, Result};
use formats::mariadb::mbstream::{Decoder, Event};
use protocol::entries::Entries;
use protocol::inventory::{FileEntry, FileId};
use protocol::limits::{FILES_MAX, RANGE_BYTES};

use super::names::{Names, Use};
use crate::cancel::Cancel;
use crate::snapshot::declined::Declined;
use crate::snapshot::sink::SnapshotSink;
use crate::threads::{Thread, lock, scoped};

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
    let (give, taken) = sync_channel(threads);
    let taken = Mutex::new(Some(taken));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| scoped(scope, Thread::BackupReader, || hand_over(&taken, sink, cancel)))
            .collect();
        let mut files =
            Files { names, sink, give, open: HashMap::new(), current: None, buffer: Vec::new(), start: 0 };
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

/// Hands over pieces until there are no more. An error ends the other threads too, and the reader.
fn hand_over(taken: &Mutex<Option<Receiver<Piece>>>, sink: &dyn SnapshotSink, cancel: &Cancel) -> Result<()> {
    loop {
        let piece = lock(taken).as_ref().and_then(|pieces| pieces.recv().ok());
        let Some(Piece { file, offset, bytes }) = piece else { return Ok(()) };
        let written = cancel.check().map_err(anyhow::Error::from);
        if let Err(error) = written.and_then(|()| sink.write(file, offset, &bytes)) {
            drop(lock(taken).take());
            return Err(error);
        }
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
                Event::Chunk => files.begin(decoder.path())?,
                Event::Data { offset, bytes } => files.data(offset, bytes)?,
                Event::ChunkEnd { end } => files.chunk_end(end)?,
                Event::FileEnd => {
                    files.begin(decoder.path())?;
                    files.end()?;
                }
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
    ended: bool,
    kept: Vec<u8>,
}

/// All files of a stream, and the bytes that do not make a range yet: a chunk is of one file, so there is one buffer.
struct Files<'a, 'n> {
    names: &'a mut Names<'n>,
    sink: &'a dyn SnapshotSink,
    give: SyncSender<Piece>,
    open: HashMap<String, File>,
    current: Option<String>,
    buffer: Vec<u8>,
    /// Where in the file the buffer begins.
    start: u64,
}

impl Files<'_, '_> {
    /// Bytes of this file follow.
    fn begin(&mut self, path: &str) -> Result<()> {
        if self.current.as_deref() != Some(path) {
            self.current = Some(path.to_owned());
        }
        match self.open.get(path) {
            Some(File { ended: true, .. }) => return Err(backup(format!("it contains {path} twice")).into()),
            Some(File { at, .. }) => self.start = *at,
            None => {
                anyhow::ensure!(self.open.len() < FILES_MAX as usize, backup("it has too many files"));
                let (what, entry) = self.names.of(path);
                if what == Use::Sent || what == Use::Position {
                    self.sink.announce(&entry)?;
                }
                self.start = 0;
                self.open
                    .insert(path.to_owned(), File { what, entry, at: 0, ended: false, kept: Vec::new() });
            }
        }
        Ok(())
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.zeros_to(offset)?;
        let Some(file) = self.file() else { return Ok(()) };
        if matches!(file.what, Use::Position | Use::Binlog) && file.kept.len() + bytes.len() <= KEPT_BYTES_MAX
        {
            file.kept.extend_from_slice(bytes);
        }
        self.append(bytes)
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
        if offset < at {
            let path = self.current.clone().unwrap_or_default();
            return Err(backup(format!("the bytes of {path} are not in order")).into());
        }
        let zeros = [0; 64 << 10];
        let mut missing = offset - at;
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
        // It fails only if a thread has failed, whose error counts.
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
    for File { entry, at, .. } in files {
        // A file that is as it was listed keeps its entry: the joiner knows it by its number.
        let allocated = if entry.size == at { entry.allocated } else { at };
        unpacked.files.insert(&FileEntry { size: at, allocated, ..entry });
    }
    Ok(unpacked)
}

fn backup(why: impl Into<String>) -> Declined {
    Declined::Backup(why.into())
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
