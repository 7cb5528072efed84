//! The queue of ranges that the donor's workers share.
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use protocol::coverage::ranges_of;
use protocol::inventory::FileId;
use protocol::limits::RANGE_BYTES;

/// A range to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The file's number.
    pub file: FileId,
    /// Where it is.
    pub path: PathBuf,
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub len: u32,
}

/// A file to read: number, path, length.
pub type FileToRead = (FileId, PathBuf, u64);

/// Hands every range out once, in file order, and knows when all of them have been read.
pub struct RangeQueue {
    files: Vec<FileToRead>,
    next: Mutex<(usize, u64)>,
    unread: AtomicU64,
}

impl RangeQueue {
    /// All ranges of these files.
    pub fn new(files: Vec<FileToRead>) -> RangeQueue {
        let unread = files.iter().map(|f| ranges_of(f.2)).sum();
        RangeQueue { files, next: Mutex::new((0, 0)), unread: AtomicU64::new(unread) }
    }

    /// The next range nobody has taken.
    pub fn take(&self) -> Option<Range> {
        let mut next = self.next.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        loop {
            let (file, path, size) = self.files.get(next.0)?;
            let offset = next.1;
            if offset >= *size {
                *next = (next.0 + 1, 0);
                continue;
            }
            let len = (*size - offset).min(u64::from(RANGE_BYTES)) as u32;
            next.1 = offset + u64::from(len);
            return Some(Range { file: *file, path: path.clone(), offset, len });
        }
    }

    /// Notes one range as read. True for the last one: the files are needed no more.
    pub fn was_read(&self) -> bool {
        self.unread.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// No range at all.
    pub fn is_empty(&self) -> bool {
        self.unread.load(Ordering::Acquire) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_handed_out_once_and_the_last_read_is_known() {
        let sizes = [0u64, 1, u64::from(RANGE_BYTES), u64::from(RANGE_BYTES) * 2 + 5, 0];
        let files = sizes.iter().enumerate();
        let queue =
            RangeQueue::new(files.map(|(i, s)| (FileId(i as u32), format!("f{i}").into(), *s)).collect());
        let mut bytes = vec![0u64; sizes.len()];
        let mut lasts = Vec::new();
        while let Some(range) = queue.take() {
            assert_eq!(range.offset, bytes[range.file.0 as usize], "ranges of a file come in order");
            bytes[range.file.0 as usize] += u64::from(range.len);
            lasts.push(queue.was_read());
        }
        assert_eq!(bytes, sizes);
        assert_eq!(lasts.iter().filter(|l| **l).count(), 1);
        assert_eq!(lasts.last(), Some(&true));
    }
}
