//! Answers the donor's questions about the joiner's files, and about what an earlier transfer had received of them.
//!
//! The donor asks in the order in which it will send. Our threads read and fingerprint (`fingerprinting`) a little
//! ahead of it, and only answers that are not yet sent wait in memory.
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex};

use anyhow::{Context, Result};
use protocol::entries::Entries;
use protocol::extents::Extents;
use protocol::fingerprint::{self, FingerprintKey};
use protocol::inventory::{FileEntry, FileId, FileRole, groups};
use protocol::limits::{FILES_MAX, RANGE_BYTES};
use protocol::message::Message;

use crate::cancel::Cancel;
use crate::cost::joiner::JoinersWork;
use crate::datadir::backup_files::{name_in_backup, table_of_new};
use crate::datadir::layout::Layout;
use crate::disk::identity::{Look, look_at};
use crate::failure::{Failure, Kind};
use crate::peer::link::Link;
use crate::receive::corruption::Corruption;
use crate::receive::origin::{Fingerprinted, Origin, Whole};
use crate::receive::questions::{Piece, Recent, Todo};
use crate::receive::reusable::Old;
use crate::receive::staging::Staging;
use crate::remembered::memory::Memory;
use crate::threads::lock;

/// The joiner's files, by the file numbers of an attempt.
pub struct Base<'a> {
    layout: &'a Layout,
    staging: &'a Staging,
    /// A prepared backup (the option `base`).
    backup: Option<&'a Path>,
    pub(super) key: FingerprintKey,
    pub(super) threads: u16,
    pub(super) cancel: &'a Cancel,
    asked: Mutex<Asked>,
    /// Groups of files that were asked for together, by their first file.
    together: Mutex<HashMap<FileId, Arc<Vec<FileId>>>>,
    /// For each range the bytes that had been received when it was first fingerprinted.
    pub(super) received: Mutex<HashMap<(FileId, u32), Extents>>,
    /// Fingerprinted ranges: the digests, by which the unchanged ones are checked when they are read back, and the
    /// fingerprints, which can be remembered.
    pub(super) wholes: Mutex<HashMap<(FileId, u32), Whole>>,
    /// What this node remembers of its files; `None` if nothing is used of that.
    pub(super) memory: Option<Arc<Memory>>,
    /// What of it was found wrong, until the donor is told.
    pub(super) wrong: Mutex<Option<String>>,
    pub(super) counts: Counts,
    /// What the work of this host takes.
    pub(super) work: JoinersWork,
    /// Block fingerprints of the ranges that were fingerprinted last: the donor asks for them if a range differs.
    pub(super) recent: Mutex<Recent>,
    corruption: Corruption,
    pub(super) todo: Mutex<Todo>,
    pub(super) changed: Condvar,
    /// Sends the results of rebuilt blocks to the donor, until it asks no more.
    pub(super) say: Mutex<Option<mpsc::SyncSender<Message>>>,
}

/// Bytes of the joiner's files.
#[derive(Debug, Default)]
pub struct Counts {
    /// They were read.
    pub read: AtomicU64,
    /// They were not read, because their fingerprints are remembered.
    pub remembered: AtomicU64,
}

/// Files that the donor asked for.
#[derive(Default)]
struct Asked {
    /// The entries that the donor sent.
    entries: Entries,
    /// The joiner's bytes of them.
    origins: HashMap<FileId, Arc<Origin>>,
    /// For small files at their targets only the state of the old file, because there can be very many.
    small: HashMap<FileId, Look>,
}

impl Asked {
    fn add(&mut self, entry: &FileEntry, target: &Path, origin: Origin) {
        self.origins.remove(&entry.id);
        self.small.remove(&entry.id);
        let is_small = |size: u64| size <= u64::from(RANGE_BYTES);
        match &origin {
            Origin { received: None, old: None, .. } => {}
            Origin { received: None, old: Some(old), .. }
                if old.path == *target && is_small(old.look.signature.size) && is_small(entry.size) =>
            {
                self.small.insert(entry.id, old.look);
            }
            _ => drop(self.origins.insert(entry.id, Arc::new(origin))),
        }
        self.entries.insert(entry);
    }
}

