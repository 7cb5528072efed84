//! What was copied of each file: the memory of a snapshot between its rounds.
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use formats::{Lsn, SpaceId};
use protocol::entries::Entries;
use protocol::inventory::{FileEntry, FileId, FileRole};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::index::Index;
pub use super::known::Known;
use super::listing::{Care, Listed};
use crate::disk::identity::{Identity, Signature};
use crate::disk::watch::Changed;
use crate::snapshot::copy::page_file::first_page;
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

/// What must be copied after a listing.
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
    /// An empty catalog. `since`: when the snapshot began, in nanoseconds since the epoch.
    pub fn new(since: i128) -> Catalog {
        Catalog {
            files: Vec::new(),
            by_identity: Index::new(|file| identity_hash(&file.listed.look().identity)),
            by_name: HashMap::new(),
            by_path: Index::new(|file| path_hash(&file.path())),
            top: BTreeSet::new(),
            late: BTreeSet::new(),
            written: Vec::new(),
            first_now: HashMap::new(),
            todo: Vec::new(),
            since,
        }
    }

    /// Takes over a new listing: names, states, and which files are gone. A data file created during the snapshot must
    /// still have the tablespace number it was copied with, because inode and birth time can occur again within one
    /// clock tick.
    pub fn update(&mut self, listing: Vec<Listed>) -> Todo {
        self.files.iter_mut().for_each(|f| f.present = false);
        let several = several_names(&listing);
        if self.files.is_empty() {
            // Growing would take up to twice the room of very many files.
            self.files.reserve_exact(listing.len());
        }
        for listed in listing {
            let several = several.contains(&listed.look().identity);
            self.see(listed, several);
        }
        self.left_to_do(None)
    }

    /// As [`Catalog::update`], with files that `list` hands over one by one. `None` if a file has several names: then the
    /// whole list is needed at once.
    ///
    /// # Errors
    /// From `list`.
    pub fn update_each(
        &mut self,
        list: impl FnOnce(&mut dyn FnMut(Listed)) -> Result<()>,
    ) -> Result<Option<Todo>> {
        if !self.by_name.is_empty() {
            return Ok(None);
        }
        self.files.iter_mut().for_each(|f| f.present = false);
        let mut several = false;
        list(&mut |listed| {
            let known = self.with_identity(&listed.look().identity);
            several |= listed.care != Care::Link && known.is_some_and(|at| self.files[at].present);
            if !several {
                self.see(listed, false);
            }
        })?;
        Ok((!several).then(|| self.left_to_do(None)))
    }

    /// As [`Catalog::update_each`], with the files that belong to no database and, of the databases below `datadir`, only
    /// what was looked at.
    ///
    /// # Errors
    /// From `list`.
    pub fn update_changed(
        &mut self,
        datadir: &Path,
        looked: &HashMap<String, Changed>,
        list: impl FnOnce(&mut dyn FnMut(Listed)) -> Result<()>,
    ) -> Result<Option<Todo>> {
        for at in self.looked_at(datadir, looked) {
            self.files[at].present = false;
        }
        let (mut seen, mut several) = (Vec::new(), false);
        list(&mut |listed| {
            let known = self.with_identity(&listed.look().identity).map(|at| &self.files[at]);
            several |= listed.care != Care::Link
                && known.is_some_and(|file| file.present && file.listed.path() != listed.path());
            if !several {
                seen.push(self.see(listed, false));
            }
        })?;
        Ok((!several).then(|| self.left_to_do(Some(seen))))
    }

    /// As [`Catalog::update`], only for files with [`Care::UnderCommitLock`].
    pub fn update_late(&mut self, listing: Vec<Listed>) -> Todo {
        for at in &self.late {
            let file = &mut self.files[*at];
            file.present &= file.listed.care != Care::UnderCommitLock;
        }
        let several = several_names(&listing);
        let seen = |listed: Listed| {
            let several = several.contains(&listed.look().identity);
            self.see(listed, several)
        };
        let seen = listing.into_iter().map(seen).collect();
        self.left_to_do(Some(seen))
    }

    /// The known files among those that were looked at.
    fn looked_at(&self, datadir: &Path, looked: &HashMap<String, Changed>) -> Vec<usize> {
        let whole = |database: &str| looked.get(database) == Some(&Changed::All);
        let of_server = |at: &usize| self.files[*at].listed.in_database().is_none();
        let mut all: Vec<usize> = self.top.iter().copied().filter(of_server).collect();
        if looked.values().any(|changed| *changed == Changed::All) {
            let of_whole =
                |file: &Known| file.listed.in_database().is_some_and(|(database, _)| whole(&database));
            all.extend((0..self.files.len()).filter(|at| of_whole(&self.files[*at])));
        }
        for (database, changed) in looked {
            let Changed::Names(names) = changed else { continue };
            let directory = datadir.join(database);
            let paths = names.iter().map(|name| directory.join(name));
            all.extend(paths.filter_map(|path| self.with_path(&path)));
        }
        all
    }

    /// What is left to copy of the files just seen (`None`: of all files) and of those that were left over before.
    fn left_to_do(&mut self, seen: Option<Vec<usize>>) -> Todo {
        let mut left = Todo::default();
        let mut todo = std::mem::take(&mut self.todo);
        match seen {
            Some(seen) => {
                todo.extend(seen.into_iter().map(|at| at as u32));
                todo.sort_unstable();
                todo.dedup();
            }
            None => todo = (0..self.files.len() as u32).collect(),
        }
        todo.retain(|at| self.is_left_to_do(*at as usize, &mut left));
        todo.shrink_to_fit();
        self.todo = todo;
        let size =
            |id: &FileId| std::cmp::Reverse(self.files[id.0 as usize - 1].listed.look().signature.size);
        left.pages.sort_by_cached_key(size);
        left
    }

    fn is_left_to_do(&self, at: usize, todo: &mut Todo) -> bool {
        let file = &self.files[at];
        let changed = || file.signature != Some(file.listed.look().signature);
        match file.listed.care {
            _ if !file.present => return false,
            Care::Pages if file.copied.is_none() => todo.pages.push(file.id),
            Care::UnderDdlLock if changed() => todo.small.push(file.id),
            Care::UnderCommitLock if changed() => todo.late.push(file.id),
            _ => return false,
        }
        true
    }

    /// Records a listed file. Returns its index.
    fn see(&mut self, listed: Listed, several: bool) -> usize {
        // A link has the identity of its target, so it is found by its path.
        let identity = listed.look().identity;
        let name = several.then(|| (identity, listed.path()));
        let known = match &name {
            _ if listed.care == Care::Link => self.link(&listed),
            None => self.with_identity(&identity),
            Some(name) => self.by_name.get(name).map(|at| *at as usize),
        };
        if let Some(at) = known {
            let recent = identity.birth() >= self.since || identity.birth() == 0;
            let file = &self.files[at];
            let other = recent
                && listed.care == Care::Pages
                && file.space().is_some()
                && first_page(&listed.path()).is_some_and(|(space, _)| Some(space) != file.space());
            if !other {
                self.by_path.remove(at, &self.files);
                let file = &mut self.files[at];
                file.listed = listed;
                file.present = true;
                self.first_now.remove(&at);
                self.note(at);
                return at;
            }
        }
        let (id, at) = (self.next_id(), self.files.len());
        let link = listed.care == Care::Link;
        self.files.push(Known {
            id,
            listed,
            copied: None,
            signature: None,
            data: None,
            present: true,
            written: false,
        });
        match name {
            _ if link => {}
            None => self.by_identity.set(at, &self.files, |file| file.listed.look().identity == identity),
            Some(name) => drop(self.by_name.insert(name, at as u32)),
        }
        self.note(at);
        at
    }

    /// Updates the indexes, so that queries need not look at every file.
    fn note(&mut self, at: usize) {
        let file = &mut self.files[at];
        let listed = &file.listed;
        if listed.in_database().is_none() {
            self.top.insert(at);
        }
        if listed.care == Care::UnderCommitLock {
            self.late.insert(at);
        }
        if !file.written && listed.care == Care::Pages && listed.look().signature.changed() >= self.since {
            self.written.push(at as u32);
            file.written = true;
        }
        let path = file.path();
        self.by_path.set(at, &self.files, |other| other.path() == path);
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
        self.files.iter().position(|f| f.listed.care == Care::Link && f.path() == path)
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
            file.copied = copied;
            file.signature = signature;
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
        let data = |file: &&Known| file.present && file.listed.care == Care::Pages && file.copied.is_some();
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
        ids.iter().filter_map(|id| self.get_mut(*id).map(|file| file.copied = None)).count()
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
    pub fn renounce(&mut self, id: FileId) {
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
        let link = |file: &Known| file.listed.care == Care::Link;
        self.files.iter().find(|file| file.present && file.copied.is_none() && !link(file))
    }

    /// The final list: `first`, then the files of the state with names and sizes; and the files that were announced but
    /// do not belong to it.
    pub fn result(mut self, first: &FileEntry) -> (Entries, Vec<FileId>) {
        let counts = |f: &Known| f.present && (f.copied.is_some() || f.listed.care == Care::Link);
        let mut files = Entries::default();
        files.insert(first);
        let mut removed = Vec::new();
        // What else the catalog keeps of so many files is not needed beside the list.
        let known = std::mem::take(&mut self.files);
        drop(self);
        for file in known {
            if counts(&file) {
                files.insert(&file.entry());
            } else if file.copied.is_some() && !file.present {
                removed.push(file.id);
            }
        }
        (files, removed)
    }
}

/// Files that are listed under several names.
fn several_names(listing: &[Listed]) -> HashSet<Identity> {
    let mut seen = HashSet::with_capacity(listing.len());
    let files = listing.iter().filter(|listed| listed.care != Care::Link);
    let mut several = HashSet::new();
    for identity in files.map(|listed| listed.look().identity) {
        // Two files with the same hash are taken for one file with two names, which is safe: each is then known by its
        // name.
        if !seen.insert(identity_hash(&identity)) {
            several.insert(identity);
        }
    }
    several
}

fn path_hash(path: &Path) -> u64 {
    xxh3_64(path.as_os_str().as_bytes())
}

fn identity_hash(identity: &Identity) -> u64 {
    let mut hasher = Xxh3::new();
    identity.hash(&mut hasher);
    hasher.finish()
}
