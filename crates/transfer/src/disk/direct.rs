//! Reads past the page cache. Files that the server writes past it are read so too: the reads see no stale cached block and
//! push nothing out of the cache. Otherwise reads are buffered; blocks that they bring into the cache
//! are removed again, and those that were there before (the server's own, then) stay.
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{Advice, OFlags, fadvise};
use rustix::io::ReadWriteFlags;

/// Offsets, lengths and addresses of direct reads and writes are multiples of this.
pub const ALIGN: usize = 4096;

/// Memory at an address that direct reads and writes accept.
#[derive(Debug, Default)]
pub struct Buffer {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Buffer {
    /// A buffer of `len` bytes, rounded up to a multiple of [`ALIGN`].
    pub fn new(len: usize) -> Buffer {
        let len = len.next_multiple_of(ALIGN);
        // The vector is never resized, so the address stays aligned.
        let memory = vec![0u8; len + ALIGN];
        let start = memory.as_ptr().align_offset(ALIGN).min(ALIGN);
        Buffer { memory, start, len }
    }

    /// The first `len` bytes. If there were fewer, they are new ones.
    pub fn first(&mut self, len: usize) -> &mut [u8] {
        if len > self.len {
            *self = Buffer::new(len);
        }
        &mut self.memory[self.start..self.start + len]
    }

    /// The bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

/// A file opened for reading.
#[derive(Debug)]
pub struct Direct {
    file: File,
    direct: bool,
}

impl From<File> for Direct {
    /// A file that was opened for reading past the page cache.
    fn from(file: File) -> Direct {
        Direct { file, direct: true }
    }
}

impl Direct {
    /// Opens a file. `direct`: read past the page cache, if the filesystem can.
    ///
    /// # Errors
    /// From the system.
    pub fn open(path: &Path, direct: bool) -> io::Result<Direct> {
        let opened = Direct::open_untried(path, direct)?;
        let works = |opened: &Direct| opened.file.read_at(Buffer::new(ALIGN).bytes(), 0).is_ok();
        if opened.direct && !works(&opened) {
            return Direct::open_untried(path, false);
        }
        Ok(opened)
    }

    /// As [`Direct::open`], where the caller's first read shows whether the filesystem can: [`is_refused`].
    ///
    /// # Errors
    /// From the system.
    pub fn open_untried(path: &Path, direct: bool) -> io::Result<Direct> {
        let flags = OFlags::DIRECT.bits() as i32;
        let opened = direct.then(|| File::options().read(true).custom_flags(flags).open(path).ok()).flatten();
        match opened {
            Some(file) => Ok(Direct::from(file)),
            None => Ok(Direct { file: File::open(path)?, direct: false }),
        }
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether it is read past the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Reads at an aligned offset until `out` is full or the file ends. Returns the bytes read.
    ///
    /// # Errors
    /// From the system.
    pub fn read(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let cached = if self.direct { 0 } else { self.read_cached(out, offset) };
        let mut done = cached;
        if !self.direct && done < out.len() {
            // Readahead would bring in blocks that would then look as if they had been cached before.
            let _ = fadvise(&self.file, 0, None, Advice::Random);
        }
        while done < out.len() {
            match self.file.read_at(&mut out[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            // A direct read that ends inside a block has reached the end of the file.
            if self.direct && !done.is_multiple_of(ALIGN) {
                break;
            }
        }
        if let Some(brought) = NonZeroU64::new((done - cached) as u64).filter(|_| !self.direct) {
            // This is only advice: it does no harm if it fails.
            let _ = fadvise(&self.file, offset + cached as u64, Some(brought), Advice::DontNeed);
        }
        Ok(done)
    }

    /// Reads `len` bytes at an aligned offset: the first ones of the buffer.
    ///
    /// # Errors
    /// From the system; the file ends before.
    pub fn read_exact(&self, buffer: &mut Buffer, len: usize, offset: u64) -> io::Result<()> {
        let read = self.read(buffer.first(len.next_multiple_of(ALIGN)), offset)?;
        if read < len { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    /// Reads from the front what is already in the page cache. Returns 0 if the filesystem cannot tell.
    fn read_cached(&self, out: &mut [u8], offset: u64) -> usize {
        let mut parts = [io::IoSliceMut::new(out)];
        rustix::io::preadv2(&self.file, &mut parts, offset, ReadWriteFlags::NOWAIT).unwrap_or(0)
    }
}

/// Whether a filesystem has opened a file for direct reads and then refuses to read it.
pub fn is_refused(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
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
                file.read_exact(&mut buffer, len, offset as u64).unwrap();
                let beyond = file.read_exact(&mut buffer, 100_001 - offset.min(100_000), offset as u64);
                assert_eq!(beyond.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            }
        }
    }
}
