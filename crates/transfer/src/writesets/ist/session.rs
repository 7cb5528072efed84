//! One connection of a donor's provider through us to our own provider.
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use formats::galera::ist::HEADER_LEN;
use formats::galera::splice::{Splice, Step};
use formats::wsrep::state_id::StateId;
use formats::{Seqno, Uuid};

use super::spool::Reader;
use super::trust;
use crate::cancel::{Cancel, LOOK_EVERY};
use crate::failure::{Failure, Kind};
use crate::threads::{Thread, lock, scoped};

/// How long either side may take for its first words. A stranger that says nothing holds a donor up no longer.
const GREETING_WITHIN: Duration = Duration::from_secs(10);
/// How long our provider may take to say that its state transfer is over. Write-sets that come before are kept for it, so
/// this only decides for how long a killed server's next start can go on with them.
const SETTLED_WITHIN: Duration = Duration::from_secs(1800);
/// Bytes read at once.
const BUFFER: usize = 256 << 10;

/// What the joiner's program has decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing yet.
    Pending,
    /// IST passes as it is.
    Through,
    /// The joiner's server starts from this position: what is missing behind it is in the spool.
    Splice(StateId),
}

/// The verdict, as threads wait for it.
#[derive(Debug)]
pub(super) struct Verdicts {
    verdict: Mutex<Verdict>,
    changed: Condvar,
}

impl Verdicts {
    pub fn new() -> Verdicts {
        Verdicts { verdict: Mutex::new(Verdict::Pending), changed: Condvar::new() }
    }

    pub fn set(&self, verdict: Verdict) {
        *lock(&self.verdict) = verdict;
        self.changed.notify_all();
    }

    /// None while nothing is decided.
    fn wait(&self) -> Option<Verdict> {
        let guard = lock(&self.verdict);
        let waited =
            self.changed.wait_timeout_while(guard, LOOK_EVERY, |verdict| *verdict == Verdict::Pending);
        let verdict = *waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        (verdict != Verdict::Pending).then_some(verdict)
    }
}

/// Our provider, that has greeted nobody in particular yet. It accepts a single connection: a stranger must not cost it.
#[derive(Debug)]
pub(super) struct Greeting {
    provider: TcpStream,
    hello: [u8; HEADER_LEN],
}

impl Greeting {
    /// Connects to our provider and receives its greeting. None when it does not expect IST.
    pub fn of(provider: SocketAddr, cancel: &Cancel) -> Result<Option<Greeting>> {
        let stream = match TcpStream::connect_timeout(&provider, GREETING_WITHIN) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Ok(None),
            connected => {
                connected.with_context(|| format!("cannot connect to our provider at {provider}"))?
            }
        };
        prepare(&stream)?;
        let mut hello = [0; HEADER_LEN];
        let until = Some(Instant::now() + GREETING_WITHIN);
        let mut have = 0;
        while have < HEADER_LEN {
            match read(&stream, &mut hello[have..], until, cancel)? {
                0 => return Ok(None),
                n => have += n,
            }
        }
        Ok(Some(Greeting { provider: stream, hello }))
    }
}

/// What a session needs.
pub(super) struct Session<'a> {
    pub datadir: &'a Path,
    pub verdicts: &'a Verdicts,
    pub cancel: &'a Cancel,
    /// Hears the first seqno that the donor sends by itself.
    pub first: &'a (dyn Fn(Seqno) + Sync),
}

/// How a session went.
#[derive(Debug)]
pub(super) enum Ended {
    /// Whoever connected is no donor's provider; ours still waits for one.
    Stranger(Greeting, String),
    /// The connection is over. With what was inserted: history, first and last.
    Over(Option<(Uuid, Seqno, Seqno)>),
}

