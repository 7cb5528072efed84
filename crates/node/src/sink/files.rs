//! The few file operations that installing needs, as a trait: tests stop it before the n-th.
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::disk::durable;
use crate::disk::filesystem::{FilesystemId, filesystem_of};
use crate::disk::identity::look;

/// What lies at a path; links are not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, or anything else that has a name.
    Other,
}

/// File operations. Each may be the last one before a crash, so each is small; none is durable before
/// [`Files::sync_directory`] of the directories it changed, except [`Files::write_atomically`].
pub trait Files {
    /// The filesystem of a path or of its nearest ancestor that exists.
    fn filesystem(&self, path: &Path) -> Result<FilesystemId>;
    /// The directory without symbolic links on the way, as far as it exists.
    fn real_path(&self, directory: &Path) -> Result<PathBuf>;
    /// What lies at the path.
    fn what(&self, path: &Path) -> Result<Option<What>>;
    /// Length of a file and when it changed, in nanoseconds since 1970; nothing when it is absent.
    fn state(&self, path: &Path) -> Result<Option<(u64, i128)>>;
    /// Full paths of everything in a directory; nothing when it is absent.
    fn list(&self, directory: &Path) -> Result<Vec<PathBuf>>;
    /// A file's content, if it is there.
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>>;
    /// Renames within one filesystem, replacing what lies at the new name.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
    /// Writes a copy whose content, owner's rights included, is durable. A crash may leave a part of it.
    fn copy(&self, from: &Path, to: &Path) -> Result<()>;
    /// Applies a [`super::patch`], durably. A crash may leave any part of it; it may be applied again.
    fn apply_patch(&self, patch: &Path, table: &Path) -> Result<()>;
    /// Removes a file or link if it is there.
    fn remove(&self, path: &Path) -> Result<()>;
    /// Makes a directory unless it is there.
    fn make_directory(&self, path: &Path) -> Result<()>;
    /// Removes a directory if it is there and empty.
    fn remove_directory(&self, path: &Path) -> Result<()>;
    /// Replaces a file in one step, durably.
    fn write_atomically(&self, path: &Path, content: &[u8]) -> Result<()>;
    /// Makes the names in a directory durable; nothing to do when it is absent.
    fn sync_directory(&self, path: &Path) -> Result<()>;

    /// Whether anything lies at the path.
    fn exists(&self, path: &Path) -> Result<bool> {
        Ok(self.what(path)?.is_some())
    }
}

/// The real disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Files for Disk {
    fn filesystem(&self, path: &Path) -> Result<FilesystemId> {
        filesystem_of(path)
    }

    fn real_path(&self, directory: &Path) -> Result<PathBuf> {
        let Some(there) = directory.ancestors().find(|d| d.exists()) else {
            return Ok(directory.to_path_buf());
        };
        let real = there.canonicalize().with_context(|| format!("cannot look at {}", there.display()))?;
        match directory.strip_prefix(there) {
            Ok(rest) if rest != Path::new("") => Ok(real.join(rest)),
            _ => Ok(real),
        }
    }

    fn what(&self, path: &Path) -> Result<Option<What>> {
        match fs::symlink_metadata(path) {
            Ok(m) if m.is_file() => Ok(Some(What::File)),
            Ok(m) if m.is_dir() => Ok(Some(What::Directory)),
            Ok(_) => Ok(Some(What::Other)),
            Err(e) if e.kind() == ErrorKind::NotFound || e.kind() == ErrorKind::NotADirectory => Ok(None),
            Err(e) => Err(e).with_context(|| format!("cannot look at {}", path.display())),
        }
    }

    fn state(&self, path: &Path) -> Result<Option<(u64, i128)>> {
        let look = look(path).with_context(|| format!("cannot look at {}", path.display()))?;
        Ok(look.map(|look| (look.signature.size, look.signature.changed())))
    }

    fn list(&self, directory: &Path) -> Result<Vec<PathBuf>> {
        let names = || format!("cannot list {}", directory.display());
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e).with_context(names),
        };
        entries.map(|e| Ok(e.with_context(names)?.path())).collect()
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        match fs::read(path) {
            Ok(content) => Ok(Some(content)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        durable::rename(from, to)
    }

    fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        let copy = || -> std::io::Result<()> {
            fs::copy(from, to)?;
            give_to_owner_of(from, to)?;
            File::options().write(true).open(to)?.sync_all()
        };
        copy().with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
    }

    fn apply_patch(&self, patch: &Path, table: &Path) -> Result<()> {
        super::patch::apply(patch, table)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        durable::remove_if_there(path).map(|_| ())
    }

    fn make_directory(&self, path: &Path) -> Result<()> {
        match fs::create_dir(path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            made => made
                .and_then(|()| give_to_owner_of(path.parent().unwrap_or(path), path))
                .with_context(|| format!("cannot make directory {}", path.display())),
        }
    }

    fn remove_directory(&self, path: &Path) -> Result<()> {
        match fs::remove_dir(path) {
            // A link to a directory is the operator's: NotADirectory.
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty | ErrorKind::NotADirectory
                ) =>
            {
                Ok(())
            }
            removed => removed.with_context(|| format!("cannot remove directory {}", path.display())),
        }
    }

    fn write_atomically(&self, path: &Path, content: &[u8]) -> Result<()> {
        durable::write_atomically(path, content)
    }

    fn sync_directory(&self, path: &Path) -> Result<()> {
        if path.is_dir() { durable::sync_directory(path) } else { Ok(()) }
    }
}

/// An operator may run `rejoin rollback` as root; what it makes must still be the server's.
fn give_to_owner_of(model: &Path, made: &Path) -> std::io::Result<()> {
    let (wanted, is) = (fs::metadata(model)?, fs::metadata(made)?);
    if (wanted.uid(), wanted.gid()) == (is.uid(), is.gid()) || !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    std::os::unix::fs::chown(made, Some(wanted.uid()), Some(wanted.gid()))
}
