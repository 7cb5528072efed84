//! Moves a file that a program on this node has made to where it is staged. As a rule that is renaming; a database whose directory is a
//! link to another filesystem, or a file of the system tablespace on one of its own, is copied there.
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};

use crate::install::files::{Disk, Files};

/// Moves a file, or the one that a link leads to.
///
/// # Errors
/// From the disk.
pub(super) fn move_file(from: &Path, to: &Path) -> Result<()> {
    let real = if from.is_symlink() { fs::canonicalize(from)? } else { from.to_owned() };
    if real == to {
        return Ok(());
    }
    match fs::rename(&real, to) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::CrossesDevices => {
            Disk.copy(&real, to)?;
            Disk.remove(&real)
        }
        Err(e) => Err(e).with_context(|| format!("cannot move {} to {}", real.display(), to.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::filesystem::filesystem_of;

    #[test]
    fn a_file_gets_to_another_filesystem() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
        let differs = filesystem_of(here.path()).unwrap() != filesystem_of(there.path()).unwrap();
        assert!(differs, "this test needs two filesystems: /dev/shm, and TMPDIR on another one");
        let (from, to) = (here.path().join("t.ibd"), there.path().join("5-t"));
        fs::write(&from, "rows").unwrap();
        move_file(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"rows");
        assert!(!from.exists());
        // Back, through a link.
        std::os::unix::fs::symlink(&to, &from).unwrap();
        let staged = here.path().join("6-t");
        move_file(&from, &staged).unwrap();
        assert_eq!(fs::read(&staged).unwrap(), b"rows");
        assert!(!to.exists());
        move_file(&staged, &staged).unwrap();
        assert!(staged.exists());
    }
}
