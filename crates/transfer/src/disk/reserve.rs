//! Disk space that is reserved before it is needed.
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Mutex;

use rustix::fs::{CWD, FallocateFlags, Mode, OFlags, fallocate, openat};

use crate::threads::lock;

/// Files take space in blocks of about this size.
const BLOCK: u64 = 4096;

/// Space is released in steps of so many bytes. Each step changes the filesystem, and there can be very many small files.
const STEP: u64 = 1 << 20;

/// Space on a filesystem, reserved by a file without a name. It is free when this value or the process ends.
#[derive(Debug)]
pub struct Reserve {
    file: File,
    taken: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    written: u64,
    /// Length of the file.
    held: u64,
}

impl Reserve {
    /// Reserves bytes on the filesystem of a directory.
    ///
    /// # Errors
    /// There is not enough space, a quota forbids it, or the filesystem cannot reserve space.
    pub fn take(directory: &Path, bytes: u64) -> io::Result<Reserve> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = File::from(openat(CWD, directory, flags, Mode::RUSR | Mode::WUSR)?);
        if bytes > 0 {
            fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
        }
        Ok(Reserve { file, taken: bytes, state: Mutex::new(State { written: 0, held: bytes }) })
    }

    /// Releases the space for bytes that are about to be written elsewhere. It releases hardly more than they need, at most a
    /// step, because others could take the rest.
    pub fn give_back(&self, bytes: u64) {
        let mut state = lock(&self.state);
        state.written = state.written.saturating_add(bytes.next_multiple_of(BLOCK));
        let left = self.taken.saturating_sub(state.written);
        self.shorten(&mut state, left / STEP * STEP);
    }

    /// Releases the rest.
    pub fn give_all_back(&self) {
        self.shorten(&mut lock(&self.state), 0);
    }

    /// If the file cannot be shortened, the later write fails with a full disk's error, as it would without a
    /// reserve.
    fn shorten(&self, state: &mut State, to: u64) {
        if to < state.held && self.file.set_len(to).is_ok() {
            state.held = to;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn what_is_written_elsewhere_is_given_back_before() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::take(dir.path(), 10 * STEP + 100).unwrap();
        let blocks = || reserve.file.metadata().unwrap().blocks() * 512;
        assert!(blocks() >= 10 * STEP + 100);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "it has no name");
        let written = [(1, 9), (STEP - BLOCK - 100, 9), (1, 8), (STEP, 7), (5 * STEP + 1, 2), (1 << 40, 0)];
        for (bytes, left) in written {
            reserve.give_back(bytes);
            assert_eq!(reserve.file.metadata().unwrap().len(), left * STEP, "{bytes}");
        }
        assert_eq!(blocks(), 0);
        let other = Reserve::take(dir.path(), BLOCK).unwrap();
        other.give_all_back();
        assert_eq!(other.file.metadata().unwrap().len(), 0);
        assert!(Reserve::take(&dir.path().join("none"), BLOCK).is_err());
        let much = Reserve::take(dir.path(), 1 << 60).unwrap_err();
        assert!(matches!(much.kind(), io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge), "{much}");
    }
}
