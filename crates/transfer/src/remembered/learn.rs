//! Files that are read now, and whose fingerprints may be remembered: those that were left alone for long enough before,
//! and are in the same state afterwards.
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use protocol::chunk::digest;
use protocol::fingerprint::{FingerprintKey, block_fingerprints, range_fingerprint, ranges};
use protocol::inventory::FileId;
use protocol::limits::RANGE_BYTES;
use protocol::remembered::{Builder, FileRecord, FileState, RANGE_RECORD_BYTES, range_record};

use super::front::{Front, is_tablespace};
use super::trust::{is_good, is_settled, may_be_mapped, state_of};
use crate::disk::identity::{Look, look};
use crate::threads::lock;

/// The fingerprint and the digest of a range, as they are kept.
pub fn record_of(key: &FingerprintKey, bytes: &[u8]) -> [u8; RANGE_RECORD_BYTES] {
    range_record(&range_fingerprint(key, &block_fingerprints(key, bytes)), digest(bytes))
}

/// What is learned in one transfer.
#[derive(Debug, Default)]
pub struct Learner {
    drafts: Mutex<HashMap<FileId, Draft>>,
    pub(super) list: Mutex<Builder>,
}

/// A file that is being read.
#[derive(Debug)]
struct Draft {
    path: PathBuf,
    state: FileState,
    front: Option<Front>,
    ranges: Vec<u8>,
    /// Ranges that were not read yet.
    left: u32,
}

impl Learner {
    /// Whether a file that was in this state may be remembered. `quiet`: the last time before it is read at which no write to its
    /// disk was in flight ([`super::in_flight::quiet`]), if any is known. `live`: a server may be writing to it.
    pub fn may_be_learned(path: &Path, state: &FileState, quiet: Option<i128>, live: bool) -> bool {
        let mapped = live && may_be_mapped(path);
        let is_settled = quiet.is_some_and(|quiet| is_settled(state, quiet));
        state.size > 0 && !mapped && is_settled && is_good(state)
    }

    /// A file that is being read, in the state in which it was before. `quiet` and `live` as in [`Learner::may_be_learned`].
    pub fn begin(
        &self,
        file: FileId,
        path: &Path,
        look: &Look,
        quiet: Option<i128>,
        live: bool,
        front: Option<Front>,
    ) {
        let state = state_of(look);
        if !Learner::may_be_learned(path, &state, quiet, live) || (is_tablespace(path) && front.is_none()) {
            return self.give_up(file);
        }
        let (path, left) = (path.to_owned(), ranges(state.size));
        let room = vec![0; left as usize * RANGE_RECORD_BYTES];
        lock(&self.drafts).insert(file, Draft { path, state, front, ranges: room, left });
    }

    /// A range of it was read. After the last one the file must be in the state in which it was before the first.
    pub fn read(&self, key: &FingerprintKey, file: FileId, offset: u64, bytes: &[u8]) {
        let range = offset / u64::from(RANGE_BYTES);
        let is_whole = |draft: &Draft| {
            let left = draft.state.size.saturating_sub(offset).min(u64::from(RANGE_BYTES));
            offset.is_multiple_of(u64::from(RANGE_BYTES)) && left > 0 && left == bytes.len() as u64
        };
        let is_whole = lock(&self.drafts).get(&file).map(is_whole);
        match is_whole {
            None => return,
            Some(false) => return self.give_up(file),
            Some(true) => {}
        }
        // Not under the lock: it takes a while.
        let record = record_of(key, bytes);
        let mut drafts = lock(&self.drafts);
        let Some(draft) = drafts.get_mut(&file) else { return };
        let at = range as usize * RANGE_RECORD_BYTES;
        let Some(slot) = draft.ranges.get_mut(at..at + RANGE_RECORD_BYTES) else { return };
        if slot.iter().all(|byte| *byte == 0) {
            draft.left -= 1;
        }
        slot.copy_from_slice(&record);
        let done = if draft.left == 0 { drafts.remove(&file) } else { None };
        drop(drafts);
        if let Some(draft) = done.filter(Draft::is_as_before) {
            let pages = draft.front.as_ref().map(Front::encoded_pages).unwrap_or_default();
            let front = draft.front.as_ref().map(|front| front.kept(&pages));
            self.add(&FileRecord { state: draft.state, front, ranges: &draft.ranges });
        }
    }

    /// A file is not to be remembered: what was read of it is not what it contains, or not all of it is read.
    pub fn give_up(&self, file: FileId) {
        lock(&self.drafts).remove(&file);
    }

    /// Adds a file of which every range was read in this state. Returns false if there is no room for it.
    pub fn add(&self, record: &FileRecord<'_>) -> bool {
        lock(&self.list).push(record)
    }
}

impl Draft {
    fn is_as_before(&self) -> bool {
        look(&self.path).ok().flatten().is_some_and(|now| state_of(&now) == self.state)
    }
}

#[cfg(test)]
#[path = "learn_tests.rs"]
mod tests;
