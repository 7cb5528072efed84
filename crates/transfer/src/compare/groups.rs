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
        self.together.heard.notify_all();
    }
}

/// All groups of an attempt.
#[derive(Debug, Default)]
pub struct Groups {
    state: Mutex<State>,
    heard: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: HashMap<FileId, Group>,
    /// First files of the groups that are being handed over.
    leaving: HashSet<FileId>,
    /// For every file that is or was in a group, the first file of that group.
    first_of: HashMap<FileId, FileId>,
    theirs: HashMap<FileId, Fingerprint>,
    /// Files of one range whose fingerprints are remembered.
    remembered: HashMap<FileId, Fingerprint>,
    /// Our fingerprints of groups whose files are all remembered.
    ours: HashMap<FileId, Fingerprint>,
    /// First files of groups that the joiner has, and of which nothing was read.
    same: HashSet<FileId>,
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
        match state.first_of.get(&file) {
            Some(first) if state.same.contains(first) => Standing::Same,
            Some(first) if state.waiting.contains_key(first) => {
                state.ours.get(first).map_or(Standing::MustBeRead, |ours| Standing::Asked(*first, *ours))
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
        state.first_of.extend(group.entries.iter().map(|entry| (entry.id, first)));
        state.waiting.insert(first, Group { missing, ..group });
    }

    /// Takes the joiner's fingerprint of a group. Returns false if there is no such group.
    pub fn hear(&self, first: FileId, fingerprint: Fingerprint) -> bool {
        let mut state = self.lock();
        let is_one = state.first_of.get(&first) == Some(&first);
        if is_one {
            state.theirs.insert(first, fingerprint);
            self.heard.notify_all();
        }
        is_one
    }

    /// True if the joiner has sent the fingerprint of the group that contains this file.
    pub fn is_answered(&self, file: FileId) -> bool {
        let state = self.lock();
        state.first_of.get(&file).is_some_and(|first| state.theirs.contains_key(first))
    }

    /// The joiner's fingerprint of a group; `None` if it does not arrive for a while.
    pub fn theirs(&self, first: FileId) -> Option<Fingerprint> {
        let state = self.lock();
        let waited =
            self.heard.wait_timeout_while(state, LOOK_EVERY, |state| !state.theirs.contains_key(&first));
        waited.unwrap_or_else(PoisonError::into_inner).0.theirs.get(&first).copied()
    }

    /// The file that decides which connection is used for `file`: the first of its group, or itself. All bytes of a
    /// group take the same connection, whether or not it is compared as one.
    pub fn first_of(&self, file: FileId) -> FileId {
        self.lock().first_of.get(&file).copied().unwrap_or(file)
    }

    /// Takes what was read of a file, in order from its beginning. Waits while another thread hands over the file's
    /// group.
    ///
    /// # Errors
    /// Cancelled.
    pub fn put(&self, file: FileId, offset: u64, bytes: &[u8], cancel: &Cancel) -> Result<Put<'_>> {
        let mut state = self.lock();
        let Some(first) = state.first_of.get(&file).copied() else { return Ok(Put::Apart) };
        while state.leaving.contains(&first) {
            cancel.check()?;
            state = self.heard.wait_timeout(state, LOOK_EVERY).unwrap_or_else(PoisonError::into_inner).0;
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
mod tests {
    use protocol::inventory::Place;

    use super::*;

    fn file(id: u32, size: u64) -> FileEntry {
        let (path, role) = (format!("d/t{id}.ibd"), FileRole::Table);
        FileEntry { id: FileId(id), place: Place::Datadir, path, size, allocated: size, role }
    }

    fn put<'a>(together: &'a Groups, file: u32, offset: u64, bytes: &[u8]) -> Put<'a> {
        together.put(FileId(file), offset, bytes, &Cancel::default()).unwrap()
    }

    #[test]
    fn small_tables_that_follow_each_other_are_asked_for_together() {
        let range = u64::from(RANGE_BYTES);
        let log = FileEntry { role: FileRole::SecondLog, ..file(7, 8192) };
        let large = |id| file(id, range + 1);
        let asks =
            split(vec![large(1), large(2), file(3, 7), file(4, range), file(5, 0), file(6, 3), log.clone()]);
        let expected = [
            Ask::Each(vec![large(1), large(2)]),
            Ask::Grouped(vec![file(3, 7), file(4, range)]),
            Ask::Each(vec![file(5, 0), file(6, 3), log]),
        ];
        assert_eq!(asks, expected);
        assert_eq!(split(Vec::new()), []);
    }

    #[test]
    fn a_group_is_whole_when_every_byte_of_it_was_read() {
        let (together, key) = (Groups::default(), [3; 32]);
        together.expect(vec![file(1, 3), file(2, 4)], &[3; 32]);
        assert!(matches!(put(&together, 3, 0, b"x"), Put::Apart));
        assert!(matches!(put(&together, 2, 0, b"ab"), Put::Waits));
        assert!(matches!(put(&together, 1, 0, b"xyz"), Put::Waits));
        let Put::Whole(whole) = put(&together, 2, 2, b"cd") else { panic!("not whole") };
        let group = &whole.group;
        assert_eq!(
            (group.first(), group.total_bytes(), &group.bytes[&FileId(2)][..]),
            (FileId(1), 7, &b"abcd"[..])
        );
        // As a joiner computes it.
        let range = |bytes: &[u8]| {
            fingerprint::range_fingerprint(&key, &fingerprint::block_fingerprints(&key, bytes))
        };
        let mut theirs = fingerprint::GroupHasher::new(&key);
        theirs.add(Some(3), &[range(b"xyz")]);
        theirs.add(Some(4), &[range(b"abcd")]);
        assert_eq!(group.fingerprint(&key), theirs.fingerprint());
        drop(whole);
        // Read again later it is an ordinary file, on the connection of its group.
        assert!(matches!(put(&together, 2, 0, b"abcd"), Put::Apart));
        assert_eq!((together.first_of(FileId(2)), together.first_of(FileId(3))), (FileId(1), FileId(3)));
        assert!(together.take_unfinished().is_none());
    }

    #[test]
    fn what_is_not_as_expected_breaks_its_group() {
        let expected = || {
            let together = Groups::default();
            together.expect(vec![file(1, 3), file(2, 4)], &[3; 32]);
            together
        };
        // Read again before the others, and longer than it was.
        for (offset, bytes) in [(0, &b"new"[..]), (3, b"more")] {
            let together = expected();
            assert!(matches!(put(&together, 1, 0, b"xyz"), Put::Waits));
            let again = put(&together, 1, offset, bytes);
            let Put::Broken(broken) = again else { panic!("{again:?}") };
            assert_eq!(broken.group.bytes[&FileId(1)], b"xyz");
            drop(broken);
            assert!(matches!(put(&together, 2, 0, b"abcd"), Put::Apart));
        }
        // Longer from the start: nothing of it is in the group.
        let together = expected();
        let Put::Broken(broken) = put(&together, 1, 0, b"longer") else { panic!("not broken") };
        assert!(broken.group.bytes.is_empty());
        // One of its files is never read.
        let together = expected();
        assert!(matches!(put(&together, 1, 0, b"xyz"), Put::Waits));
        assert_eq!(together.take_unfinished().map(|leaving| leaving.group.first()), Some(FileId(1)));
    }

    #[test]
    fn the_joiners_fingerprint_of_a_group_is_waited_for() {
        let together = Groups::default();
        together.expect(vec![file(1, 3), file(2, 4)], &[3; 32]);
        assert_eq!(together.theirs(FileId(1)), None);
        assert!(!together.hear(FileId(2), [1; 16]), "not the first of any");
        assert!(![1, 2].into_iter().any(|file| together.is_answered(FileId(file))));
        assert!(together.hear(FileId(1), [1; 16]));
        let answered: Vec<bool> = (1..=3).map(|file| together.is_answered(FileId(file))).collect();
        assert_eq!(answered, [true, true, false]);
        assert_eq!(together.theirs(FileId(1)), Some([1; 16]));
    }

    #[test]
    fn a_group_of_remembered_files_is_known_without_reading_it() {
        let together = Groups::default();
        let range = |byte| fingerprint::fingerprint(&[3; 32], &[byte]);
        (1..=3).for_each(|id| together.remember(FileId(id), range(id as u8)));
        let [others, remembered] = together.by_memory((1..=4).map(|id| file(id, 3)).collect());
        assert_eq!((others, remembered.len()), (vec![file(4, 3)], 3));
        together.expect(vec![file(1, 3), file(2, 3)], &[3; 32]);
        together.expect(vec![file(3, 3), file(4, 3)], &[3; 32]);
        let mut theirs = fingerprint::GroupHasher::new(&[3; 32]);
        [1, 2].iter().for_each(|id| theirs.add(Some(3), &[range(*id)]));
        assert_eq!(together.standing(FileId(2)), Standing::Asked(FileId(1), theirs.fingerprint()));
        // One file of the other group must be read in any case.
        assert_eq!(together.standing(FileId(3)), Standing::MustBeRead);
        assert_eq!(together.standing(FileId(9)), Standing::Apart);
        assert_eq!(together.settle_unread(FileId(1)), Some(vec![file(1, 3), file(2, 3)]));
        assert_eq!(together.standing(FileId(2)), Standing::Same);
        // What is read of it later is no longer compared with it, and nothing of it is left.
        assert!(matches!(put(&together, 2, 0, b"abc"), Put::Apart));
        // A file was read before the joiner's answer was known: the group is compared by its bytes.
        assert!(matches!(put(&together, 3, 0, b"abc"), Put::Waits));
        assert_eq!(together.settle_unread(FileId(3)), None);
        assert_eq!(together.take_unfinished().map(|leaving| leaving.group.first()), Some(FileId(3)));
        assert_eq!(together.standing(FileId(3)), Standing::Apart);
    }
}
