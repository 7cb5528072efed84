//! Running another program: mariadb-backup, the operator's `base-command`, or the private server
//! ([`crate::private_server::process`]).
//!
//! It is started directly, without a shell, in a process group of its own. It ends with us: when we die the kernel ends the
//! program itself ([`end_with_us`]). What a [`Program`] says goes line by line to the log of the transfer; when the transfer is
//! cancelled or its time is over its whole group is ended, and what it has started finds its pipes closed.
mod output;
mod stopped;

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::pipe::fcntl_setpipe_size;
use rustix::process::{Pid, Signal, kill_process_group, set_parent_process_death_signal};

use self::output::{Output, Said};
use crate::cancel::Cancel;
use crate::failure::{Failure, Kind, kind_of};
use crate::threads::{Running, Thread, lock, scoped};

/// How often we look whether it has ended.
const LOOK_FOR_END: Duration = Duration::from_millis(50);
/// How long it may take to end by itself once it was told to: less than what we have ourselves.
const ENDS_WITHIN: Duration = Duration::from_millis(700);
/// What a user's pipe may hold at most, unless an administrator has changed that.
const PIPE_BYTES: usize = 1 << 20;
/// How long one may take that answers a question.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// The longest answer; a server's list of its variables has some hundred thousand bytes.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// Takes out of a program's environment what the server hands over to its scripts: accounts above all.
pub fn without_credentials(command: &mut Command) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_handed_over(&name.to_string_lossy())) {
        command.env_remove(name);
    }
}

/// Whether a variable of this name comes from the server for its scripts alone.
fn is_handed_over(name: &str) -> bool {
    name.starts_with("WSREP_") || name == "MYSQL_PWD"
}

/// Gives a program a process group of its own, and has the kernel end it when the thread that starts it ends.
#[expect(unsafe_code, reason = "the only way to do something in the child before the program starts")]
pub fn end_with_us(command: &mut Command) {
    let parent = rustix::process::getpid();
    let die_with_us = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // We may have died before that.
        match rustix::process::getppid() == Some(parent) {
            true => Ok(()),
            false => Err(io::Error::from(io::ErrorKind::BrokenPipe)),
        }
    };
    command.process_group(0);
    // SAFETY: two system calls, which need neither memory nor locks.
    unsafe { command.pre_exec(die_with_us) };
}

/// A program that is about to run.
pub struct Program<'a> {
    /// Its name in messages.
    pub name: &'a str,
    /// How long it may run; `None` = without limit.
    pub limit: Option<Duration>,
    /// Its standard input; `None` = nothing.
    pub stdin: Option<OwnedFd>,
    /// Ends it early.
    pub cancel: &'a Cancel,
    /// Sees each line that it says, besides the log.
    pub line: &'a (dyn Fn(&str) + Sync),
    /// Stops it once, for a while.
    pub pause: Option<Pause<'a>>,
}

/// Stops a program at the first line of a kind that it says on standard error, and lets it go on afterwards.
#[derive(Clone, Copy)]
pub struct Pause<'a> {
    /// Whether it is stopped at this line.
    pub at: &'a (dyn Fn(&str) -> bool + Sync),
    /// Called while it stands still, and after everything that it said before was seen. Not called if it cannot be stopped.
    pub meanwhile: &'a (dyn Fn() + Sync),
}

/// What a program that answers a question says, on standard output and then on standard error, however it ends.
///
/// # Errors
/// It cannot be started, it does not answer within half a minute, or cancelled.
pub fn answer_of(name: &str, command: &mut Command, cancel: &Cancel) -> Result<String> {
    let (mut answer, said) = (Vec::new(), Mutex::new(String::new()));
    let line = |line: &str| {
        let mut said = lock(&said);
        said.push_str(line);
        said.push('\n');
    };
    let program =
        Program { name, limit: Some(ANSWERS_WITHIN), stdin: None, cancel, line: &line, pause: None };
    let read = program.read(command, |output| Ok(output.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?));
    cancel.check()?;
    match read {
        Err(Unfinished::Taking(error)) => return Err(error),
        Err(Unfinished::Program(error)) if kind_of(&error) != Kind::Server => return Err(error),
        // It has said what it has to say.
        Ok(_) | Err(Unfinished::Program(_)) => {}
    }
    Ok(format!("{}\n{}", String::from_utf8_lossy(&answer), lock(&said)))
}

/// What a program says on standard output, however it ends. `None` if it cannot be started, or is not done in time. Nothing is
/// logged.
pub fn quiet_answer_of(command: &mut Command, limit: Duration) -> Option<String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
    let (mut child, cancel) = (command.spawn().ok()?, Cancel::new());
    let until = Instant::now().checked_add(limit);
    let mut answer = Vec::new();
    let output = Output::new(child.stdout.take(), until, &cancel);
    let read = output.take(ANSWER_BYTES_MAX).read_to_end(&mut answer);
    // It has closed its output, and ends.
    let closed = Instant::now();
    while read.is_ok() && matches!(child.try_wait(), Ok(None)) && closed.elapsed() < ENDS_WITHIN {
        std::thread::sleep(Duration::from_millis(1));
    }
    end(&mut child);
    read.ok().map(|_| String::from_utf8_lossy(&answer).into_owned())
}

