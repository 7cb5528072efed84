//! The private server's process. It is started through this program, which first has the kernel end it with us: nothing
//! that happens to us leaves a server behind.
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::cleanup::own_program;
use crate::threads::lock;

/// The verb that becomes the server; not meant for operators.
pub const VERB: &str = "run-private-server";

/// Variables that are meant for our own server only: a service manager would take the private server's word for its.
const NOT_FOR_IT: [&str; 7] = [
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_PID",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "WSREP_SST_OPT_AUTH",
    "WSREP_SST_OPT_REMOTE_AUTH",
];

/// A server's process; ends when this is dropped.
pub struct Process(Mutex<Child>);

impl Process {
    /// Starts the program, the first of `words`. What it prints goes to the end of `log`. The kernel ends it when the calling
    /// thread ends.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(words: Vec<String>, input: Option<File>, log: &Path) -> Result<Process> {
        let out = File::options().create(true).append(true).open(log);
        let out = out.with_context(|| format!("cannot write {}", log.display()))?;
        let program = own_program(std::env::current_exe().context("cannot find our own program")?);
        let mut command = Command::new(program);
        // Under the server's name for us, the program would start a transfer.
        command.arg0("rejoin").arg(VERB).arg(std::process::id().to_string()).args(words);
        for name in NOT_FOR_IT {
            command.env_remove(name);
        }
        let child = command
            .stdin(input.map_or_else(Stdio::null, Stdio::from))
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .context("cannot start the private server")?;
        Ok(Process(Mutex::new(child)))
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

/// Becomes the program that `words` name, behind the process id of our parent, which must still be alive.
///
/// # Errors
/// The parent is gone, or the program cannot be run.
pub fn run(words: &[String]) -> Result<()> {
    let (parent, words) = words.split_first().context("the parent's process id is missing")?;
    let (program, words) = words.split_first().context("the program is missing")?;
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot tie our life to the parent's")?;
    // It may have ended before that.
    if std::os::unix::process::parent_id().to_string() != *parent {
        bail!("the program that wanted a private server has ended");
    }
    Err(Command::new(program).args(words).exec()).with_context(|| format!("cannot run {program}"))
}
