//! What was copied of which file: the memory of a snapshot between its rounds.
use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use formats::{Lsn, SpaceId};
use protocol::inventory::{FileEntry, FileId, FileRole};

use super::listing::{Care, Listed};
use crate::disk::identity::{Identity, Signature, look};
use crate::source::copy::page_file::first_page;

/// One file that was seen, under whatever names.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its number in this snapshot.
    pub id: FileId,
    /// Its newest name and state.
    pub listed: Listed,
    /// What was copied of it: bytes from the start; `None` = nothing yet.
    pub copied: Option<u64>,
    /// State of which the copy is, of files without pages.
    pub signature: Option<Signature>,
    /// Tablespace, of data files whose first page could be read.
    pub space: Option<SpaceId>,
    /// LSN of the first page that was copied.
    pub first_lsn: Option<Lsn>,
    /// As [`crate::source::copy::page_file::PageFile::head`] when it was copied.
    pub head: Vec<u64>,
    /// In the newest listing.
    pub present: bool,
}

/// All files of a snapshot.
#[derive(Debug, Default)]
pub struct Catalog {
    files: Vec<Known>,
    by_identity: HashMap<Identity, usize>,
    /// Data files born later than this are looked at closely, see [`Catalog::update`].
    since: i128,
}

/// What a listing leaves to do.
#[derive(Debug, Default)]
pub struct Todo {
    /// Data files not copied yet, largest first.
    pub pages: Vec<FileId>,
    /// Files without pages that are new or changed.
    pub small: Vec<FileId>,
    /// Files to copy under the lock on commits.
    pub late: Vec<FileId>,
}

impl Catalog {
    /// Nothing known. `since`: nanoseconds since the epoch at which the snapshot began.
    pub fn new(since: i128) -> Catalog {
        Catalog { since, ..Catalog::default() }
    }

    /// Takes a new listing: names, states, what is gone. A data file made during the snapshot must still have the
    /// tablespace number it was copied with: within one clock tick inode and birth time can come again.
    pub fn update(&mut self, listing: Vec<Listed>) -> Todo {
        self.files.iter_mut().for_each(|f| f.present = false);
        self.add(listing)
    }

    /// As [`Catalog::update`] for the files of [`Care::UnderCommitLock`] alone.
    pub fn update_late(&mut self, listing: Vec<Listed>) -> Todo {
        let late = |f: &&mut Known| f.listed.care == Care::UnderCommitLock;
        self.files.iter_mut().filter(late).for_each(|f| f.present = false);
        self.add(listing)
    }

    fn add(&mut self, listing: Vec<Listed>) -> Todo {
        for listed in listing {
            self.see(listed);
        }
        let mut todo = Todo::default();
        for file in self.files.iter().filter(|f| f.present) {
            match file.listed.care {
                Care::Pages if file.copied.is_none() => todo.pages.push(file.id),
                Care::UnderDdlLock if file.signature != Some(file.listed.look.signature) => {
                    todo.small.push(file.id)
                }
                Care::UnderCommitLock if file.signature != Some(file.listed.look.signature) => {
                    todo.late.push(file.id)
                }
                _ => {}
            }
        }
        let size = |id: &FileId| std::cmp::Reverse(self.files[id.0 as usize - 1].listed.look.signature.size);
        todo.pages.sort_by_key(size);
        todo
    }

    fn see(&mut self, listed: Listed) {
        // A link shares the identity of the file behind it: it is known by its own number only.
        let key = listed.look.identity;
        let known =
            if listed.care == Care::Link { self.link(&listed) } else { self.by_identity.get(&key).copied() };
        if let Some(at) = known {
            let recent = listed.look.identity.birth() >= self.since || listed.look.identity.birth() == 0;
            let file = &mut self.files[at];
            let other = recent
                && listed.care == Care::Pages
                && file.space.is_some()
                && first_page(&listed.path).is_some_and(|(space, _)| Some(space) != file.space);
            if !other {
                file.listed = listed;
                file.present = true;
                return;
            }
        }
        let id = self.next_id();
        if listed.care != Care::Link {
            self.by_identity.insert(key, self.files.len());
        }
        self.files.push(Known {
            id,
            listed,
            copied: None,
            signature: None,
            space: None,
            first_lsn: None,
            head: Vec::new(),
            present: true,
        });
    }

