//! The process through which IST reaches our provider: it listens where donors connect, and puts write-sets from the spool in
//! front of what a donor's provider sends.
//!
//! It is a process of its own because IST runs after the joiner's program has ended, and because a running server that was
//! cut off takes IST without any program of ours: this one lives as long as its server. Its orders come on its standard
//! input; the end of that means that nothing is to be inserted.
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use formats::Seqno;
use formats::wsrep::credentials::Account;
use formats::wsrep::invocation::SstArgs;
use formats::wsrep::state_id::StateId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::session::{Ended, Greeting, Session, Verdict, Verdicts};
use super::spool;
use crate::cancel::{Cancel, LOOK_EVERY};
use crate::cleanup::own_program;
use crate::failure::{Failure, Kind};
use crate::job::{self, Job};
use crate::server::log;
use crate::server::options::ServerOptions;
use crate::server::parent::{self, ServerProcess};
use crate::server::provider_options::{self, IstDoor, ist_door};
use crate::server::{credentials, synced};
use crate::threads::{self, Thread, lock, scoped};

/// The verb under which the process is started; not meant for operators.
pub const VERB: &str = "relay-ist";

/// How long the relay of an earlier life of the server may still have the port.
const PORT_WITHIN: Duration = Duration::from_secs(5);
/// How long a relay may take to say that it listens.
const LISTENS_WITHIN: Duration = Duration::from_secs(10);

/// Where IST comes in on this node, or why it cannot pass through us.
///
/// # Errors
/// In words, why not.
pub fn door(options: &ServerOptions) -> Result<IstDoor, String> {
    let provider = provider_options::parse(options.server("wsrep-provider-options").unwrap_or_default());
    ist_door(&provider, options.server("wsrep-node-address"))
}

/// What the joiner's program holds of its relay. Dropped without a decision, IST passes as it is.
#[derive(Debug)]
pub struct Relay {
    orders: ChildStdin,
    answers: ChildStdout,
    heard: Vec<u8>,
    first: Option<Seqno>,
}

impl Relay {
    /// Starts the process, and waits until it listens.
    ///
    /// # Errors
    /// It cannot be started, or does not get the address.
    pub fn start(job: &Job) -> Result<Relay> {
        let program = own_program(std::env::current_exe().context("cannot find our own program")?);
        let server = job.server.context("our server's process is not known")?;
        let mut child = Command::new(program)
            .arg0("rejoin")
            .arg(VERB)
            .arg(server.pid.to_string())
            .args(std::env::args_os().skip(1))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the process that passes IST on")?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (orders, answers) = pipes.context("the process that passes IST on has no pipes")?;
        let mut relay = Relay { orders, answers, heard: Vec::new(), first: None };
        let silent =
            || Failure::new(Kind::Server, "the process that passes IST on does not say that it listens");
        let said = relay.line(LISTENS_WITHIN, &job.cancel)?.ok_or_else(silent)?;
        match said.split_once(' ') {
            Some(("listening", _)) => Ok(relay),
            _ => Err(Failure::new(Kind::Server, said).into()),
        }
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

    /// None when there is none in time, or no more.
    fn line(&mut self, within: Duration, cancel: &Cancel) -> Result<Option<String>> {
        let until = Instant::now() + within;
        loop {
            if let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
                let line = self.heard.drain(..=end).collect::<Vec<_>>();
                return Ok(Some(String::from_utf8_lossy(&line).trim().to_owned()));
            }
            cancel.check()?;
            let left = until.saturating_duration_since(Instant::now()).min(LOOK_EVERY);
            let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) };
            if matches!(poll(&mut [PollFd::new(&self.answers, PollFlags::IN)], Some(&timeout)), Ok(1..)) {
                let mut buffer = [0; 256];
                match self.answers.read(&mut buffer) {
                    Ok(0) => return Ok(None),
                    Ok(n) => self.heard.extend_from_slice(buffer.get(..n).unwrap_or_default()),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error).context("cannot hear the process that passes IST on"),
                }
            } else if left.is_zero() {
                return Ok(None);
            }
        }
    }
}

