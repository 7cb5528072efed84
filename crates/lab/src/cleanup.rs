//! Nothing stays behind: directories and processes of clusters whose owner went away without dropping them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tempfile::TempDir;

use crate::process;

pub(crate) const PREFIX: &str = "rejoin-lab-";
static LIVE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// The directory of a cluster. Dropping it kills the cluster's processes and removes everything.
#[derive(Debug)]
pub struct ClusterDir(TempDir);

impl ClusterDir {
    /// Makes a new directory whose name carries our process id.
    pub fn new() -> Result<Self> {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            remove_abandoned();
            end_with_signals();
        });
        let dir = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{}-", std::process::id()))
            .rand_bytes(4)
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir()
            .context("a directory for the cluster")?;
        live().push(dir.path().to_owned());
        Ok(Self(dir))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for ClusterDir {
    fn drop(&mut self) {
        process::kill_cluster(self.path());
        live().retain(|path| path != self.path());
        // TempDir removes the tree after this.
    }
}

fn live() -> std::sync::MutexGuard<'static, Vec<PathBuf>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ctrl-C and SIGTERM do not run destructors: do their work, then end as the signal would have ended us.
fn end_with_signals() {
    let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return };
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            for dir in live().iter().rev() {
                remove(dir);
            }
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
    });
}

/// Removes the clusters of processes that no longer exist (killed with SIGKILL, say).
fn remove_abandoned() {
    let places = [std::env::temp_dir(), PathBuf::from(crate::other::SHARED_MEMORY)];
    for entry in places.iter().flat_map(fs::read_dir).flatten().flatten() {
        let name = entry.file_name();
        let owner =
            name.to_str().and_then(|n| n.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove(&entry.path());
        }
    }
}

/// Ends what runs in a directory, takes off what a test mounted below it, and removes it.
fn remove(dir: &Path) {
    process::kill_cluster(dir);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
    points.filter(|point| point.starts_with(dir)).for_each(process::unmount);
    let _ = fs::remove_dir_all(dir);
}
