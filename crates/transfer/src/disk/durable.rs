//! Writes that survive a power loss once they return.
use std::borrow::Cow;
use std::fs::{self, File};
use std::io::Write;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use ring::rand::{SecureRandom, SystemRandom};
use rustix::fs::{Advice, fadvise};

/// Suffix of files that are being written.
const TEMPORARY: &str = ".tmp";
/// In bytes. The kernel is not asked to begin with fewer: the sync writes the blocks of neighbouring small files together.
const WRITE_BEHIND_MIN: u64 = 16 << 10;

/// Makes the names in a directory durable.
pub fn sync_directory(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|d| d.sync_all())
        .with_context(|| format!("cannot sync directory {}", dir.display()))
}

/// Has the kernel begin to write what was just written, so that not everything is left for the sync at the end, and
/// the page cache of a host that may have other servers is not filled with it. This is only advice: the sync writes
/// what the kernel has not.
pub fn write_behind(file: &File, range: Range<u64>) {
    let length = NonZeroU64::new(range.end - range.start);
    if let Some(length) = length.filter(|length| length.get() >= WRITE_BEHIND_MIN) {
        let _ = fadvise(file, range.start, Some(length), Advice::DontNeed);
    }
}

/// Replaces a file's content in one step: after a crash it is the old or the new one.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    write_with_mode(path, content, 0o666)
}

/// As [`write_atomically`], for a file that only its owner may read.
pub fn write_privately(path: &Path, content: &[u8]) -> Result<()> {
    write_with_mode(path, content, 0o600)
}

fn write_with_mode(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    remove_temporaries(path)?;
    let temporary = temporary(path)?;
    let write = || -> std::io::Result<()> {
        let mut file = File::options().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    if let Err(error) = write() {
        let _ = fs::remove_file(&temporary);
        return Err(error).with_context(|| format!("cannot write {}", path.display()));
    }
    sync_directory(parts(path)?.0)
}

/// Returns a path for writing a file before it is renamed to its final path. The name is random, so that
/// nobody can place a link there beforehand.
pub fn temporary(path: &Path) -> Result<PathBuf> {
    let (dir, name) = parts(path)?;
    Ok(dir.join(format!("{name}.{:016x}{TEMPORARY}", random()?)))
}

fn parts(path: &Path) -> Result<(&Path, Cow<'_, str>)> {
    let dir = path.parent().context("a file path without a directory")?;
    let name = path.file_name().context("a file path without a name")?;
    Ok((dir, name.to_string_lossy()))
}

/// Whether a name is a [`temporary`] one. A file that a crash left under such a name is useless.
pub fn is_temporary(name: &str) -> bool {
    let random = name.strip_suffix(TEMPORARY).and_then(|name| name.rsplit_once('.'));
    random.is_some_and(|(_, digits)| digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Removes temporary files that crashes left from earlier writes of a file.
pub fn remove_temporaries(path: &Path) -> Result<()> {
    let (dir, name) = parts(path)?;
    let of_file =
        |found: &str| found.len() == name.len() + 1 + 16 + TEMPORARY.len() && found.starts_with(&*name);
    let remove = || -> std::io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let found = entry.file_name();
            if found.to_str().is_some_and(|found| of_file(found) && is_temporary(found)) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    };
    remove().with_context(|| format!("cannot write {}", path.display()))
}

fn random() -> Result<u64> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow!("the system gives no random numbers"))?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Renames within one filesystem.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot rename {} to {}", from.display(), to.display()))
}

/// Removes a file if it exists. Returns whether it existed.
pub fn remove_if_there(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).with_context(|| format!("cannot remove {}", path.display())),
    }
}

/// Removes a directory with everything in it, if it exists.
pub fn remove_directory_if_there(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// Syncs the filesystem of `dir`: everything written to it is then on stable storage.
pub fn sync_filesystem(dir: &Path) -> Result<()> {
    let file = File::open(dir).with_context(|| format!("cannot open {}", dir.display()))?;
    rustix::fs::syncfs(&file).with_context(|| format!("cannot sync the filesystem of {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_written_goes_through_no_link_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (path, victim) = (dir.path().join("install.json"), dir.path().join("victim"));
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, dir.path().join("install.json.tmp")).unwrap();
        symlink(&victim, &path).unwrap();
        let left = ["install.json.0123456789abcdef.tmp", "install.json.x.tmp", "other.0123456789abcdef.tmp"];
        left.iter().for_each(|name| fs::write(dir.path().join(name), "half").unwrap());
        write_atomically(&path, b"new").unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert!(!path.is_symlink() && fs::read(&path).unwrap() == b"new");
        let there = left.map(|name| dir.path().join(name).exists());
        assert_eq!(there, [false, true, true], "only what an earlier write of this file left goes");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 5);
    }
}
