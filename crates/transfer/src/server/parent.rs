//! Noticing that we must end: the server died, must stop or is shutting down, or we received a signal.
//!
//! The server starts us through `sh -c`, so our direct parent is a shell that outlives a killed server; the
//! server itself never signals its script (docs/server-contract.md). So a pidfd watches the server's process,
//! and a death signal watches the shell. The server is recognised by its name, not by its process id: in a
//! container it is process 1, which elsewhere is the init that inherits the orphans of a dead server.
use std::fs;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use formats::wsrep::invocation::Role;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, set_parent_process_death_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use super::command_line::{command_line, server_word};
use crate::cancel::Cancel;
use crate::failure::{Failure, Kind};
use crate::server::log;
use crate::server::shutdown::ClientSocket;
use crate::threads::{self, Thread};

/// How long an orderly end may take once its reason is known: the peer is informed and locks are released.
const GRACE: Duration = Duration::from_millis(1500);
/// The same while the server is shutting down and waits for us.
const GRACE_AT_SHUTDOWN: Duration = Duration::from_millis(900);
/// How often the server is checked for a pending signal.
const SERVER_EVERY: Duration = Duration::from_millis(200);
/// How often the server's socket is checked.
const SOCKET_EVERY: Duration = Duration::from_millis(100);

/// Our server's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerProcess {
    /// Process id.
    pub pid: u32,
}

/// Finds the server: the `--parent` argument, or the first ancestor that has a server's name, or the first one that is
/// neither a shell nor process 1.
pub fn find_server(parent_argument: Option<u32>) -> Option<ServerProcess> {
    if let Some(pid) = parent_argument {
        return Some(ServerProcess { pid });
    }
    let up = std::iter::successors(Some(std::os::unix::process::parent_id()), |pid| parent_of(*pid));
    let ancestors: Vec<u32> = up.take_while(|pid| *pid > 0).collect();
    let of_other_name = || ancestors.iter().find(|pid| **pid > 1 && !is_shell(**pid));
    let found = ancestors.iter().find(|pid| is_server(**pid)).or_else(of_other_name);
    found.map(|pid| ServerProcess { pid: *pid })
}

/// Recognises a server by the name of its program, which may have been started through its own loader.
fn is_server(pid: u32) -> bool {
    server_word(&command_line(pid)).is_some()
}

fn is_shell(pid: u32) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    matches!(name.trim(), "sh" | "dash" | "bash" | "ash" | "ksh" | "busybox" | "timeout")
}

fn parent_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|l| l.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// Asks the kernel to signal us when the shell that started us ends. Not for a process that outlives its
/// parent.
pub fn end_with_the_shell() {
    let _ = set_parent_process_death_signal(Some(Signal::TERM));
}

/// Cancels the transfer when the server dies, when it closes `socket`, or on a signal. Ends the process if it
/// has not ended within 1.5 s. `on_abrupt_end` removes files that must not stay; it runs at most once here. The peer gets the
/// reason too, so it says with `role` whose server it is.
pub fn watch(
    server: Option<ServerProcess>,
    role: Role,
    socket: Option<ClientSocket>,
    cancel: Cancel,
    on_abrupt_end: impl FnOnce() + Send + 'static,
) -> Result<(), Failure> {
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGQUIT])
        .map_err(|e| Failure::new(Kind::Server, format!("cannot watch signals: {e}")))?;
    let (tell, told) = std::sync::mpsc::channel::<Duration>();
    if let Some(server) = server {
        let name = name_of(server, role);
        watch_server(server, name.clone(), cancel.clone(), tell.clone())?;
        if let Some(socket) = socket {
            let (cancel, tell) = (cancel.clone(), tell.clone());
            threads::spawn(Thread::SocketWatch, move || watch_socket(&name, &socket, &cancel, &tell))?;
        }
    }
    let reason = cancel.clone();
    threads::spawn(Thread::Signals, move || watch_signals(signals, &cancel, &tell))?;
    let grace = move || {
        if let Ok(grace) = told.recv() {
            thread::sleep(grace);
            on_abrupt_end();
            // Whatever still runs did not report the reason, so it is logged here.
            let kind = reason.check().map_or_else(
                |failure| {
                    log::error(&format!("state transfer failed: {failure}"));
                    failure.kind
                },
                |()| Kind::Stopped,
            );
            std::process::exit(i32::from(kind.exit_code()));
        }
    };
    threads::spawn(Thread::Grace, grace).map(drop)
}

