//! Which filesystem a path is on, and how much room it has.
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, ioctl_ficlone, openat};

/// A mounted filesystem. Files can be renamed between two directories only if these are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilesystemId {
    device: (u32, u32),
    mount: u64,
}

/// The filesystem of a path, or of its nearest ancestor that exists.
pub fn filesystem_of(path: &Path) -> Result<FilesystemId> {
    let there = nearest_existing(path)?;
    let flags = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    let stat = rustix::fs::statx(CWD, &there, AtFlags::empty(), flags)
        .with_context(|| format!("cannot stat {}", there.display()))?;
    Ok(FilesystemId { device: (stat.stx_dev_major, stat.stx_dev_minor), mount: stat.stx_mnt_id })
}

/// Bytes an unprivileged program may still write to the filesystem of a path.
pub fn bytes_available(path: &Path) -> Result<u64> {
    let there = nearest_existing(path)?;
    let stat = rustix::fs::statvfs(&there)
        .with_context(|| format!("cannot stat the filesystem of {}", there.display()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Whether files in a directory can share their blocks (reflink), so that a copy takes neither room nor time.
pub fn shares_bytes(directory: &Path) -> bool {
    let unnamed = || openat(CWD, directory, OFlags::TMPFILE | OFlags::RDWR, Mode::RUSR | Mode::WUSR);
    let clone = || {
        let (from, to) = (File::from(unnamed()?), unnamed()?);
        from.write_all_at(&[1; 4096], 0)?;
        Ok::<_, std::io::Error>(ioctl_ficlone(&to, &from)?)
    };
    clone().is_ok()
}

/// Returns a path, or its nearest existing ancestor.
pub fn nearest_existing(path: &Path) -> Result<PathBuf> {
    path.ancestors()
        .find(|p| p.exists())
        .map(Path::to_path_buf)
        .with_context(|| format!("no part of {} exists", path.display()))
}
