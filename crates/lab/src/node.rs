//! One node: a server that is started, watched and ended.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::errorlog::{self, LogMark};
use crate::installation::Installation;
use crate::network::Wire;
use crate::places::User;
use crate::ports::Ports;
use crate::process::{self, Seen};
use crate::sql;

/// How long a start or a stop may take unless told otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(180);

/// A node of a [`crate::Cluster`]. Its methods take `&self`, so threads may share it.
#[derive(Debug)]
pub struct Node {
    name: String,
    dir: PathBuf,
    ports: Ports,
    pub(crate) user: User,
    pub(crate) installation: Installation,
    pub(crate) surroundings: Surroundings,
    server: Mutex<Server>,
}

/// What is particular about where a node runs.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// Where this node sees its own `external` directory instead of everyone's.
    pub external: Option<PathBuf>,
    /// Its connection to the others, where it has one of its own.
    pub wire: Option<Wire>,
    /// Data directories besides the datadir.
    pub own_dirs: Vec<PathBuf>,
}

#[derive(Debug, Default)]
struct Server {
    child: Option<Child>,
    last_exit: Option<ExitStatus>,
    started: Option<(Instant, LogMark)>,
}

impl Node {
    pub(crate) fn new(
        name: String,
        dir: PathBuf,
        ports: Ports,
        user: User,
        installation: Installation,
        surroundings: Surroundings,
    ) -> Self {
        Self { name, dir, ports, user, installation, surroundings, server: Mutex::default() }
    }

