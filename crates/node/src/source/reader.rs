//! Reading a range and finding its zeros: pages never written, and the holes of page-compressed tables.
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use protocol::limits::{HOLE_BYTES, RANGE_BYTES};

use super::ranges::Range;
use crate::failure::{Failure, Kind};

/// Reads ranges; keeps the file of the last one open.
pub struct RangeReader {
    open: Option<(PathBuf, File)>,
    /// The bytes of the range read last.
    pub bytes: Vec<u8>,
    /// Parts of it that are not zero: (start, length), ascending.
    pub parts: Vec<(u32, u32)>,
}

impl RangeReader {
    /// Nothing read yet.
    pub fn new() -> RangeReader {
        RangeReader { open: None, bytes: vec![0; RANGE_BYTES as usize], parts: Vec::new() }
    }

    /// Reads a range into `bytes` and finds its `parts`.
    pub fn read(&mut self, range: &Range) -> Result<()> {
        self.bytes.resize(range.len as usize, 0);
        let result = Self::file(&mut self.open, &range.path)?.read_exact_at(&mut self.bytes, range.offset);
        match result {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                let text = format!("{} became shorter while it was held still", range.path.display());
                return Err(Failure::new(Kind::Server, text).into());
            }
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", range.path.display())),
        }
        find_parts(&self.bytes, &mut self.parts);
        Ok(())
    }

    fn file<'a>(open: &'a mut Option<(PathBuf, File)>, path: &PathBuf) -> Result<&'a File> {
        if open.as_ref().is_none_or(|(at, _)| at != path) {
            let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
            *open = Some((path.clone(), file));
        }
        Ok(&open.as_ref().context("no file is open")?.1)
    }

    /// The bytes of the parts, one behind the other.
    pub fn data_into(&self, out: &mut Vec<u8>) {
        out.clear();
        for &(start, len) in &self.parts {
            out.extend_from_slice(&self.bytes[start as usize..(start + len) as usize]);
        }
    }
}

impl Default for RangeReader {
    fn default() -> Self {
        RangeReader::new()
    }
}

fn find_parts(bytes: &[u8], parts: &mut Vec<(u32, u32)>) {
    parts.clear();
    for (index, block) in bytes.chunks(HOLE_BYTES as usize).enumerate() {
        if is_zero(block) {
            continue;
        }
        let (start, len) = (index as u32 * HOLE_BYTES, block.len() as u32);
        match parts.last_mut() {
            Some((from, length)) if *from + *length == start => *length += len,
            _ => parts.push((start, len)),
        }
    }
}

fn is_zero(block: &[u8]) -> bool {
    // A non-zero block shows itself in its first bytes nearly always (checksum, page number).
    let (words, tail) = block.as_chunks::<16>();
    words.iter().all(|w| u128::from_ne_bytes(*w) == 0) && tail.iter().all(|b| *b == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_and_zeros_make_the_range_again(
            blocks in proptest::collection::vec(prop_oneof![Just(0u8), 1u8..], 0..40), tail in 0usize..4096
        ) {
            let mut bytes: Vec<u8> = blocks.iter().flat_map(|b| vec![*b; HOLE_BYTES as usize]).collect();
            bytes.extend(std::iter::repeat_n(7u8, tail));
            let mut parts = Vec::new();
            find_parts(&bytes, &mut parts);
            let mut again = vec![0u8; bytes.len()];
            for &(start, len) in &parts {
                let part = start as usize..(start + len) as usize;
                again[part.clone()].copy_from_slice(&bytes[part]);
            }
            prop_assert_eq!(again, bytes);
            prop_assert!(parts.windows(2).all(|w| w[0].0 + w[0].1 < w[1].0), "parts are apart");
        }
    }
}
