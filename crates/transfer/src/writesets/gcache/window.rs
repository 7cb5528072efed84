//! A file read through a window: a part of it in memory, moved on demand.
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use formats::galera::gcache::HEADER_LEN;

const WINDOW: usize = 1 << 20;

/// A file and its window.
#[derive(Debug)]
pub(crate) struct Window {
    file: File,
    size: usize,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    pub(super) fn open(path: &Path) -> io::Result<Window> {
        // Opening a FIFO would wait for a writer.
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        Ok(Window::of(File::open(path)?, WINDOW))
    }

    /// A window of `size` bytes.
    pub(crate) fn of(file: File, size: usize) -> Window {
        Window { file, size, start: 0, bytes: Vec::new() }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// What is asked for next is read from the file as it is by then.
    pub(crate) fn forget(&mut self) {
        self.bytes.clear();
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        self.file.metadata().map(|meta| meta.len())
    }

    /// Returns the header at `at`, or `None` beyond the file's end.
    pub(crate) fn header(&mut self, at: u64) -> io::Result<Option<[u8; HEADER_LEN]>> {
        self.array(at)
    }

    /// `N` bytes (fewer than a window has) at `at`.
    pub(super) fn array<const N: usize>(&mut self, at: u64) -> io::Result<Option<[u8; N]>> {
        if let Some(held) = self.held(at) {
            return Ok(Some(held));
        }
        self.start = at;
        self.bytes = self.read(at, self.size)?;
        Ok(self.held(at))
    }

    fn held<const N: usize>(&self, at: u64) -> Option<[u8; N]> {
        let from = usize::try_from(at.checked_sub(self.start)?).ok()?;
        self.bytes.get(from..from.checked_add(N)?)?.try_into().ok()
    }

    /// Reads up to `len` bytes directly from the file; fewer only at its end.
    pub(super) fn read(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let mut done = 0;
        while done < len {
            match self.file.read_at(&mut bytes[done..], at + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(done);
        Ok(bytes)
    }
}