/// The process itself: `words` are the server's process id and the arguments the server had given the joiner.
///
/// # Errors
/// It cannot listen, or its server has ended.
pub fn run(words: &[String]) -> Result<()> {
    let _ = rustix::process::setsid();
    log::begin_without_file();
    let (pid, words) = words.split_first().context("the server's process id is missing")?;
    let server = ServerProcess { pid: pid.parse().context("the server's process id is no number")? };
    let args = SstArgs::parse(words);
    let options = ServerOptions::load(&args)?;
    let door = door(&options).map_err(|why| Failure::new(Kind::Configuration, why))?;
    let cancel = Cancel::new();
    let datadir = job::datadir_of(&args)?;
    parent::watch(Some(server), None, cancel.clone(), || {})?;
    let listeners = match listen(&door, &cancel) {
        Ok(listeners) => listeners,
        Err(error) => {
            say(&format!("{error:#}"));
            return Ok(());
        }
    };
    say(&format!("listening {}:{}", door.advertised.0, door.advertised.1));
    let socket = synced::socket_path(options.server("socket"), &datadir);
    let account = credentials::collect(&args, &options, false).local;
    let verdicts = std::sync::Arc::new(Verdicts::new());
    let orders = std::sync::Arc::clone(&verdicts);
    threads::spawn(Thread::RelayOrders, move || orders.set(order()))?;
    let provider = door.provider;
    let passage = Passage { datadir, socket, account, provider, verdicts: &verdicts, cancel: &cancel };
    match passage.serve(&listeners) {
        // Our server's end is ours.
        Err(_) if cancel.is_ended_now() => Ok(()),
        served => served,
    }
}

/// To the joiner's program, which may have ended.
fn say(line: &str) {
    let mut out = std::io::stdout();
    let _ = out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush());
}

/// Waits for the joiner's program to decide, or to end.
fn order() -> Verdict {
    let mut line = String::new();
    let _ = BufReader::new(std::io::stdin().lock()).read_line(&mut line);
    let position = line.strip_prefix("splice ").and_then(|text| text.trim().parse().ok());
    position.map_or(Verdict::Through, Verdict::Splice)
}

/// On every address that the name means.
fn listen(door: &IstDoor, cancel: &Cancel) -> Result<Vec<TcpListener>> {
    let (host, port) = &door.advertised;
    let addresses: Vec<SocketAddr> = (host.as_str(), *port)
        .to_socket_addrs()
        .with_context(|| format!("ist.recv_addr={host} does not resolve"))?
        .filter(|address| *address != door.provider)
        .collect();
    let until = Instant::now() + PORT_WITHIN;
    loop {
        let mut failed = None;
        let bind = |address: &SocketAddr| TcpListener::bind(address).map_err(|error| (*address, error));
        let mut listeners = Vec::new();
        for bound in addresses.iter().map(bind) {
            match bound {
                Ok(listener) => {
                    listener.set_nonblocking(true)?;
                    listeners.push(listener);
                }
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some((_, error)) if error.kind() == ErrorKind::AddrInUse && Instant::now() < until => {
                drop(listeners);
                cancel.sleep(Duration::from_millis(50))?;
            }
            Some((address, error)) if listeners.is_empty() => {
                return Err(error).with_context(|| format!("cannot listen at {address} (ist.recv_addr)"));
            }
            _ => return Ok(listeners),
        }
    }
}

/// Nobody is connected; somebody is, and may be a stranger; a donor is.
const IDLE: u8 = 0;
const GREETING: u8 = 1;
const PASSING: u8 = 2;

struct Passage<'a> {
    datadir: PathBuf,
    socket: PathBuf,
    account: Option<Account>,
    provider: SocketAddr,
    verdicts: &'a Verdicts,
    cancel: &'a Cancel,
}

