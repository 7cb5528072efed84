//! The file operations of an install, as a trait: tests stop it before the n-th operation.
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Cursor, ErrorKind, Read, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::disk::durable;
use crate::disk::filesystem::{FilesystemId, filesystem_of};
use crate::disk::identity::look;
use crate::disk::probe::{Entry, Probe, RealProbe, Rights};

/// The kind of a path; links are not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, or anything else that has a name.
    Other,
}

/// Writes what a file is to hold.
pub type Write<'a> = &'a mut dyn FnMut(&mut dyn io::Write) -> Result<()>;

/// File operations. Each may be the last one before a crash, so each is small. None is durable by itself: a name is after
/// [`Files::sync_directory`] of its directory, what a file holds after [`Files::sync_file`]. The last methods are made of these,
/// so that the tests which lose what was not synced see every sync.
pub trait Files: Probe {
    /// The filesystem of a path or of its nearest ancestor that exists.
    fn filesystem(&self, path: &Path) -> Result<FilesystemId>;
    /// The path of the directory with symbolic links resolved, as far as it exists.
    fn real_path(&self, directory: &Path) -> Result<PathBuf>;
    /// The kind of the path.
    fn what(&self, path: &Path) -> Result<Option<What>>;
    /// Length of a file and its modification time in nanoseconds since 1970; `None` if it is absent.
    fn state(&self, path: &Path) -> Result<Option<(u64, i128)>>;
    /// Full paths of the entries of a directory; empty if it is absent.
    fn list(&self, directory: &Path) -> Result<Vec<PathBuf>>;
    /// A file's content; `None` if it is absent.
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>>;
    /// As [`Files::read`], to be read bit by bit.
    fn open(&self, path: &Path) -> Result<Option<Box<dyn Read + '_>>> {
        Ok(self.read(path)?.map(|content| Box::new(Cursor::new(content)) as Box<dyn Read>))
    }
    /// Renames within one filesystem, replacing what lies at the new name.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
    /// Gives a file a second name, which must not exist. Returns whether the filesystem supports that.
    fn link(&self, from: &Path, to: &Path) -> Result<bool>;
    /// Writes a copy with the same mode. A crash may leave a part of it.
    fn copy_unsynced(&self, from: &Path, to: &Path) -> Result<()>;
    /// Applies a [`crate::install::patch`]. A crash may leave it partly applied; it can be applied again.
    fn patch_unsynced(&self, patch: &Path, table: &Path) -> Result<()>;
    /// Returns a path for writing a file before it is renamed to its final path: a name that cannot be
    /// predicted.
    fn temporary(&self, path: &Path) -> Result<PathBuf>;
    /// Removes temporary files that crashes left from earlier writes of a file.
    fn remove_temporaries(&self, path: &Path) -> Result<()>;
    /// Writes a new file. A crash may leave a part of it.
    fn write_unsynced(&self, path: &Path, content: &[u8]) -> Result<()>;
    /// As [`Files::write_unsynced`], written bit by bit.
    fn write_unsynced_through(&self, path: &Path, write: Write<'_>) -> Result<()> {
        let mut content = Vec::new();
        write(&mut content)?;
        self.write_unsynced(path, &content)
    }
    /// Removes a file or link if it is there.
    fn remove(&self, path: &Path) -> Result<()>;
    /// Creates a directory unless it exists.
    fn make_directory(&self, path: &Path) -> Result<()>;
    /// Removes a directory if it exists and is empty. A directory that cannot be removed stays.
    fn remove_directory(&self, path: &Path) -> Result<()>;
    /// Makes a file's content durable, but not its name.
    fn sync_file(&self, path: &Path) -> Result<()>;
    /// Makes the names in a directory durable; does nothing if it is absent.
    fn sync_directory(&self, path: &Path) -> Result<()>;

    /// Writes a copy whose content is durable, but not its name.
    fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        self.copy_unsynced(from, to)?;
        self.sync_file(to)
    }

    /// Applies a patch, durably.
    fn apply_patch(&self, patch: &Path, table: &Path) -> Result<()> {
        self.patch_unsynced(patch, table)?;
        self.sync_file(table)
    }

    /// Replaces a file in one step, durably.
    fn write_atomically(&self, path: &Path, content: &[u8]) -> Result<()> {
        self.write_through(path, &mut |to| Ok(to.write_all(content)?))
    }

    /// As [`Files::write_atomically`], written piece by piece.
    fn write_through(&self, path: &Path, write: Write<'_>) -> Result<()> {
        let directory = path.parent().with_context(|| format!("{} is not a file's path", path.display()))?;
        self.remove_temporaries(path)?;
        let temporary = self.temporary(path)?;
        self.write_unsynced_through(&temporary, write)?;
        self.sync_file(&temporary)?;
        self.rename(&temporary, path)?;
        self.sync_directory(directory)
    }

    /// Renames a file, unless that was done before.
    fn rename_if_there(&self, from: &Path, to: &Path) -> Result<()> {
        if self.exists(from)? { self.rename(from, to) } else { Ok(()) }
    }

    /// Whether the path exists.
    fn exists(&self, path: &Path) -> Result<bool> {
        Ok(self.what(path)?.is_some())
    }
}

