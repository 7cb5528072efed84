//! The two files operators and container platforms look for while a transfer runs.
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::cancel::Cancel;
use crate::disk::durable::remove_if_there;
use crate::failure::{Failure, Kind};

/// How long an earlier transfer of this datadir may take to end before we give up.
const EARLIER_TRANSFER: Duration = Duration::from_secs(10);

/// `wsrep_sst.pid`, and on a joiner `sst_in_progress`; both go when the first of its clones is dropped, and can be
/// removed earlier, for an end that runs no destructors.
#[derive(Clone)]
pub struct Markers {
    files: Arc<Mutex<Vec<PathBuf>>>,
}

impl Markers {
    /// No marks yet.
    pub fn none() -> Markers {
        Markers { files: Arc::default() }
    }

    /// Waits for an earlier transfer to end and sets the marks.
    pub fn set(&self, datadir: &Path, joiner: bool, cancel: &Cancel) -> Result<()> {
        let pid_file = datadir.join("wsrep_sst.pid");
        wait_for_earlier(&pid_file, cancel)?;
        self.write(pid_file, &format!("{}\n", std::process::id()))?;
        if joiner {
            self.write(datadir.join("sst_in_progress"), "")?;
        }
        Ok(())
    }

    /// Removes those that were set.
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

fn wait_for_earlier(pid_file: &Path, cancel: &Cancel) -> Result<()> {
    let began = Instant::now();
    while let Some(pid) = running_transfer(pid_file) {
        if began.elapsed() > EARLIER_TRANSFER {
            let text = format!("an earlier state transfer (process {pid}) still works on this datadir");
            return Err(Failure::new(Kind::Server, text).hint(format!("end it: kill {pid}")).into());
        }
        cancel.sleep(Duration::from_millis(200))?;
    }
    Ok(())
}

/// The process named in the file, when it lives and is a state transfer; a number left by a crash may be reused.
pub(crate) fn running_transfer(pid_file: &Path) -> Option<u32> {
    let pid: u32 = fs::read_to_string(pid_file).ok()?.trim().parse().ok()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let ours = pid == std::process::id();
    (!ours && String::from_utf8_lossy(&command).contains("wsrep_sst_")).then_some(pid)
}
