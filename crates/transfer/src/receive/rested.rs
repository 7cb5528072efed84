//! Staged files by their numbers. There can be very many small ones: once nobody writes to a file, it is kept
//! encoded, in a tenth of the memory.
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use protocol::fingerprint::Fingerprint;
use protocol::inventory::FileId;
use protocol::limits::{RANGE_BYTES, WORKERS_MAX};
use serde::{Deserialize, Serialize};

use crate::datadir::directories::Directories;
use crate::disk::identity::Look;
use crate::flavor::class::Class;
use crate::install::names::file_name;
use crate::receive::digests::Digests;
use crate::receive::encoded::EncodedFiles;
use crate::receive::reusable::{Held, Old};
use crate::receive::staged::{OPEN_FILES, StagedFile};
use crate::receive::staging_roots::Stage;
use crate::threads::lock;

/// So many files, those that were written to last, are not encoded, because writers have them open.
const RECENT: usize = 2 * WORKERS_MAX as usize * OPEN_FILES;

/// All files of an attempt.
#[derive(Debug, Default)]
pub(super) struct StagedFiles {
    open: BTreeMap<FileId, Arc<StagedFile>>,
    rested: EncodedFiles,
    /// In the order in which data of them arrived.
    recent: VecDeque<FileId>,
    /// Of the targets.
    directories: Directories,
    stages: Vec<Stage>,
}

/// A file to which nobody writes.
#[derive(Serialize, Deserialize)]
struct Rested<'a> {
    stage: u32,
    /// The number at the end of its name in that stage.
    fingerprint: u64,
    directory: u32,
    name: &'a str,
    size: u64,
    class: Class,
    made: bool,
    adopted: bool,
    patchable: bool,
    differing: u64,
    digest: Digest,
    /// The old file at its target, if the file is the same from the first byte to the last.
    old: Option<Look>,
}

/// What is known of all bytes of a file: their digest and their fingerprint.
#[derive(Serialize, Deserialize)]
enum Digest {
    Unknown,
    Written(u64, Option<Fingerprint>),
    ReadBack(u64, Option<Fingerprint>),
}

impl StagedFiles {
    /// Whether there is a file with this number.
    pub fn contains(&self, file: FileId) -> bool {
        self.open.contains_key(&file) || self.rested.contains(file)
    }

    /// Adds a file.
    pub fn insert(&mut self, file: FileId, staged: Arc<StagedFile>) {
        self.rested.remove(file);
        self.open.insert(file, staged);
    }

    /// A file, to be changed. It is not encoded after this.
    pub fn get(&mut self, file: FileId) -> Option<Arc<StagedFile>> {
        if let Some(open) = self.open.get(&file) {
            return Some(Arc::clone(open));
        }
        let woken = self.wake(file)?;
        self.open.insert(file, Arc::clone(&woken));
        Some(woken)
    }

    /// A file, for reading only.
    pub fn look(&self, file: FileId) -> Option<Arc<StagedFile>> {
        match self.open.get(&file) {
            Some(open) => Some(Arc::clone(open)),
            None => Some(Arc::new(self.decode(file, self.rested.get(file)?)?)),
        }
    }

    /// Takes a file out.
    pub fn remove(&mut self, file: FileId) -> Option<Arc<StagedFile>> {
        self.open.remove(&file).or_else(|| self.wake(file))
    }

    /// Takes a file out of those that are encoded.
    fn wake(&mut self, file: FileId) -> Option<Arc<StagedFile>> {
        let woken = Arc::new(self.decode(file, self.rested.get(file)?)?);
        self.rested.remove(file);
        Some(woken)
    }

    /// Numbers of all files, ascending.
    pub fn numbers(&self) -> Vec<FileId> {
        let mut all: Vec<FileId> = self.open.keys().copied().chain(self.rested.numbers()).collect();
        all.sort_unstable();
        all
    }

    /// The files that are not encoded.
    pub fn open(&self) -> impl Iterator<Item = &Arc<StagedFile>> {
        self.open.values()
    }

    /// Called when data of a file has arrived: encodes the file to which nothing was written for the longest time.
    pub fn may_rest(&mut self, file: FileId) {
        self.recent.push_back(file);
        if self.recent.len() > RECENT
            && let Some(file) = self.recent.pop_front()
        {
            self.rest(file);
        }
    }

