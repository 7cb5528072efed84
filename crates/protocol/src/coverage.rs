//! Which ranges of which files have arrived. The joiner announces nothing as complete that is not covered here.
use crate::inventory::{FileEntry, FileId};
use crate::limits::RANGE_BYTES;

/// One bit a range and file: 1 MiB of bookkeeping for 8 TiB of data.
#[derive(Debug)]
pub struct Coverage {
    files: Vec<FileCoverage>,
}

#[derive(Debug)]
struct FileCoverage {
    size: u64,
    missing: u64,
    begun: bool,
    seen: Vec<u64>,
}

/// A range that does not fit the inventory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoverageError {
    /// The file was never announced.
    #[error("data for file number {0} that was never announced")]
    UnknownFile(u32),
    /// The range is not one of the file's.
    #[error("range {offset}+{len} does not fit file number {file} of {size} bytes")]
    BadRange {
        /// File number.
        file: u32,
        /// First byte.
        offset: u64,
        /// Length in bytes.
        len: u32,
        /// Length of the file.
        size: u64,
    },
    /// The range came twice.
    #[error("range {offset} of file number {file} came twice")]
    Duplicate {
        /// File number.
        file: u32,
        /// First byte.
        offset: u64,
    },
}

impl Coverage {
    /// Nothing has arrived of these files, whose ids must be 0, 1, 2 ... in order.
    pub fn new(files: &[FileEntry]) -> Coverage {
        let one = |f: &FileEntry| {
            let ranges = ranges_of(f.size);
            let seen = vec![0; ranges.div_ceil(64) as usize];
            FileCoverage { size: f.size, missing: ranges, begun: false, seen }
        };
        Coverage { files: files.iter().map(one).collect() }
    }

    /// Checks that a range is one the file has; anything else never reaches the disk.
    pub fn check(&self, file: FileId, offset: u64, len: u32) -> Result<(), CoverageError> {
        let entry = self.files.get(file.0 as usize).ok_or(CoverageError::UnknownFile(file.0))?;
        let expected = entry.size.saturating_sub(offset).min(u64::from(RANGE_BYTES));
        if !offset.is_multiple_of(u64::from(RANGE_BYTES)) || len == 0 || u64::from(len) != expected {
            return Err(CoverageError::BadRange { file: file.0, offset, len, size: entry.size });
        }
        Ok(())
    }

    /// [`Coverage::check`], and whether this is the first range of its file that anybody begins.
    pub fn begin(&mut self, file: FileId, offset: u64, len: u32) -> Result<bool, CoverageError> {
        self.check(file, offset, len)?;
        let entry = self.files.get_mut(file.0 as usize).ok_or(CoverageError::UnknownFile(file.0))?;
        Ok(!std::mem::replace(&mut entry.begun, true))
    }

    /// Notes a range as written. Call only after [`Coverage::begin`] and the write.
    pub fn mark(&mut self, file: FileId, offset: u64) -> Result<(), CoverageError> {
        let duplicate = CoverageError::Duplicate { file: file.0, offset };
        let entry = self.files.get_mut(file.0 as usize).ok_or(CoverageError::UnknownFile(file.0))?;
        let range = offset / u64::from(RANGE_BYTES);
        let word = entry.seen.get_mut((range / 64) as usize).ok_or_else(|| duplicate.clone())?;
        let bit = 1u64 << (range % 64);
        if *word & bit != 0 {
            return Err(duplicate);
        }
        *word |= bit;
        entry.missing -= 1;
        Ok(())
    }

    /// The first file of which something is missing, and how many of its ranges.
    pub fn first_incomplete(&self) -> Option<(FileId, u64)> {
        let index = self.files.iter().position(|f| f.missing > 0)?;
        self.files.get(index).map(|f| (FileId(index as u32), f.missing))
    }
}

/// How many ranges a file of `size` bytes has; an empty file has none.
pub fn ranges_of(size: u64) -> u64 {
    size.div_ceil(u64::from(RANGE_BYTES))
}
