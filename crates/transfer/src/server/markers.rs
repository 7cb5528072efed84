//! The two files that tell operators and container platforms that a transfer is running.
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::cancel::Cancel;
use crate::disk::durable::remove_if_there;
use crate::failure::{Failure, Kind};

const PID_FILE: &str = "wsrep_sst.pid";

/// How long we wait for an earlier transfer of this datadir to end.
pub const EARLIER_TRANSFER: Duration = Duration::from_secs(10);

/// `wsrep_sst.pid`, and on a joiner `sst_in_progress`. Both are removed when the first clone of this value is
/// dropped, or explicitly before an exit that runs no destructors.
#[derive(Clone)]
pub struct Markers {
    files: Arc<Mutex<Vec<PathBuf>>>,
}

impl Markers {
    /// No files yet.
    pub fn none() -> Markers {
        Markers { files: Arc::default() }
    }

    /// Waits for an earlier transfer to end, then creates the files.
    pub fn set(&self, datadir: &Path, joiner: bool, cancel: &Cancel) -> Result<()> {
        let pid_file = datadir.join(PID_FILE);
        wait_for_earlier(datadir, cancel)?;
        self.write(pid_file, &format!("{}\n", std::process::id()))?;
        let mark = datadir.join("sst_in_progress");
        // A database may have this name; then there is no such file.
        if joiner && !mark.is_dir() {
            self.write(mark, "")?;
        }
        Ok(())
    }

    /// Removes the files that were created.
    pub fn remove(&self) {
        for file in self.files.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).drain(..) {
            let _ = remove_if_there(&file);
        }
    }

    fn write(&self, path: PathBuf, content: &str) -> Result<()> {
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        self.files.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(path);
        Ok(())
    }
}

impl Drop for Markers {
    fn drop(&mut self) {
        self.remove();
    }
}

/// A transfer of another program, or of a release without the lock, may still work on the datadir.
fn wait_for_earlier(datadir: &Path, cancel: &Cancel) -> Result<()> {
    let began = Instant::now();
    while let Some(pid) = running_transfer(datadir) {
        if began.elapsed() > EARLIER_TRANSFER {
            let text = format!("an earlier state transfer (process {pid}) is still working on this datadir");
            return Err(Failure::new(Kind::Server, text).hint(format!("end it: kill {pid}")).into());
        }
        cancel.sleep(Duration::from_millis(200))?;
    }
    Ok(())
}

/// Returns the process that `wsrep_sst.pid` names, if it is a state transfer's program on this datadir.
pub(crate) fn running_transfer(datadir: &Path) -> Option<u32> {
    let pid: u32 = fs::read_to_string(datadir.join(PID_FILE)).ok()?.trim().parse().ok()?;
    (pid != std::process::id() && is_transfer(pid, datadir)).then_some(pid)
}

/// Whether this process is a state transfer's program on this datadir. A process id that a crash left in a
/// file may meanwhile belong to any process. So the program must have the right name (for a script, that of
/// its file) and this working directory, in which servers start these programs. The command line does not
/// count, because a server has `--wsrep_sst_donor` in its own.
pub fn is_transfer(pid: u32, datadir: &Path) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let place = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let works_in = place(Path::new(&format!("/proc/{pid}/cwd")));
    name.starts_with("wsrep_sst_") && works_in.is_some() && works_in == place(datadir)
}
