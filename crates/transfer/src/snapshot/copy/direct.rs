//! Reading as the server writes: past the page cache where it does, so that no stale cached block is met and none of
//! anybody's is pushed out. Elsewhere reads are buffered; what they bring into the cache leaves it again, and what was
//! there before (the server's own, then) stays.
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{Advice, OFlags, fadvise};
use rustix::io::ReadWriteFlags;

/// What offsets, lengths and addresses of direct reads are multiples of.
pub const ALIGN: usize = 4096;

/// Memory at an address that direct reads accept.
pub struct Buffer {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Buffer {
    /// Room for `len` bytes, rounded up.
    pub fn new(len: usize) -> Buffer {
        let len = len.next_multiple_of(ALIGN);
        // The vector is never resized, so what is aligned stays so.
        let memory = vec![0u8; len + ALIGN];
        let start = memory.as_ptr().align_offset(ALIGN).min(ALIGN);
        Buffer { memory, start, len }
    }

    /// The bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

/// Nothing is there, or an operator is just putting something there (`cp` as root, then `chown`, before IMPORT): what the
/// server itself could not read is none of its tables. A later listing looks again.
pub fn is_not_ours(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
}

/// A file opened for reading.
#[derive(Debug)]
pub struct Direct {
    file: File,
    direct: bool,
}

impl Direct {
    /// Opens a file; `direct` as a wish.
    ///
    /// # Errors
    /// From the system.
    pub fn open(path: &Path, direct: bool) -> io::Result<Direct> {
        if direct {
            let flags = OFlags::DIRECT.bits() as i32;
            if let Ok(file) = File::options().read(true).custom_flags(flags).open(path) {
                let mut probe = Buffer::new(ALIGN);
                // Some filesystems open a file so and then refuse to read it.
                if file.read_at(probe.bytes(), 0).is_ok() {
                    return Ok(Direct { file, direct: true });
                }
            }
        }
        let file = File::open(path)?;
        // Reading ahead would bring in blocks that then look as if they had been there before.
        let _ = fadvise(&file, 0, None, Advice::Random);
        Ok(Direct { file, direct: false })
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Reads at an aligned offset until `out` is full or the file ends. Answers the bytes read.
    ///
    /// # Errors
    /// From the system.
    pub fn read(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let cached = if self.direct { 0 } else { self.read_cached(out, offset) };
        let mut done = cached;
        while done < out.len() {
            match self.file.read_at(&mut out[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            // A direct read that ends inside a block has met the end of the file.
            if self.direct && !done.is_multiple_of(ALIGN) {
                break;
            }
        }
        if let Some(brought) = NonZeroU64::new((done - cached) as u64).filter(|_| !self.direct) {
            // Advice: that it is not taken harms nothing.
            let _ = fadvise(&self.file, offset + cached as u64, Some(brought), Advice::DontNeed);
        }
        Ok(done)
    }

    /// Reads from the front what is in the page cache already. Nothing where the filesystem cannot tell.
    fn read_cached(&self, out: &mut [u8], offset: u64) -> usize {
        let mut parts = [io::IoSliceMut::new(out)];
        rustix::io::preadv2(&self.file, &mut parts, offset, ReadWriteFlags::NOWAIT).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffered_and_direct_reads_give_the_same_to_the_end() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let path = dir.path().join("f");
        let content: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        for direct in [false, true] {
            let file = Direct::open(&path, direct).unwrap();
            let mut buffer = Buffer::new(65536);
            for (offset, len) in [(0, 65536), (65536, 34464), (98304, 1696), (102_400, 0)] {
                let read = file.read(buffer.bytes(), offset as u64).unwrap();
                assert_eq!(read, len, "{direct} at {offset}");
                assert_eq!(&buffer.bytes()[..read], &content[offset.min(100_000)..offset.min(100_000) + len]);
            }
        }
    }
}