impl Program<'_> {
    /// Runs it to its end.
    ///
    /// # Errors
    /// It cannot be started, or fails, named with its last lines; its time is over; cancelled.
    pub fn run(&self, command: &mut Command) -> Result<()> {
        self.with(command, |said, child| {
            std::thread::scope(|scope| {
                let stdout = child.stdout.take();
                let read = scoped(scope, Thread::ProgramOutput, move || {
                    stdout.map_or(Ok(()), |stdout| said.follow(stdout))
                });
                let ended = self.wait(child, said);
                read.join()?;
                said.judge(ended?)
            })
        })
    }

    /// Runs it while `take` reads its standard output. What it fails with comes before the error of `take`, which may only
    /// follow from that, unless the transfer was cancelled.
    ///
    /// # Errors
    /// As [`Program::run`], or from `take`.
    pub fn read<T>(
        &self,
        command: &mut Command,
        take: impl FnOnce(&mut dyn Read) -> Result<T>,
    ) -> Result<T, Unfinished> {
        self.with(command, |said, child| {
            let stdout = child.stdout.take();
            // The more fits, the less the program waits for us. Only advice: the system may not allow it.
            let _ = stdout.as_ref().map(|stdout| fcntl_setpipe_size(stdout, PIPE_BYTES));
            let until = self.limit.and_then(|limit| Instant::now().checked_add(limit));
            let mut output = Output::new(stdout, until, self.cancel);
            let taken = take(&mut output);
            let whole = taken.is_ok();
            if !whole && self.cancel.check().is_ok() && matches!(self.soon(child), Ok(None)) {
                // Nobody reads it any more.
                end(child);
                return Ok(taken.map_err(Unfinished::Taking));
            }
            drop(output);
            let ended = self.wait(child, said)?;
            Ok(match (said.judge(ended), taken) {
                (Ok(()), taken) => taken.map_err(Unfinished::Taking),
                (Err(failed), _) => Err(Unfinished::Program(failed)),
            })
        })
        .map_err(Unfinished::Program)
        .and_then(|taken| taken)
    }

    fn with<T>(
        &self,
        command: &mut Command,
        body: impl FnOnce(&Said<'_>, &mut Child) -> Result<T>,
    ) -> Result<T> {
        let mut child = self.start(command)?;
        let said = Said::new(self, &child);
        std::thread::scope(|scope| {
            let stderr = child.stderr.take();
            let said = &said;
            let read: Running<'_, ()> = scoped(scope, Thread::ProgramOutput, move || {
                stderr.map_or(Ok(()), |stderr| said.follow(stderr))
            });
            let done = body(said, &mut child);
            end(&mut child);
            said.set_ended();
            read.join()?;
            done
        })
    }

    fn start(&self, command: &mut Command) -> Result<Child, Failure> {
        let stdin = self.stdin.as_ref().map(OwnedFd::try_clone).transpose();
        let stdin = stdin.map_err(|error| Failure::new(Kind::Server, format!("{}: {error}", self.name)))?;
        command
            .stdin(stdin.map_or_else(Stdio::null, Stdio::from))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        end_with_us(command);
        command.spawn().map_err(|error| {
            let program = command.get_program().to_string_lossy().into_owned();
            Failure::new(Kind::Configuration, format!("{}: cannot run {program}: {error}", self.name))
        })
    }

    /// Waits for its end. Ends it when the transfer is cancelled or its time is over.
    fn wait(&self, child: &mut Child, said: &Said<'_>) -> Result<ExitStatus> {
        let began = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                said.set_ended();
                return Ok(status);
            }
            let over = self.limit.filter(|limit| began.elapsed() > *limit);
            let stop = match over {
                Some(limit) => {
                    let text = format!("{} did not end within {} s", self.name, limit.as_secs());
                    Err(Failure::new(Kind::Timeout, text))
                }
                None => self.cancel.check(),
            };
            if let Err(why) = stop {
                end(child);
                said.set_ended();
                return Err(why.into());
            }
            std::thread::sleep(LOOK_FOR_END);
        }
    }

    /// Its end, if that comes soon: a program that fails closes its output a moment earlier.
    fn soon(&self, child: &mut Child) -> io::Result<Option<ExitStatus>> {
        let began = Instant::now();
        loop {
            match child.try_wait()? {
                None if began.elapsed() < ENDS_WITHIN => std::thread::sleep(LOOK_FOR_END),
                ended => return Ok(ended),
            }
        }
    }
}

/// Why nothing came of a program's output.
#[derive(Debug)]
pub enum Unfinished {
    /// The program failed, or the transfer was cancelled.
    Program(anyhow::Error),
    /// Its output could not be used.
    Taking(anyhow::Error),
}

/// Ends a program and all that it started in its group.
fn end(child: &mut Child) {
    let group = Pid::from_child(child);
    if matches!(child.try_wait(), Ok(None)) {
        let _ = kill_process_group(group, Signal::TERM);
        let began = Instant::now();
        while matches!(child.try_wait(), Ok(None)) && began.elapsed() < ENDS_WITHIN {
            std::thread::sleep(LOOK_FOR_END);
        }
    }
    // Also what it left behind.
    let _ = kill_process_group(group, Signal::KILL);
    let _ = child.wait();
}

#[cfg(test)]
#[path = "program_tests.rs"]
mod tests;
