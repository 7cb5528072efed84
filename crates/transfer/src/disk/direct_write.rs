//! Positioned writes past the page cache: the kernel copies nothing, other programs' files stay in the cache, and the disk has the
//! bytes when a write returns.
//!
//! Only long runs of whole blocks are written so. Everything else goes through the cache: short runs, the ends of a run that do
//! not fill a block, and all files where the filesystem cannot do it. No block of a run is written both ways.
use std::cell::OnceCell;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, Mode, OFlags, fstatfs, openat};

use super::direct::{ALIGN, Buffer, Direct};

/// In bytes. Shorter runs are written through the cache: a direct write returns when the disk has it, and many short ones would
/// wait longer than copying takes.
pub const DIRECT_MIN: usize = 256 << 10;

/// Whether the files in a directory are written past the page cache.
#[derive(Debug)]
pub struct DirectWrites {
    directory: PathBuf,
    work: AtomicBool,
}

impl DirectWrites {
    /// Tries it with a file without a name. The reason why it does not work is logged.
    pub fn try_in(directory: &Path) -> DirectWrites {
        let writes = DirectWrites { directory: directory.to_owned(), work: AtomicBool::new(true) };
        if let Err(error) = attempt(directory) {
            writes.give_up(&error);
        }
        writes
    }

    /// Whether they work, as far as is known.
    pub fn work(&self) -> bool {
        self.work.load(Ordering::Relaxed)
    }

    /// From now on everything is written through the cache.
    fn give_up(&self, error: &io::Error) {
        if self.work.swap(false, Ordering::Relaxed) {
            let directory = self.directory.display();
            tracing::info!("files in {directory} are written through the page cache: {error}");
        }
    }
}

fn attempt(directory: &Path) -> io::Result<()> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::DIRECT;
    let file = File::from(openat(CWD, directory, flags, Mode::RUSR | Mode::WUSR)?);
    // `TMPFS_MAGIC`: it accepts direct writes, but has its files in the page cache and nowhere else.
    if fstatfs(&file)?.f_type == 0x0102_1994 {
        return Err(io::Error::new(ErrorKind::Unsupported, "they are in memory"));
    }
    file.write_all_at(Buffer::new(ALIGN).bytes(), 0)
}

/// A file that one thread has open for positioned writes.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    cached: File,
    /// Opened for the first long run. `None` if that is impossible.
    direct: OnceCell<Option<Direct>>,
    writes: Arc<DirectWrites>,
}

impl Output {
    /// Opens a file that exists.
    ///
    /// # Errors
    /// From the system.
    pub fn open(path: &Path, writes: &Arc<DirectWrites>) -> io::Result<Output> {
        Ok(Output::of(File::options().write(true).open(path)?, path, writes))
    }

    /// A file that is open for writing.
    pub fn of(cached: File, path: &Path, writes: &Arc<DirectWrites>) -> Output {
        let (path, writes) = (path.to_owned(), Arc::clone(writes));
        Output { path, cached, direct: OnceCell::new(), writes }
    }

    /// The file, for everything that goes through the cache.
    pub fn file(&self) -> &File {
        &self.cached
    }

    /// Whether [`Output::write_blocks`] has something of a run to write.
    pub fn has_blocks(&self, run: &[u8], offset: u64) -> bool {
        !self.blocks(run, offset).is_empty()
    }

    /// Whether [`Output::write_rest`] has something of a run to write.
    pub fn has_rest(&self, run: &[u8], offset: u64) -> bool {
        self.blocks(run, offset) != (0..run.len())
    }

    /// Writes the whole blocks of a run past the cache, if they are many. Several threads may do that at once in different blocks of
    /// a file, while nobody writes to it through the cache. `spare` is memory for a run at an address that cannot be used directly.
    ///
    /// # Errors
    /// From the system.
    pub fn write_blocks(&self, run: &[u8], offset: u64, spare: &mut Buffer) -> io::Result<()> {
        let place = self.blocks(run, offset);
        let (blocks, at) = (&run[place.clone()], offset + place.start as u64);
        if blocks.is_empty() {
            return Ok(());
        }
        let Some(file) = self.direct().map(Direct::file) else {
            return self.cached.write_all_at(blocks, at);
        };
        if blocks.as_ptr().addr().is_multiple_of(ALIGN) {
            return self.write_aligned(file, blocks, at);
        }
        let copied = spare.first(blocks.len());
        copied.copy_from_slice(blocks);
        self.write_aligned(file, copied, at)
    }

    /// Writes through the cache what [`Output::write_blocks`] leaves of a run.
    ///
    /// # Errors
    /// From the system.
    pub fn write_rest(&self, run: &[u8], offset: u64) -> io::Result<()> {
        let blocks = self.blocks(run, offset);
        self.cached.write_all_at(&run[..blocks.start], offset)?;
        self.cached.write_all_at(&run[blocks.end..], offset + blocks.end as u64)
    }

    /// Reads what was written at an aligned offset from the disk, to the beginning of the buffer. Returns false if the file is not
    /// written past the cache, or is not as long yet: zeros at the end of a file are not written before it gets its length.
    ///
    /// # Errors
    /// From the system.
    pub fn read_from_disk(&self, buffer: &mut Buffer, len: usize, offset: u64) -> io::Result<bool> {
        match self.direct() {
            Some(direct) if offset.is_multiple_of(ALIGN as u64) && self.writes.work() => {
                match direct.read_exact(buffer, len, offset) {
                    Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(false),
                    read => read.map(|()| true),
                }
            }
            _ => Ok(false),
        }
    }

    /// The part of a run that is written past the cache.
    fn blocks(&self, run: &[u8], offset: u64) -> Range<usize> {
        let start = (offset.next_multiple_of(ALIGN as u64) - offset) as usize;
        let beyond = ((offset + run.len() as u64) % ALIGN as u64) as usize;
        let end = run.len().saturating_sub(beyond);
        if end >= start + DIRECT_MIN && self.writes.work() { start..end } else { 0..0 }
    }

    fn direct(&self) -> Option<&Direct> {
        let open = || {
            let flags = OFlags::DIRECT.bits() as i32;
            let opened = File::options().read(true).write(true).custom_flags(flags).open(&self.path);
            opened.inspect_err(|error| self.writes.give_up(error)).ok().map(Direct::from)
        };
        self.direct.get_or_init(open).as_ref()
    }

    fn write_aligned(&self, file: &File, blocks: &[u8], at: u64) -> io::Result<()> {
        let mut done = 0;
        // A write that ends inside a block cannot be continued past the cache.
        while done < blocks.len() && done.is_multiple_of(ALIGN) {
            match file.write_at(&blocks[done..], at + done as u64) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // Some filesystems open a file for direct writes and then refuse to write.
                Err(e) if matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
                    self.writes.give_up(&e);
                    break;
                }
                Err(e) => return Err(e),
            }
        }
        self.cached.write_all_at(&blocks[done..], at + done as u64)
    }
}

#[cfg(test)]
#[path = "direct_write_tests.rs"]
mod tests;