/// The real disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Probe for Disk {
    fn entry(&self, path: &Path) -> std::io::Result<Option<Entry>> {
        RealProbe.entry(path)
    }

    fn rights(&self, directory: &Path) -> std::io::Result<Rights> {
        RealProbe.rights(directory)
    }

    fn may_open(&self, file: &Path, write: bool) -> bool {
        RealProbe.may_open(file, write)
    }
}

impl Files for Disk {
    fn filesystem(&self, path: &Path) -> Result<FilesystemId> {
        filesystem_of(path)
    }

    fn real_path(&self, directory: &Path) -> Result<PathBuf> {
        let Some(there) = directory.ancestors().find(|d| d.exists()) else {
            return Ok(directory.to_path_buf());
        };
        let real = there.canonicalize().with_context(|| format!("cannot resolve {}", there.display()))?;
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
            Err(e) => Err(e).with_context(|| format!("cannot stat {}", path.display())),
        }
    }

    fn state(&self, path: &Path) -> Result<Option<(u64, i128)>> {
        let look = look(path).with_context(|| format!("cannot stat {}", path.display()))?;
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

    fn rename_if_there(&self, from: &Path, to: &Path) -> Result<()> {
        match fs::rename(from, to) {
            // Else the directory of the new name is missing.
            Err(e) if e.kind() == ErrorKind::NotFound && !self.exists(from)? => Ok(()),
            renamed => {
                renamed.with_context(|| format!("cannot rename {} to {}", from.display(), to.display()))
            }
        }
    }

    fn link(&self, from: &Path, to: &Path) -> Result<bool> {
        match fs::hard_link(from, to) {
            Ok(()) => Ok(true),
            // Linux returns EPERM for a filesystem without hard links.
            Err(e) if matches!(e.kind(), ErrorKind::PermissionDenied | ErrorKind::Unsupported) => Ok(false),
            Err(e) => Err(e).with_context(|| format!("cannot link {} to {}", from.display(), to.display())),
        }
    }

    fn copy_unsynced(&self, from: &Path, to: &Path) -> Result<()> {
        let copied = fs::copy(from, to);
        copied.map(drop).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
    }

    fn patch_unsynced(&self, patch: &Path, table: &Path) -> Result<()> {
        crate::install::patch::apply(patch, table, &|| {})
    }

    fn temporary(&self, path: &Path) -> Result<PathBuf> {
        durable::temporary(path)
    }

    fn remove_temporaries(&self, path: &Path) -> Result<()> {
        durable::remove_temporaries(path)
    }

    fn write_unsynced(&self, path: &Path, content: &[u8]) -> Result<()> {
        let write = || File::options().write(true).create_new(true).open(path)?.write_all(content);
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    fn open(&self, path: &Path) -> Result<Option<Box<dyn Read + '_>>> {
        match File::open(path) {
            Ok(file) => Ok(Some(Box::new(BufReader::new(file)))),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    fn write_unsynced_through(&self, path: &Path, write: Write<'_>) -> Result<()> {
        let made = || format!("cannot write {}", path.display());
        let file = File::options().write(true).create_new(true).open(path).with_context(made)?;
        let mut to = BufWriter::new(file);
        write(&mut to)?;
        to.flush().with_context(made)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        durable::remove_if_there(path).map(|_| ())
    }

    fn make_directory(&self, path: &Path) -> Result<()> {
        match fs::create_dir(path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            made => made.with_context(|| format!("cannot make directory {}", path.display())),
        }
    }

    fn remove_directory(&self, path: &Path) -> Result<()> {
        match fs::remove_dir(path) {
            // A link to a directory belongs to the operator (NotADirectory).
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty | ErrorKind::NotADirectory
                ) =>
            {
                Ok(())
            }
            // An empty directory that stays harms nothing. It may be a mount point, or its parent may not be
            // writable.
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::ResourceBusy | ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                tracing::warn!("{} cannot be removed and stays: {e}", path.display());
                Ok(())
            }
            removed => removed.with_context(|| format!("cannot remove directory {}", path.display())),
        }
    }

    fn sync_file(&self, path: &Path) -> Result<()> {
        let sync = || File::open(path)?.sync_all();
        sync().with_context(|| format!("cannot sync {}", path.display()))
    }

    fn sync_directory(&self, path: &Path) -> Result<()> {
        if path.is_dir() { durable::sync_directory(path) } else { Ok(()) }
    }
}
