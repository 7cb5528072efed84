//! Reports which names in directories may refer to something else than at the last check. The kernel keeps
//! the list (inotify), so nothing that did not change has to be read again, however many files there are.
//!
//! An event is queued before the system call that causes it returns. So a caller that blocks all changes and
//! then asks gets every one of them, except writes through a descriptor that stays open.
use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init, remove_watch};
use rustix::io::Errno;

/// Room for a few hundred events per call.
const BUFFER: usize = 64 << 10;
/// At most this many events of one directory are recorded; a directory with more is listed.
const NAMES_MAX: usize = 20_000;

/// The watched directories, by names that the caller chooses.
#[derive(Debug)]
pub struct Watch {
    inotify: OwnedFd,
    directories: HashMap<i32, String>,
    /// Directories without information: they could not be watched, or are the same directory under two names.
    blind: HashSet<String>,
    /// What was read from the kernel and not returned yet.
    collected: HashMap<String, Changed>,
    /// The kernel had to drop events since the last call of [`Watch::changes`].
    lost: bool,
}

/// What may have changed in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// These names.
    Names(HashSet<OsString>),
    /// Anything.
    All,
}

impl Watch {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// The user has reached the system's limit (`fs.inotify.max_user_instances`).
    pub fn new() -> io::Result<Watch> {
        let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let (directories, blind, collected) = (HashMap::new(), HashSet::new(), HashMap::new());
        Ok(Watch { inotify, directories, blind, collected, lost: false })
    }

    /// Records changes in a directory from now on. A directory that cannot be watched counts as changed every
    /// time.
    pub fn add(&mut self, name: &str, directory: &Path) {
        // A file that is written in place and then closed counts; a table's file that stays open causes no
        // event.
        let wanted = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        match add_watch(&self.inotify, directory, wanted) {
            Ok(number) => {
                let before = self.directories.insert(number, name.to_owned());
                // This is the same directory again, or under a second name. Its events would come for the
                // newer name only.
                if let Some(before) = before.filter(|before| before != name) {
                    self.blind.extend([before, name.to_owned()]);
                }
            }
            Err(e) => {
                tracing::debug!("{} cannot be watched: {e}", directory.display());
                self.blind.insert(name.to_owned());
            }
        }
    }

    /// Returns what may have changed in each directory since the last call, or `None` if the kernel had to
    /// drop events: then anything may have changed.
    ///
    /// # Errors
    /// From the system.
    pub fn changes(&mut self) -> io::Result<Option<HashMap<String, Changed>>> {
        self.collect()?;
        let mut all = std::mem::take(&mut self.collected);
        all.extend(self.blind.iter().map(|name| (name.clone(), Changed::All)));
        if std::mem::take(&mut self.lost) {
            tracing::info!(
                "more files changed at once than the kernel remembers (fs.inotify.max_queued_events): all files are listed again"
            );
            return Ok(None);
        }
        Ok(Some(all))
    }

    /// Reads what changed so far from the kernel, which remembers only so many events.
    ///
    /// # Errors
    /// From the system.
    pub fn collect(&mut self) -> io::Result<()> {
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
        let mut events = Reader::new(&self.inotify, &mut buffer);
        loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(Errno::WOULDBLOCK) => break,
                Err(Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            };
            let what = event.events();
            self.lost |= what.contains(ReadFlags::QUEUE_OVERFLOW);
            let Some(directory) = self.directories.get(&event.wd()) else { continue };
            note(&mut self.collected, directory, event.file_name());
            if what.contains(ReadFlags::IGNORED) {
                self.directories.remove(&event.wd());
            }
        }
        Ok(())
    }

    /// Waits until something changed, at most for so long.
    pub fn wait(&self, patience: Duration) {
        let mut fds = [PollFd::new(&self.inotify, PollFlags::IN)];
        let nanos = patience.subsec_nanos().into();
        let patience = Timespec { tv_sec: patience.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: nanos };
        // Interrupted or not: the caller looks.
        let _ = poll(&mut fds, Some(&patience));
    }

    /// Stops watching all directories.
    pub fn clear(&mut self) {
        for number in self.directories.drain().map(|(number, _)| number) {
            // The watch may already be gone.
            let _ = remove_watch(&self.inotify, number);
        }
        self.blind.clear();
        self.collected.clear();
    }
}