fn name_of(server: ServerProcess, role: Role) -> String {
    let whose = match role {
        Role::Donor => "the donor's",
        Role::Joiner => "the joiner's",
    };
    format!("{whose} server (process {})", server.pid)
}

fn watch_server(
    server: ServerProcess,
    name: String,
    cancel: Cancel,
    tell: std::sync::mpsc::Sender<Duration>,
) -> Result<(), Failure> {
    let gone = format!("{name} died");
    let fd = match Pid::from_raw(server.pid as i32).map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
        Some(Ok(fd)) => fd,
        _ => return Err(Failure::new(Kind::Server, gone)),
    };
    let watch = move || {
        let mut told = false;
        while !has_exited(&fd, SERVER_EVERY) {
            // This is not checked again: the cancel has reached everyone.
            if !told && has_pending_stop(server.pid) {
                told = true;
                cancel.end_now(Kind::Server, format!("{name} received a signal to stop"));
                let _ = tell.send(GRACE);
            }
        }
        cancel.end_now(Kind::Server, gone);
        let _ = tell.send(GRACE);
    };
    threads::spawn(Thread::ServerWatch, watch).map(drop)
}

fn watch_socket(
    server: &str,
    socket: &ClientSocket,
    cancel: &Cancel,
    tell: &std::sync::mpsc::Sender<Duration>,
) {
    while socket.listens() {
        thread::sleep(SOCKET_EVERY);
    }
    // The sockets of a killed server are closed too. Its death is then the better reason, so we wait for it
    // briefly.
    thread::sleep(SOCKET_EVERY);
    cancel.end_now(Kind::Server, format!("{server} is shutting down"));
    let _ = tell.send(GRACE_AT_SHUTDOWN);
}

/// Waits for the end of a process, at most for `patience`.
fn has_exited(process: &OwnedFd, patience: Duration) -> bool {
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    let patience = Timespec { tv_sec: 0, tv_nsec: patience.subsec_nanos().into() };
    matches!(poll(&mut fds, Some(&patience)), Ok(1..))
}

/// Whether the process has a pending signal to stop that it blocks.
///
/// A starting server blocks signals until its engines run, and so until the state transfer is over. The
/// transfer would then be useless, and a server that finds the signal when it begins to serve may hang
/// (MariaDB 10.11.19, with every method: its main thread waits for a thread that has already ended).
fn has_pending_stop(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    pending_stop(&status)
}

fn pending_stop(status: &str) -> bool {
    const STOP: u64 = 1 << (SIGTERM - 1) | 1 << (SIGQUIT - 1);
    let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
    pending.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).is_some_and(|bits| bits & STOP != 0)
}

/// Lets a signal to stop cancel what runs for long and belongs to no server.
///
/// # Errors
/// The system does not let us.
pub fn stop_on_signals(cancel: &Cancel) -> Result<(), Failure> {
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGQUIT])
        .map_err(|e| Failure::new(Kind::Server, format!("cannot watch signals: {e}")))?;
    let (cancel, (nobody, _)) = (cancel.clone(), std::sync::mpsc::channel());
    threads::spawn(Thread::Signals, move || watch_signals(signals, &cancel, &nobody)).map(drop)
}

fn watch_signals(mut signals: Signals, cancel: &Cancel, tell: &std::sync::mpsc::Sender<Duration>) {
    for signal in signals.forever() {
        let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
        cancel.end_now(Kind::Stopped, format!("stopped by {name}"));
        let _ = tell.send(GRACE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_waits_for_the_server_is_seen() {
        let status =
            |bits: &str| format!("Name:\tmariadbd\nSigPnd:\t0000000000004000\nShdPnd:\t{bits}\nSigBlk:\t0\n");
        assert!(pending_stop(&status("0000000000004000")), "SIGTERM");
        assert!(pending_stop(&status("0000000000000005")), "SIGQUIT, beside SIGHUP");
        assert!(!pending_stop(&status("0000000000000001")), "SIGHUP is no end");
        assert!(!pending_stop(""));
    }
}
