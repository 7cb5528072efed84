//! One connection of a donor's provider through us to our own provider.
//!
//! One thread passes on both directions: until its IST is over a provider answers some fifty bytes, which fit into the buffers
//! of any socket.
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use formats::galera::ist::HEADER_LEN;
use formats::galera::splice::{Splice, Step};
use formats::wsrep::state_id::StateId;
use formats::{Seqno, Uuid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use super::certificates::SocketTls;
use super::spool::Reader;
use super::trust;
use crate::cancel::{Cancel, LOOK_EVERY};
use crate::failure::{Failure, Kind};
use crate::peer::end::End;
use crate::threads::lock;

/// How long our provider may take for its first words.
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

/// Connects to our provider; `None` when it does not expect IST.
pub(super) fn connect(provider: SocketAddr, tls: Option<&SocketTls>, cancel: &Cancel) -> Result<Option<End>> {
    let at = || format!("cannot connect to this node's provider at {provider}");
    let socket = match std::net::TcpStream::connect_timeout(&provider, GREETING_WITHIN) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
        connected => Arc::new(connected.with_context(at)?),
    };
    Ok(Some(match tls {
        None => End::plain(socket, cancel)?,
        Some(tls) => {
            let name = ServerName::from(provider.ip());
            let session = ClientConnection::new(tls.client.clone(), name)?;
            End::tls(socket, session, GREETING_WITHIN, cancel).with_context(at)?
        }
    }))
}

/// Our provider, that has greeted nobody in particular yet. It accepts a single connection: a stranger must not cost it.
#[derive(Debug)]
pub(super) struct Greeting {
    provider: End,
    /// Its first message.
    pub hello: [u8; HEADER_LEN],
}

impl Greeting {
    /// Connects to our provider and receives its greeting. None when it does not expect IST.
    pub fn of(provider: SocketAddr, tls: Option<&SocketTls>, cancel: &Cancel) -> Result<Option<Greeting>> {
        let Some(mut end) = connect(provider, tls, cancel)? else { return Ok(None) };
        let mut hello = [0; HEADER_LEN];
        let until = Instant::now() + GREETING_WITHIN;
        let mut have = 0;
        while have < HEADER_LEN {
            match end.read_until(hello.get_mut(have..).unwrap_or_default(), until)? {
                0 => return Ok(None),
                n => have += n,
            }
        }
        Ok(Some(Greeting { provider: end, hello }))
    }

    /// Whether our provider has closed the connection: it expects no IST any more, or another one.
    pub fn is_stale(&mut self) -> bool {
        !matches!(self.provider.try_read(&mut [0]), Ok(None))
    }
}

/// A peer that has answered the greeting as a provider does.
#[derive(Debug)]
pub(super) struct Donor {
    end: End,
    splice: Splice,
    answer: Vec<u8>,
}

impl Donor {
    /// Passes the greeting on to a connection, and waits for the answer that a provider gives.
    ///
    /// # Errors
    /// It does not give it in time.
    pub fn greeted(mut end: End, hello: &[u8; HEADER_LEN], within: Duration) -> Result<Donor> {
        let (mut splice, mut answer) = (Splice::new(), Vec::new());
        end.write(hello)?;
        let until = Instant::now() + within;
        while let Step::Read = splice.next(&answer)? {
            let mut buffer = [0; HEADER_LEN];
            let room = buffer.get_mut(answer.len()..).unwrap_or_default();
            match end.read_until(room, until)? {
                0 => anyhow::bail!("it closed the connection"),
                n => answer.extend_from_slice(room.get(..n).unwrap_or_default()),
            }
        }
        Ok(Donor { end, splice, answer })
    }
}

/// What was inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inserted {
    pub history: Uuid,
    pub from: Seqno,
    pub to: Seqno,
    /// Bytes of these write-sets.
    pub bytes: u64,
    /// When our provider began to take them.
    pub since: Instant,
}

/// Both ends of a session.
pub(super) struct Session<'a> {
    pub datadir: &'a Path,
    pub verdicts: &'a Verdicts,
    pub cancel: &'a Cancel,
    /// Called with the first seqno that the donor sends by itself.
    pub first: &'a (dyn Fn(Seqno) + Sync),
}

