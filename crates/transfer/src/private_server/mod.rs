//! A server of our own on a new datadir in staging, run by the joiner's server's program: it makes files from definitions
//! and rows. Nobody else can reach it: it listens only on a socket in a directory that only we can enter, knows no
//! accounts, and loads no provider.
//!
//! | module | owns |
//! |---|---|
//! | [`homes`] | its directories, one on each filesystem of the joiner's files |
//! | `memory` | how much of it the server takes |
//! | [`program`] | the program, its definitions of system tables, and its arguments |
//! | [`process`] | its process: it dies with us |
//!
//! It reads the option files of the joiner's server, so its files are as that server expects them; what must differ is on its
//! command line.
pub mod homes;
mod memory;
pub mod process;
pub mod program;

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::cancel::Cancel;
use crate::failure::{Failure, Kind};
use crate::job::Job;
use crate::sql::{Login, Session};
use homes::Homes;
use process::Process;
use program::Program;

/// How long the server may take to start. Its end has no limit of its own: it writes its whole buffer pool, and killing it would waste
/// all that was loaded.
const START_WITHIN: Duration = Duration::from_secs(300);
/// How long it may take to answer a login while it starts ...
const LOGIN_WITHIN: Duration = Duration::from_secs(1);
/// ... and to take the statement that shuts it down.
const SHUTDOWN_LOGIN_WITHIN: Duration = Duration::from_secs(60);
/// How long one statement may take: the transfer's own limits end it, by ending the server.
const STATEMENT_WITHIN: Duration = Duration::from_secs(7 * 24 * 3600);
/// How often it is looked at while it starts or ends.
const LOOK: Duration = Duration::from_millis(50);
/// The name of its socket, in its datadir.
const SOCKET: &str = "s.sock";

/// A running server on a new datadir.
pub struct PrivateServer {
    process: Process,
    login: Login,
    /// Keeps the directory open through which its socket is reached: the path itself may be too long for a socket.
    _datadir: File,
}

/// A new datadir with system tables, on which a server can be started.
pub struct NewDatadir(Program);

/// Waits for so long. Fails if what is waited for is not wanted any more.
pub type Wait<'a> = &'a dyn Fn(Duration) -> Result<()>;

impl NewDatadir {
    /// Makes it, with the server's own system tables.
    ///
    /// # Errors
    /// The program or its definitions are not found, it fails, or from `wait`.
    pub fn make(job: &Job, homes: &Homes, wait: Wait<'_>) -> Result<NewDatadir> {
        let program = Program::find(job)?;
        homes.make()?;
        bootstrap(&program, homes, wait)?;
        Ok(NewDatadir(program))
    }

    /// Starts the server on it. It loads these `libraries` of plugins, as far as they are installed.
    ///
    /// # Errors
    /// It does not start, or from `wait`.
    pub fn start(&self, homes: &Homes, libraries: &[String], wait: Wait<'_>) -> Result<PrivateServer> {
        let NewDatadir(program) = self;
        let libraries = program.installed(libraries);
        let mut more = vec![format!("--socket={SOCKET}")];
        more.extend(libraries.into_iter().map(|library| format!("--plugin-load-add={library}")));
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let process = Process::spawn(&program.command(homes, &more), None, &homes.log())?;
        let datadir = File::open(&homes.datadir).context("cannot open the new datadir")?;
        // The server was told a name that is relative to its datadir.
        let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", datadir.as_raw_fd()));
        let mut server = PrivateServer { process, login: Login::at_socket(&path, None), _datadir: datadir };
        server.wait_for_login(homes, wait)?;
        Ok(server)
    }
}

impl PrivateServer {
    /// A session of a statement may take as long as it takes.
    ///
    /// # Errors
    /// No login: the server has ended.
    pub fn session(&self) -> Result<Session> {
        Ok(Session::open(&self.login, STATEMENT_WITHIN)?)
    }

