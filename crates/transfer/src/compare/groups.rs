//! Compares small files in groups, with one fingerprint for as many as make a range: many small files cost only a few
//! bytes each.
//!
//! Bytes that were read wait here until their group is complete. If the joiner has all of it, one message says so;
//! otherwise each file is compared by itself.
use std::collections::{HashMap, HashSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use protocol::fingerprint::{self, Fingerprint, FingerprintKey};
use protocol::inventory::{FileEntry, FileId, FileRole};
use protocol::limits::RANGE_BYTES;

use crate::cancel::{Cancel, LOOK_EVERY};

/// How files are asked about.
#[derive(Debug, PartialEq, Eq)]
pub enum Ask {
    /// Each by itself.
    Each(Vec<FileEntry>),
    /// In groups, with one fingerprint each.
    Grouped(Vec<FileEntry>),
}

/// Files with a common fingerprint.
#[derive(Debug)]
pub struct Group {
    /// The files, as they were asked for.
    pub entries: Vec<FileEntry>,
    /// What was read of them.
    pub bytes: HashMap<FileId, Vec<u8>>,
    /// Bytes that were not read yet.
    missing: u64,
}

/// The result of handing over bytes.
#[derive(Debug)]
pub enum Put<'a> {
    /// Their file is in no group, or its group was handed over already.
    Apart,
    /// They wait until their group is complete.
    Waits,
    /// They complete their group.
    Whole(Leaving<'a>),
    /// They are not what was expected: the group, without them, is compared file by file.
    Broken(Leaving<'a>),
}

/// A group that one thread is handing over. While this lives, every other thread that has newer bytes of one of its
/// files waits in [`Groups::put`]: the joiner keeps what arrives last, so the older bytes must be queued first.
#[derive(Debug)]
pub struct Leaving<'a> {
    /// The group.
    pub group: Group,
    together: &'a Groups,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.together.lock().leaving.remove(&self.group.first());
        self.together.answered.notify_all();
    }
}

/// All groups of an attempt.
#[derive(Debug, Default)]
pub struct Groups {
    state: Mutex<State>,
    answered: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: HashMap<FileId, Group>,
    /// First files of the groups that are being handed over.
    leaving: HashSet<FileId>,
    /// For every file that is or was in a group, the first file of that group.
    first_of: FirstOf,
    theirs: HashMap<FileId, Fingerprint>,
    /// Files of one range whose fingerprints are remembered.
    remembered: HashMap<FileId, Fingerprint>,
    /// Our fingerprints of groups whose files are all remembered.
    ours: HashMap<FileId, Fingerprint>,
    /// First files of groups that the joiner has, and of which nothing was read.
    same: HashSet<FileId>,
}

/// The first file of each file's group, by the file's number. A snapshot numbers its files without gaps, so this takes less
/// memory than a map.
#[derive(Debug, Default)]
struct FirstOf(Vec<FileId>);

/// In place of the first file of a group, for files that are in none.
const NO_GROUP: FileId = FileId(u32::MAX);

impl FirstOf {
    fn get(&self, file: FileId) -> Option<FileId> {
        self.0.get(file.0 as usize).copied().filter(|first| *first != NO_GROUP)
    }

    fn insert(&mut self, file: FileId, first: FileId) {
        let at = file.0 as usize;
        if at >= self.0.len() {
            self.0.resize(at + 1, NO_GROUP);
        }
        self.0[at] = first;
    }
}

/// What is known of a file without reading it.
#[derive(Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its group is not compared, or it is in none.
    Apart,
    /// Not all files of its group are remembered.
    MustBeRead,
    /// The joiner has its whole group.
    Same,
    /// The first file of its group, and our fingerprint of that group.
    Asked(FileId, Fingerprint),
}