/// An event without a name concerns the directory itself.
fn note(all: &mut HashMap<String, Changed>, directory: &str, name: Option<&CStr>) {
    let changed = match all.get_mut(directory) {
        Some(changed) => changed,
        None => all.entry(directory.to_owned()).or_insert_with(|| Changed::Names(HashSet::new())),
    };
    match (changed, name.map(|name| OsStr::from_bytes(name.to_bytes()))) {
        (Changed::All, _) => {}
        (Changed::Names(names), Some(name)) if names.len() < NAMES_MAX => {
            if !names.contains(name) {
                names.insert(name.to_owned());
            }
        }
        (changed, _) => *changed = Changed::All,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(list: &[&str]) -> Changed {
        Changed::Names(list.iter().map(OsString::from).collect())
    }

    #[test]
    fn every_way_to_change_a_name_is_reported_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["read", "gone", "from", "written", "replaced", "new", "linked"] {
            fs::write(path(name), name).unwrap();
        }
        let mut watch = Watch::new().unwrap();
        watch.add("d", dir.path());
        fs::read(path("read")).unwrap();
        assert_eq!(watch.changes().unwrap(), Some(HashMap::new()));
        fs::remove_file(path("gone")).unwrap();
        fs::rename(path("from"), path("to")).unwrap();
        fs::write(path("written"), "again").unwrap();
        fs::rename(path("new"), path("replaced")).unwrap();
        fs::hard_link(path("linked"), path("link")).unwrap();
        let all = names(&["gone", "from", "to", "written", "new", "replaced", "link"]);
        assert_eq!(watch.changes().unwrap(), Some(HashMap::from([("d".to_owned(), all)])));
        assert_eq!(watch.changes().unwrap(), Some(HashMap::new()));
    }

    #[test]
    fn a_directory_that_goes_or_comes_again_has_changed_altogether() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("d");
        let mut watch = Watch::new().unwrap();
        fs::create_dir(&below).unwrap();
        watch.add("d", &below);
        fs::remove_dir(&below).unwrap();
        fs::create_dir(&below).unwrap();
        watch.add("d", &below);
        fs::write(below.join("f"), "").unwrap();
        let all = Some(HashMap::from([("d".to_owned(), Changed::All)]));
        assert_eq!(watch.changes().unwrap(), all);
        fs::write(below.join("f"), "").unwrap();
        assert_eq!(watch.changes().unwrap(), Some(HashMap::from([("d".to_owned(), names(&["f"]))])));
    }

    #[test]
    fn what_cannot_be_watched_or_has_two_names_always_counts_as_changed() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = Watch::new().unwrap();
        watch.add("a", dir.path());
        watch.add("a", dir.path());
        watch.add("nowhere", &dir.path().join("nowhere"));
        let all = |list: &[&str]| Some(list.iter().map(|name| ((*name).to_owned(), Changed::All)).collect());
        assert_eq!(watch.changes().unwrap(), all(&["nowhere"]));
        watch.add("b", dir.path());
        assert_eq!(watch.changes().unwrap(), all(&["a", "b", "nowhere"]));
        watch.clear();
        assert_eq!(watch.changes().unwrap(), all(&[]));
    }

    #[test]
    fn more_events_than_the_kernel_keeps_are_no_silence() {
        let dir = tempfile::tempdir().unwrap();
        let most = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
        let mut watch = Watch::new().unwrap();
        watch.add("d", dir.path());
        // Each file causes two events.
        for n in 0..most.trim().parse::<u32>().unwrap() {
            fs::write(dir.path().join(format!("f{}", n % 100)), "").unwrap();
        }
        assert_eq!(watch.changes().unwrap(), None);
        assert_eq!(watch.changes().unwrap(), Some(HashMap::new()));
    }
}