impl Session<'_> {
    /// Passes on everything between the two until one of them ends.
    pub fn run(&self, greeting: Greeting, donor: Donor) -> Result<Option<Inserted>> {
        let Donor { end, mut splice, answer } = donor;
        let mut ends = Ends { provider: greeting.provider, donor: end, cancel: self.cancel };
        let outcome = ends.provider.write(&answer).map_err(Into::into).and_then(|()| {
            let inserted = self.splice(&mut ends, &mut splice)?;
            ends.pass()?;
            Ok(inserted)
        });
        ends.provider.close();
        ends.donor.close();
        outcome
    }

    /// Up to the point from which everything passes as it is.
    fn splice(&self, ends: &mut Ends<'_>, splice: &mut Splice) -> Result<Option<Inserted>> {
        let (mut held, mut buffer) = (Vec::new(), vec![0; BUFFER]);
        let mut inserted = None;
        let mut history = Uuid::NIL;
        loop {
            match splice.next(&held)? {
                Step::Read => match ends.read_donor(&mut buffer)? {
                    0 => return Ok(None),
                    n => held.extend_from_slice(buffer.get(..n).unwrap_or_default()),
                },
                Step::Pass(n) => {
                    ends.provider.write(held.get(..n).unwrap_or_default())?;
                    held.drain(..n);
                }
                Step::Hold(first) => {
                    (self.first)(first);
                    match self.verdict(ends)? {
                        Some(Verdict::Splice(position)) => {
                            history = position.uuid;
                            // The note stays for the next start when our provider has gone.
                            if !self.settled(ends)? {
                                return Ok(None);
                            }
                            if !splice.insert_from(position.seqno) {
                                tracing::info!(
                                    "the donor's IST begins at {first}: no write-sets need to be inserted after {position}"
                                );
                            }
                        }
                        // The joiner's program has ended without an order. If its transfer failed, the server ends without
                        // any write-set, and the next start needs the note.
                        Some(_) if trust::is_noted(self.datadir) && !self.settled(ends)? => return Ok(None),
                        Some(_) => splice.insert_nothing(),
                        None => return Ok(None),
                    }
                    trust::remove_note(self.datadir)?;
                }
                Step::Insert(from, to) => {
                    let since = Instant::now();
                    let bytes = self.insert(&mut ends.provider, splice, history, from, to)?;
                    tracing::info!(
                        "deep IST: inserted the write-sets {from} to {to} before the donor's own IST"
                    );
                    inserted = Some(Inserted { history, from, to, bytes, since });
                }
                Step::Through => {
                    ends.provider.write(&held)?;
                    return Ok(inserted);
                }
            }
        }
    }

    /// None when our provider has gone meanwhile.
    fn verdict(&self, ends: &mut Ends<'_>) -> Result<Option<Verdict>> {
        loop {
            self.cancel.check()?;
            match self.verdicts.wait() {
                Some(verdict) => return Ok(Some(verdict)),
                None if ends.provider_has_gone()? => return Ok(None),
                None => {}
            }
        }
    }

    /// The provider has zeros in its state file while a state transfer runs. If the server is killed before it is over,
    /// the note beside the data must still be there.
    /// False when our provider has gone meanwhile.
    fn settled(&self, ends: &mut Ends<'_>) -> Result<bool> {
        let until = Instant::now() + SETTLED_WITHIN;
        while Instant::now() < until {
            if ends.provider_has_gone()? {
                return Ok(false);
            }
            if trust::provider_says(self.datadir).is_some_and(|said| said.uuid != Uuid::NIL) {
                return Ok(true);
            }
            self.cancel.sleep(Duration::from_millis(20))?;
        }
        Ok(true)
    }

    /// Answers their bytes.
    fn insert(
        &self,
        provider: &mut End,
        splice: &mut Splice,
        history: Uuid,
        from: Seqno,
        to: Seqno,
    ) -> Result<u64> {
        let mut spool = Reader::open(self.datadir, history)?;
        let mut out = Vec::with_capacity(BUFFER);
        let (mut next, mut bytes) = (from, 0);
        while next <= to {
            let missing = || Failure::new(Kind::Disk, format!("write-set {next} is not in the spool"));
            let message = spool.read_next()?.ok_or_else(missing)?;
            // The server has committed those before.
            if message.seqno < next {
                continue;
            }
            out.extend_from_slice(&splice.inserted(&message)?);
            out.extend_from_slice(spool.payload());
            bytes += spool.payload().len() as u64;
            next = Seqno(next.0.saturating_add(1));
            if out.len() >= BUFFER || next > to {
                provider.write(&out)?;
                out.clear();
            }
        }
        Ok(bytes)
    }
}

/// Two connections, and what passes between them.
pub(super) struct Ends<'a> {
    pub provider: End,
    pub donor: End,
    pub cancel: &'a Cancel,
}

impl Ends<'_> {
    /// Passes on what our provider has answered. Whether it has closed.
    fn provider_has_gone(&mut self) -> Result<bool> {
        let mut answer = [0; 4096];
        loop {
            match self.provider.try_read(&mut answer) {
                Ok(None) => return Ok(false),
                Ok(Some(0)) => return Ok(true),
                Ok(Some(n)) => self.donor.write(answer.get(..n).unwrap_or_default())?,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for bytes of the donor's; 0 when one of the two has closed.
    fn read_donor(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            self.cancel.check()?;
            if self.provider_has_gone()? {
                return Ok(0);
            }
            if let Some(n) = self.donor.try_read(buffer)? {
                return Ok(n);
            }
            let wait = |end| PollFd::new(end, PollFlags::IN);
            let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(LOOK_EVERY.subsec_nanos()) };
            let _ = poll(&mut [wait(self.donor.socket()), wait(self.provider.socket())], Some(&timeout));
        }
    }

    /// Passes on everything, and waits until our provider has read it and closes.
    pub fn pass(&mut self) -> Result<()> {
        let mut buffer = vec![0; BUFFER];
        loop {
            match self.read_donor(&mut buffer)? {
                0 => break,
                n => self.provider.write(buffer.get(..n).unwrap_or_default())?,
            }
        }
        self.provider.close_writing();
        while !self.provider_has_gone()? {
            self.cancel.check()?;
            let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(LOOK_EVERY.subsec_nanos()) };
            let _ = poll(&mut [PollFd::new(self.provider.socket(), PollFlags::IN)], Some(&timeout));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
pub(super) mod tests;