/// Splits files, in the order in which they will be read, into questions.
pub fn split(entries: Vec<FileEntry>) -> Vec<Ask> {
    let (mut asks, mut small) = (Vec::new(), Vec::new());
    for entry in entries {
        if is_small(&entry) {
            small.push(entry);
        } else {
            close(&mut asks, &mut small);
            push(&mut asks, entry);
        }
    }
    close(&mut asks, &mut small);
    asks
}

/// Tables of `mysql` that each node writes in its own way: the members that it sees, created anew at every start, and
/// statistics.
const OWN: [&str; 3] = ["mysql/wsrep_", "mysql/innodb_table_stats.", "mysql/innodb_index_stats."];

/// Files that are hardly ever the same on two nodes are left out, because they would spoil their group.
fn is_small(entry: &FileEntry) -> bool {
    let table = matches!(entry.role, FileRole::Table | FileRole::TableElsewhere { .. });
    let own = OWN.iter().any(|name| entry.path.starts_with(name));
    table && !own && (1..=u64::from(RANGE_BYTES)).contains(&entry.size)
}

/// Makes a question of the small files collected so far.
fn close(asks: &mut Vec<Ask>, small: &mut Vec<FileEntry>) {
    match small.len() {
        0 | 1 => small.drain(..).for_each(|entry| push(asks, entry)),
        _ => asks.push(Ask::Grouped(std::mem::take(small))),
    }
}

fn push(asks: &mut Vec<Ask>, entry: FileEntry) {
    match asks.last_mut() {
        Some(Ask::Each(entries)) => entries.push(entry),
        _ => asks.push(Ask::Each(vec![entry])),
    }
}

impl Group {
    /// Its first file, by which it is identified.
    pub fn first(&self) -> FileId {
        self.entries[0].id
    }

    /// Bytes of all of its files.
    pub fn total_bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.size).sum()
    }

    /// Its fingerprint, if it is complete.
    pub fn fingerprint(&self, key: &FingerprintKey) -> Fingerprint {
        let mut together = fingerprint::GroupHasher::new(key);
        for entry in &self.entries {
            let bytes = self.bytes.get(&entry.id).map(Vec::as_slice).unwrap_or_default();
            let range = fingerprint::range_fingerprint(key, &fingerprint::block_fingerprints(key, bytes));
            together.add(Some(entry.size), &[range]);
        }
        together.fingerprint()
    }
}

impl Groups {
    /// The fingerprint of a file is remembered.
    pub fn remember(&self, file: FileId, fingerprint: Fingerprint) {
        self.lock().remembered.insert(file, fingerprint);
    }

    /// Splits off the files whose fingerprints are remembered: in groups of their own they need not be read because of
    /// others.
    pub fn by_memory(&self, entries: Vec<FileEntry>) -> [Vec<FileEntry>; 2] {
        let state = self.lock();
        let (remembered, others) =
            entries.into_iter().partition(|entry| state.remembered.contains_key(&entry.id));
        [others, remembered]
    }

    /// What is known of a file without reading it.
    pub fn standing(&self, file: FileId) -> Standing {
        let state = self.lock();
        match state.first_of.get(file) {
            Some(first) if state.same.contains(&first) => Standing::Same,
            Some(first) if state.waiting.contains_key(&first) => {
                state.ours.get(&first).map_or(Standing::MustBeRead, |ours| Standing::Asked(first, *ours))
            }
            _ => Standing::Apart,
        }
    }

    /// The joiner has all of a group. Returns its files, or `None` if some of them were read meanwhile: then the group is
    /// compared by its bytes.
    pub fn settle_unread(&self, first: FileId) -> Option<Vec<FileEntry>> {
        let mut state = self.lock();
        if state.same.contains(&first) {
            return Some(Vec::new());
        }
        let group = state.waiting.remove(&first)?;
        if !group.bytes.is_empty() {
            state.waiting.insert(first, group);
            return None;
        }
        state.same.insert(first);
        Some(group.entries)
    }

