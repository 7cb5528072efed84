//! What the joiner's own files hold, and what an earlier transfer had received of them, for a donor that asks.
//!
//! The donor asks in the order in which it will send. Threads of ours read and mark (`marking`) a little ahead of it;
//! nothing is held but what waits to be answered.
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex};

use anyhow::{Context, Result};
use protocol::extents::Extents;
use protocol::inventory::{FileEntry, FileId, FileRole, Place, groups};
use protocol::limits::{FILES_MAX, RANGE_BYTES};
use protocol::marks::{self, MarkKey};
use protocol::message::Message;

use super::held::Old;
use super::marking::{Piece, Recent, Todo};
use super::origin::{Marked, Origin};
use super::rot::Rot;
use super::staging::Staging;
use crate::cancel::Cancel;
use crate::datadir::layout::Layout;
use crate::disk::identity::look_at;
use crate::failure::{Failure, Kind};
use crate::peer::link::Link;
use crate::threads::lock;

/// The old files, by the numbers of an attempt.
pub struct Base<'a> {
    layout: &'a Layout,
    staging: &'a Staging,
    /// A prepared backup.
    backup: Option<&'a Path>,
    pub(super) key: MarkKey,
    pub(super) threads: u16,
    pub(super) cancel: &'a Cancel,
    asked: Mutex<HashMap<FileId, Asked>>,
    /// What was asked for together, by the first of it.
    together: Mutex<HashMap<FileId, Arc<Vec<FileId>>>>,
    /// What of ranges had been received when they were marked first.
    pub(super) received: Mutex<HashMap<(FileId, u32), Extents>>,
    /// Lengths and digests of ranges that were marked, for what is read back of those that are the same.
    pub(super) wholes: Mutex<HashMap<(FileId, u32), (u32, u64)>>,
    /// Marks of the blocks of ranges that were marked last: the donor asks for them where the range differs.
    pub(super) recent: Mutex<Recent>,
    rot: Rot,
    pub(super) todo: Mutex<Todo>,
    pub(super) changed: Condvar,
    /// For those who rebuild pages, until the donor asks no more.
    pub(super) say: Mutex<Option<mpsc::SyncSender<Message>>>,
}

/// A file that the donor asked for.
struct Asked {
    /// As what.
    entry: FileEntry,
    /// What is here of it.
    origin: Arc<Origin>,
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
            recent: Mutex::default(),
            rot: Rot::default(),
            todo: Mutex::default(),
            changed: Condvar::new(),
            say: Mutex::default(),
        }
    }

    /// What is here of a file.
    pub(super) fn origin(&self, file: FileId) -> Arc<Origin> {
        lock(&self.asked).get(&file).map(|asked| Arc::clone(&asked.origin)).unwrap_or_default()
    }

    /// What a file was asked for as.
    ///
    /// # Errors
    /// It was not.
    pub fn entry(&self, file: FileId) -> Result<FileEntry, Failure> {
        let entry = lock(&self.asked).get(&file).map(|asked| asked.entry.clone());
        let text = format!("the donor speaks of file number {}, which it did not ask for", file.0);
        entry.ok_or_else(|| Failure::new(Kind::Peer, text))
    }

    /// The numbers of what was asked for together with this file and after it.
    ///
    /// # Errors
    /// Nothing was.
    pub fn together(&self, first: FileId) -> Result<Arc<Vec<FileId>>, Failure> {
        let files = lock(&self.together).get(&first).cloned();
        let text = format!("the donor asked for nothing together with file number {}", first.0);
        files.ok_or_else(|| Failure::new(Kind::Peer, text))
    }

    /// What was here of the range in which a byte is, as the donor heard of it.
    pub fn marked(&self, file: FileId, offset: u64) -> Marked {
        let range = u32::try_from(offset / u64::from(RANGE_BYTES)).unwrap_or(u32::MAX);
        let received = lock(&self.received).get(&(file, range)).cloned().unwrap_or_default();
        let whole = lock(&self.wholes).get(&(file, range)).copied();
        Marked { origin: self.origin(file), received, whole }
    }

    /// Damaged pages among the old ones.
    pub fn rot(&self) -> &Rot {
        &self.rot
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
        while self.take(link.recv()?)? {}
        Ok(())
    }

    /// A question; false when it was the last.
    pub(super) fn take(&self, question: Message) -> Result<bool> {
        match question {
            Message::Look(entries) => {
                for entry in entries {
                    let from = Piece::From { file: entry.id, range: 0 };
                    self.look(entry)?;
                    self.put(|todo| todo.pieces.push_back(from));
                }
            }
            Message::LookTogether(entries) => self.look_together(entries)?,
            Message::LookApart { first } => {
                let files = self.together(first)?;
                let pieces = files.iter().rev().map(|file| Piece::From { file: *file, range: 0 });
                self.put(|todo| pieces.for_each(|piece| todo.pieces.push_front(piece)));
            }
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
                return Ok(false);
            }
            other => {
                let text = format!("the donor said {} where Look or LooksEnd was due", other.name());
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
        let origin = Arc::new(self.find(&entry)?);
        lock(&self.asked).insert(entry.id, Asked { entry, origin });
        Ok(())
    }

    fn look_together(&self, entries: Vec<FileEntry>) -> Result<()> {
        for group in groups(&entries) {
            let files: Vec<FileId> = group.iter().map(|entry| entry.id).collect();
            let Some(first) = files.first().copied() else { continue };
            group.iter().try_for_each(|entry| self.look(entry.clone()))?;
            lock(&self.together).insert(first, Arc::new(files));
            self.put(|todo| todo.pieces.push_back(Piece::Together { first }));
        }
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

    pub(super) fn put(&self, change: impl FnOnce(&mut Todo)) {
        change(&mut lock(&self.todo));
        self.changed.notify_all();
    }
}

/// A file that can be read, as it is now.
fn look_for(path: PathBuf) -> Result<Option<Old>> {
    let Ok(file) = File::open(&path) else { return Ok(None) };
    let look = look_at(&file).with_context(|| format!("cannot look at {}", path.display()))?;
    Ok(look.is_file.then_some(Old::new(path, look)))
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
