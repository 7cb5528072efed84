//! A pipe with a name, through which a server reads rows as from a file: nothing is written to disk unpacked, and unlike a client's
//! `LOAD DATA LOCAL`, a duplicate or a value that does not fit is an error.
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, mkfifoat};
use rustix::io::Errno;

use crate::cancel::{Cancel, LOOK_EVERY};

/// How often it is tried whether the server has opened its end.
const OPENED: Duration = Duration::from_millis(2);
/// Bytes in the pipe; the kernel may allow less.
const PIPE_BYTES: usize = 1 << 20;

/// A pipe in a directory that only our own user can enter.
pub(super) struct Pipe(PathBuf);

impl Pipe {
    /// Makes it.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make(directory: &Path, name: &str) -> Result<Pipe> {
        let path = directory.join(name);
        let cannot = || format!("cannot make the pipe {}", path.display());
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).with_context(cannot)?;
        // A server reads only what everybody may read; nobody else can enter the directory.
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).with_context(cannot)?;
        Ok(Pipe(path))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes everything that `sources` give, one after another. Returns without an error once the server reads no more: then its
    /// own error counts. `over`: its statement has ended.
    ///
    /// # Errors
    /// A source cannot be read; cancelled.
    pub fn feed<R: Read>(
        &self,
        sources: impl Iterator<Item = Result<R>>,
        over: &dyn Fn() -> bool,
        cancel: &Cancel,
    ) -> Result<()> {
        let Some(mut pipe) = self.open(over, cancel)? else { return Ok(()) };
        let mut buffer = vec![0; 1 << 17];
        for source in sources {
            let mut source = source?;
            loop {
                let bytes = match source.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(bytes) => bytes,
                    Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                    Err(e) => return Err(e).context("a part of the logical snapshot cannot be unpacked"),
                };
                if !write(&mut pipe, buffer.get(..bytes).unwrap_or_default(), cancel)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Our end, once the server has opened the other; `None` if it never will.
    fn open(&self, over: &dyn Fn() -> bool, cancel: &Cancel) -> Result<Option<File>> {
        loop {
            match rustix::fs::open(
                &self.0,
                OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
                Mode::empty(),
            ) {
                Ok(pipe) => {
                    // Not every kernel gives it to every user.
                    let _ = rustix::pipe::fcntl_setpipe_size(&pipe, PIPE_BYTES);
                    return Ok(Some(File::from(pipe)));
                }
                // Nobody has the other end.
                Err(Errno::NXIO) if over() => return Ok(None),
                Err(Errno::NXIO) => cancel.sleep(OPENED)?,
                Err(e) => return Err(e).with_context(|| format!("cannot open {}", self.0.display())),
            }
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// False if nobody reads any more.
fn write(pipe: &mut File, mut bytes: &[u8], cancel: &Cancel) -> Result<bool> {
    while !bytes.is_empty() {
        match pipe.write(bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                cancel.check()?;
                let look = Timespec { tv_sec: 0, tv_nsec: i64::from(LOOK_EVERY.subsec_nanos()) };
                let _ = poll(&mut [PollFd::new(&*pipe, PollFlags::OUT)], Some(&look));
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::BrokenPipe => return Ok(false),
            Err(e) => return Err(e).context("cannot write rows into a pipe"),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn what_is_fed_arrives_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = Pipe::make(dir.path(), "p").unwrap();
        let path = pipe.path().to_owned();
        let reader = std::thread::spawn(move || std::fs::read(path).unwrap());
        let (one, two) = (vec![1; 3 << 20], vec![2; 100]);
        let sources = [&one, &two].into_iter().map(|bytes| Ok(bytes.as_slice()));
        pipe.feed(sources, &|| false, &Cancel::new()).unwrap();
        assert!(reader.join().unwrap() == [one, two].concat());
        let path = pipe.path().to_owned();
        drop(pipe);
        assert!(!path.exists());
    }

    #[test]
    fn a_server_that_does_not_read_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = Pipe::make(dir.path(), "p").unwrap();
        let asked = AtomicBool::new(false);
        let over = || asked.swap(true, Ordering::Relaxed);
        pipe.feed([Ok(&b"x"[..])].into_iter(), &over, &Cancel::new()).unwrap();
        assert!(asked.load(Ordering::Relaxed));
        // Or not to the end.
        let path = pipe.path().to_owned();
        let reader = std::thread::spawn(move || File::open(path).unwrap().read(&mut [0; 10]).unwrap());
        let much = vec![1; 8 << 20];
        pipe.feed([Ok(much.as_slice())].into_iter(), &|| false, &Cancel::new()).unwrap();
        assert_eq!(reader.join().unwrap(), 10);
    }

    #[test]
    fn cancelled() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = Pipe::make(dir.path(), "p").unwrap();
        let cancel = Cancel::new();
        cancel.cancel(crate::failure::Kind::Stopped, "stop");
        assert!(pipe.feed([Ok(&b"x"[..])].into_iter(), &|| false, &cancel).is_err());
    }
}
