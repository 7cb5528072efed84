//! Remembered fingerprints: what a node keeps of its files between transfers, so that what has not changed is not read.
//!
//! This is the format, version 2, as it is before it is encrypted. Whether a record still counts for a file is decided
//! elsewhere; here a record is found by the state that the file had.
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 8 | `rjfngrpt` |
//! | 8 | 4 | version, 2 |
//! | 12 | 16 | the boot of the host in which it was written |
//! | 28 | 8 | when: nanoseconds since 1970 |
//! | 36 | 8 | the same clock minus the time since boot |
//! | 44 | | records, in postcard |
//! | end - 8 | 8 | XXH3 of all bytes before |
//!
//! Numbers are little-endian. A record has one entry for each range of its file: 16 bytes of fingerprint and 8 of digest.
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::fingerprint::{self, Fingerprint};
use crate::limits::RANGE_BYTES;

const MAGIC: &[u8; 8] = b"rjfngrpt";
const VERSION: u32 = 2;
const HEAD_BYTES: usize = 44;
const CHECKSUM_BYTES: usize = 8;
/// Bytes of what is kept of one range.
pub const RANGE_RECORD_BYTES: usize = 24;
/// The most first pages whose digests are kept: those of the smallest page size.
const FIRST_PAGES_MAX: usize = 16;

/// No more is kept: enough for 2 TB. A transfer has one such list to read and one to write in memory.
pub const REMEMBERED_BYTES_MAX: usize = 48 << 20;

/// The state of a file: it changes with whatever changes the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Encoded", into = "Encoded")]
pub struct FileState {
    /// Major and minor number of its filesystem.
    pub device: (u32, u32),
    /// Which mount of that filesystem; 0 if it is not known.
    pub mount: u64,
    /// Its inode.
    pub inode: u64,
    /// When it was created. This time and the others are nanoseconds since 1970.
    pub birth: i64,
    /// Length in bytes.
    pub size: u64,
    /// `mtime`.
    pub modified: i64,
    /// `ctime`.
    pub changed: i64,
}

/// As it is encoded: a file's times mostly are the same or near each other, and a small number takes few bytes.
#[derive(Serialize, Deserialize)]
struct Encoded {
    device: (u32, u32),
    mount: u64,
    inode: u64,
    changed: i64,
    /// Nanoseconds before the change.
    modified: i64,
    born: i64,
    size: u64,
}

impl From<FileState> for Encoded {
    fn from(state: FileState) -> Encoded {
        let FileState { device, mount, inode, birth, size, modified, changed } = state;
        let (modified, born) = (changed.wrapping_sub(modified), changed.wrapping_sub(birth));
        Encoded { device, mount, inode, changed, modified, born, size }
    }
}

impl From<Encoded> for FileState {
    fn from(encoded: Encoded) -> FileState {
        let Encoded { device, mount, inode, changed, modified, born, size } = encoded;
        let (modified, birth) = (changed.wrapping_sub(modified), changed.wrapping_sub(born));
        FileState { device, mount, inode, birth, size, modified, changed }
    }
}

/// When a list was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The boot of the host.
    pub boot: [u8; 16],
    /// Nanoseconds since 1970.
    pub at: i64,
    /// `at` minus the time since boot: it is smaller later only if the clock was set back.
    pub ahead: i64,
}

/// What is kept of the beginning of a tablespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Front<'a> {
    /// Its number.
    pub space: u32,
    /// The LSN of its first page.
    pub lsn: u64,
    /// Digests of its first pages, eight bytes each.
    #[serde(borrow)]
    pub pages: &'a [u8],
}

/// What is kept of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord<'a> {
    /// The state of the file while it was read.
    pub state: FileState,
    /// Of a tablespace.
    #[serde(borrow)]
    pub front: Option<Front<'a>>,
    /// [`RANGE_RECORD_BYTES`] for each range.
    #[serde(borrow)]
    pub ranges: &'a [u8],
}

impl FileRecord<'_> {
    /// Fingerprint and digest of a range.
    pub fn range(&self, number: u32) -> Option<(Fingerprint, u64)> {
        let at = (number as usize).checked_mul(RANGE_RECORD_BYTES)?;
        let (fingerprint, rest) = self.ranges.get(at..)?.split_first_chunk::<16>()?;
        Some((*fingerprint, u64::from_le_bytes(*rest.first_chunk::<8>()?)))
    }

    /// Length in bytes of a range of the file.
    pub fn len_of(&self, number: u32) -> u32 {
        let left = self.state.size.saturating_sub(u64::from(number) * u64::from(RANGE_BYTES));
        left.min(u64::from(RANGE_BYTES)) as u32
    }

    /// The number of ranges.
    pub fn count(&self) -> u32 {
        fingerprint::ranges(self.state.size)
    }

    /// Every range of the file is there, and nothing else.
    fn is_whole(&self) -> bool {
        let first_pages = self.front.map_or(0, |front| front.pages.len());
        self.state.size > 0
            && self.ranges.len() == (self.count() as usize).saturating_mul(RANGE_RECORD_BYTES)
            && first_pages.is_multiple_of(8)
            && first_pages / 8 <= FIRST_PAGES_MAX
    }
}

/// What is kept of one range.
pub fn range_record(fingerprint: &Fingerprint, digest: u64) -> [u8; RANGE_RECORD_BYTES] {
    let mut record = [0; RANGE_RECORD_BYTES];
    let (first, second) = record.split_at_mut(16);
    first.copy_from_slice(fingerprint);
    second.copy_from_slice(&digest.to_le_bytes());
    record
}

