//! The lock of a datadir. A program that changes a transfer's files, or installs them, holds it while it
//! works.
//!
//! It is an `flock` on one file in the datadir. The kernel releases it when the process ends for any reason,
//! and no child inherits it. The file is never removed: otherwise two processes could lock two different
//! files of the same name. Its content names the holder, and is used only in error messages.
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::Errno;

use crate::cancel::Cancel;
use crate::failure::{Failure, Kind};
use crate::human::printable;

/// Its name in the datadir.
pub const FILE: &str = "rejoin-lock";

/// How often a lock that is held by another process is tried again.
const TRY_EVERY: Duration = Duration::from_millis(50);
/// At most this much of the file's content is read.
const NOTE_BYTES_MAX: u64 = 200;

/// The lock, held until this is dropped.
#[derive(Debug)]
pub struct DatadirLock {
    file: File,
}

impl DatadirLock {
    /// Takes the lock, waiting for its holder for at most `patience`. `role` describes us to the next process
    /// that waits.
    ///
    /// # Errors
    /// [`Kind::Server`], naming the holder, if the lock was not free in time; [`Kind::Disk`] if the file
    /// cannot be opened or is not a regular file; the reason of `cancel`.
    pub fn take(datadir: &Path, role: &str, patience: Duration, cancel: &Cancel) -> Result<DatadirLock> {
        let path = datadir.join(FILE);
        let until = Instant::now() + patience;
        loop {
            match try_take(&path)? {
                Attempt::Taken(file) => {
                    let lock = DatadirLock { file };
                    lock.note(role);
                    return Ok(lock);
                }
                Attempt::Replaced => {}
                Attempt::Held(file) if Instant::now() >= until => {
                    let text = format!("{} has {} locked", holder(&file), datadir.display());
                    let hint = "wait until it ends, then try again";
                    bail!(Failure::new(Kind::Server, text).hint(hint));
                }
                Attempt::Held(_) => cancel.sleep(TRY_EVERY)?,
            }
        }
    }

    /// Writes who holds the lock. A full disk does not prevent the work.
    fn note(&self, role: &str) {
        let since = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S");
        let note = format!("{} {since} {role}\n", std::process::id());
        let _ = self.file.set_len(0).and_then(|()| self.file.write_all_at(note.as_bytes(), 0));
    }
}

impl Drop for DatadirLock {
    fn drop(&mut self) {
        let _ = self.file.set_len(0);
    }
}

enum Attempt {
    Taken(File),
    Held(File),
    /// The file was removed or replaced after it was opened.
    Replaced,
}

fn try_take(path: &Path) -> Result<Attempt> {
    let file = open(path).with_context(|| format!("cannot open the lock file {}", path.display()))?;
    let found = file.metadata().with_context(|| format!("cannot stat {}", path.display()))?;
    if !found.is_file() {
        let text = format!("{} is not a regular file", path.display());
        bail!(Failure::new(Kind::Disk, text).hint("remove it; rejoin will create it again"));
    }
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK | Errno::INTR) => return Ok(Attempt::Held(file)),
        Err(errno) => {
            return Err(std::io::Error::from(errno))
                .with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    let there = fs::symlink_metadata(path).ok();
    let same = there.is_some_and(|there| (there.dev(), there.ino()) == (found.dev(), found.ino()));
    Ok(if same { Attempt::Taken(file) } else { Attempt::Replaced })
}

/// Links are not followed, and nothing that could block (a FIFO) is opened.
fn open(path: &Path) -> std::io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP;
    Ok(File::from(openat(CWD, path, flags, mode)?))
}

/// Describes the holder of the lock, as far as it is known.
fn holder(file: &File) -> String {
    let mut note = Vec::new();
    let _ = file.take(NOTE_BYTES_MAX).read_to_end(&mut note);
    let note = printable(String::from_utf8_lossy(&note).trim());
    let mut words = note.splitn(4, ' ');
    let (Some(Ok(pid)), Some(day), Some(time), Some(role)) =
        (words.next().map(str::parse::<u32>), words.next(), words.next(), words.next())
    else {
        return "another process".to_owned();
    };
    // A process id from another container has no meaning here.
    let process =
        if holds_a_lock_on(pid, file) { format!("process {pid}") } else { "in another container".to_owned() };
    format!("{role} ({process}, since {day} {time} UTC)")
}

fn holds_a_lock_on(pid: u32, file: &File) -> bool {
    let Ok(meta) = file.metadata() else { return false };
    let (pid, inode) = (pid.to_string(), meta.ino().to_string());
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    locks.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let of_file = |place: &&str| place.rsplit(':').next() == Some(inode.as_str());
        words.get(1) == Some(&"FLOCK")
            && words.get(4) == Some(&pid.as_str())
            && words.get(5).is_some_and(of_file)
    })
}

/// The path of the lock file of a datadir.
pub fn path(datadir: &Path) -> PathBuf {
    datadir.join(FILE)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::failure::kind_of;

    const AT_ONCE: Duration = Duration::ZERO;

    fn take(datadir: &Path) -> Result<DatadirLock> {
        DatadirLock::take(datadir, "rejoin test", AT_ONCE, &Cancel::new())
    }

    #[test]
    fn only_one_holds_it_and_the_other_learns_who() {
        let dir = tempfile::tempdir().unwrap();
        let first = take(dir.path()).unwrap();
        let refused = take(dir.path()).unwrap_err();
        assert_eq!(kind_of(&refused), Kind::Server);
        let (text, own) =
            (refused.to_string(), format!("rejoin test (process {}, since 20", std::process::id()));
        assert!(text.contains(&own) && text.contains(" UTC) has /"), "{text}");
        drop(first);
        drop(take(dir.path()).unwrap());
        assert_eq!(fs::read(path(dir.path())).unwrap(), b"", "the note of a holder that is gone");
    }

    #[test]
    fn it_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let first = take(dir.path()).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(200));
                drop(first);
            });
            DatadirLock::take(dir.path(), "rejoin test", Duration::from_secs(60), &Cancel::new()).unwrap();
        });
    }

    #[test]
    fn no_child_inherits_it() {
        let dir = tempfile::tempdir().unwrap();
        let lock = take(dir.path()).unwrap();
        let mut child = std::process::Command::new("sleep").arg("6000").spawn().unwrap();
        drop(lock);
        // Between its fork and its exec, a child of another test may hold the lock for a moment.
        let again = DatadirLock::take(dir.path(), "rejoin test", Duration::from_secs(60), &Cancel::new());
        child.kill().unwrap();
        child.wait().unwrap();
        again.unwrap();
    }

    /// Another user may have written the file's content: it is printed, and not used otherwise.
    #[test]
    fn a_note_that_lies_and_a_file_that_is_none_do_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, path(dir.path())).unwrap();
        assert!(take(dir.path()).is_err(), "a link was followed");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        fs::remove_file(path(dir.path())).unwrap();
        let lock = take(dir.path()).unwrap();
        fs::write(path(dir.path()), "1 a b \x1b[31minit\n").unwrap();
        let text = take(dir.path()).unwrap_err().to_string();
        assert!(text.contains("in another container") && !text.contains('\x1b'), "{text}");
        fs::write(path(dir.path()), "").unwrap();
        assert!(take(dir.path()).unwrap_err().to_string().contains("another process"));
        drop(lock);
        fs::remove_file(path(dir.path())).unwrap();
        fs::create_dir(path(dir.path())).unwrap();
        assert!(take(dir.path()).is_err());
    }
}
