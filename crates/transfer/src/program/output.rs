//! What a running program writes: lines, which go to the log and of which the last ones are kept for its error, or bytes, which a
//! caller reads.
use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, ExitStatus};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;

use super::stopped::Stopped;
use super::{LOOK_FOR_END, Program};
use crate::cancel::{Cancel, LOOK_EVERY};
use crate::failure::{Failure, Kind};
use crate::human::printable;
use crate::threads::lock;

/// Longer lines are cut.
const LINE_BYTES_MAX: usize = 4096;
/// So many of its last lines are kept for the error.
const LAST_LINES: usize = 3;

/// What is seen of a program's output while it runs.
pub(super) struct Said<'a> {
    program: &'a Program<'a>,
    group: Pid,
    /// Whether it was stopped once.
    paused: AtomicBool,
    last: Mutex<VecDeque<String>>,
    full: AtomicBool,
    ended: AtomicBool,
}

impl<'a> Said<'a> {
    pub(super) fn new(program: &'a Program<'a>, child: &Child) -> Said<'a> {
        Said {
            program,
            group: Pid::from_child(child),
            paused: AtomicBool::new(false),
            last: Mutex::default(),
            full: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        }
    }

    /// The program has ended: nothing more is waited for.
    pub(super) fn set_ended(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Passes on line by line what arrives, until the program and all its heirs have closed it, or the program has ended.
    pub(super) fn follow(&self, mut output: impl Read + AsFd) -> Result<()> {
        let (mut line, mut block, mut stopped) = (Vec::new(), [0; 4096], None);
        loop {
            if stopped.is_some() && !is_readable(&output, Duration::ZERO)? {
                self.program.pause.iter().for_each(|pause| (pause.meanwhile)());
                stopped = None;
            }
            if !is_readable(&output, LOOK_EVERY)? {
                if self.ended.load(Ordering::Acquire) {
                    break;
                }
                continue;
            }
            let read = output.read(&mut block)?;
            if read == 0 {
                break;
            }
            for byte in block.iter().take(read) {
                match byte {
                    b'\n' | b'\r' => stopped = self.line(&mut line).or(stopped),
                    _ if line.len() < LINE_BYTES_MAX => line.push(*byte),
                    _ => {}
                }
            }
        }
        self.line(&mut line);
        Ok(())
    }

    /// Passes on a line, and stops the program if that is wanted at it.
    fn line(&self, bytes: &mut Vec<u8>) -> Option<Stopped> {
        let line = printable(String::from_utf8_lossy(bytes).trim());
        bytes.clear();
        if line.is_empty() {
            return None;
        }
        let wanted = self.program.pause.is_some_and(|pause| (pause.at)(&line));
        let stopped =
            (wanted && !self.paused.swap(true, Ordering::AcqRel)).then(|| Stopped::stop(self.group));
        tracing::debug!("{}: {line}", self.program.name);
        (self.program.line)(&line);
        if ["No space left on device", "Errcode: 28", "error 28", "Disk quota exceeded"]
            .iter()
            .any(|text| line.contains(text))
        {
            self.full.store(true, Ordering::Relaxed);
        }
        // A word that a log is searched for: whether this is an error is for us to say.
        let line = line.replace("[ERROR]", "error:");
        let mut last = lock(&self.last);
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(line);
        stopped.flatten()
    }

    /// The error of a program that failed, with its last lines.
    pub(super) fn judge(&self, status: ExitStatus) -> Result<()> {
        if status.success() {
            return Ok(());
        }
        // The rest of what it said is still in the pipe; it is read to its end soon, because the program has ended.
        std::thread::sleep(2 * LOOK_FOR_END);
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "no exit status".to_owned(),
        };
        let last: Vec<String> = lock(&self.last).iter().cloned().collect();
        let text = format!("{} failed ({how}): {}", self.program.name, last.join("; "));
        let kind = if self.full.load(Ordering::Relaxed) { Kind::Space } else { Kind::Server };
        Err(Failure::new(kind, text).into())
    }
}

/// A program's standard output, whose reader looks whether the transfer was cancelled.
pub(super) struct Output<'a> {
    stdout: Option<ChildStdout>,
    /// When its time is over.
    until: Option<Instant>,
    cancel: &'a Cancel,
}

impl<'a> Output<'a> {
    pub(super) fn new(stdout: Option<ChildStdout>, until: Option<Instant>, cancel: &'a Cancel) -> Output<'a> {
        Output { stdout, until, cancel }
    }
}

impl Read for Output<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(stdout) = &mut self.stdout else { return Ok(0) };
        while !is_readable(&*stdout, LOOK_EVERY)? {
            self.cancel.check().map_err(io::Error::other)?;
            if self.until.is_some_and(|until| Instant::now() > until) {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "it says nothing more, and its time is over",
                ));
            }
        }
        stdout.read(buffer)
    }
}

/// Whether a read would return at once, after a wait of less than a second.
fn is_readable(output: &impl AsFd, patience: Duration) -> io::Result<bool> {
    let patience = Timespec { tv_sec: 0, tv_nsec: patience.subsec_nanos().into() };
    match poll(&mut [PollFd::new(output, PollFlags::IN)], Some(&patience)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