/// Bytes that are no list of remembered fingerprints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRemembered {
    /// They do not begin as one, or end too early.
    #[error("not a list of fingerprints")]
    Magic,
    /// A newer program wrote it.
    #[error("a list of fingerprints of version {0}")]
    Version(u32),
    /// The checksum does not fit.
    #[error("the list of fingerprints has a wrong checksum")]
    Checksum,
    /// A record is not one that a program writes.
    #[error("the list of fingerprints has a record that is none")]
    Record,
    /// It is longer than one may be.
    #[error("the list of fingerprints is longer than {REMEMBERED_BYTES_MAX} bytes")]
    TooLong,
}

/// A list of remembered fingerprints.
#[derive(Clone, Debug)]
pub struct Remembered {
    written: Written,
    bytes: Vec<u8>,
    /// The low half of the inode, and the offset, of each record, ascending.
    index: Vec<(u32, u32)>,
    total: u64,
}

impl Remembered {
    /// Reads a list.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(mut bytes: Vec<u8>) -> Result<Remembered, BadRemembered> {
        if bytes.len() > REMEMBERED_BYTES_MAX {
            return Err(BadRemembered::TooLong);
        }
        let written = head(&bytes)?;
        let end = bytes.len().saturating_sub(CHECKSUM_BYTES);
        let body = bytes.get(..end).filter(|_| end >= HEAD_BYTES).ok_or(BadRemembered::Magic)?;
        if bytes.get(end..) != Some(&xxh3_64(body).to_le_bytes()[..]) {
            return Err(BadRemembered::Checksum);
        }
        bytes.truncate(end);
        let (mut index, mut total, mut at) = (Vec::new(), 0u64, HEAD_BYTES);
        while at < bytes.len() {
            let (record, rest) = bytes.get(at..).and_then(decode).ok_or(BadRemembered::Record)?;
            index.push((record.state.inode as u32, at as u32));
            total = total.saturating_add(record.state.size);
            at = bytes.len() - rest;
        }
        index.sort_unstable();
        index.shrink_to_fit();
        Ok(Remembered { written, bytes, index, total })
    }

    /// When it was written.
    pub fn written(&self) -> Written {
        self.written
    }

    /// How many files it has.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// It has none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Bytes of all its files.
    pub fn total_bytes(&self) -> u64 {
        self.total
    }

    /// Finds the record of a file in this very state. [`Remembered::get`] reads it.
    pub fn find(&self, state: &FileState) -> Option<u32> {
        let wanted = state.inode as u32;
        let first = self.index.partition_point(|(inode, _)| *inode < wanted);
        let same = self.index.get(first..)?.iter().take_while(|(inode, _)| *inode == wanted);
        same.map(|(_, at)| *at).find(|at| self.get(*at).is_some_and(|record| record.state == *state))
    }

    /// A record.
    pub fn get(&self, at: u32) -> Option<FileRecord<'_>> {
        Some(decode(self.bytes.get(at as usize..)?)?.0)
    }
}

fn head(bytes: &[u8]) -> Result<Written, BadRemembered> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(BadRemembered::Magic)?;
    let (version, rest) = rest.split_first_chunk::<4>().ok_or(BadRemembered::Magic)?;
    match u32::from_le_bytes(*version) {
        VERSION => {}
        other => return Err(BadRemembered::Version(other)),
    }
    let (boot, rest) = rest.split_first_chunk::<16>().ok_or(BadRemembered::Magic)?;
    let (at, rest) = rest.split_first_chunk::<8>().ok_or(BadRemembered::Magic)?;
    let ahead = rest.first_chunk::<8>().ok_or(BadRemembered::Magic)?;
    Ok(Written { boot: *boot, at: i64::from_le_bytes(*at), ahead: i64::from_le_bytes(*ahead) })
}

/// A record, and how many bytes follow it.
fn decode(bytes: &[u8]) -> Option<(FileRecord<'_>, usize)> {
    let (record, rest) = postcard::take_from_bytes::<FileRecord<'_>>(bytes).ok()?;
    record.is_whole().then_some((record, rest.len()))
}

/// Makes a list.
#[derive(Debug)]
pub struct Builder {
    bytes: Vec<u8>,
    files: usize,
    total: u64,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder { bytes: vec![0; HEAD_BYTES], files: 0, total: 0 }
    }
}

impl Builder {
    /// Adds a record. Returns false if there is no room for it, or it lacks a range.
    pub fn push(&mut self, record: &FileRecord<'_>) -> bool {
        let Ok(encoded) = postcard::to_stdvec(record) else { return false };
        let fits = self.bytes.len() + encoded.len() + CHECKSUM_BYTES <= REMEMBERED_BYTES_MAX;
        if !fits || !record.is_whole() {
            return false;
        }
        self.bytes.extend_from_slice(&encoded);
        self.files += 1;
        self.total = self.total.saturating_add(record.state.size);
        true
    }

    /// How many files it has.
    pub fn len(&self) -> usize {
        self.files
    }

    /// It has none.
    pub fn is_empty(&self) -> bool {
        self.files == 0
    }

    /// Bytes of all its files.
    pub fn total_bytes(&self) -> u64 {
        self.total
    }

    /// The list.
    pub fn finish(mut self, written: &Written) -> Vec<u8> {
        let (version, at, ahead) =
            (VERSION.to_le_bytes(), written.at.to_le_bytes(), written.ahead.to_le_bytes());
        let head = [&MAGIC[..], &version, &written.boot, &at, &ahead].concat();
        self.bytes.iter_mut().zip(head).for_each(|(to, from)| *to = from);
        let checksum = xxh3_64(&self.bytes);
        self.bytes.extend_from_slice(&checksum.to_le_bytes());
        self.bytes
    }
}

#[cfg(test)]
#[path = "remembered_tests.rs"]
mod tests;
