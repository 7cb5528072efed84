//! Which bytes of which files have arrived. The joiner reports nothing as complete that is not covered here.
use std::collections::HashMap;
use std::ops::Range;

use crate::extents::Extents;
use crate::inventory::{FileEntry, FileId};
use crate::limits::{FILES_MAX, PIECES_MAX, RANGE_BYTES};

/// The pieces that have arrived of every file that was begun. Memory: a few words for each file and for each
/// piece in progress.
#[derive(Debug, Default)]
pub struct Coverage {
    files: HashMap<FileId, Extents>,
}

/// Data that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoverageError {
    /// A number beyond the limit.
    #[error("the donor began file number {0}; the limit is {FILES_MAX}")]
    TooMany(u32),
    /// The file was never begun.
    #[error("data for file number {0} that was never begun")]
    UnknownFile(u32),
    /// The data is not inside one range.
    #[error("data at {offset}+{len} of file number {file} is not inside one range")]
    BadRange {
        /// File number.
        file: u32,
        /// First byte.
        offset: u64,
        /// Length in bytes.
        len: u32,
    },
    /// The data is scattered over more pieces than any donor sends.
    #[error("data of file number {0} comes in more than {PIECES_MAX} pieces")]
    Scattered(u32),
}

impl Coverage {
    /// Nothing has arrived.
    pub fn new() -> Coverage {
        Coverage::default()
    }

    /// Records a file whose data follows. Returns true the first time.
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
            Extents::default()
        });
        Ok(first)
    }

    /// Checks that bytes lie inside one range of a file that was begun; all other data is rejected before it
    /// reaches the disk. Returns true if some of these bytes arrived before: then the gaps between the new
    /// parts must be zeroed.
    ///
    /// # Errors
    /// The bytes are not inside one range, or the file was never begun.
    pub fn check(&self, file: FileId, offset: u64, len: u32) -> Result<bool, CoverageError> {
        let pieces = self.files.get(&file).ok_or(CoverageError::UnknownFile(file.0))?;
        let range = u64::from(RANGE_BYTES);
        // The end stays below 2^63, the maximum length of a file.
        if len == 0 || offset >= 1 << 62 || offset % range + u64::from(len) > range {
            return Err(CoverageError::BadRange { file: file.0, offset, len });
        }
        Ok(pieces.overlaps(offset..offset + u64::from(len)))
    }

    /// Records bytes as written. Call it only after [`Coverage::check`] and the write.
    ///
    /// # Errors
    /// The file was never begun, or has more pieces than the limit.
    pub fn record(&mut self, file: FileId, offset: u64, len: u32) -> Result<(), CoverageError> {
        let pieces = self.files.get_mut(&file).ok_or(CoverageError::UnknownFile(file.0))?;
        pieces.add(offset..offset.saturating_add(u64::from(len)));
        if pieces.len() > PIECES_MAX { Err(CoverageError::Scattered(file.0)) } else { Ok(()) }
    }

    /// Records a file that is here as a whole, because this node made it.
    ///
    /// # Errors
    /// Its number is beyond the limit.
    pub fn made(&mut self, file: &FileEntry) -> Result<(), CoverageError> {
        self.begin(file.id)?;
        if let Some(pieces) = self.files.get_mut(&file.id) {
            pieces.add(0..file.size);
        }
        Ok(())
    }

    /// Returns the first bytes below the file's final size that never arrived.
    pub fn missing(&self, file: &FileEntry) -> Option<Range<u64>> {
        let none = Extents::default();
        self.files.get(&file.id).unwrap_or(&none).first_gap(file.size)
    }
}