    /// Encodes a file, if it is as simple as most are and nobody uses it.
    pub fn rest(&mut self, file: FileId) {
        let Some(staged) = self.open.get(&file).filter(|staged| Arc::strong_count(staged) == 1).cloned()
        else {
            return;
        };
        if let Some(encoded) = self.encode(file, &staged) {
            self.open.remove(&file);
            self.rested.insert(file, &encoded);
        }
    }

    fn encode(&mut self, file: FileId, staged: &StagedFile) -> Option<Vec<u8>> {
        if staged.is_link || staged.patched.is_some() || staged.size > u64::from(RANGE_BYTES) {
            return None;
        }
        if staged.end.load(Ordering::Acquire) > staged.size {
            return None;
        }
        let fingerprint = fingerprint_of(file, &staged.path)?;
        let (held, digests) = (lock(&staged.held), lock(&staged.digests));
        let is_whole = |old: &Old| old.path == staged.target && held.same.is_all(staged.size);
        let old = match &held.old {
            Some(old) if !held.copied && is_whole(old) => Some(old.look),
            None if !held.copied && held.same.is_empty() => None,
            _ => return None,
        };
        let rested = Rested {
            stage: self.stage(staged)?,
            fingerprint,
            directory: self.directories.number(staged.target.parent()?),
            name: staged.target.file_name()?.to_str()?,
            size: staged.size,
            class: staged.class,
            made: staged.made.load(Ordering::Acquire),
            adopted: staged.adopted,
            patchable: staged.patchable,
            differing: staged.differing.load(Ordering::Acquire),
            digest: match digests.only_one(staged.size)? {
                None => Digest::Unknown,
                Some(piece) if piece.read_back => Digest::ReadBack(piece.digest, piece.fingerprint),
                Some(piece) => Digest::Written(piece.digest, piece.fingerprint),
            },
            old,
        };
        postcard::to_stdvec(&rested).ok()
    }

    /// Files are staged in one directory of each filesystem.
    fn stage(&mut self, staged: &StagedFile) -> Option<u32> {
        let directory = staged.path.parent()?;
        if let Some(known) = self.stages.iter().position(|stage| stage.directory == directory) {
            return Some(known as u32);
        }
        let (writes, reserve) = (Arc::clone(&staged.writes), staged.reserve.clone());
        self.stages.push(Stage { directory: directory.to_owned(), writes, sharing: staged.sharing, reserve });
        Some(self.stages.len() as u32 - 1)
    }

    fn decode(&self, file: FileId, encoded: &[u8]) -> Option<StagedFile> {
        let rested: Rested<'_> = postcard::from_bytes(encoded).ok()?;
        let stage = self.stages.get(rested.stage as usize)?;
        let target = self.directories.get(rested.directory)?.join(rested.name);
        let mut held = Held::default();
        if let Some(look) = rested.old {
            held.old = Some(Old::new(target.clone(), look));
            held.same.add(0..rested.size);
        }
        let mut digests = Digests::default();
        if let Digest::Written(digest, fingerprint) | Digest::ReadBack(digest, fingerprint) = rested.digest {
            digests.note(0, rested.size as u32, Some(digest), fingerprint);
        }
        if matches!(rested.digest, Digest::ReadBack(..)) {
            digests.all_were_read_back();
        }
        Some(StagedFile {
            path: stage.directory.join(staged_name(file, rested.fingerprint)),
            size: rested.size,
            end: AtomicU64::new(rested.size),
            target,
            class: rested.class,
            is_link: false,
            made: AtomicBool::new(rested.made),
            making: Mutex::new(()),
            writing: RwLock::new(()),
            held: Mutex::new(held),
            digests: Mutex::new(digests),
            differing: AtomicU64::new(rested.differing),
            writes: Arc::clone(&stage.writes),
            sharing: stage.sharing,
            reserve: stage.reserve.clone(),
            patchable: rested.patchable,
            patched: None,
            adopted: rested.adopted,
        })
    }
}

/// The name of a staged file: its number in this attempt and a fingerprint of the path that it is going to have.
pub(super) fn staged_name(file: FileId, fingerprint: u64) -> String {
    format!("{}-{fingerprint:016x}", file.0)
}

fn fingerprint_of(file: FileId, path: &Path) -> Option<u64> {
    let name = file_name(path);
    let fingerprint = u64::from_str_radix(name.rsplit_once('-')?.1, 16).ok()?;
    (staged_name(file, fingerprint) == name).then_some(fingerprint)
}
