//! A second filesystem for a node.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::cleanup::PREFIX;
use crate::node::Node;
use crate::process;

/// Memory that is a filesystem on every Linux.
pub(crate) const SHARED_MEMORY: &str = "/dev/shm";
/// What a node's parts and the margin of a transfer take.
const ENOUGH_BYTES: u64 = 400 << 20;

/// A directory on a filesystem that is not the datadir's, in the server's hands. Dropping it removes everything.
#[derive(Debug)]
pub struct OtherFilesystem {
    path: PathBuf,
    /// Mounted by us; otherwise a directory of shared memory.
    mounted: bool,
    _dir: Option<TempDir>,
}

impl OtherFilesystem {
    /// In shared memory where there is enough, else a mount of its own (needs root).
    pub fn of(node: &Node) -> Result<Self> {
        let shared = rustix::fs::statvfs(SHARED_MEMORY).context(SHARED_MEMORY)?;
        let other = if shared.f_bavail.saturating_mul(shared.f_frsize) >= ENOUGH_BYTES {
            let name = format!("{PREFIX}{}-", std::process::id());
            let dir = tempfile::Builder::new().prefix(&name).tempdir_in(SHARED_MEMORY)?;
            Self { path: dir.path().to_owned(), mounted: false, _dir: Some(dir) }
        } else {
            let path = node.dir().join("other");
            fs::create_dir_all(&path)?;
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", "size=600m", "tmpfs"]).arg(&path);
            process::run(mount, Duration::from_secs(10)).context("a second filesystem")?;
            Self { path, mounted: true, _dir: None }
        };
        node.user.own(&other.path)?;
        Ok(other)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for OtherFilesystem {
    fn drop(&mut self) {
        if self.mounted {
            process::unmount(&self.path);
        }
    }
}
