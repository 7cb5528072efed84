//! Many file entries in few bytes. A transfer names every file of a datadir, and each side keeps those names in more than one
//! place; as values they take well over a hundred bytes each, as they are encoded for the wire some thirty.
use crate::inventory::{FileEntry, FileId};

/// Encoded entries that are allocated together: a list grows without ever being copied.
const BLOCK_BYTES: usize = 64 << 10;

/// File entries by their numbers, in the order in which they were inserted. The numbers of a transfer have no gaps; those that a peer
/// gives are compared with [`crate::limits::FILES_MAX`] before they come here.
#[derive(Clone, Debug, Default)]
pub struct Entries {
    blocks: Vec<Vec<u8>>,
    /// By number. It takes half of what a map would.
    at: Vec<Place>,
    count: usize,
    bytes: u64,
}

/// Where an entry is encoded: which block, and the byte in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    block: u32,
    byte: u32,
}

/// Of a number without an entry.
const NOWHERE: Place = Place { block: u32::MAX, byte: 0 };

impl Entries {
    /// Adds an entry. It takes the place of an earlier one with the same number.
    pub fn insert(&mut self, entry: &FileEntry) {
        let Ok(encoded) = postcard::to_stdvec(entry) else { return };
        let full = |block: &Vec<u8>| block.len() + encoded.len() > BLOCK_BYTES;
        if self.blocks.last().is_none_or(full) {
            self.blocks.push(Vec::new());
        }
        let number = self.blocks.len() - 1;
        let Some(block) = self.blocks.last_mut() else { return };
        let place = Place { block: number as u32, byte: block.len() as u32 };
        block.extend_from_slice(&encoded);
        let before = self.set(entry.id, place).and_then(|before| self.decode(before));
        self.bytes =
            self.bytes.saturating_sub(before.map_or(0, |entry| entry.size)).saturating_add(entry.size);
    }

    /// The entry with this number.
    pub fn get(&self, file: FileId) -> Option<FileEntry> {
        self.decode(self.place(file)?)
    }

    /// There is an entry with this number.
    pub fn contains(&self, file: FileId) -> bool {
        self.place(file).is_some()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Length of all files together.
    pub fn total_bytes(&self) -> u64 {
        self.bytes
    }

    /// All of them, in the order in which they were inserted.
    pub fn iter(&self) -> impl Iterator<Item = FileEntry> + '_ {
        let blocks = (0..).zip(&self.blocks);
        blocks.flat_map(|(block, bytes)| {
            let mut rest = bytes.as_slice();
            std::iter::from_fn(move || {
                let place = Place { block, byte: (bytes.len() - rest.len()) as u32 };
                let (entry, after) = postcard::take_from_bytes::<FileEntry>(rest).ok()?;
                rest = after;
                Some((place, entry))
            })
            .filter(|(place, entry)| self.place(entry.id) == Some(*place))
            .map(|(_, entry)| entry)
        })
    }

    fn place(&self, file: FileId) -> Option<Place> {
        self.at.get(file.0 as usize).copied().filter(|place| *place != NOWHERE)
    }

    /// Returns where the entry was before.
    fn set(&mut self, file: FileId, place: Place) -> Option<Place> {
        let (at, before) = (file.0 as usize, self.place(file));
        if at >= self.at.len() {
            self.at.resize(at + 1, NOWHERE);
        }
        if let Some(slot) = self.at.get_mut(at) {
            *slot = place;
        }
        self.count += usize::from(before.is_none());
        before
    }

    fn decode(&self, place: Place) -> Option<FileEntry> {
        let block = self.blocks.get(place.block as usize)?;
        Some(postcard::take_from_bytes(block.get(place.byte as usize..)?).ok()?.0)
    }
}

impl<'e> FromIterator<&'e FileEntry> for Entries {
    fn from_iter<I: IntoIterator<Item = &'e FileEntry>>(entries: I) -> Entries {
        let mut all = Entries::default();
        entries.into_iter().for_each(|entry| all.insert(entry));
        all
    }
}

impl PartialEq for Entries {
    fn eq(&self, other: &Entries) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for Entries {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::inventory::{FileRole, Place};

    fn entry() -> impl Strategy<Value = FileEntry> {
        let place = prop_oneof![Just(Place::Datadir), Just(Place::External)];
        let role = prop_oneof![
            4 => Just(FileRole::Table),
            1 => "[a-z/]{0,9}".prop_map(|target| FileRole::Link { target }),
            1 => any::<u16>().prop_map(|index| FileRole::SystemTablespace { index }),
        ];
        (0..40u32, place, "[a-z/]{0,5000}", any::<u64>(), any::<u64>(), role).prop_map(
            |(id, place, path, size, allocated, role)| FileEntry {
                id: FileId(id),
                place,
                path,
                size: size >> 8,
                allocated,
                role,
            },
        )
    }

    proptest! {
        #[test]
        fn what_was_inserted_last_is_what_is_there(all in prop::collection::vec(entry(), 0..60)) {
            let entries: Entries = all.iter().collect();
            let last = |id| all.iter().rfind(|entry: &&FileEntry| entry.id == id);
            for id in (0..41).map(FileId) {
                let found = entries.get(id);
                prop_assert_eq!(found.as_ref(), last(id));
                prop_assert_eq!(entries.contains(id), last(id).is_some());
            }
            let expected: Vec<&FileEntry> =
                all.iter().enumerate().filter(|(at, e)| all[at + 1..].iter().all(|l| l.id != e.id)).map(|(_, e)| e).collect();
            let listed: Vec<FileEntry> = entries.iter().collect();
            prop_assert_eq!(listed.iter().collect::<Vec<_>>(), expected);
            prop_assert_eq!(entries.total_bytes(), listed.iter().map(|e| e.size).sum::<u64>());
            prop_assert_eq!(entries.len(), listed.len());
        }
    }
}
