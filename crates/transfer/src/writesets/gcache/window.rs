//! A file read through a window: a part of it in memory, moved on demand.
use std::fs::File;
use std::io;
use std::ops::Range;
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
        self.move_to(at)?;
        Ok(self.held(at))
    }

    /// `len` bytes at `at`; `None` if a window has fewer, or the file.
    pub(crate) fn slice(&mut self, at: u64, len: usize) -> io::Result<Option<&[u8]>> {
        if len <= self.size && self.within(at, len).is_none() {
            self.move_to(at)?;
        }
        Ok(self.within(at, len).and_then(|range| self.bytes.get(range)))
    }

    fn held<const N: usize>(&self, at: u64) -> Option<[u8; N]> {
        self.bytes.get(self.within(at, N)?)?.try_into().ok()
    }

    /// Where these bytes are in memory, if they are.
    fn within(&self, at: u64, len: usize) -> Option<Range<usize>> {
        let from = usize::try_from(at.checked_sub(self.start)?).ok()?;
        let to = from.checked_add(len)?;
        (to <= self.bytes.len()).then_some(from..to)
    }

    fn move_to(&mut self, at: u64) -> io::Result<()> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.resize(self.size, 0);
        let there = read_up_to(&self.file, at, &mut bytes)?;
        bytes.truncate(there);
        (self.start, self.bytes) = (at, bytes);
        Ok(())
    }

    /// Reads up to `len` bytes directly from the file; fewer only at its end.
    pub(super) fn read(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let there = read_up_to(&self.file, at, &mut bytes)?;
        bytes.truncate(there);
        Ok(bytes)
    }
}

/// Reads until the buffer is full or the file ends. Returns how many bytes there are.
pub(crate) fn read_up_to(file: &File, at: u64, bytes: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], at + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
