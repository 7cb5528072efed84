//! Encoded files by their numbers, many in one block of memory: with one of the allocator's for each they took a third more.
use std::collections::HashMap;

use protocol::inventory::FileId;

/// Bytes that are allocated together.
const BLOCK_BYTES: usize = 64 << 10;

/// Encoded files. Each encoding shows where it ends.
#[derive(Debug, Default)]
pub(super) struct EncodedFiles {
    blocks: Vec<Block>,
    at: HashMap<FileId, Place>,
}

#[derive(Debug)]
struct Block {
    bytes: Vec<u8>,
    /// How many of its files are still there. The block goes with the last one.
    files: u32,
}

/// Which block, and the byte in it.
#[derive(Clone, Copy, Debug)]
struct Place {
    block: u32,
    byte: u32,
}

impl EncodedFiles {
    /// Adds a file, in place of an earlier one with the same number.
    pub fn insert(&mut self, file: FileId, encoded: &[u8]) {
        let full = |block: &Block| block.bytes.len() + encoded.len() > BLOCK_BYTES;
        if self.blocks.last().is_none_or(full) {
            let bytes = Vec::with_capacity(BLOCK_BYTES.max(encoded.len()));
            self.blocks.push(Block { bytes, files: 0 });
        }
        let number = self.blocks.len() - 1;
        let Some(block) = self.blocks.last_mut() else { return };
        let place = Place { block: number as u32, byte: block.bytes.len() as u32 };
        block.bytes.extend_from_slice(encoded);
        block.files += 1;
        if let Some(before) = self.at.insert(file, place) {
            self.leave(before);
        }
    }

    /// Takes a file out, if it is there.
    pub fn remove(&mut self, file: FileId) {
        if let Some(place) = self.at.remove(&file) {
            self.leave(place);
        }
    }

    /// A file, and whatever follows it in memory.
    pub fn get(&self, file: FileId) -> Option<&[u8]> {
        let place = self.at.get(&file)?;
        self.blocks.get(place.block as usize)?.bytes.get(place.byte as usize..)
    }

    /// Whether a file is there.
    pub fn contains(&self, file: FileId) -> bool {
        self.at.contains_key(&file)
    }

    /// The numbers of all files.
    pub fn numbers(&self) -> impl Iterator<Item = FileId> + '_ {
        self.at.keys().copied()
    }

    fn leave(&mut self, place: Place) {
        let Some(block) = self.blocks.get_mut(place.block as usize) else { return };
        block.files -= 1;
        if block.files == 0 {
            // Its number stays: others are counted from it.
            block.bytes = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_until_it_is_taken_out_and_a_block_goes_with_its_last_file() {
        let mut files = EncodedFiles::default();
        let encoded = |file: u32| vec![file as u8; 100];
        (0..2000).for_each(|file| files.insert(FileId(file), &encoded(file)));
        files.insert(FileId(7), &encoded(77));
        assert!(files.blocks.len() > 2, "{} blocks", files.blocks.len());
        assert_eq!(files.get(FileId(7)).map(|bytes| &bytes[..100]), Some(&encoded(77)[..]));
        assert_eq!(files.numbers().count(), 2000);
        let held =
            |files: &EncodedFiles| files.blocks.iter().map(|block| block.bytes.capacity()).sum::<usize>();
        let before = held(&files);
        for file in 0..1000 {
            let expected = encoded(if file == 7 { 77 } else { file });
            assert_eq!(files.get(FileId(file)).map(|bytes| &bytes[..100]), Some(&expected[..]));
            files.remove(FileId(file));
        }
        assert!(held(&files) < before && !files.contains(FileId(0)) && files.contains(FileId(1000)));
        (1000..2000).for_each(|file| files.remove(FileId(file)));
        files.remove(FileId(1));
        assert_eq!((held(&files), files.numbers().count()), (0, 0));
        files.insert(FileId(3), &encoded(3));
        assert_eq!(files.get(FileId(3)).map(<[u8]>::len), Some(100));
    }
}
