//! What is remembered, in one transfer.
use std::sync::OnceLock;

use anyhow::Result;
use protocol::remembered::{FileRecord, Remembered};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::trust::state_of;
use crate::disk::identity::Look;
use crate::peer::secret::random_bytes;

/// One range in so many is read although its fingerprint is remembered.
const CHECKED: u64 = 100;

/// A list of fingerprints that counts.
#[derive(Debug)]
pub struct Recall {
    list: Remembered,
    /// Chooses the ranges that are read anyway, anew for each transfer.
    seed: u64,
    /// A range of the first file of which something is recalled: at least one is read in each transfer.
    certain: OnceLock<(u32, u32)>,
}

impl Recall {
    /// Chooses what is read anyway.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn new(list: Remembered) -> Result<Recall> {
        let random: [u8; 32] = random_bytes()?;
        let seed = random.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        Ok(Recall { list, seed, certain: OnceLock::new() })
    }

    /// The list.
    pub fn list(&self) -> &Remembered {
        &self.list
    }

    /// Finds the record of a file that is in the state in which it was read.
    pub fn find(&self, look: &Look) -> Option<(u32, FileRecord<'_>)> {
        let at = self.list.find(&state_of(look))?;
        Some((at, self.list.get(at)?))
    }

    /// Whether a range of a recalled file is read anyway.
    pub fn is_checked(&self, at: u32, record: &FileRecord<'_>, range: u32) -> bool {
        let chosen = |n: u64| (self.seed.rotate_left(32) % n.max(1)) as u32;
        let certain = self.certain.get_or_init(|| (at, chosen(u64::from(record.count()))));
        let hash = xxh3_64_with_seed(&[at.to_le_bytes(), range.to_le_bytes()].concat(), self.seed);
        *certain == (at, range) || hash.is_multiple_of(CHECKED)
    }
}

#[cfg(test)]
mod tests {
    use protocol::remembered::{Builder, FileState, RANGE_RECORD_BYTES, Written};

    use super::*;

    fn recall(files: u64, ranges: u64) -> Recall {
        let mut builder = Builder::default();
        for inode in 1..=files {
            let state = FileState { inode, size: ranges << 20, ..FileState::default() };
            let ranges = vec![0; ranges as usize * RANGE_RECORD_BYTES];
            assert!(builder.push(&FileRecord { state, front: None, ranges: &ranges }));
        }
        Recall::new(Remembered::parse(builder.finish(&Written::default())).unwrap()).unwrap()
    }

    fn checked(recall: &Recall) -> Vec<(u64, u32)> {
        let list = recall.list();
        let files = 1..=list.len() as u64;
        let all = files.flat_map(|inode| {
            let size = list.total_bytes() / list.len() as u64;
            let at = list.find(&FileState { inode, size, ..FileState::default() }).unwrap();
            let record = list.get(at).unwrap();
            (0..record.count())
                .filter(move |range| recall.is_checked(at, &record, *range))
                .map(move |r| (inode, r))
        });
        all.collect()
    }

    #[test]
    fn one_range_in_a_hundred_is_read_and_never_the_same_ones() {
        let recalls = [recall(100, 200), recall(100, 200)];
        let [first, second] = recalls.each_ref().map(checked);
        for found in [&first, &second] {
            assert!((120..280).contains(&found.len()), "{} of 20000", found.len());
        }
        assert!(first != second && checked(&recalls[0]) == first, "the same ones within a transfer");
    }

    /// Blocks that were exchanged under a mounted filesystem change no state of a file. Nothing protects then but what is read
    /// all the same: of 100 wrong ranges, transfers find one with a chance of 1 - 0.99^100 = 63 %, of a single one with 1 %.
    #[test]
    fn blocks_exchanged_behind_the_filesystems_back_are_found_by_chance() {
        let found_of = |wrong: usize| {
            let is_found = |_: &usize| {
                let found = checked(&recall(10, 100));
                // Not in the first file, of which one range is certain.
                found.iter().any(|(inode, range)| *inode == 5 && (*range as usize) < wrong)
            };
            (0..200).filter(is_found).count()
        };
        assert!((95..160).contains(&found_of(100)), "of 200");
        assert!(found_of(1) < 15, "it does not find everything");
    }

    #[test]
    fn at_least_one_range_is_read() {
        let chosen: Vec<_> = (0..40).map(|_| checked(&recall(1, 5))).collect();
        assert!(chosen.iter().all(|found| !found.is_empty()), "{chosen:?}");
        assert!(chosen.iter().any(|found| *found != chosen[0]), "always the same one");
    }
}
