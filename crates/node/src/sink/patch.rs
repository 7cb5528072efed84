//! A table that is changed where it lies: of a large file of which little differs only that is staged, as a patch.
//!
//! A patch is a sparse file. Its bytes lie where they belong in the table; behind them, from the table's new length on, follows
//! the list of what is to be taken: for each part where it begins and ends, then `rjnpatch`, that length, the number of parts
//! and the xxh3 of all this (64 bits each, little-endian). What the table loses by it is a patch as well, the way back.
//!
//! A patch may be applied any number of times, also after it was applied in part: it depends on nothing that it changes.
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use protocol::extents::Extents;
use xxhash_rust::xxh3::xxh3_64;

use super::held::copy_range;
use crate::disk::holes::DataOf;

/// A table that is shorter is written anew: that costs less than the files of two patches.
pub const TABLE_MIN: u64 = 4 << 20;
/// A table is patched when at most one in so many of its bytes differs. What differs is written three times (received, kept,
/// put in place), a table written anew is read and written once.
pub const DIFFERS_MAX: u64 = 4;

const MAGIC: u64 = u64::from_le_bytes(*b"rjnpatch");
const PART_BYTES: u64 = 16;
const END_BYTES: u64 = 32;

/// What a patch changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// Length of the table afterwards, in bytes.
    pub size: u64,
    /// What is taken from the patch, ascending; all of it lies below `size`.
    pub parts: Vec<Range<u64>>,
}

impl Changes {
    /// Everything but what is the `same` in the old table.
    pub fn but(same: &Extents, size: u64) -> Changes {
        let mut all = Extents::default();
        all.add(0..size);
        same.iter().for_each(|range| all.remove(range));
        Changes { size, parts: all.iter().collect() }
    }

    /// Bytes that are taken.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.end - part.start).sum()
    }

    /// What must be kept of a table of this length to undo them.
    pub fn back(&self, old_size: u64) -> Changes {
        let mut lost = Extents::default();
        self.parts.iter().for_each(|part| lost.add(part.start.min(old_size)..part.end.min(old_size)));
        lost.add(self.size.min(old_size)..old_size);
        Changes { size: old_size, parts: lost.iter().collect() }
    }

    /// The list, as it stands in a patch.
    pub fn list(&self) -> Vec<u8> {
        let mut words: Vec<u64> = self.parts.iter().flat_map(|part| [part.start, part.end]).collect();
        words.extend([MAGIC, self.size, self.parts.len() as u64]);
        let mut list: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        list.extend(xxh3_64(&list).to_le_bytes());
        list
    }

    /// Reads the list of a patch of `length` bytes, of which `read` reads some.
    ///
    /// # Errors
    /// It is no patch, or not a whole one.
    pub fn read(length: u64, read: impl Fn(u64, &mut [u8]) -> std::io::Result<()>) -> Result<Changes> {
        let mut end = [0; END_BYTES as usize];
        let at = length.checked_sub(END_BYTES).context("it is no patch")?;
        read(at, &mut end)?;
        let [magic, size, count, _] = std::array::from_fn(|n| word(&end, n));
        let list = count.checked_mul(PART_BYTES).and_then(|bytes| bytes.checked_add(END_BYTES));
        let list = list.filter(|list| magic == MAGIC && size.checked_add(*list) == Some(length));
        let mut bytes = vec![0; usize::try_from(list.context("it is no whole patch")?)?];
        read(size, &mut bytes)?;
        let (told, sum) = bytes.split_at(bytes.len() - 8);
        ensure!(xxh3_64(told) == word(sum, 0), "its list is damaged");
        let parts: Vec<Range<u64>> =
            (0..count as usize).map(|n| word(told, 2 * n)..word(told, 2 * n + 1)).collect();
        let mut from = 0;
        for part in &parts {
            ensure!(from <= part.start && part.start < part.end && part.end <= size, "its list has no order");
            from = part.end;
        }
        Ok(Changes { size, parts })
    }
}

fn word(bytes: &[u8], number: usize) -> u64 {
    bytes
        .chunks_exact(8)
        .nth(number)
        .map_or(0, |word| u64::from_le_bytes(word.try_into().unwrap_or_default()))
}

/// Makes a patch of a staged file that has its bytes already.
pub fn seal(staged: &Path, changes: &Changes) -> Result<()> {
    let seal = || {
        let file = File::options().write(true).open(staged)?;
        file.set_len(changes.size)?;
        file.write_all_at(&changes.list(), changes.size)
    };
    seal().with_context(|| format!("cannot make a patch of {}", staged.display()))
}

/// Writes the patch that will undo `changes` of a table.
pub fn keep(table: &Path, changes: &Changes, to: &Path) -> Result<()> {
    let keep = || {
        let from = File::open(table)?;
        let back = changes.back(from.metadata()?.len());
        let into = File::create(to)?;
        into.set_len(back.size)?;
        let data = DataOf::default();
        back.parts.iter().try_for_each(|part| copy_range(&from, &data, &into, part.clone()))?;
        Ok::<_, anyhow::Error>(into.write_all_at(&back.list(), back.size)?)
    };
    keep().with_context(|| format!("cannot keep what is replaced in {}", table.display()))
}

