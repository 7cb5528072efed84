//! What was copied of each file: the memory of a snapshot between its rounds.
mod update;

use std::collections::{BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use formats::{Lsn, SpaceId};
use protocol::entries::Entries;
use protocol::inventory::{FileEntry, FileId, FileRole};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

pub use self::update::Todo;
use super::index::Index;
use super::known::CopiedPart;
pub use super::known::Known;
use super::listing::{Care, Listed};
use crate::disk::identity::{Identity, Signature};
use crate::snapshot::copy::pages::Freshness;

/// All files of a snapshot.
#[derive(Debug)]
pub struct Catalog {
    files: Vec<Known>,
    by_identity: Index,
    /// A file with several names counts as one file for each of them, so the name is part of the key.
    by_name: HashMap<(Identity, PathBuf), u32>,
    by_path: Index,
    /// Files that belong to no database.
    top: BTreeSet<usize>,
    /// Files of databases outside of their directories.
    elsewhere: BTreeSet<usize>,
    /// Files with [`Care::UnderCommitLock`].
    late: BTreeSet<usize>,
    /// Data files that were written to since the snapshot began, each once.
    written: Vec<u32>,
    /// First pages of files that were written to, as they were read since the file was last listed.
    first_now: HashMap<usize, FirstPage>,
    /// Files that were still to be copied after the last listing, in order.
    todo: Vec<u32>,
    /// Data files created later than this are checked more closely, see [`Catalog::update`].
    since: i128,
}

/// Tablespace and LSN of a file's first page; `None` while it cannot be read.
pub type FirstPage = Option<(SpaceId, Lsn)>;

impl Catalog {
    /// An empty catalog. `since`: when the snapshot began, in nanoseconds since the epoch.
    pub fn new(since: i128) -> Catalog {
        Catalog {
            files: Vec::new(),
            by_identity: Index::new(|file| identity_hash(&file.listed.look().identity)),
            by_name: HashMap::new(),
            by_path: Index::new(|file| path_hash(&file.path())),
            top: BTreeSet::new(),
            elsewhere: BTreeSet::new(),
            late: BTreeSet::new(),
            written: Vec::new(),
            first_now: HashMap::new(),
            todo: Vec::new(),
            since,
        }
    }

    fn with_identity(&self, identity: &Identity) -> Option<usize> {
        let is_it = |file: &Known| file.listed.look().identity == *identity;
        self.by_identity.get(identity_hash(identity), &self.files, is_it)
    }

    fn with_path(&self, path: &Path) -> Option<usize> {
        self.by_path.get(path_hash(path), &self.files, |file| file.path() == path)
    }

    fn link(&self, listed: &Listed) -> Option<usize> {
        let path = listed.path();
        self.files.iter().position(|f| f.care == Care::Link && f.path() == path)
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

    /// Records what was copied of a file.
    pub fn copied(
        &mut self,
        id: FileId,
        copied: Option<u64>,
        signature: Option<Signature>,
        space: Option<SpaceId>,
    ) {
        if let Some(file) = self.get_mut(id) {
            file.copy = match (copied, signature) {
                (None, _) => CopiedPart::Nothing,
                (Some(bytes), None) => CopiedPart::Pages(bytes),
                (Some(bytes), Some(state)) => CopiedPart::Whole(bytes, state.changed() as i64),
            };
            if space.is_some() {
                file.data().space = space;
            }
        }
    }

    /// Records the hashes of the first pages of a data file that was copied whole.
    pub fn head(&mut self, id: FileId, head: Vec<u64>) {
        if let Some(file) = self.get_mut(id) {
            file.data().head = head.into();
        }
    }

    /// Records which checkpoints had been seen when a data file was copied.
    pub fn fresh(&mut self, id: FileId, fresh: Freshness) {
        if let Some(file) = self.get_mut(id) {
            file.data().fresh = fresh.into();
        }
    }

    /// Records the LSN of the first page of a data file that was copied.
    pub fn first_page(&mut self, id: FileId, lsn: Option<Lsn>) {
        if let Some(file) = self.get_mut(id) {
            file.data().first_lsn = lsn;
        }
    }

    /// Data files that were written to since the snapshot began.
    pub fn written(&self) -> impl Iterator<Item = &Known> {
        let data = |file: &&Known| file.present && file.care == Care::Pages && file.copied().is_some();
        let written = self.written.iter().map(|at| &self.files[*at as usize]);
        written.filter(data).filter(|file| file.listed.look().signature.changed() >= self.since)
    }

    /// Records the first page of a file as it is now, not as it was copied. It is forgotten as soon as the file is listed
    /// again, which happens whenever it may have been replaced or imported.
    pub fn note_first_page(&mut self, id: FileId, first: FirstPage) {
        if let Some(at) = (id.0 as usize).checked_sub(1) {
            self.first_now.insert(at, first);
        }
    }

    /// The first page that was noted since the file was last listed.
    pub fn noted_first_page(&self, id: FileId) -> Option<FirstPage> {
        self.first_now.get(&(id.0 as usize).checked_sub(1)?).copied()
    }

    /// Has tables copied again as a whole if they were written to since the snapshot began. Returns how many.
    pub fn again_written(&mut self) -> usize {
        let table =
            |file: &&Known| !matches!(file.listed.role(), FileRole::SystemTablespace { .. } | FileRole::Undo);
        let ids: Vec<FileId> = self.written().filter(table).map(|file| file.id).collect();
        ids.iter().filter_map(|id| self.get_mut(*id).map(|file| file.copy = CopiedPart::Nothing)).count()
    }

    /// All files seen.
    pub fn files(&self) -> &[Known] {
        &self.files
    }

    /// The file no longer belongs to the state.
    pub fn forget(&mut self, id: FileId) {
        if let Some(file) = self.get_mut(id) {
            file.present = false;
        }
    }

    /// Discards the copy of a file that is gone or could not be found. If it is seen again, it counts as a new file.
    pub fn discard(&mut self, id: FileId) {
        let Some(at) = (id.0 as usize).checked_sub(1).filter(|at| *at < self.files.len()) else { return };
        let file = &mut self.files[at];
        file.present = false;
        let name = (file.listed.look().identity, file.path());
        self.by_identity.remove(at, &self.files);
        if self.by_name.get(&name) == Some(&(at as u32)) {
            self.by_name.remove(&name);
        }
    }

    /// The first file of the state that was not copied.
    pub fn not_copied(&self) -> Option<&Known> {
        let link = |file: &Known| file.care == Care::Link;
        self.files.iter().find(|file| file.present && file.copied().is_none() && !link(file))
    }

    /// The final list: `first`, then the files of the state with names and sizes; and the files that were announced but
    /// do not belong to it.
    pub fn result(mut self, first: &FileEntry) -> (Entries, Vec<FileId>) {
        let counts = |f: &Known| f.present && (f.copied().is_some() || f.care == Care::Link);
        let mut files = Entries::default();
        files.insert(first);
        let mut removed = Vec::new();
        // What else the catalog keeps of so many files is not needed beside the list.
        let known = std::mem::take(&mut self.files);
        drop(self);
        for file in known {
            if counts(&file) {
                files.insert(&file.entry());
            } else if file.copied().is_some() && !file.present {
                removed.push(file.id);
            }
        }
        (files, removed)
    }
}

fn path_hash(path: &Path) -> u64 {
    xxh3_64(path.as_os_str().as_bytes())
}

fn identity_hash(identity: &Identity) -> u64 {
    let mut hasher = Xxh3::new();
    identity.hash(&mut hasher);
    hasher.finish()
}
