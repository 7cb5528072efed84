//! The private server's process. The kernel ends it with us: nothing that happens to us leaves a server behind.
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result};

use crate::program::{end_with_us, without_credentials};
use crate::threads::lock;

/// Variables that are meant for our own server only: a service manager would take the private server's word for its.
const OF_SERVICE_MANAGER: [&str; 6] =
    ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "WATCHDOG_PID", "WATCHDOG_USEC"];

/// A server's process; ends when this is dropped.
pub struct Process(Mutex<Child>);

impl Process {
    /// Starts the program, the first of `words`. What it prints goes to the end of `log`. The kernel ends it when the calling
    /// thread ends.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(words: &[String], input: Option<File>, log: &Path) -> Result<Process> {
        let out = File::options().create(true).append(true).open(log);
        let out = out.with_context(|| format!("cannot write {}", log.display()))?;
        let (program, words) = words.split_first().context("a private server without a program")?;
        let mut command = Command::new(program);
        command.args(words);
        without_credentials(&mut command);
        for name in OF_SERVICE_MANAGER {
            command.env_remove(name);
        }
        end_with_us(&mut command);
        let child = command
            .stdin(input.map_or_else(Stdio::null, Stdio::from))
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start the private server, {program}"))?;
        Ok(Process(Mutex::new(child)))
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        lock(&self.0).id()
    }

    /// How it ended, once it has.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        lock(&self.0).try_wait().context("cannot ask how the private server ended")
    }

    /// Ends it at once.
    pub fn kill(&self) {
        // Fails only if it has ended.
        let _ = lock(&self.0).kill();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let _ = lock(&self.0).wait();
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn sleeping(log: &Path) -> Process {
        Process::spawn(&["/bin/sleep".to_owned(), "600".to_owned()], None, log).unwrap()
    }

    fn is_there(pid: u32) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        !status.is_empty() && !status.contains("State:\tZ")
    }

    #[test]
    fn it_ends_with_whoever_started_it() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut process = sleeping(&log);
        assert!(process.ended().unwrap().is_none());
        let pid = process.id();
        drop(process);
        assert!(!is_there(pid));
        // Also if nobody is left to end it.
        let started = std::thread::spawn(move || {
            let process = sleeping(&log);
            let pid = process.id();
            std::mem::forget(process);
            pid
        });
        let pid = started.join().unwrap();
        let until = Instant::now() + Duration::from_secs(5);
        while is_there(pid) {
            assert!(Instant::now() < until, "the process {pid} is still there");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
