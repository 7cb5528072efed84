//! Directories and paths as seen by a dry run ([`crate::install::dry_run`]): each directory is checked once,
//! and each refusal has a remedy.
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::disk::probe::{Entry, Kind as What, Probe, Rights};
use crate::failure::{Failure, Kind};
use crate::install::findings::Findings;
use crate::server::users::own_user_name;

/// The user that needs access.
pub(super) fn user() -> String {
    own_user_name().unwrap_or_else(|| "mysql".to_owned())
}

/// The state of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Usable { own_entries_only: bool },
    Absent,
    Refused,
}

/// The directories that were checked, each once.
pub(super) struct Probed<'a> {
    pub(super) probe: &'a dyn Probe,
    known: BTreeMap<PathBuf, State>,
    pub(super) findings: Findings,
}

impl<'a> Probed<'a> {
    pub(super) fn new(probe: &'a dyn Probe) -> Probed<'a> {
        Probed { probe, known: BTreeMap::new(), findings: Findings::default() }
    }

    pub(super) fn refuse(&mut self, text: String, hint: String) {
        self.findings.refusals.push(Failure::new(Kind::Refused, text).hint(hint));
    }

    /// Suppresses further refusals of this directory.
    pub(super) fn is_refused(&mut self, directory: &Path) {
        self.known.insert(directory.to_path_buf(), State::Refused);
    }

    /// Whether entries can be created and removed in a directory. A directory is refused at most once, by
    /// name.
    pub(super) fn usable(&mut self, directory: &Path) -> State {
        if let Some(known) = self.known.get(directory) {
            return *known;
        }
        let state = self.try_directory(directory);
        self.known.insert(directory.to_path_buf(), state);
        state
    }

    /// As [`Probed::usable`], for a directory that is there: one that was removed with its files has nothing that could be moved.
    pub(super) fn usable_if_there(&mut self, directory: &Path) -> Option<State> {
        let is_gone = matches!(self.probe.entry(directory), Ok(None));
        let state = (!is_gone).then(|| self.usable(directory))?;
        matches!(state, State::Usable { .. }).then_some(state)
    }

    fn try_directory(&mut self, directory: &Path) -> State {
        let at = directory.display();
        let (text, hint) = match self.probe.rights(directory) {
            Ok(Rights::All) => return State::Usable { own_entries_only: false },
            Ok(Rights::OwnEntries) => return State::Usable { own_entries_only: true },
            Ok(Rights::Denied) => {
                let user = user();
                (
                    format!("{at} is not writable for {user}"),
                    format!("chown {user}: {at} && chmod u+rwx {at}"),
                )
            }
            Ok(Rights::ReadOnly) => (
                format!("{at} is on a filesystem that is mounted read-only"),
                format!("mount it read-write (mount -o remount,rw), see `findmnt -T {at}`"),
            ),
            Ok(Rights::Locked) => {
                (format!("{at} has the immutable or append-only attribute"), format!("chattr -i -a {at}"))
            }
            Err(e) => match self.not_a_directory(directory, &e) {
                Some(reason) => reason,
                None => return State::Absent,
            },
        };
        self.refuse(text, hint);
        State::Refused
    }

    /// Returns why a path is not a usable directory; `None` if it does not exist.
    fn not_a_directory(&self, directory: &Path, error: &io::Error) -> Option<(String, String)> {
        let at = directory.display();
        let away = || "move it away, then start this node again".to_owned();
        match self.probe.entry(directory) {
            Ok(Some(Entry { kind: What::Link(target), .. })) => {
                let target = target.display();
                let text = match error.kind() {
                    io::ErrorKind::NotFound => format!("{at} is a link to {target}, which does not exist"),
                    io::ErrorKind::NotADirectory => {
                        format!("{at} is a link to {target}, which is not a directory")
                    }
                    _ => format!("{at} is a link to {target}, which cannot be followed: {error}"),
                };
                Some((text, "mount or create the link's target, or remove the link".to_owned()))
            }
            Ok(Some(Entry { kind: What::File, .. })) => {
                Some((format!("{at} is a file, but must be a directory"), away()))
            }
            Ok(Some(Entry { kind: What::Other(what), .. })) => {
                Some((format!("{at} is a {what}, but must be a directory"), away()))
            }
            Ok(None) if error.kind() == io::ErrorKind::NotFound => None,
            Ok(None | Some(_)) | Err(_) => {
                let user = user();
                // The deepest directory that can be examined is the one that cannot be searched.
                let closed = directory.ancestors().skip(1).find(|up| self.probe.entry(up).is_ok());
                let closed = closed.unwrap_or(directory).display();
                let hint = format!("let {user} search {closed}: setfacl -m u:{user}:x {closed}");
                Some((format!("{user} cannot access {at}: {error}"), hint))
            }
        }
    }

    /// Examines a path in a usable directory.
    pub(super) fn entry(&mut self, path: &Path) -> Option<Entry> {
        match self.probe.entry(path) {
            Ok(entry) => entry,
            Err(e) => {
                let hint = "check its filesystem: `dmesg` shows disk errors".to_owned();
                self.refuse(format!("cannot stat {}: {e}", path.display()), hint);
                None
            }
        }
    }

    /// Checks that the entry at a path can be renamed, removed or replaced; its directory is `state`.
    pub(super) fn movable(&mut self, path: &Path, entry: &Entry, state: State) {
        let at = path.display();
        if entry.locked {
            let text = format!("{at} has the immutable or append-only attribute and cannot be replaced");
            return self.refuse(text, format!("chattr -i -a {at}"));
        }
        if entry.mounted {
            let text = format!("{at} is a mount point and cannot be replaced");
            return self.refuse(text, format!("umount {at}"));
        }
        if !entry.own && state == (State::Usable { own_entries_only: true }) {
            let text =
                format!("{at} belongs to another user and is in a sticky directory: it cannot be replaced");
            let hint = format!("chown {}: {at}", user());
            self.refuse(text, hint);
        }
    }
}
