//! What a node remembers, during one transfer: what is recalled, and what is learned for the next one.
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::Result;
use protocol::fingerprint::{Fingerprint, FingerprintKey};
use protocol::remembered::{FileRecord, Written};

use super::learn::Learner;
use super::recall::Recall;
use super::{store, trust};
use crate::disk::identity::{Look, look};
use crate::threads::lock;

/// What both logs say when a remembered fingerprint is wrong.
pub const WRONG: &str = "a remembered fingerprint is wrong";

/// What this node remembers.
pub struct Memory {
    datadir: PathBuf,
    key: FingerprintKey,
    began: Written,
    recall: Option<Recall>,
    /// The file that the list was read from.
    loaded: Option<Look>,
    /// What was wrong; nothing is recalled after that.
    wrong: Mutex<Option<String>>,
    /// Records that are remembered after this transfer too, some of them several times. They are copied only then.
    kept: Mutex<Vec<u32>>,
    learner: Learner,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the key.
        f.debug_struct("Memory").field("datadir", &self.datadir).field("files", &self.files()).finish()
    }
}

impl Memory {
    /// What the node with this datadir remembers under its key; it gets one if it has none. `None` if nothing can be
    /// remembered on this host.
    ///
    /// # Errors
    /// From the disk.
    pub fn open(datadir: &Path) -> Result<Option<Memory>> {
        Memory::with(datadir, store::key_or_new(datadir)?)
    }

    /// As [`Memory::open`], with the key of another node: what is remembered under another one is removed.
    ///
    /// # Errors
    /// From the disk.
    pub fn with_key(datadir: &Path, key: FingerprintKey) -> Result<Option<Memory>> {
        store::take_key(datadir, &key)?;
        Memory::with(datadir, key)
    }

    fn with(datadir: &Path, key: FingerprintKey) -> Result<Option<Memory>> {
        let Some(began) = trust::moment() else { return Ok(None) };
        let (mut recall, mut loaded) = (None, look(&datadir.join(store::LIST))?);
        if let Some((list, seen)) = store::load(datadir, &key)? {
            loaded = Some(seen);
            match trust::counts(&list.written(), &began) {
                Ok(()) => recall = Some(Recall::new(list)?),
                Err(why) => tracing::info!("the remembered fingerprints are not used: {why}"),
            }
        }
        let (datadir, learner) = (datadir.to_owned(), Learner::default());
        let (wrong, kept) = (Mutex::default(), Mutex::default());
        Ok(Some(Memory { datadir, key, began, recall, loaded, wrong, kept, learner }))
    }

    /// The key.
    pub fn key(&self) -> FingerprintKey {
        self.key
    }

    /// When it was opened, before anything was read: nanoseconds since 1970.
    pub fn began(&self) -> i128 {
        i128::from(self.began.at)
    }

    /// Files of which something is remembered, whether it still counts or not.
    pub fn files(&self) -> usize {
        self.recall.as_ref().map_or(0, |recall| recall.list().len())
    }

    /// Whether there is anything to find.
    pub fn recalls(&self) -> bool {
        self.files() > 0 && !self.is_wrong()
    }

    /// Finds the record of a file that is in the state in which it was read; [`Memory::record`] reads it.
    pub fn find(&self, look: &Look) -> Option<u32> {
        self.recall.as_ref().filter(|_| !self.is_wrong())?.find(look).map(|(at, _)| at)
    }

    /// A record.
    pub fn record(&self, at: u32) -> Option<FileRecord<'_>> {
        self.recall.as_ref()?.list().get(at)
    }

    /// Whether a range of a recalled file is read anyway.
    pub fn is_checked(&self, at: u32, range: u32) -> bool {
        let checked = |recall: &Recall| {
            recall.list().get(at).is_none_or(|record| recall.is_checked(at, &record, range))
        };
        self.recall.as_ref().is_none_or(checked)
    }

    /// The fingerprint of a file of one range that is in the state in which it was read, for a file of this length.
    pub fn of_small(&self, look: &Look, size: u64) -> Option<Fingerprint> {
        let record = self.record(self.find(look)?)?;
        let is_small = record.count() == 1 && record.state.size == size;
        is_small.then(|| record.range(0)).flatten().map(|(fingerprint, _)| fingerprint)
    }

    /// A recalled file was still in its state: it is remembered after this transfer too.
    pub fn keep(&self, at: u32) {
        let mut kept = lock(&self.kept);
        if kept.last() != Some(&at) {
            kept.push(at);
        }
    }

    /// What is learned.
    pub fn learner(&self) -> &Learner {
        &self.learner
    }

    /// A range that was read is not what is remembered of it. Everything is forgotten, now and for later transfers.
    pub fn is_wrong_about(&self, path: &Path, offset: u64) -> String {
        let what = format!(
            "{WRONG}: {} at {offset} is not what it was, and yet the state of the file is unchanged",
            path.display()
        );
        tracing::warn!(
            "{what} (hint: look for errors of the disk and the memory in this host's kernel log, and for programs that set the \
             times of files); everything that was remembered is removed, and everything is read"
        );
        self.forget(&what);
        what
    }

    /// Nothing that is remembered is used any more in this transfer, because the other host said so.
    pub fn distrust(&self, why: &str) {
        lock(&self.wrong).get_or_insert_with(|| why.to_owned());
    }

    fn forget(&self, why: &str) {
        self.distrust(why);
        if let Err(error) = store::forget(&self.datadir) {
            tracing::warn!("the remembered fingerprints cannot be removed: {error:#}");
        }
    }

    /// Whether something was wrong.
    pub fn is_wrong(&self) -> bool {
        lock(&self.wrong).is_some()
    }

    /// Writes what is remembered from now on: what was learned, and what was kept. Returns the number of files and their
    /// bytes, or `None` if nothing was written: something was wrong, the clock was set back, or another program has
    /// written the list meanwhile.
    ///
    /// # Errors
    /// From the disk.
    pub fn save(&self) -> Result<Option<(usize, u64)>> {
        let Some(now) = trust::moment().filter(|now| trust::counts(&self.began, now).is_ok()) else {
            store::forget(&self.datadir)?;
            return Ok(None);
        };
        let unchanged = store::is_as_loaded(&self.datadir, self.loaded.as_ref());
        if self.is_wrong() || !unchanged || store::key(&self.datadir)? != Some(self.key) {
            return Ok(None);
        }
        let mut list = std::mem::take(&mut *lock(&self.learner.list));
        let mut kept = std::mem::take(&mut *lock(&self.kept));
        kept.sort_unstable();
        kept.dedup();
        for record in kept.iter().filter_map(|at| self.record(*at)) {
            list.push(&record);
        }
        let saved = (list.len(), list.total_bytes());
        store::save(&self.datadir, &self.key, list.finish(&now))?;
        Ok(Some(saved))
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
