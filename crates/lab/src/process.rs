//! Starting servers so that they cannot outlive us, and finding the processes they started.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

/// The environment variable that marks every process of a cluster; its value is the cluster's directory.
pub const MARK: &str = "REJOIN_LAB";

/// A process seen under `/proc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its process id.
    pub pid: u32,
    /// The process that started it, or 1 when that one is gone.
    pub parent: u32,
    /// Its command line, arguments separated by spaces.
    pub command: String,
}

type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// Starts `command` from a thread that lives as long as this process.
///
/// `PR_SET_PDEATHSIG` (set by `setpriv --pdeathsig`) fires when the *thread* that started the child ends, so a server
/// must not be started by a short-lived one.
pub fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let orders = SPAWNER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in inbox {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let (answer, child) = mpsc::channel();
    let gone = || io::Error::other("the spawning thread is gone");
    orders.lock().map_err(|_| gone())?.send((command, answer)).map_err(|_| gone())?;
    child.recv().map_err(|_| gone())?
}

/// Runs `command` to its end, at most `timeout`; its output stands in the error when it fails.
pub fn run(mut command: Command, timeout: Duration) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let out = tempfile::tempfile().context("a file for a program's output")?;
    command.stdin(std::process::Stdio::null()).stdout(out.try_clone()?).stderr(out.try_clone()?);
    let mut child = spawn(command).with_context(|| format!("cannot start {name}"))?;
    let status = match wait(&mut child, timeout)? {
        Some(status) => status.to_string(),
        None => {
            child.kill().ok();
            child.wait().ok();
            format!("no end within {timeout:?}")
        }
    };
    let text = read_from_start(out)?;
    let ok = child.wait().is_ok_and(|s| s.success());
    anyhow::ensure!(ok, "{name}: {status}\n{}", tail(&text, 40));
    Ok(text)
}

fn read_from_start(mut file: fs::File) -> Result<String> {
    use std::io::{Read, Seek};
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Waits for the end of `child`, at most `timeout`.
pub fn wait(child: &mut Child, timeout: Duration) -> io::Result<Option<std::process::ExitStatus>> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The last `lines` lines of `text`.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Every live process whose environment carries the mark of the cluster in `dir`; zombies do not count.
pub fn of_cluster(dir: &Path) -> Vec<Seen> {
    let mark = format!("{MARK}={}", dir.display());
    all().filter(|seen| has_variable(seen.pid, mark.as_bytes())).collect()
}

/// The descendants of `pid`, and what was left of them to init, among `of`.
pub fn descendants(pid: u32, of: &[Seen]) -> Vec<Seen> {
    let mut known = vec![pid];
    loop {
        let new: Vec<u32> = of
            .iter()
            .filter(|seen| known.contains(&seen.parent) && !known.contains(&seen.pid))
            .map(|seen| seen.pid)
            .collect();
        if new.is_empty() {
            break;
        }
        known.extend(new);
    }
    of.iter().filter(|seen| seen.pid != pid && known.contains(&seen.pid)).cloned().collect()
}

/// The live descendants of `pid` now.
pub fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    // Each thread has those it started itself.
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let own: Vec<u32> = lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect();
    let theirs: Vec<u32> = own.iter().flat_map(|&pid| children(pid)).collect();
    [own, theirs].concat()
}

/// Sends `signal`; a process that is already gone is fine.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Kills every process of the cluster in `dir` until none is left (at most five seconds).
pub fn kill_cluster(dir: &Path) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let left = of_cluster(dir);
        if left.is_empty() || Instant::now() > deadline {
            return;
        }
        left.iter().for_each(|seen| signal(seen.pid, Signal::KILL));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Takes a filesystem off, lazily: a server may still run on it.
pub fn unmount(point: &Path) {
    let _ = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
}

fn all() -> impl Iterator<Item = Seen> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| seen(entry.file_name().to_str()?.parse().ok()?))
}

fn seen(pid: u32) -> Option<Seen> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces: what follows its end is state, then the parent.
    let mut rest = stat[stat.rfind(')')? + 1..].split_whitespace();
    if rest.next()? == "Z" {
        return None;
    }
    let parent = rest.next()?.parse().ok()?;
    let raw = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(&raw).replace('\0', " ").trim().to_owned();
    Some(Seen { pid, parent, command })
}

fn has_variable(pid: u32, variable: &[u8]) -> bool {
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environ| environ.split(|&b| b == 0).any(|entry| entry == variable))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marked_processes_are_found_and_killed_and_only_those() {
        let dir = tempfile::tempdir().unwrap();
        let mut other = Command::new("sleep").arg("60").env(MARK, "/elsewhere").spawn().unwrap();
        let mut ours = Command::new("sleep").arg("60").env(MARK, dir.path()).spawn().unwrap();
        // For an instant after its start the kernel shows no environment of a process.
        let until = Instant::now() + Duration::from_secs(5);
        let mut found = of_cluster(dir.path());
        while found.is_empty() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
            found = of_cluster(dir.path());
        }
        kill_cluster(dir.path());
        assert!(wait(&mut ours, Duration::from_secs(5)).unwrap().is_some());
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(found.iter().map(|seen| seen.pid).collect::<Vec<_>>(), [ours.id()]);
    }

    #[test]
    fn the_output_of_a_failed_program_is_in_the_error() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo because >&2; exit 3"]);
        let error = run(command, Duration::from_secs(5)).unwrap_err().to_string();
        assert!(error.contains("because") && error.contains('3'), "{error}");
    }
}
