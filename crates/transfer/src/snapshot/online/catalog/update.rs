//! A new listing in the catalog: which files are there under which names, which are gone, and what of them is left to copy.
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::path::Path;

use anyhow::Result;
use protocol::inventory::{FileId, FileRole};

use super::{Catalog, CopiedPart, Known, identity_hash};
use crate::disk::identity::Identity;
use crate::disk::watch::Changed;
use crate::snapshot::copy::page_file::first_page;
use crate::snapshot::online::listing::{Care, Listed};

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
            several |= listed.care() != Care::Link && known.is_some_and(|at| self.files[at].present);
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
            several |= listed.care() != Care::Link
                && known.is_some_and(|file| file.present && file.listed.path() != listed.path());
            if !several {
                seen.push(self.see(listed, false) as u32);
            }
        })?;
        Ok((!several).then(|| self.left_to_do(Some(seen))))
    }

    /// As [`Catalog::update`], only for files with [`Care::UnderCommitLock`].
    pub fn update_late(&mut self, listing: Vec<Listed>) -> Todo {
        for at in &self.late {
            let file = &mut self.files[*at];
            file.present &= file.care != Care::UnderCommitLock;
        }
        let several = several_names(&listing);
        let seen = |listed: Listed| {
            let several = several.contains(&listed.look().identity);
            self.see(listed, several) as u32
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
        // Their own paths are in no database; what names them was looked at.
        let of_names = |at: &usize| {
            self.files[*at].listed.in_database().is_some_and(|(database, name)| {
                match looked.get(&*database) {
                    Some(Changed::Names(names)) => names.contains(OsStr::new(&*name)),
                    _ => false,
                }
            })
        };
        all.extend(self.elsewhere.iter().copied().filter(of_names));
        all
    }

    /// What is left to copy of the files just seen (`None`: of all files) and of those that were left over before.
    fn left_to_do(&mut self, seen: Option<Vec<u32>>) -> Todo {
        let mut left = Todo::default();
        let mut todo = std::mem::take(&mut self.todo);
        match seen {
            Some(seen) => {
                todo.extend(seen);
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
        let changed = || !file.is_copied_as(file.listed.look().signature);
        match file.care {
            _ if !file.present => return false,
            Care::Pages if file.copied().is_none() => todo.pages.push(file.id),
            Care::UnderDdlLock if changed() => todo.small.push(file.id),
            Care::UnderCommitLock if changed() => todo.late.push(file.id),
            _ => return false,
        }
        true
    }

    /// Records a listed file. Returns its index.
    fn see(&mut self, listed: Listed, several: bool) -> usize {
        // A link has the identity of its target, so it is found by its path.
        let (identity, care) = (listed.look().identity, listed.care());
        let name = several.then(|| (identity, listed.path()));
        let known = match &name {
            _ if care == Care::Link => self.link(&listed),
            None => self.with_identity(&identity),
            Some(name) => self.by_name.get(name).map(|at| *at as usize),
        };
        if let Some(at) = known {
            let recent = identity.birth() >= self.since || identity.birth() == 0;
            let file = &self.files[at];
            let other = recent
                && care == Care::Pages
                && file.space().is_some()
                && first_page(&listed.path()).is_some_and(|(space, _)| Some(space) != file.space());
            if !other {
                self.by_path.remove(at, &self.files);
                let file = &mut self.files[at];
                (file.listed, file.care) = (listed, care);
                file.present = true;
                self.first_now.remove(&at);
                self.note(at);
                return at;
            }
        }
        let (id, at) = (self.next_id(), self.files.len());
        let link = care == Care::Link;
        self.files.push(Known {
            id,
            listed,
            care,
            copy: CopiedPart::Nothing,
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
        if matches!(listed.role(), FileRole::TableElsewhere { .. }) {
            self.elsewhere.insert(at);
        }
        if file.care == Care::UnderCommitLock {
            self.late.insert(at);
        }
        if !file.written && file.care == Care::Pages && listed.look().signature.changed() >= self.since {
            self.written.push(at as u32);
            file.written = true;
        }
        let path = file.path();
        self.by_path.set(at, &self.files, |other| other.path() == path);
    }
}

/// Files that are listed under several names.
fn several_names(listing: &[Listed]) -> HashSet<Identity> {
    let mut seen = HashSet::with_capacity(listing.len());
    let files = listing.iter().filter(|listed| listed.care() != Care::Link);
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
