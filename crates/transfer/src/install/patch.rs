//! Patches: of a large table that differs little, only the difference is staged, and applied in place.
//!
//! A patch is a sparse file. Its bytes have the same offsets as in the table. Behind them, from the table's
//! new length on, follows the list of parts: start and end of each, then `rjnpatch`, that length, the number
//! of parts and the xxh3 of all this (64 bits each, little-endian). The table's replaced bytes are saved as a
//! patch as well, which undoes the first.
//!
//! Applying a patch twice gives the same result, so a crash in the middle is harmless.
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use protocol::extents::Extents;
use xxhash_rust::xxh3::xxh3_64;

use crate::disk::copy::copy_ranges;
use crate::disk::holes::DataOf;

/// A shorter table is written anew, because that costs less than the files of two patches.
pub const TABLE_MIN: u64 = 4 << 20;
/// A table is patched if at most one in this many of its bytes differs. Differing bytes are written three
/// times (received, saved, installed); a table that is written anew is read and written once.
pub const DIFFERS_MAX: u64 = 4;

const MAGIC: u64 = u64::from_le_bytes(*b"rjnpatch");
const PART_BYTES: u64 = 16;
const END_BYTES: u64 = 32;

/// The changes of a patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// Length of the table afterwards, in bytes.
    pub size: u64,
    /// The parts taken from the patch, ascending; all are below `size`.
    pub parts: Vec<Range<u64>>,
}

impl Changes {
    /// Everything except the bytes that are the `same` in the old table.
    pub fn but(same: &Extents, size: u64) -> Changes {
        let mut all = Extents::default();
        all.add(0..size);
        same.iter().for_each(|range| all.remove(range));
        Changes { size, parts: all.iter().collect() }
    }

    /// The number of bytes in the parts.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.end - part.start).sum()
    }

    /// The parts of a table of this length that must be saved to undo the changes.
    pub fn back(&self, old_size: u64) -> Changes {
        let mut lost = Extents::default();
        self.parts.iter().for_each(|part| lost.add(part.start.min(old_size)..part.end.min(old_size)));
        lost.add(self.size.min(old_size)..old_size);
        Changes { size: old_size, parts: lost.iter().collect() }
    }

    /// The list in the form in which it is stored in a patch.
    pub fn list(&self) -> Vec<u8> {
        let mut words: Vec<u64> = self.parts.iter().flat_map(|part| [part.start, part.end]).collect();
        words.extend([MAGIC, self.size, self.parts.len() as u64]);
        let mut list: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        list.extend(xxh3_64(&list).to_le_bytes());
        list
    }

    /// Reads the list of a patch of `length` bytes; `read` reads some of them.
    ///
    /// # Errors
    /// It is not a patch, or not a complete one.
    pub fn read(length: u64, read: impl Fn(u64, &mut [u8]) -> std::io::Result<()>) -> Result<Changes> {
        let mut end = [0; END_BYTES as usize];
        let at = length.checked_sub(END_BYTES).context("it is not a patch")?;
        read(at, &mut end)?;
        let [magic, size, count, _] = std::array::from_fn(|n| word(&end, n));
        let list = count.checked_mul(PART_BYTES).and_then(|bytes| bytes.checked_add(END_BYTES));
        let list = list.filter(|list| magic == MAGIC && size.checked_add(*list) == Some(length));
        let mut bytes = vec![0; usize::try_from(list.context("the patch is incomplete")?)?];
        read(size, &mut bytes)?;
        let (told, sum) = bytes.split_at(bytes.len() - 8);
        ensure!(xxh3_64(told) == word(sum, 0), "its list is damaged");
        let parts: Vec<Range<u64>> =
            (0..count as usize).map(|n| word(told, 2 * n)..word(told, 2 * n + 1)).collect();
        let mut from = 0;
        for part in &parts {
            ensure!(
                from <= part.start && part.start < part.end && part.end <= size,
                "its list is not in order"
            );
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

/// Completes a patch from a staged file that already has its bytes.
pub fn seal(staged: &Path, changes: &Changes) -> Result<()> {
    let seal = || {
        let file = File::options().write(true).open(staged)?;
        file.set_len(changes.size)?;
        file.write_all_at(&changes.list(), changes.size)
    };
    seal().with_context(|| format!("cannot make a patch of {}", staged.display()))
}

/// Writes the patch that will undo `changes` of a table. Calls `step` now and then.
pub fn keep(table: &Path, changes: &Changes, to: &Path, step: &dyn Fn()) -> Result<()> {
    let keep = || {
        let from = File::open(table)?;
        let back = changes.back(from.metadata()?.len());
        let into = File::create(to)?;
        into.set_len(back.size)?;
        let data = DataOf::default();
        copy_ranges(&from, &data, &into, &back.parts, step)?;
        Ok::<_, anyhow::Error>(into.write_all_at(&back.list(), back.size)?)
    };
    keep().with_context(|| format!("cannot save the bytes to be replaced in {}", table.display()))
}

/// Applies a patch to a table, without making it durable. A crash may leave it partly applied. Calls `step` now and then.
pub fn apply(patch: &Path, table: &Path, step: &dyn Fn()) -> Result<()> {
    let apply = || {
        let from = File::open(patch)?;
        let length = from.metadata()?.len();
        let changes = Changes::read(length, |at, bytes| from.read_exact_at(bytes, at))?;
        let into = File::options().write(true).open(table)?;
        let data = DataOf::default();
        copy_ranges(&from, &data, &into, &changes.parts, step)?;
        Ok::<_, anyhow::Error>(into.set_len(changes.size)?)
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
            keep(&table, &changes, &back, &|| {}).unwrap();
            apply(&patch, &table, &|| {}).unwrap();
            prop_assert!(std::fs::read(&table).unwrap() == new);
            if half {
                apply(&patch, &table, &|| {}).unwrap();
                // Undone in part, then a crash.
                let file = File::options().write(true).open(&table).unwrap();
                file.write_all_at(&old[..old.len().min(4096)], 0).unwrap();
            }
            apply(&back, &table, &|| {}).unwrap();
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
        apply(&patch, &table, &|| {}).unwrap();
        let after = std::fs::metadata(&table).unwrap().blocks();
        assert!(after <= before / 2 + 16, "{after} of {before} blocks");
    }
}
