//! What of which files has arrived. The joiner announces nothing as complete that is not covered here.
use std::collections::{BTreeMap, HashMap};

use crate::inventory::{FileEntry, FileId};
use crate::limits::{FILES_MAX, PIECES_MAX, RANGE_BYTES};

/// The pieces that have arrived, of every file that was begun. Memory: a few words a file and a piece under way.
#[derive(Debug, Default)]
pub struct Coverage {
    files: HashMap<FileId, Pieces>,
}

/// Disjoint pieces that do not touch: first byte, and the byte after the last.
type Pieces = BTreeMap<u64, u64>;

/// What does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoverageError {
    /// A number beyond the limit.
    #[error("the donor begins file number {0}, the limit is {FILES_MAX}")]
    TooMany(u32),
    /// The file was never begun.
    #[error("data for file number {0} that was never begun")]
    UnknownFile(u32),
    /// Not inside one range.
    #[error("data at {offset}+{len} of file number {file} is not inside one range")]
    BadRange {
        /// File number.
        file: u32,
        /// First byte.
        offset: u64,
        /// Length in bytes.
        len: u32,
    },
    /// Scattered over more pieces than any donor sends.
    #[error("data of file number {0} comes in more than {PIECES_MAX} pieces")]
    Scattered(u32),
}

impl Coverage {
    /// Nothing has arrived.
    pub fn new() -> Coverage {
        Coverage::default()
    }

    /// Notes a file whose data follows. True the first time.
    ///
    /// # Errors
    /// Its number is beyond the limit.
    pub fn begin(&mut self, file: FileId) -> Result<bool, CoverageError> {
        if file.0 >= FILES_MAX {
            return Err(CoverageError::TooMany(file.0));
        }
        let mut first = false;
        self.files.entry(file).or_insert_with(|| {
            first = true;
            Pieces::new()
        });
        Ok(first)
    }

    /// Checks that bytes lie inside one range of a file that was begun; anything else never reaches the disk. True
    /// when some of them came before: what lies between the parts of the new ones must then be made zero.
    ///
    /// # Errors
    /// They do not.
    pub fn check(&self, file: FileId, offset: u64, len: u32) -> Result<bool, CoverageError> {
        let pieces = self.files.get(&file).ok_or(CoverageError::UnknownFile(file.0))?;
        let range = u64::from(RANGE_BYTES);
        // The end stays below 2^63, the longest file there can be.
        if len == 0 || offset >= 1 << 62 || offset % range + u64::from(len) > range {
            return Err(CoverageError::BadRange { file: file.0, offset, len });
        }
        let end = offset + u64::from(len);
        Ok(pieces.range(..end).next_back().is_some_and(|(_, &piece_end)| piece_end > offset))
    }

    /// Notes bytes as written. Call only after [`Coverage::check`] and the write.
    ///
    /// # Errors
    /// The file was never begun, or has more pieces than the limit.
    pub fn mark(&mut self, file: FileId, offset: u64, len: u32) -> Result<(), CoverageError> {
        let pieces = self.files.get_mut(&file).ok_or(CoverageError::UnknownFile(file.0))?;
        let (mut start, mut end) = (offset, offset.saturating_add(u64::from(len)));
        // All pieces that touch the new one become part of it; the last one that begins before its end comes first.
        while let Some((&from, &to)) = pieces.range(..=end).next_back() {
            if to < start {
                break;
            }
            pieces.remove(&from);
            start = start.min(from);
            end = end.max(to);
        }
        pieces.insert(start, end);
        if pieces.len() > PIECES_MAX { Err(CoverageError::Scattered(file.0)) } else { Ok(()) }
    }

    /// The first bytes of a file that never arrived, when there are any below its final size.
    pub fn missing(&self, file: &FileEntry) -> Option<std::ops::Range<u64>> {
        let pieces = self.files.get(&file.id);
        let mut pieces = pieces.into_iter().flatten().map(|(&from, &to)| (from, to));
        let (from, to) = pieces.next().unwrap_or((u64::MAX, u64::MAX));
        match () {
            () if file.size == 0 => None,
            () if from > 0 => Some(0..from.min(file.size)),
            () if to >= file.size => None,
            () => Some(to..pieces.next().map_or(file.size, |(next, _)| next.min(file.size))),
        }
    }
}
