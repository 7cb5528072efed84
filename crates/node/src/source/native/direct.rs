//! Reading past the page cache, as the server writes: no stale cached block is met and none of the server's is pushed
//! out. Where a filesystem does not allow it, reads are buffered and the cache is dropped behind them.
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{Advice, OFlags, fadvise};

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
        Ok(Direct { file: File::open(path)?, direct: false })
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
        let mut done = 0;
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
        Ok(done)
    }

    /// Forgets cached blocks of a range, after buffered reads only.
    pub fn drop_cache(&self, offset: u64, len: u64) {
        if !self.direct {
            // Advice: that it is not taken harms nothing.
            let _ = fadvise(&self.file, offset, std::num::NonZeroU64::new(len), Advice::DontNeed);
        }
    }
}
