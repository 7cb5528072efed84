//! The joiner's bytes of a file: those that an earlier transfer had received, and the old file for the others.
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use protocol::extents::Extents;
use protocol::fingerprint::Fingerprint;
use protocol::limits::RANGE_BYTES;

use crate::disk::holes::DataOf;
use crate::receive::corruption::Pages;
use crate::receive::reusable::Old;

/// The files that contain the joiner's bytes of a file.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The staged file of an earlier transfer, and its length.
    pub received: Option<(PathBuf, u64)>,
    /// Which parts of it were written before this transfer.
    pub written: Arc<DataOf>,
    /// The old file.
    pub old: Option<Old>,
    /// How its pages are checked, if it has pages; found out when it is first read.
    pub pages: OnceLock<Option<Pages>>,
}

/// What the joiner had of a range when it was fingerprinted.
#[derive(Clone, Debug, Default)]
pub struct Fingerprinted {
    /// The files that contain it.
    pub origin: Arc<Origin>,
    /// Bytes of it that had been received.
    pub received: Extents,
    /// What is known of the whole range.
    pub whole: Option<Whole>,
}

/// A range that was fingerprinted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    /// Length in bytes.
    pub len: u32,
    /// Its digest.
    pub digest: u64,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
}

impl Fingerprinted {
    /// What is known of `len` bytes from `at` on, if they are what was fingerprinted.
    pub fn whole(&self, at: u64, len: u32) -> Option<Whole> {
        let is_range = at.is_multiple_of(u64::from(RANGE_BYTES));
        self.whole.filter(|whole| is_range && whole.len == len)
    }

    /// Which of these parts are in the old file only, as starts and lengths; starts are counted from `at`. The others
    /// were received, or are zeros beyond its end.
    pub fn in_old(&self, parts: &[(u32, u32)], at: u64) -> Vec<(u32, u32)> {
        let end = self.origin.old.as_ref().map_or(0, |old| old.look.signature.size);
        let mut rest = Extents::default();
        for &(start, len) in parts {
            let start = at + u64::from(start);
            rest.add(start..(start + u64::from(len)).min(end.max(start)));
        }
        self.received.iter().for_each(|range| rest.remove(range));
        rest.iter().map(|range| ((range.start - at) as u32, (range.end - range.start) as u32)).collect()
    }
}

/// Both files, opened.
pub struct Opened {
    received: Option<(File, u64, Arc<DataOf>)>,
    old: Option<(File, u64, Arc<DataOf>)>,
}

impl Origin {
    /// Length in bytes; `None` if there is no file.
    pub fn size(&self) -> Option<u64> {
        let old = self.old.as_ref().map(|old| old.look.signature.size);
        old.max(self.received.as_ref().map(|(_, size)| *size))
    }

    /// Opens the files that exist.
    ///
    /// # Errors
    /// One of them cannot be opened.
    pub fn open(&self) -> io::Result<Opened> {
        let open = |path: &Path, size: u64, data: &Arc<DataOf>| {
            Ok::<_, io::Error>((File::open(path)?, size, Arc::clone(data)))
        };
        let old = self.old.as_ref().map(|old| open(&old.path, old.look.signature.size, &old.data));
        let received = self.received.as_ref().map(|(path, size)| open(path, *size, &self.written));
        let (old, received) = (old.transpose()?, received.transpose()?);
        Ok(Opened { received, old })
    }
}

impl Opened {
    /// Reads bytes from `at` on: those in `received` from the received file, the others from the old one. Bytes that
    /// are in neither are zero.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn read(&self, at: u64, bytes: &mut [u8], received: &Extents) -> io::Result<()> {
        let range = at..at + bytes.len() as u64;
        bytes.fill(0);
        if let Some((old, size, known)) = &self.old {
            for data in known.within(old, range.start..range.end.min(*size)).iter() {
                if let Some(part) = part_of(bytes, at, &data) {
                    old.read_exact_at(part, data.start)?;
                }
            }
        }
        let Some((file, ..)) = &self.received else { return Ok(()) };
        for data in received.iter() {
            let data = data.start.max(range.start)..data.end.min(range.end);
            if let Some(part) = part_of(bytes, at, &data) {
                file.read_exact_at(part, data.start)?;
            }
        }
        Ok(())
    }

    /// Which bytes of a range were received: those that are no hole. On a filesystem without holes these are all. Ask
    /// only once, because some filesystems make holes of zeros later.
    pub fn received_in(&self, range: Range<u64>) -> Extents {
        match &self.received {
            Some((file, size, known)) => known.within(file, range.start..range.end.min(*size)),
            None => Extents::default(),
        }
    }
}

