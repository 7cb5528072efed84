//! Names that were found in a node's directories, and what a walk over them collects.
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, DirEntry, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use protocol::inventory::{FileRole, Place};
use rustix::process::geteuid;

use super::layout::follow;
use crate::disk::identity::{self, Look};
use crate::disk::probe::{Probe, RealProbe};
use crate::failure::Failure;

/// One name that was found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub path: PathBuf,
    pub what: What,
    /// `None` where nobody looked.
    pub look: Option<Look>,
    /// This process, so also the server, may read it.
    pub readable: bool,
}

impl Found {
    pub(super) fn new(path: PathBuf, what: What, meta: Option<&Metadata>) -> Found {
        let readable = !matches!(what, What::Travels { .. }) || meta.is_none_or(|meta| may_read(&path, meta));
        Found { path, what, look: meta.map(identity::of), readable }
    }
}

/// What a name is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A donor sends it; a joiner replaces it.
    Travels { place: Place, path: String, role: FileRole },
    /// Belongs to the life of one datadir: a donor does not send it, a joiner removes it.
    Past {
        /// It does nothing to the new data when a joiner's operator wants to keep it.
        keepable: bool,
    },
    /// Belongs to this host or to a running program: neither sent nor touched, not worth a word.
    Own,
    /// Not sent and not touched, for this reason, and a donor says so.
    LeftOut(String),
}

/// Whether the server, which is of our user, may read a file. Its own files need no call to the system.
pub(super) fn may_read(path: &Path, meta: &Metadata) -> bool {
    let own = geteuid();
    match () {
        () if own.is_root() || meta.is_symlink() => true,
        () if own.as_raw() == meta.uid() => meta.mode() & 0o400 != 0,
        () => RealProbe.may_open(path, false),
    }
}

/// Takes each name as it is found: there can be very many, and no two lists of them are needed at a time.
pub(super) type Take<'a> = &'a mut dyn FnMut(Found);

/// A `.frm` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Definition {
    /// Directory name of the database.
    pub database: String,
    /// File name without `.frm`.
    pub table: String,
    pub path: PathBuf,
}

/// A walk, and what it found beside names.
pub(super) struct Walked<'a> {
    take: Take<'a>,
    /// Definitions without a data file beside them.
    pub lonely: Vec<Definition>,
    /// Directories of databases.
    pub databases: Vec<PathBuf>,
    /// Why this node cannot be a donor: the server uses these, and they cannot be carried.
    pub refusals: Vec<Failure>,
    /// Paths seen, the directory part canonical, so that a directory with two roles is listed once.
    pub(super) seen: HashSet<PathBuf>,
}

impl<'a> Walked<'a> {
    pub(super) fn new(take: Take<'a>) -> Walked<'a> {
        let (lonely, databases, refusals, seen) = Default::default();
        Walked { take, lonely, databases, refusals, seen }
    }

    /// Hands over a name.
    pub(super) fn found(&mut self, found: Found) {
        (self.take)(found);
    }

    /// Adds a name unless it is there already.
    pub(super) fn add(&mut self, path: PathBuf, what: What, meta: Option<&Metadata>) {
        let key = canonical_name(&path);
        if self.seen.insert(key) {
            self.found(Found::new(path, what, meta));
        }
    }
}

/// Entries of a directory; none when it does not exist.
pub(super) fn entries(dir: &Path) -> Result<Vec<DirEntry>> {
    let read = || -> std::io::Result<Vec<DirEntry>> { fs::read_dir(dir)?.collect() };
    match read() {
        Ok(entries) => Ok(entries),
        Err(e) if is_gone(&e) => Ok(Vec::new()),
        Err(e) => Err(e).with_context(|| format!("cannot list {}", dir.display())),
    }
}

/// Names in a directory; none when it does not exist.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Each followed by a slash: there can be very many, and as values they take five times as much memory.
    text: String,
    /// Those that are not UTF-8.
    pub others: Vec<OsString>,
}

impl Names {
    /// Reads a directory.
    pub(super) fn of(dir: &Path) -> Result<Names> {
        let read = || -> std::io::Result<Names> {
            let mut names = Names::default();
            for entry in fs::read_dir(dir)? {
                match entry?.file_name().into_string() {
                    Ok(name) => names.text.extend([name.as_str(), "/"]),
                    Err(name) => names.others.push(name),
                }
            }
            Ok(names)
        };
        match read() {
            Err(e) if is_gone(&e) => Ok(Names::default()),
            names => names.with_context(|| format!("cannot list {}", dir.display())),
        }
    }

    /// Those that are UTF-8.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.text.split_terminator('/')
    }
}

/// One `fstatat`, links not followed; `None` when the name is gone.
pub(super) fn metadata(entry: &DirEntry) -> Result<Option<Metadata>> {
    match entry.metadata() {
        Ok(meta) => Ok(Some(meta)),
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(e).with_context(|| format!("cannot look at {}", entry.path().display())),
    }
}

pub(super) fn is_gone(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// The same name in its directory, however the directory was reached.
pub(super) fn canonical_name(path: &Path) -> PathBuf {
    match (path.parent(), path.file_name()) {
        (Some(dir), Some(name)) => follow(dir).join(name),
        _ => path.to_path_buf(),
    }
}