impl<'a> Base<'a> {
    /// Describes the files of `layout`, and those of `backup` that are missing there. Fingerprints are made with
    /// `key`.
    pub fn new(
        layout: &'a Layout,
        staging: &'a Staging,
        backup: Option<&'a Path>,
        key: FingerprintKey,
        threads: u16,
        cancel: &'a Cancel,
    ) -> Base<'a> {
        Base {
            layout,
            staging,
            backup,
            key,
            threads,
            cancel,
            asked: Mutex::default(),
            together: Mutex::default(),
            received: Mutex::default(),
            wholes: Mutex::default(),
            memory: None,
            wrong: Mutex::default(),
            counts: Counts::default(),
            work: JoinersWork::new(false),
            recent: Mutex::default(),
            corruption: Corruption::default(),
            todo: Mutex::default(),
            changed: Condvar::new(),
            say: Mutex::default(),
        }
    }

    /// Uses what is remembered under the key of this attempt.
    pub fn with_memory(self, memory: Option<Arc<Memory>>) -> Base<'a> {
        Base { memory, ..self }
    }

    /// Tells the donor what work takes here, if it understands that.
    pub fn telling(self, tells: bool) -> Base<'a> {
        Base { work: JoinersWork::new(tells), ..self }
    }

    /// What was read.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The joiner's bytes of a file.
    pub(super) fn origin(&self, file: FileId) -> Arc<Origin> {
        let asked = lock(&self.asked);
        if let Some(known) = asked.origins.get(&file) {
            return Arc::clone(known);
        }
        let small = || {
            let (entry, look) = (asked.entries.get(file)?, *asked.small.get(&file)?);
            let old = Some(Old::new(self.layout.target_of(&entry).ok()?, look));
            Some(Arc::new(Origin { old, ..Origin::default() }))
        };
        small().unwrap_or_default()
    }

    /// The entry with which the donor asked for a file.
    ///
    /// # Errors
    /// The donor did not ask for it.
    pub fn entry(&self, file: FileId) -> Result<FileEntry, Failure> {
        let entry = lock(&self.asked).entries.get(file);
        let text = format!("the donor refers to file number {}, for which it did not ask", file.0);
        entry.ok_or_else(|| Failure::new(Kind::Peer, text))
    }

    /// Number of ranges of a file that are fingerprinted: those that both files have, by the donor's length when it
    /// asked. What the joiner has beyond that is not read.
    pub(super) fn ranges_asked(&self, file: FileId) -> u32 {
        let here = self.origin(file).size().unwrap_or(0);
        self.entry(file).map_or(0, |entry| fingerprint::ranges(here.min(entry.size)))
    }

    /// The numbers of the files in the group that begins with this file.
    ///
    /// # Errors
    /// There is no such group.
    pub fn together(&self, first: FileId) -> Result<Arc<Vec<FileId>>, Failure> {
        let files = lock(&self.together).get(&first).cloned();
        let text = format!("the donor asked for no group of files that begins with number {}", first.0);
        files.ok_or_else(|| Failure::new(Kind::Peer, text))
    }

    /// Called when all files of a group are the same: the donor asks no more about them.
    pub fn used_up(&self, first: FileId) {
        let Some(files) = lock(&self.together).remove(&first) else { return };
        let mut asked = lock(&self.asked);
        for file in files.iter() {
            asked.small.remove(file);
        }
    }

    /// What the joiner had of the range at `offset` when it sent the donor its fingerprint.
    pub fn fingerprinted(&self, file: FileId, offset: u64) -> Fingerprinted {
        let range = u32::try_from(offset / u64::from(RANGE_BYTES)).unwrap_or(u32::MAX);
        let received = lock(&self.received).get(&(file, range)).cloned().unwrap_or_default();
        // The digest is used once.
        let whole = lock(&self.wholes).remove(&(file, range));
        Fingerprinted { origin: self.origin(file), received, whole }
    }

    /// Damaged pages in the old files.
    pub fn corruption(&self) -> &Corruption {
        &self.corruption
    }

    /// Tells the donor which blocks of a chunk could not be rebuilt.
    pub fn rebuilt(&self, file: FileId, offset: u64, failed: Vec<u32>) {
        let say = lock(&self.say).clone();
        if let Some(say) = say {
            // If the connection is gone, the thread that uses it reports that.
            let _ = say.send(Message::Rebuilt { file, offset, failed });
        }
    }

    /// Receives the donor's questions over `link`, until the last one.
    pub fn receive_questions(&self, link: &mut Link) -> Result<()> {
        while self.take(link.recv()?)? {}
        Ok(())
    }

    /// Takes a question. Returns false if it was the last one.
    ///
    /// # Errors
    /// The message is no question, or names an impossible file; an I/O error.
    pub fn take(&self, question: Message) -> Result<bool> {
        match question {
            Message::CompareFiles(entries) => {
                for entry in entries {
                    let from = Piece::From { file: entry.id, range: 0 };
                    self.look(entry)?;
                    self.put(|todo| todo.pieces.push_back(from));
                }
            }
            Message::CompareGroups(entries) => self.compare_groups(entries)?,
            Message::SplitGroup { first } => {
                let files = self.together(first)?;
                let pieces = files.iter().rev().map(|file| Piece::From { file: *file, range: 0 });
                self.put(|todo| pieces.for_each(|piece| todo.pieces.push_front(piece)));
            }
            Message::CompareBlocks { file, range } => {
                self.put(|todo| todo.pieces.push_front(Piece::Blocks { file, range }));
            }
            Message::ComparePieces { file, range, blocks }
                if blocks.len() <= fingerprint::FINGERPRINTS_MAX =>
            {
                self.put(|todo| todo.pieces.push_front(Piece::Pieces { file, range, blocks }));
            }
            Message::CompareEnd => {
                self.put(|todo| {
                    todo.pieces.clear();
                    todo.closed = true;
                });
                // After `closed` is set, so that an `answer` that begins only now does not wait for it.
                drop(lock(&self.say).take());
                return Ok(false);
            }
            other => {
                let text = format!("the donor sent {}, expected CompareFiles or CompareEnd", other.name());
                return Err(Failure::new(Kind::Peer, text).into());
            }
        }
        Ok(true)
    }

    fn look(&self, entry: FileEntry) -> Result<()> {
        entry.check()?;
        if entry.id.0 >= FILES_MAX {
            return Err(Failure::new(Kind::Peer, "the donor asks for a file beyond the limit").into());
        }
        let (target, origin) = (self.layout.target_of(&entry)?, self.find(&entry)?);
        lock(&self.asked).add(&entry, &target, origin);
        Ok(())
    }

    fn compare_groups(&self, entries: Vec<FileEntry>) -> Result<()> {
        for group in groups(&entries) {
            let files: Vec<FileId> = group.iter().map(|entry| entry.id).collect();
            let Some(first) = files.first().copied() else { continue };
            group.iter().try_for_each(|entry| self.look(entry.clone()))?;
            lock(&self.together).insert(first, Arc::new(files));
            self.put(|todo| todo.pieces.push_back(Piece::GroupHasher { first }));
        }
        Ok(())
    }

    /// Finds the joiner's bytes of a file. Redo is never compared, because it differs from start to start; a link has
    /// no content. The second engine's log is compared: if the last transfer came from this donor and little was written to that engine's
    /// tables, it is the same.
    fn find(&self, entry: &FileEntry) -> Result<Origin> {
        if matches!(entry.role, FileRole::Redo | FileRole::Link { .. }) {
            return Ok(Origin::default());
        }
        let target = self.layout.target_of(entry)?;
        let path = match entry.role {
            FileRole::Backup => match table_of_new(&entry.path) {
                Some(table) => self.layout.datadir.join(table),
                None => return Ok(Origin::default()),
            },
            _ => target.clone(),
        };
        let received = self.staging.adopt(entry, &target)?;
        let mut known = Origin { received, ..Origin::default() };
        known.old = match look_for(path)? {
            None => {
                self.backup.map(|backup| look_for(backup.join(name_in_backup(entry)))).transpose()?.flatten()
            }
            here => here,
        };
        Ok(known)
    }

    pub(super) fn put(&self, change: impl FnOnce(&mut Todo)) {
        change(&mut lock(&self.todo));
        self.changed.notify_all();
    }
}

/// A file as it is now; `None` if it cannot be opened.
fn look_for(path: PathBuf) -> Result<Option<Old>> {
    let Ok(file) = File::open(&path) else { return Ok(None) };
    let look = look_at(&file).with_context(|| format!("cannot look at {}", path.display()))?;
    Ok(look.is_file.then_some(Old::new(path, look)))
}

#[cfg(test)]
#[path = "base_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "base_memory_tests.rs"]
mod memory_tests;