    fn link(&self, listed: &Listed) -> Option<usize> {
        self.files.iter().position(|f| f.listed.care == Care::Link && f.listed.path == listed.path)
    }

    fn next_id(&self) -> FileId {
        // 0 is the redo log.
        FileId(self.files.len() as u32 + 1)
    }

    /// A file by its number.
    pub fn get(&self, id: FileId) -> Option<&Known> {
        self.files.get((id.0 as usize).checked_sub(1)?)
    }

    fn get_mut(&mut self, id: FileId) -> Option<&mut Known> {
        self.files.get_mut((id.0 as usize).checked_sub(1)?)
    }

    /// Notes what was copied.
    pub fn copied(
        &mut self,
        id: FileId,
        copied: Option<u64>,
        signature: Option<Signature>,
        space: Option<SpaceId>,
    ) {
        if let Some(file) = self.get_mut(id) {
            file.copied = copied;
            file.signature = signature;
            file.space = space.or(file.space);
        }
    }

    /// Notes what a data file that was copied whole began with.
    pub fn head(&mut self, id: FileId, head: Vec<u64>) {
        if let Some(file) = self.get_mut(id) {
            file.head = head;
        }
    }

    /// Notes the first page of a data file that was copied.
    pub fn first_page(&mut self, id: FileId, lsn: Option<Lsn>) {
        if let Some(file) = self.get_mut(id) {
            file.first_lsn = lsn;
        }
    }

    /// Data files that were written to since the snapshot began.
    pub fn written(&self) -> impl Iterator<Item = &Known> {
        let data = |file: &&Known| file.present && file.listed.care == Care::Pages && file.copied.is_some();
        self.files.iter().filter(data).filter(|file| file.listed.look.signature.changed() >= self.since)
    }

    /// All files seen.
    pub fn files(&self) -> &[Known] {
        &self.files
    }

    /// A file that counts no more.
    pub fn forget(&mut self, id: FileId) {
        if let Some(file) = self.get_mut(id) {
            file.present = false;
        }
    }

    /// A file that is gone, or perhaps only could not be found: its copy counts no more. Should it be seen again it
    /// is a new one.
    pub fn renounce(&mut self, id: FileId) {
        let Some(at) = (id.0 as usize).checked_sub(1).filter(|at| *at < self.files.len()) else { return };
        let file = &mut self.files[at];
        file.present = false;
        let identity = file.listed.look.identity;
        if self.by_identity.get(&identity) == Some(&at) {
            self.by_identity.remove(&identity);
        }
    }

    /// The first file that counts and was not copied.
    pub fn not_copied(&self) -> Option<&Known> {
        let link = |file: &Known| file.listed.care == Care::Link;
        self.files.iter().find(|file| file.present && file.copied.is_none() && !link(file))
    }

    /// The final list: what counts, with names and sizes, and what was announced and does not.
    pub fn result(&self) -> (Vec<FileEntry>, Vec<FileId>) {
        let counts =
            |f: &&Known| f.present && (f.copied.is_some() || matches!(f.listed.role, FileRole::Link { .. }));
        let files = self.files.iter().filter(counts).map(Known::entry).collect();
        let removed = self.files.iter().filter(|f| f.copied.is_some() && !f.present).map(|f| f.id).collect();
        (files, removed)
    }
}

impl Known {
    /// What it is called on the wire, with the size that was copied or, before, is there.
    pub fn entry(&self) -> FileEntry {
        let listed = &self.listed;
        let link = listed.care == Care::Link;
        FileEntry {
            id: self.id,
            place: listed.place,
            path: listed.name.clone(),
            size: if link { 0 } else { self.copied.unwrap_or(listed.look.signature.size) },
            allocated: if link { 0 } else { listed.look.allocated },
            role: listed.role.clone(),
        }
    }

    /// Its name stands for another file now, or for none.
    ///
    /// # Errors
    /// From the system.
    pub fn is_gone(&self) -> Result<bool> {
        let now = look(self.path()).with_context(|| format!("cannot look at {}", self.path().display()))?;
        Ok(now.is_none_or(|now| now.identity != self.listed.look.identity))
    }

    /// Where it is.
    pub fn path(&self) -> &PathBuf {
        &self.listed.path
    }
}