impl Passage<'_> {
    /// One connection at a time, until our server ends.
    fn serve(&self, listeners: &[TcpListener]) -> Result<()> {
        let phase = AtomicU8::new(IDLE);
        let waiting: Mutex<Option<Greeting>> = Mutex::new(None);
        std::thread::scope(|scope| {
            loop {
                self.cancel.check()?;
                if phase.load(Ordering::Acquire) == GREETING {
                    self.cancel.sleep(Duration::from_millis(10))?;
                    continue;
                }
                let Some((stream, from)) = accept(listeners)? else { continue };
                // A provider that wakes its own listener, which is closed already: it needs no answer.
                if phase.load(Ordering::Acquire) == PASSING {
                    continue;
                }
                phase.store(GREETING, Ordering::Release);
                let (phase, waiting) = (&phase, &waiting);
                scoped(scope, Thread::RelaySession, move || {
                    let passed =
                        self.pass(&stream, from, waiting, || phase.store(PASSING, Ordering::Release));
                    phase.store(IDLE, Ordering::Release);
                    match passed {
                        Ok(Some(history)) => self.remove_spool_when_synced(history),
                        Ok(None) => {}
                        Err(error) => tracing::warn!("IST from {from} ended: {error:#}"),
                    }
                    Ok(())
                });
            }
        })
    }

    /// One connection. Answers the history of the spool when all of it went to the server.
    fn pass(
        &self,
        stream: &std::net::TcpStream,
        from: SocketAddr,
        waiting: &Mutex<Option<Greeting>>,
        passing: impl FnOnce(),
    ) -> Result<Option<formats::Uuid>> {
        let kept = lock(waiting).take();
        let greeting = match kept {
            Some(kept) => Some(kept),
            None => Greeting::of(self.provider, self.cancel)?,
        };
        let Some(greeting) = greeting else {
            tracing::debug!("{from} connected, but no IST is expected");
            return Ok(None);
        };
        let first = |seqno: Seqno| say(&format!("first {seqno}"));
        let session =
            Session { datadir: &self.datadir, verdicts: self.verdicts, cancel: self.cancel, first: &first };
        let ended = session.run(greeting, stream, passing);
        match ended? {
            Ended::Stranger(greeting, why) => {
                tracing::warn!("{from} connected where IST is expected and is no donor: {why}");
                *lock(waiting) = Some(greeting);
                Ok(None)
            }
            Ended::Over(inserted) => {
                // What follows in this server's life is its own business.
                self.verdicts.set(Verdict::Through);
                Ok(inserted.map(|(history, _, _)| history))
            }
        }
    }

    /// Until then a crash may need them again.
    fn remove_spool_when_synced(&self, history: formats::Uuid) {
        if synced::wait_until_synced(&self.socket, self.account.as_ref(), self.cancel).is_ok() {
            let removed = crate::disk::durable::remove_if_there(&spool::path(&self.datadir, history));
            if let Err(error) = removed {
                tracing::warn!("the write-sets of the deep IST could not be removed: {error:#}");
            }
        }
    }
}

/// Waits a moment for a connection.
fn accept(listeners: &[TcpListener]) -> Result<Option<(std::net::TcpStream, SocketAddr)>> {
    let mut fds: Vec<PollFd<'_>> = listeners.iter().map(|l| PollFd::new(l, PollFlags::IN)).collect();
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(LOOK_EVERY.subsec_nanos()) };
    if !matches!(poll(&mut fds, Some(&timeout)), Ok(1..)) {
        return Ok(None);
    }
    for listener in listeners {
        match listener.accept() {
            Ok((stream, from)) => {
                stream.set_nonblocking(false)?;
                return Ok(Some((stream, from)));
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => {}
            // Too many descriptors, say: not for ever.
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                std::thread::sleep(LOOK_EVERY);
            }
        }
    }
    Ok(None)
}
