//! The joiner's program and its relay, the process through which IST reaches our provider: starting it, what it answers, and
//! the one order that it gets.
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use formats::Seqno;
use formats::wsrep::state_id::StateId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::certificates::SocketTls;
use crate::cancel::{Cancel, LOOK_EVERY};
use crate::failure::{Failure, Kind};
use crate::job::Job;
use crate::server::companion;
use crate::server::ist_endpoints::{IstEndpoints, ist_endpoints};
use crate::server::options::ServerOptions;
use crate::server::provider_options;

/// The verb under which the process is started; not meant for operators.
pub const VERB: &str = "relay-ist";

/// How long a relay may take to say that it listens.
const LISTENS_WITHIN: Duration = Duration::from_secs(10);

/// Where donors connect for IST on this node, and where its provider listens.
///
/// # Errors
/// Why IST cannot pass through us, in words.
pub fn endpoints(options: &ServerOptions, datadir: &Path) -> Result<IstEndpoints, String> {
    let provider = provider_options::parse(options.server("wsrep-provider-options").unwrap_or_default());
    ist_endpoints(&provider, options.server("wsrep-node-address"), datadir)
}

/// Whether we can read the IST that passes through, so that write-sets can be inserted before it.
///
/// # Errors
/// Why not, in words.
pub fn is_readable(endpoints: &IstEndpoints) -> Result<(), String> {
    let load = |files| SocketTls::load(files).map(drop);
    let loaded = endpoints.certificates.as_ref().map_or(Ok(()), load);
    loaded.map_err(|why| format!("the provider encrypts IST, and {why:#}"))
}

/// What the joiner's program holds of its relay. Dropped without a decision, IST passes as it is.
#[derive(Debug)]
pub struct Relay {
    orders: ChildStdin,
    answers: ChildStdout,
    /// Bytes that arrived and do not end a line yet.
    received: Vec<u8>,
    first: Option<Seqno>,
    /// Why it cannot insert anything, if so.
    unread: Option<String>,
}

impl Relay {
    /// Starts the process, and waits until it listens.
    ///
    /// # Errors
    /// It cannot be started, or does not get the address.
    pub fn start(job: &Job) -> Result<Relay> {
        let mut child = companion::command(job.server, VERB)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the process that passes IST on")?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (orders, answers) = pipes.context("the process that passes IST on has no pipes")?;
        let mut relay = Relay { orders, answers, received: Vec::new(), first: None, unread: None };
        let silent =
            || Failure::new(Kind::Server, "the process that passes IST on does not say that it listens");
        let said = relay.line(LISTENS_WITHIN, &job.cancel)?.ok_or_else(silent)?;
        match said.split_once(' ') {
            Some(("listening", _)) => Ok(relay),
            Some(("unread", why)) => {
                relay.unread = Some(why.to_owned());
                Ok(relay)
            }
            _ => Err(Failure::new(Kind::Server, said).into()),
        }
    }

    /// Why it cannot insert anything into what it passes on; none if it can.
    pub fn passes_unread(&self) -> Option<&str> {
        self.unread.as_deref()
    }

    /// The first seqno that the donor's provider sends by itself, as soon as it has sent it.
    ///
    /// # Errors
    /// Cancelled.
    pub fn first(&mut self, within: Duration, cancel: &Cancel) -> Result<Option<Seqno>> {
        let until = Instant::now() + within;
        while self.first.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            let Some(line) = self.line(left, cancel)? else { break };
            self.first = line.strip_prefix("first ").and_then(|seqno| seqno.parse().ok()).map(Seqno);
        }
        Ok(self.first)
    }

    /// The server starts from `position`: what is in the spool behind it comes first.
    ///
    /// # Errors
    /// The process is gone.
    pub fn splice(mut self, position: StateId) -> Result<()> {
        self.orders
            .write_all(format!("splice {position}\n").as_bytes())
            .context("the process that passes IST on is gone")
    }

    /// The next line of the process; none if it sends none in time, or has closed its end.
    fn line(&mut self, within: Duration, cancel: &Cancel) -> Result<Option<String>> {
        let until = Instant::now() + within;
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line = self.received.drain(..=end).collect::<Vec<_>>();
                return Ok(Some(String::from_utf8_lossy(&line).trim().to_owned()));
            }
            cancel.check()?;
            let left = until.saturating_duration_since(Instant::now()).min(LOOK_EVERY);
            let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) };
            if matches!(poll(&mut [PollFd::new(&self.answers, PollFlags::IN)], Some(&timeout)), Ok(1..)) {
                let mut buffer = [0; 256];
                match self.answers.read(&mut buffer) {
                    Ok(0) => return Ok(None),
                    Ok(n) => self.received.extend_from_slice(buffer.get(..n).unwrap_or_default()),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => {
                        return Err(error).context("cannot read from the process that passes IST on");
                    }
                }
            } else if left.is_zero() {
                return Ok(None);
            }
        }
    }
}
