//! Finds a file of a catalog by what it is known under. There are very many files, so an index holds only their positions
//! in the catalog, and looks at the files themselves.
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::known::Known;

/// Files by a property that is the same as long as they are in the index.
#[derive(Debug)]
pub(super) struct Index {
    /// The hash of a file's property.
    hash: fn(&Known) -> u64,
    files: HashTable<u32>,
}

impl Index {
    pub fn new(hash: fn(&Known) -> u64) -> Index {
        Index { hash, files: HashTable::new() }
    }

    /// The file with a property of this hash that is `wanted`.
    pub fn get(&self, hash: u64, all: &[Known], wanted: impl Fn(&Known) -> bool) -> Option<usize> {
        let is_it = |at: &u32| all.get(*at as usize).is_some_and(&wanted);
        self.files.find(hash, is_it).map(|at| *at as usize)
    }

    /// Adds a file. It takes the place of another one with the same property, as `same` says.
    pub fn set(&mut self, at: usize, all: &[Known], same: impl Fn(&Known) -> bool) {
        let hash_at = |at: &u32| all.get(*at as usize).map_or(0, self.hash);
        let is_it = |at: &u32| all.get(*at as usize).is_some_and(&same);
        match self.files.entry(hash_at(&(at as u32)), is_it, hash_at) {
            Entry::Occupied(mut taken) => *taken.get_mut() = at as u32,
            Entry::Vacant(free) => drop(free.insert(at as u32)),
        }
    }

    /// Removes a file, whose property must not have changed yet.
    pub fn remove(&mut self, at: usize, all: &[Known]) {
        let Some(file) = all.get(at) else { return };
        if let Ok(found) = self.files.find_entry((self.hash)(file), |found| *found as usize == at) {
            found.remove();
        }
    }
}
