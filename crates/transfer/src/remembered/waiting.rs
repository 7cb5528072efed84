//! What can be remembered only once an install has ended, until then: records in a file without a name. Whatever ends the
//! program before, nothing of it is left.
use std::fs::File;
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Seek, Write};
use std::path::Path;

use protocol::remembered::REMEMBERED_BYTES_MAX;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::disk::nameless::nameless;

/// Records that wait. The file is not synced: a crash of the host loses it anyway.
#[derive(Debug)]
pub(super) struct Waiting {
    to: BufWriter<File>,
    records: usize,
    bytes: usize,
    /// Of all records, each with that of those before it as the seed. It never leaves memory.
    check: u64,
}

impl Waiting {
    /// None yet, in a file in this directory.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn in_directory(directory: &Path) -> io::Result<Waiting> {
        Ok(Waiting { to: BufWriter::new(nameless(directory)?), records: 0, bytes: 0, check: 0 })
    }

    /// Adds a record, unless there are more bytes then than can be remembered.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn push(&mut self, record: &[u8]) -> io::Result<()> {
        let bytes = self.bytes + size_of::<u32>() + record.len();
        if bytes > REMEMBERED_BYTES_MAX {
            return Ok(());
        }
        self.to.write_all(&(record.len() as u32).to_le_bytes())?;
        self.to.write_all(record)?;
        (self.records, self.bytes) = (self.records + 1, bytes);
        self.check = xxh3_64_with_seed(record, self.check);
        Ok(())
    }

    /// Hands over the records, in their order. What was handed over counts only if this does not fail.
    ///
    /// # Errors
    /// They cannot be read, or are not those that were written.
    pub fn each(self, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let mut file = self.to.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        let (mut from, mut record, mut check) = (BufReader::new(file), Vec::<u8>::new(), 0);
        let other =
            || io::Error::new(ErrorKind::InvalidData, "the bytes read are not those that were written");
        for _ in 0..self.records {
            let mut len = [0; size_of::<u32>()];
            from.read_exact(&mut len)?;
            let len = u32::from_le_bytes(len) as usize;
            if len > self.bytes {
                return Err(other());
            }
            record.resize(len, 0);
            from.read_exact(&mut record)?;
            check = xxh3_64_with_seed(&record, check);
            take(&record);
        }
        if check == self.check { Ok(()) } else { Err(other()) }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn waiting(directory: &Path) -> Waiting {
        let mut waiting = Waiting::in_directory(directory).unwrap();
        for number in 0..2000_u32 {
            waiting.push(&number.to_le_bytes().repeat(number as usize % 40)).unwrap();
        }
        waiting
    }

    #[test]
    fn records_come_back_in_their_order_and_the_file_has_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let waiting = waiting(dir.path());
        assert!(waiting.to.get_ref().metadata().unwrap().len() > 0, "some of it is on the disk");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let mut number = 0_u32;
        let take = |record: &[u8]| {
            assert_eq!(record, number.to_le_bytes().repeat(number as usize % 40));
            number += 1;
        };
        waiting.each(take).unwrap();
        assert_eq!(number, 2000);
    }

    #[test]
    fn a_byte_that_changed_on_the_disk_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        for at in [0, 3, 5, 1000, 40_000] {
            let mut waiting = waiting(dir.path());
            waiting.to.flush().unwrap();
            let (file, mut byte) = (waiting.to.get_ref(), [0]);
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 64], at).unwrap();
            waiting.each(|_| {}).unwrap_err();
        }
    }

    #[test]
    fn no_more_waits_than_can_be_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let mut waiting = Waiting::in_directory(dir.path()).unwrap();
        let record = vec![7; REMEMBERED_BYTES_MAX / 2];
        (0..3).for_each(|_| waiting.push(&record).unwrap());
        let mut records = 0;
        waiting.each(|_| records += 1).unwrap();
        assert_eq!(records, 1);
    }
}