/// Applies a patch to a table; it is on stable storage when this returns. A crash may leave any part of it.
pub fn apply(patch: &Path, table: &Path) -> Result<()> {
    let apply = || {
        let from = File::open(patch)?;
        let length = from.metadata()?.len();
        let changes = Changes::read(length, |at, bytes| from.read_exact_at(bytes, at))?;
        let into = File::options().write(true).open(table)?;
        let data = DataOf::default();
        changes.parts.iter().try_for_each(|part| copy_range(&from, &data, &into, part.clone()))?;
        into.set_len(changes.size)?;
        Ok::<_, anyhow::Error>(into.sync_all()?)
    };
    apply().with_context(|| format!("cannot patch {} with {}", table.display(), patch.display()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(ranges: &[(u64, u64)]) -> Vec<Range<u64>> {
        ranges.iter().map(|&(start, end)| start..end).collect()
    }

    fn set(ranges: &[(u64, u64)]) -> Extents {
        let mut set = Extents::default();
        ranges.iter().for_each(|&(start, len)| set.add(start..start + len));
        set
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn there_and_back_again(
            old in prop::collection::vec(prop::sample::select(vec![0u8, 1, 2]), 0..40),
            new in prop::collection::vec(prop::sample::select(vec![0u8, 1, 3]), 0..40),
            half in any::<bool>(),
        ) {
            // One byte stands for a block, so that zeros can be holes.
            let blocks = |states: &[u8]| states.iter().flat_map(|s| [*s; 4096]).collect::<Vec<u8>>();
            let mut same = Extents::default();
            for (n, _) in old.iter().zip(&new).enumerate().filter(|(_, (old, new))| old == new) {
                same.add(n as u64 * 4096..(n as u64 + 1) * 4096);
            }
            let (old, new) = (blocks(&old), blocks(&new));
            let dir = tempfile::tempdir().unwrap();
            let [table, patch, back] = ["table", "patch", "back"].map(|name| dir.path().join(name));
            std::fs::write(&table, &old).unwrap();
            let changes = Changes::but(&same, new.len() as u64);
            let staged = File::create(&patch).unwrap();
            for part in &changes.parts {
                staged.write_all_at(&new[part.start as usize..part.end as usize], part.start).unwrap();
            }
            seal(&patch, &changes).unwrap();
            keep(&table, &changes, &back).unwrap();
            apply(&patch, &table).unwrap();
            prop_assert!(std::fs::read(&table).unwrap() == new);
            if half {
                apply(&patch, &table).unwrap();
                // Undone in part, then a crash.
                let file = File::options().write(true).open(&table).unwrap();
                file.write_all_at(&old[..old.len().min(4096)], 0).unwrap();
            }
            apply(&back, &table).unwrap();
            prop_assert!(std::fs::read(&table).unwrap() == old);
        }
    }

    #[test]
    fn a_list_that_is_damaged_or_cut_is_none() {
        let changes = Changes::but(&set(&[(0, 100), (150, 50)]), 300);
        assert_eq!((changes.parts.clone(), changes.bytes()), (vec![100..150, 200..300], 150));
        assert_eq!(changes.back(120), Changes { size: 120, parts: parts(&[(100, 120)]) });
        assert_eq!(changes.back(400), Changes { size: 400, parts: vec![100..150, 200..400] });
        let file = [vec![0; 300], changes.list()].concat();
        let read = |file: &[u8]| {
            Changes::read(file.len() as u64, |at, bytes| {
                bytes.copy_from_slice(&file[at as usize..at as usize + bytes.len()]);
                Ok(())
            })
        };
        assert_eq!(read(&file).unwrap(), changes);
        for cut in 0..file.len() {
            assert!(read(&file[..cut]).is_err(), "{cut}");
        }
        for at in 300..file.len() {
            let mut bad = file.clone();
            bad[at] ^= 1;
            assert!(read(&bad).is_err(), "{at}");
        }
        for bad in [&[(5, 5)][..], &[(0, 301)], &[(10, 20), (15, 30)]] {
            let parts = parts(bad);
            assert!(read(&[vec![0; 300], Changes { size: 300, parts }.list()].concat()).is_err());
        }
    }

    #[test]
    fn what_is_a_hole_becomes_one() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let (table, patch) = (dir.path().join("table"), dir.path().join("patch"));
        std::fs::write(&table, vec![1; 1 << 20]).unwrap();
        let before = std::fs::metadata(&table).unwrap().blocks();
        File::create(&patch).unwrap();
        seal(&patch, &Changes::but(&set(&[(0, 1 << 19)]), 1 << 20)).unwrap();
        apply(&patch, &table).unwrap();
        let after = std::fs::metadata(&table).unwrap().blocks();
        assert!(after <= before / 2 + 16, "{after} of {before} blocks");
    }
}