/// The part of `bytes`, which begin at `at`, that is this range.
fn part_of<'b>(bytes: &'b mut [u8], at: u64, range: &Range<u64>) -> Option<&'b mut [u8]> {
    let start = usize::try_from(range.start.checked_sub(at)?).ok()?;
    let end = usize::try_from(range.end.checked_sub(at)?).ok()?;
    bytes.get_mut(start..end).filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::identity::look;

    #[test]
    fn what_was_received_lies_over_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let (old, received) = (dir.path().join("old"), dir.path().join("received"));
        std::fs::write(&old, vec![1; 40_000]).unwrap();
        let staged = File::create(&received).unwrap();
        staged.set_len(65_536).unwrap();
        staged.write_all_at(&[2; 8192], 16_384).unwrap();
        staged.write_all_at(&[3; 4096], 57_344).unwrap();
        let origin = Origin {
            received: Some((received, 65_536)),
            old: Some(Old::new(old.clone(), look(&old).unwrap().unwrap())),
            ..Origin::default()
        };
        assert_eq!(origin.size(), Some(65_536));
        let opened = origin.open().unwrap();
        let received = opened.received_in(0..65_536);
        assert_eq!(received.iter().collect::<Vec<_>>(), [16_384..24_576, 57_344..61_440]);
        let mut bytes = vec![9; 49_152];
        opened.read(16_384, &mut bytes, &received).unwrap();
        let parts =
            [(0, 8192, 2), (8192, 23_616, 1), (23_616, 40_960, 0), (40_960, 45_056, 3), (45_056, 49_152, 0)];
        for (start, end, value) in parts {
            assert!(bytes[start..end].iter().all(|byte| *byte == value), "{start} to {end} is not {value}");
        }
        // What was fingerprinted counts, even if it is a hole now.
        staged.set_len(16_384).unwrap();
        staged.set_len(65_536).unwrap();
        opened.read(16_384, &mut bytes[..4096], &received).unwrap();
        assert!(bytes[..4096].iter().all(|byte| *byte == 0));
        let whole = Whole { len: 1 << 20, digest: 5, fingerprint: [1; 16] };
        let fingerprinted = Fingerprinted { origin: Arc::new(origin.clone()), received, whole: Some(whole) };
        assert_eq!(
            [(0, 1 << 20), (0, 9), (1 << 19, 1 << 20)].map(|(at, len)| fingerprinted.whole(at, len)),
            [Some(whole), None, None]
        );
        assert_eq!(
            fingerprinted.in_old(&[(0, 16_384), (20_000, 100)], 16_384),
            [(8192, 8192), (20_000, 100)]
        );
        // Received, or beyond the end of the old file.
        assert_eq!(fingerprinted.in_old(&[(0, 8192), (23_000, 20_000)], 16_384), [(23_000, 616)]);
        assert_eq!(fingerprinted.in_old(&[(30_000, 100)], 16_384), []);
        // Only one of the two, or none.
        let opened = Origin { old: origin.old.clone(), ..Origin::default() }.open().unwrap();
        opened.read(32_768, &mut bytes[..16_384], &fingerprinted.received).unwrap();
        assert!(
            bytes[..7232].iter().all(|byte| *byte == 1) && bytes[7232..16_384].iter().all(|byte| *byte == 0)
        );
        assert!(Origin::default().open().unwrap().received_in(0..9).is_empty());
        assert_eq!(Origin::default().size(), None);
        let gone = Origin { received: Some((dir.path().join("gone"), 5)), ..origin };
        assert!(gone.open().is_err(), "what was fingerprinted may have been in it");
    }
}