    /// The number of its process.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Ends the server at once, so that every statement fails. For a transfer that was cancelled.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Ends the server in order: afterwards its files need no recovery.
    ///
    /// # Errors
    /// It does not end, or not in order.
    pub fn stop(mut self, homes: &Homes, cancel: &Cancel) -> Result<()> {
        let mut session = Session::open(&self.login, SHUTDOWN_LOGIN_WITHIN)?;
        session.shut_down().map_err(|e| failed(homes, &format!("does not end: {e}")))?;
        loop {
            match self.process.ended()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(failed(homes, &format!("ended with {status}")).into()),
                None => cancel.sleep(LOOK)?,
            }
        }
    }

    fn wait_for_login(&mut self, homes: &Homes, wait: Wait<'_>) -> Result<()> {
        let until = Instant::now() + START_WITHIN;
        loop {
            let answer = Session::open(&self.login, LOGIN_WITHIN);
            if answer.is_ok() {
                return Ok(());
            }
            if let Some(status) = self.process.ended()? {
                return Err(failed(homes, &format!("did not start ({status})")).into());
            }
            if Instant::now() > until {
                let why = answer.err().map(|e| e.to_string()).unwrap_or_default();
                return Err(failed(homes, &format!("does not answer: {why}")).into());
            }
            wait(LOOK)?;
        }
    }
}

/// Has the server's program make its system tables.
fn bootstrap(program: &Program, homes: &Homes, wait: Wait<'_>) -> Result<()> {
    let script = homes.root().join("bootstrap.sql");
    let mut file = File::create(&script).with_context(|| format!("cannot make {}", script.display()))?;
    file.write_all(b"CREATE DATABASE IF NOT EXISTS mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\n")?;
    for definitions in program.definitions() {
        let text = fs::read(definitions).with_context(|| format!("cannot read {}", definitions.display()))?;
        file.write_all(&text)?;
        file.write_all(b"\n")?;
    }
    drop(file);
    let input = File::open(&script)?;
    let command = program.command(homes, &["--bootstrap"]);
    let mut process = Process::spawn(&command, Some(input), &homes.log())?;
    let until = Instant::now() + START_WITHIN;
    loop {
        match process.ended()? {
            Some(status) if status.success() => break,
            Some(status) => {
                return Err(failed(homes, &format!("could not make its system tables ({status})")).into());
            }
            None if Instant::now() > until => {
                return Err(failed(homes, "does not finish its system tables").into());
            }
            None => wait(LOOK)?,
        }
    }
    fs::remove_file(&script).with_context(|| format!("cannot remove {}", script.display()))
}

/// The failure with what the server itself logged of it.
pub fn failed(homes: &Homes, what: &str) -> Failure {
    let said = last_errors(&homes.log());
    let said = if said.is_empty() { String::new() } else { format!("; it logged: {said}") };
    let text = format!("the private server on the new datadir {what}{said}");
    Failure::new(Kind::Server, text)
        .hint("the option files of this node's server apply to it: look for the cause there")
}

/// The last errors in its log, in one line.
fn last_errors(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let errors: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once("[ERROR] ").map(|(_, words)| words.trim()))
        .filter(|words| !words.starts_with("Aborting"))
        .collect();
    let from = errors.len().saturating_sub(3);
    let mut text = errors.get(from..).unwrap_or_default().join(" / ");
    if let Some((cut, _)) = text.char_indices().nth(500) {
        text.truncate(cut);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_errors_of_a_log_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        assert_eq!(last_errors(&log), "");
        let lines = (1..6)
            .map(|n| format!("2026-01-01  1:00:0{n} 0 [ERROR] e{n}\n2026 [Note] n\n"))
            .collect::<String>();
        fs::write(&log, lines + "x [ERROR] Aborting\n").unwrap();
        assert_eq!(last_errors(&log), "e3 / e4 / e5");
    }
}
