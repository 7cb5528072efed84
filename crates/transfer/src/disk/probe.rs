//! The kind of a path, and the permissions of this process there, determined without changing anything.
//!
//! The kernel checks the *effective* user, because root's `rejoin finish` may do more than the server's own
//! program.
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    Access, AtFlags, CWD, FileType, Mode, StatxAttributes, StatxFlags, accessat, readlinkat, statx,
};
use rustix::io::Errno;
use rustix::process::geteuid;

/// The kind of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link to this path.
    Link(PathBuf),
    /// Another kind, named in words.
    Other(&'static str),
}

/// The result of examining a path; symbolic links are not followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// It belongs to this process's user.
    pub own: bool,
    /// It has the immutable or the append-only attribute: it cannot be renamed, removed or replaced.
    pub locked: bool,
    /// A filesystem is mounted on it: it cannot be renamed or removed.
    pub mounted: bool,
}

impl Entry {
    /// An entry of this kind without special attributes.
    pub fn plain(kind: Kind) -> Entry {
        Entry { kind, own: true, locked: false, mounted: false }
    }
}

/// The permissions of this process in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Make, list, replace and remove entries.
    All,
    /// The same, except that it may change only its own entries: the directory is sticky and belongs to
    /// another user.
    OwnEntries,
    /// The process may not list, enter or write it.
    Denied,
    /// Its filesystem is mounted read-only.
    ReadOnly,
    /// It has the immutable or the append-only attribute.
    Locked,
}

/// Examines paths; tests use an implementation in memory.
pub trait Probe {
    /// Examines a path. Returns `None` if it is absent.
    ///
    /// # Errors
    /// Any error other than absence, such as a parent directory without search permission.
    fn entry(&self, path: &Path) -> io::Result<Option<Entry>>;

    /// Returns the permissions in a directory, following symbolic links.
    ///
    /// # Errors
    /// It does not exist ([`io::ErrorKind::NotFound`]), it is not a directory ([`io::ErrorKind::NotADirectory`]), or it
    /// cannot be examined.
    fn rights(&self, directory: &Path) -> io::Result<Rights>;

    /// Whether this process may read the file's content, and also write it if `write`.
    fn may_open(&self, file: &Path, write: bool) -> bool;
}

/// The real disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealProbe;

impl Probe for RealProbe {
    fn entry(&self, path: &Path) -> io::Result<Option<Entry>> {
        let stat = match statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS) {
            Ok(stat) => stat,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let kind = match FileType::from_raw_mode(u32::from(stat.stx_mode)) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => {
                let target = readlinkat(CWD, path, Vec::new())?;
                Kind::Link(PathBuf::from(std::ffi::OsStr::from_bytes(target.as_bytes())))
            }
            FileType::Fifo => Kind::Other("FIFO"),
            FileType::Socket => Kind::Other("socket"),
            FileType::CharacterDevice | FileType::BlockDevice => Kind::Other("device"),
            FileType::Unknown => Kind::Other("special file"),
        };
        let has = |attribute| stat.stx_attributes.contains(attribute);
        Ok(Some(Entry {
            kind,
            own: is_own(stat.stx_uid),
            locked: has(StatxAttributes::IMMUTABLE) || has(StatxAttributes::APPEND),
            mounted: has(StatxAttributes::MOUNT_ROOT),
        }))
    }

    fn rights(&self, directory: &Path) -> io::Result<Rights> {
        let stat = statx(CWD, directory, AtFlags::empty(), StatxFlags::BASIC_STATS)?;
        let mode = u32::from(stat.stx_mode);
        if FileType::from_raw_mode(mode) != FileType::Directory {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let has = |attribute| stat.stx_attributes.contains(attribute);
        if has(StatxAttributes::IMMUTABLE) || has(StatxAttributes::APPEND) {
            return Ok(Rights::Locked);
        }
        match accessat(CWD, directory, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
        {
            Err(Errno::ROFS) => Ok(Rights::ReadOnly),
            Err(Errno::ACCESS | Errno::PERM) => Ok(Rights::Denied),
            Err(errno) => Err(errno.into()),
            Ok(()) if Mode::from_raw_mode(mode).contains(Mode::SVTX) && !is_own(stat.stx_uid) => {
                Ok(Rights::OwnEntries)
            }
            Ok(()) => Ok(Rights::All),
        }
    }

    fn may_open(&self, file: &Path, write: bool) -> bool {
        let wanted = if write { Access::READ_OK | Access::WRITE_OK } else { Access::READ_OK };
        accessat(CWD, file, wanted, AtFlags::EACCESS).is_ok()
    }
}

/// Root counts as the owner of everything, because sticky directories do not restrict it.
fn is_own(uid: u32) -> bool {
    let own = geteuid();
    own.is_root() || own.as_raw() == uid
}
