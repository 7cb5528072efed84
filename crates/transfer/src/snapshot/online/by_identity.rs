//! Finds a file of a catalog by its identity.
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};

use xxhash_rust::xxh3::Xxh3;

use super::known::Known;
use super::listing::{Care, Listed};
use crate::disk::identity::Identity;

/// Files by identity. Identities are long and there are very many, so only their hashes are kept. An identity whose
/// hash is taken is kept whole.
#[derive(Debug, Default)]
pub(super) struct ByIdentity {
    hashed: HashMap<u64, u32>,
    colliding: HashMap<Identity, u32>,
}

impl ByIdentity {
    pub fn get(&self, identity: &Identity, files: &[Known]) -> Option<usize> {
        let is_it =
            |at: &&u32| files.get(**at as usize).is_some_and(|f| f.listed.look().identity == *identity);
        let found = self.hashed.get(&hash_of(identity)).filter(is_it);
        found.or_else(|| self.colliding.get(identity)).map(|at| *at as usize)
    }

    pub fn insert(&mut self, identity: Identity, at: usize, files: &[Known]) {
        match self.hashed.entry(hash_of(&identity)) {
            Entry::Vacant(free) => drop(free.insert(at as u32)),
            Entry::Occupied(mut taken) => {
                let other = files.get(*taken.get() as usize).map(|file| file.listed.look().identity);
                if other == Some(identity) {
                    taken.insert(at as u32);
                } else {
                    self.colliding.insert(identity, at as u32);
                }
            }
        }
    }

    pub fn remove(&mut self, identity: &Identity, at: usize) {
        let hash = hash_of(identity);
        if self.hashed.get(&hash) == Some(&(at as u32)) {
            self.hashed.remove(&hash);
        }
        if self.colliding.get(identity) == Some(&(at as u32)) {
            self.colliding.remove(identity);
        }
    }
}

/// Files that are listed under several names.
pub(super) fn several_names(listing: &[Listed]) -> HashSet<Identity> {
    let mut seen = HashSet::with_capacity(listing.len());
    let files = listing.iter().filter(|listed| listed.care != Care::Link);
    let mut several = HashSet::new();
    for identity in files.map(|listed| listed.look().identity) {
        // Two files with the same hash are taken for one file with two names, which is safe: each is then known by its
        // name.
        if !seen.insert(hash_of(&identity)) {
            several.insert(identity);
        }
    }
    several
}

fn hash_of(identity: &Identity) -> u64 {
    let mut hasher = Xxh3::new();
    identity.hash(&mut hasher);
    hasher.finish()
}
