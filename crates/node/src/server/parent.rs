//! Noticing that we must end: the server died, or a signal asks for it.
//!
//! The server starts us through `sh -c`, so our direct parent is a shell that outlives a killed server; the server
//! itself never signals its script (docs/server-contract.md). So the server's process is watched with a pidfd, and
//! the shell with a death signal.
use std::fs;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, set_parent_process_death_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cancel::Cancel;
use crate::failure::{Failure, Kind};

/// How long an orderly end may take after the reason is known: the peer is told, locks are let go.
const GRACE: Duration = Duration::from_millis(1500);

/// Our server's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerProcess {
    /// Process id.
    pub pid: u32,
}

/// Finds the server: the `--parent` argument, or the first ancestor that is not a shell.
pub fn find_server(parent_argument: Option<u32>) -> Option<ServerProcess> {
    if let Some(pid) = parent_argument {
        return Some(ServerProcess { pid });
    }
    let mut pid = std::os::unix::process::parent_id();
    while is_shell(pid) {
        pid = parent_of(pid)?;
    }
    (pid > 1).then_some(ServerProcess { pid })
}

fn is_shell(pid: u32) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    matches!(name.trim(), "sh" | "dash" | "bash" | "ash" | "ksh" | "busybox" | "timeout")
}

fn parent_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|l| l.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// Takes the end of the shell that started us for a signal to end. Not for a process that outlives its parent.
pub fn end_with_the_shell() {
    let _ = set_parent_process_death_signal(Some(Signal::TERM));
}

/// Cancels the transfer when the server dies or a signal arrives, and ends the process if that does not end it
/// within 1.5 s. `last_words` removes what must not stay behind; it runs at most once here.
pub fn watch(
    server: Option<ServerProcess>,
    cancel: Cancel,
    last_words: impl FnOnce() + Send + 'static,
) -> Result<(), Failure> {
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGQUIT])
        .map_err(|e| Failure::new(Kind::Server, format!("cannot watch signals: {e}")))?;
    let (tell, told) = std::sync::mpsc::channel::<()>();
    if let Some(server) = server {
        watch_server(server, cancel.clone(), tell.clone())?;
    }
    spawn("signals", move || watch_signals(signals, &cancel, &tell))?;
    spawn("grace", move || {
        if told.recv().is_ok() {
            thread::sleep(GRACE);
            last_words();
            std::process::exit(i32::from(Kind::Stopped.exit_code()));
        }
    })
}

fn watch_server(
    server: ServerProcess,
    cancel: Cancel,
    tell: std::sync::mpsc::Sender<()>,
) -> Result<(), Failure> {
    let gone = format!("our own server (process {}) died", server.pid);
    let fd = match Pid::from_raw(server.pid as i32).map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
        Some(Ok(fd)) => fd,
        _ => return Err(Failure::new(Kind::Server, gone)),
    };
    spawn("server watch", move || {
        wait_for_exit(&fd);
        cancel.cancel(Kind::Server, gone);
        let _ = tell.send(());
    })
}

fn wait_for_exit(process: &OwnedFd) {
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    while poll(&mut fds, None) == Err(rustix::io::Errno::INTR) {}
}

fn watch_signals(mut signals: Signals, cancel: &Cancel, tell: &std::sync::mpsc::Sender<()>) {
    for signal in signals.forever() {
        let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
        cancel.cancel(Kind::Stopped, format!("told to stop by {name}"));
        let _ = tell.send(());
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let started = thread::Builder::new().name(name.to_owned()).spawn(body);
    started.map(drop).map_err(|e| Failure::new(Kind::Server, format!("cannot start a thread: {e}")))
}