    /// `n1`, `n2`, ...
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory everything of this node is under.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The datadir.
    pub fn datadir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The socket clients connect to.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("s.sock")
    }

    /// The option file; a test may append to it while the server is down.
    pub fn option_file(&self) -> PathBuf {
        self.dir.join("my.cnf")
    }

    /// The server this node runs.
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// The ports.
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    // ---- start and end -------------------------------------------------------------------------------------------

    /// Starts a new cluster and waits until it serves.
    pub fn bootstrap(&self) -> Result<Duration> {
        self.begin(&["--wsrep-new-cluster"])?;
        self.wait_synced(DEFAULT_TIMEOUT)
    }

    /// Starts the server as a member and waits until it is Synced. Answers how long that took.
    pub fn join(&self) -> Result<Duration> {
        self.begin(&[])?;
        self.wait_synced(DEFAULT_TIMEOUT)
    }

    /// Starts the server with these further arguments and does not wait.
    pub fn begin(&self, args: &[&str]) -> Result<()> {
        if self.is_alive() {
            bail!("{} runs already", self.name);
        }
        // A start after a kill must not read the end of the one before as its own.
        let mark = self.log_mark();
        let child = process::spawn(self.command(args)?).with_context(|| format!("starting {}", self.name))?;
        let mut server = self.server();
        *server = Server { child: Some(child), last_exit: None, started: Some((Instant::now(), mark)) };
        Ok(())
    }

    /// Waits until the node is Synced; the error carries the reason from its log. A node that is not there in time
    /// is killed. Answers the time since its start.
    pub fn wait_synced(&self, timeout: Duration) -> Result<Duration> {
        let (started, mark) = self.server().started.context("not started")?;
        loop {
            if !self.is_alive() {
                let status = self.server().last_exit;
                bail!("{} ended ({status:?}) before it was Synced\n{}", self.name, self.explain(mark));
            }
            if self.is_synced() {
                return Ok(started.elapsed());
            }
            if started.elapsed() > timeout {
                let sst = self.sst_processes();
                self.kill();
                bail!("{} not Synced in {timeout:?}; SST: {sst:?}\n{}", self.name, self.explain(mark));
            }
            std::thread::sleep(Duration::from_millis(25));
        }
    }

    /// Whether the node says it is Synced and serves.
    pub fn is_synced(&self) -> bool {
        let ask = || -> Result<bool> {
            let mut conn = sql::connect(&self.socket(), Duration::from_secs(5))?;
            Ok(sql::status(&mut conn, "wsrep_local_state_comment")? == "Synced"
                && sql::status(&mut conn, "wsrep_ready")? == "ON")
        };
        self.socket().exists() && ask().unwrap_or(false)
    }

    /// Ends the server cleanly and waits for that; one that hangs is killed, which is an error.
    pub fn stop(&self) -> Result<()> {
        let mark = self.log_mark();
        self.terminate();
        match self.wait_exit(DEFAULT_TIMEOUT) {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("{} stopped with {status}\n{}", self.name, self.explain(mark)),
            None => {
                self.kill();
                bail!("{} did not stop\n{}", self.name, self.explain(mark))
            }
        }
    }

    /// Sends SIGTERM and does not wait.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// `kill -9` of the server alone: its SST programs, if any, are on their own.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
        self.wait_exit(Duration::from_secs(30));
    }

    /// Sends a signal to the server.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            process::signal(pid, signal);
        }
    }

    /// Waits for the server's end. A server that is not there has ended.
    pub fn wait_exit(&self, timeout: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if !self.is_alive() {
                return self.server().last_exit.or(Some(ExitStatus::default()));
            }
            if Instant::now() > deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether the server runs.
    pub fn is_alive(&self) -> bool {
        self.pid().is_some()
    }

    /// The server's process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        let mut server = self.server();
        let child = server.child.as_mut()?;
        match child.try_wait() {
            Ok(None) => Some(child.id()),
            Ok(Some(status)) => {
                server.last_exit = Some(status);
                server.child = None;
                None
            }
            Err(_) => None,
        }
    }

    /// The processes that the SST of this node consists of, also those whose server is gone.
    pub fn sst_processes(&self) -> Vec<Seen> {
        let cluster = self.dir.parent().unwrap_or(&self.dir);
        let data = self.datadir();
        // An orphan is known by its working directory: the server starts SST programs in its datadir.
        let here = |pid: u32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == data);
        let server = self.pid();
        process::of_cluster(cluster).into_iter().filter(|p| Some(p.pid) != server && here(p.pid)).collect()
    }

    /// Ports of this node that something listens on; none when it is down.
    pub fn busy_ports(&self) -> Vec<u16> {
        self.ports.busy()
    }

    /// Cuts the node off: what it sends and what is sent to it goes nowhere.
    pub fn cut(&self) -> Result<()> {
        self.wire()?.cut()
    }

    /// Ends [`Node::cut`].
    pub fn reconnect(&self) -> Result<()> {
        self.wire()?.reconnect()
    }

    /// As [`Node::cut`], of state transfers alone: needs a cluster with a network for them
    /// ([`crate::Builder::transfer_network`]).
    pub fn cut_transfers(&self) -> Result<()> {
        self.wire()?.cut_transfers()
    }

    /// Ends [`Node::cut_transfers`].
    pub fn reconnect_transfers(&self) -> Result<()> {
        self.wire()?.reconnect_transfers()
    }

    /// What this node sends of state transfers passes at `rate` bytes a second at most: needs a cluster with a network for
    /// them ([`crate::Builder::transfer_network`]).
    pub fn shape_transfers(&self, rate: u64) -> Result<()> {
        self.wire()?.shape(rate)
    }

    fn wire(&self) -> Result<&Wire> {
        self.surroundings.wire.as_ref().context("the cluster has no network of its own")
    }

    /// `command` where this node's ports are.
    pub fn inside(&self, command: Command) -> Command {
        match &self.surroundings.wire {
            Some(wire) => wire.inside(&command),
            None => command,
        }
    }

    // ---- error log -----------------------------------------------------------------------------------------------

    /// The error log's file.
    pub fn error_log(&self) -> PathBuf {
        self.dir.join("error.log")
    }

    /// The error log.
    pub fn log_text(&self) -> String {
        errorlog::read(&self.error_log(), LogMark::default())
    }

    /// The end of the error log as it is now, for [`Node::log_since`].
    pub fn log_mark(&self) -> LogMark {
        errorlog::end(&self.error_log())
    }

    /// What was logged after `mark`.
    pub fn log_since(&self, mark: LogMark) -> String {
        errorlog::read(&self.error_log(), mark)
    }

    /// What was logged since the last start.
    pub fn log_since_start(&self) -> String {
        let started = self.server().started;
        self.log_since(started.map_or(LogMark::default(), |(_, mark)| mark))
    }

    /// Errors in the log since the last start that are not known to be harmless and hold none of `allowed`.
    pub fn unexpected_errors(&self, allowed: &[&str]) -> Vec<String> {
        errorlog::unexpected(&self.log_since_start(), allowed)
    }

    /// The same, of what was logged after `mark`.
    pub fn unexpected_errors_since(&self, mark: LogMark, allowed: &[&str]) -> Vec<String> {
        errorlog::unexpected(&self.log_since(mark), allowed)
    }

    /// Waits until something logged since the last start holds `text`.
    pub fn wait_log(&self, text: &str, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        while !self.log_since_start().contains(text) {
            if Instant::now() > deadline {
                bail!("{}: no {text:?} in the log within {timeout:?}", self.name);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn explain(&self, mark: LogMark) -> String {
        let console = fs::read_to_string(self.dir.join("console.log")).unwrap_or_default();
        format!("{}\n--- console:\n{}", errorlog::explain(&self.log_since(mark)), process::tail(&console, 5))
    }

    // ---- how the server is run -----------------------------------------------------------------------------------

    /// The server's command line. With a private external directory it runs in a mount namespace of its own.
    pub(crate) fn command(&self, args: &[&str]) -> Result<Command> {
        let inner = self.user.command(self.installation.server());
        let inner = match &self.surroundings.wire {
            Some(wire) => wire.inside(&inner),
            None => inner,
        };
        let mut command = match &self.surroundings.external {
            None => inner,
            Some(at) => {
                let script = "mount --bind \"$1\" \"$2\" && shift 2 && exec \"$@\"";
                let mut outer = Command::new("unshare");
                outer.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
                outer.arg(self.dir.join("external")).arg(at).arg(inner.get_program()).args(inner.get_args());
                outer
            }
        };
        let console = fs::File::options().create(true).append(true).open(self.dir.join("console.log"))?;
        command.arg(format!("--defaults-file={}", self.option_file().display())).args(args);
        command.stdin(Stdio::null()).stdout(console.try_clone()?).stderr(console);
        command.env(process::MARK, self.dir.parent().unwrap_or(&self.dir));
        command.env("PATH", self.search_path()).current_dir(&self.dir);
        // Not in our process group: a Ctrl-C is ours to handle.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        Ok(command)
    }

    fn search_path(&self) -> OsString {
        let ours = self.installation.base().join("bin");
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
        std::env::join_paths(std::iter::once(ours).chain(std::env::split_paths(&path))).unwrap_or(path)
    }

    fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep_evidence();
        }
        self.kill();
    }
}

impl Node {
    /// A test that fails shows how the logs of its nodes end.
    #[expect(clippy::print_stderr, reason = "the test harness shows it with the failure")]
    fn keep_evidence(&self) {
        eprintln!("==== {} ====\n{}", self.name, process::tail(&self.log_text(), 40));
    }
}
