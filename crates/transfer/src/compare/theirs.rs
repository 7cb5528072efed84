//! What the joiner has said of the files that it was asked about.
use std::collections::{HashMap, HashSet};

use protocol::entries::Entries;
use protocol::extents::Extents;
use protocol::fingerprint::{self, Fingerprint};
use protocol::inventory::{FileEntry, FileId};

/// All files that were asked for. There can be very many small ones, so once nothing is left to learn about a file,
/// only the entry with which it was asked for is kept.
#[derive(Default)]
pub(super) struct Files {
    pub asked: Entries,
    /// Files that were not answered yet, or of which ranges are still to be handed over.
    pub open: HashMap<FileId, Theirs>,
}

impl Files {
    /// What is known of a file; `None` if nothing is left to learn, or it was not asked for.
    pub fn get_mut(&mut self, file: FileId) -> Option<&mut Theirs> {
        self.open.get_mut(&file)
    }

    /// True if it was asked for.
    pub fn is_asked(&self, file: FileId) -> bool {
        self.asked.contains(file)
    }

    /// Drops what is kept of a file that was answered and handed over completely.
    pub fn close_if_done(&mut self, file: FileId) {
        if self.open.get(&file).is_some_and(Theirs::is_done) {
            self.open.remove(&file);
        }
    }
}

pub(super) struct Theirs {
    /// Length of our file when it was asked for.
    pub ours: u64,
    /// Length of the joiner's file once it has answered; `Some(None)` if it has none.
    pub size: Option<Option<u64>>,
    /// Fingerprints received for ranges that were not handed over yet.
    pub ranges: HashMap<u32, Fingerprint>,
    /// Ranges that were handed over. Their content may be different by now, so they are not compared again. Neighbours
    /// are one entry, so this stays small however large the file is.
    pub used: Extents,
    /// Details of ranges that differ; most files have none.
    pub close: Option<Box<Close>>,
}

/// Ranges of a file that differ.
#[derive(Default)]
pub(super) struct Close {
    pub blocks: HashMap<u32, Vec<Fingerprint>>,
    /// Fingerprints of the pieces of the blocks that were asked for.
    pub pieces: HashMap<u32, Vec<Vec<u8>>>,
    /// Ranges whose blocks have been asked for and were not used yet.
    pub asked: HashSet<u32>,
    /// How many ranges are asked for ahead: more with each range that differs, fewer with each that does not.
    pub ahead: u32,
}

impl Theirs {
    pub fn unknown(entry: &FileEntry) -> Theirs {
        Theirs { ours: entry.size, size: None, ranges: HashMap::new(), used: Extents::default(), close: None }
    }

    /// Details of the ranges that differ.
    pub fn close(&mut self) -> &mut Close {
        self.close.get_or_insert_default()
    }

    /// How many ranges the joiner sends fingerprints of: those that both files have, with the length that ours had when
    /// it was asked for.
    pub fn ranges_asked(&self) -> u32 {
        fingerprint::ranges(self.size.flatten().unwrap_or(0).min(self.ours))
    }

    /// Takes a fingerprint from the joiner. It may arrive before the length of its file, because several threads of the
    /// joiner answer. The fingerprint of a range that was handed over already is dropped.
    pub fn add(&mut self, range: u32, fingerprint: Fingerprint) {
        if range < fingerprint::ranges(self.ours) && !self.used.overlaps(one(range)) {
            self.ranges.insert(range, fingerprint);
        }
    }

    /// True if the joiner has answered and every range that was asked for was handed over.
    pub fn is_done(&self) -> bool {
        let all = 0..u64::from(fingerprint::ranges(self.ours));
        self.size.is_some() && (all.is_empty() || self.used.covers(all))
    }

    pub fn use_up(&mut self, range: u32) {
        self.used.add(one(range));
        self.ranges.remove(&range);
        if let Some(close) = &mut self.close {
            close.asked.remove(&range);
            close.pieces.remove(&range);
            close.blocks.remove(&range);
        }
    }
}

pub(super) fn one(range: u32) -> std::ops::Range<u64> {
    u64::from(range)..u64::from(range) + 1
}