impl Session<'_> {
    /// Passes on everything between the two until one of them ends. `passing` is called once the donor has proved to be one.
    pub fn run(&self, greeting: Greeting, donor: &TcpStream, passing: impl FnOnce()) -> Result<Ended> {
        prepare(donor)?;
        let mut splice = Splice::new();
        let mut held = Vec::new();
        if let Err(why) = self.greet(&greeting, donor, &mut splice, &mut held) {
            return Ok(Ended::Stranger(greeting, format!("{why:#}")));
        }
        passing();
        let provider = greeting.provider;
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (from, to) = (&provider, donor);
            let answers = scoped(scope, Thread::RelayAnswers, || {
                let passed = pass(from, to, self.cancel);
                over.store(true, Ordering::Release);
                // Whoever waits for the donor's next words need wait no more.
                let _ = to.shutdown(Shutdown::Both);
                passed.map_err(Into::into)
            });
            let outcome = self.splice(&provider, donor, &mut splice, held, &over);
            let _ = provider.shutdown(Shutdown::Write);
            // An end in order: the provider has read everything and closes.
            if outcome.is_err() {
                let _ = provider.shutdown(Shutdown::Both);
            }
            let _ = answers.join();
            outcome.map(Ended::Over)
        })
    }

    /// Passes the greeting on, and waits for a first answer that a donor's provider gives.
    fn greet(
        &self,
        greeting: &Greeting,
        donor: &TcpStream,
        splice: &mut Splice,
        held: &mut Vec<u8>,
    ) -> Result<()> {
        write(donor, &greeting.hello, self.cancel)?;
        let until = Some(Instant::now() + GREETING_WITHIN);
        while let Step::Read = splice.next(held)? {
            let mut buffer = [0; HEADER_LEN];
            match read(donor, &mut buffer[held.len()..], until, self.cancel)? {
                0 => anyhow::bail!("it closed the connection"),
                n => held.extend_from_slice(&buffer[held.len()..held.len() + n]),
            }
        }
        write(&greeting.provider, held, self.cancel)?;
        held.clear();
        Ok(())
    }

    fn splice(
        &self,
        provider: &TcpStream,
        donor: &TcpStream,
        splice: &mut Splice,
        mut held: Vec<u8>,
        over: &AtomicBool,
    ) -> Result<Option<(Uuid, Seqno, Seqno)>> {
        let mut inserted = None;
        let mut history = Uuid::NIL;
        loop {
            match splice.next(&held)? {
                Step::Read => {
                    let mut buffer = vec![0; BUFFER];
                    match read(donor, &mut buffer, None, self.cancel)? {
                        0 => return Ok(None),
                        n => held.extend_from_slice(buffer.get(..n).unwrap_or_default()),
                    }
                }
                Step::Pass(n) => {
                    write(provider, held.get(..n).unwrap_or_default(), self.cancel)?;
                    held.drain(..n);
                }
                Step::Hold(first) => {
                    (self.first)(first);
                    match self.verdict(over)? {
                        Some(Verdict::Splice(position)) => {
                            history = position.uuid;
                            // The note stays for the next start when our provider has gone.
                            if !self.settled(over)? {
                                return Ok(None);
                            }
                            if !splice.insert_from(position.seqno) {
                                tracing::info!(
                                    "IST begins at {first}: nothing is inserted behind {position}"
                                );
                            }
                        }
                        Some(_) => splice.insert_nothing(),
                        None => return Ok(None),
                    }
                    trust::remove_note(self.datadir)?;
                }
                Step::Insert(from, to) => {
                    self.insert(provider, splice, history, from, to)?;
                    tracing::info!(
                        "deep IST: inserted the write-sets {from} to {to} before the donor's own IST"
                    );
                    inserted = Some((history, from, to));
                }
                Step::Through => break,
            }
        }
        write(provider, &held, self.cancel)?;
        pass(donor, provider, self.cancel)?;
        Ok(inserted)
    }

    /// None when our provider has gone meanwhile.
    fn verdict(&self, over: &AtomicBool) -> Result<Option<Verdict>> {
        loop {
            self.cancel.check()?;
            match self.verdicts.wait() {
                Some(verdict) => return Ok(Some(verdict)),
                None if over.load(Ordering::Acquire) => return Ok(None),
                None => {}
            }
        }
    }

    /// The provider has zeros in its state file while a state transfer runs. If the server is killed before it is over,
    /// the note beside the data must still be there.
    /// False when our provider has gone meanwhile.
    fn settled(&self, over: &AtomicBool) -> Result<bool> {
        let until = Instant::now() + SETTLED_WITHIN;
        while Instant::now() < until {
            if over.load(Ordering::Acquire) {
                return Ok(false);
            }
            if trust::provider_says(self.datadir).is_some_and(|said| said.uuid != Uuid::NIL) {
                return Ok(true);
            }
            self.cancel.sleep(Duration::from_millis(20))?;
        }
        Ok(true)
    }

    fn insert(
        &self,
        provider: &TcpStream,
        splice: &mut Splice,
        history: Uuid,
        from: Seqno,
        to: Seqno,
    ) -> Result<()> {
        let mut spool = Reader::open(self.datadir, history)?;
        let mut out = Vec::with_capacity(BUFFER);
        let mut next = from;
        while next <= to {
            let missing = || Failure::new(Kind::Disk, format!("write-set {next} is not in the spool"));
            let message = spool.read_next()?.ok_or_else(missing)?;
            // The server has committed those before.
            if message.seqno < next {
                continue;
            }
            out.extend_from_slice(&splice.inserted(&message)?);
            out.extend_from_slice(spool.payload());
            next = Seqno(next.0.saturating_add(1));
            if out.len() >= BUFFER || next > to {
                write(provider, &out, self.cancel)?;
                out.clear();
            }
        }
        Ok(())
    }
}

/// Reads and writes look around several times a second.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LOOK_EVERY))?;
    stream.set_write_timeout(Some(LOOK_EVERY))?;
    rustix::net::sockopt::set_socket_keepalive(stream, true).map_err(Into::into)
}

fn waits(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

fn ended(cancel: &Cancel) -> io::Result<()> {
    cancel.check().map_err(io::Error::other)
}

fn read(
    mut from: &TcpStream,
    buffer: &mut [u8],
    until: Option<Instant>,
    cancel: &Cancel,
) -> io::Result<usize> {
    loop {
        ended(cancel)?;
        match from.read(buffer) {
            Err(error) if waits(&error) => {
                if until.is_some_and(|until| Instant::now() >= until) {
                    return Err(io::Error::new(ErrorKind::TimedOut, "nothing came in time"));
                }
            }
            read => return read,
        }
    }
}

fn write(mut to: &TcpStream, bytes: &[u8], cancel: &Cancel) -> io::Result<()> {
    let mut left = bytes;
    while !left.is_empty() {
        ended(cancel)?;
        match to.write(left) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => left = left.get(n..).unwrap_or_default(),
            Err(error) if waits(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Passes on everything until the end of it.
fn pass(from: &TcpStream, to: &TcpStream, cancel: &Cancel) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match read(from, &mut buffer, None, cancel)? {
            0 => return Ok(()),
            n => write(to, buffer.get(..n).unwrap_or_default(), cancel)?,
        }
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