    /// Adds a group that is asked about. With `key`, the fingerprint of a group of remembered files is known.
    pub fn expect(&self, entries: Vec<FileEntry>, key: &FingerprintKey) {
        let mut state = self.lock();
        let mut hasher = fingerprint::GroupHasher::new(key);
        let all = entries.iter().all(|entry| {
            let remembered = state.remembered.remove(&entry.id);
            hasher.add(Some(entry.size), remembered.as_slice());
            remembered.is_some()
        });
        if let Some(first) = entries.first().filter(|_| all) {
            state.ours.insert(first.id, hasher.fingerprint());
        }
        let group = Group { missing: 0, bytes: HashMap::new(), entries };
        let (first, missing) = (group.first(), group.total_bytes());
        group.entries.iter().for_each(|entry| state.first_of.insert(entry.id, first));
        state.waiting.insert(first, Group { missing, ..group });
    }

    /// Takes the joiner's fingerprint of a group. Returns false if there is no such group.
    pub fn answered(&self, first: FileId, fingerprint: Fingerprint) -> bool {
        let mut state = self.lock();
        let is_one = state.first_of.get(first) == Some(first);
        if is_one {
            state.theirs.insert(first, fingerprint);
            self.answered.notify_all();
        }
        is_one
    }

    /// True if the joiner has sent the fingerprint of the group that contains this file.
    pub fn is_answered(&self, file: FileId) -> bool {
        let state = self.lock();
        state.first_of.get(file).is_some_and(|first| state.theirs.contains_key(&first))
    }

    /// The joiner's fingerprint of a group; `None` if it does not arrive for a while.
    pub fn theirs(&self, first: FileId) -> Option<Fingerprint> {
        let state = self.lock();
        let waited =
            self.answered.wait_timeout_while(state, LOOK_EVERY, |state| !state.theirs.contains_key(&first));
        waited.unwrap_or_else(PoisonError::into_inner).0.theirs.get(&first).copied()
    }

    /// The file that decides which connection is used for `file`: the first of its group, or itself. All bytes of a
    /// group take the same connection, whether or not it is compared as one.
    pub fn first_of(&self, file: FileId) -> FileId {
        self.lock().first_of.get(file).unwrap_or(file)
    }

    /// Takes what was read of a file, in order from its beginning. Waits while another thread hands over the file's
    /// group.
    ///
    /// # Errors
    /// Cancelled.
    pub fn put(&self, file: FileId, offset: u64, bytes: &[u8], cancel: &Cancel) -> Result<Put<'_>> {
        let mut state = self.lock();
        let Some(first) = state.first_of.get(file) else { return Ok(Put::Apart) };
        while state.leaving.contains(&first) {
            cancel.check()?;
            state = self.answered.wait_timeout(state, LOOK_EVERY).unwrap_or_else(PoisonError::into_inner).0;
        }
        let Some(group) = state.waiting.get_mut(&first) else { return Ok(Put::Apart) };
        let size = group.entries.iter().find(|entry| entry.id == file).map_or(0, |entry| entry.size);
        let read = group.bytes.get(&file).map_or(0, Vec::len) as u64;
        let is_next = read == offset && offset + bytes.len() as u64 <= size;
        if is_next {
            group.bytes.entry(file).or_default().extend_from_slice(bytes);
            group.missing -= bytes.len() as u64;
            if group.missing > 0 {
                return Ok(Put::Waits);
            }
        }
        let leaving = self.take(&mut state, first);
        Ok(leaving.map_or(Put::Apart, if is_next { Put::Whole } else { Put::Broken }))
    }

    /// Takes a group that is not complete; `None` if all were handed over.
    pub fn take_unfinished(&self) -> Option<Leaving<'_>> {
        let mut state = self.lock();
        let first = *state.waiting.keys().next()?;
        self.take(&mut state, first)
    }

    fn take(&self, state: &mut State, first: FileId) -> Option<Leaving<'_>> {
        let group = state.waiting.remove(&first)?;
        state.leaving.insert(first);
        Some(Leaving { group, together: self })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "groups_tests.rs"]
mod tests;
