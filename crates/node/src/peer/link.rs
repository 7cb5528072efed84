//! One authenticated connection: messages in, messages out.
//!
//! `Ping` and `Note` never reach the caller, and `Abort` reaches it as the failure of whatever it was doing.
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use protocol::chunk::Chunk;
use protocol::codec::{self, PREFIX_BYTES};
use protocol::hello::cut;
use protocol::limits::TEXT_BYTES_MAX;
use protocol::message::Message;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::Side;
use super::traffic::Traffic;
use super::wire::{Patience, Wire, WireError};
use crate::cancel::LOOK_EVERY;
use crate::failure::{Failure, Kind};
use crate::server::progress::Progress;
use crate::words::printable;

/// How often a busy side tells the other that it lives.
pub const PING_EVERY: Duration = Duration::from_secs(2);
/// How long giving up may take.
const ABORT_WITHIN: Duration = Duration::from_millis(500);
/// How long a goodbye waits for the peer's.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// Gathered messages that are sent when they are so many bytes: TLS adds a hundredth to them then.
const GATHER_BYTES: usize = 2 << 10;

/// One authenticated connection of a transfer.
pub struct Link {
    wire: Wire,
    side: Side,
    peer: String,
    stall: Duration,
    /// Prefix and header of the frame that is arriving, as far as they are here.
    head: Vec<u8>,
    /// Bytes of `head` that are filled.
    have: usize,
    /// A message that came while we only looked for aborts; its payload is still on the wire.
    pending: Option<(Message, usize)>,
    /// What is encoded and not sent.
    out: Vec<u8>,
    /// A frame went out in part: nothing can follow it.
    torn: bool,
    /// An `Abort` came.
    gave_up: bool,
    looked: Instant,
    /// Bytes that had come when something last came, and when that was.
    heard: (u64, Instant),
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Link {
    /// Takes over a connection whose ends have proved themselves. `at` is the peer's `HOST:PORT`.
    pub(super) fn new(wire: Wire, side: Side, at: &str, stall: Duration) -> Link {
        Link {
            wire,
            side,
            peer: format!("the {} at {at}", side.other().name()),
            stall,
            head: Vec::new(),
            have: 0,
            pending: None,
            out: Vec::new(),
            torn: false,
            gave_up: false,
            looked: Instant::now(),
            heard: (0, Instant::now()),
        }
    }

    /// The peer in words: "the donor at 10.0.0.1:53124".
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// The counters of this connection, readable from any thread.
    pub fn traffic(&self) -> Arc<Traffic> {
        self.wire.traffic().clone()
    }

    /// Has this connection's bytes counted among those of a transfer.
    pub fn count_in(&self, progress: &Progress) {
        let traffic = self.traffic();
        progress.count(move || traffic.total());
    }

    /// Sets how long the peer may be silent while we wait for it, or take nothing while we send.
    pub fn set_stall(&mut self, stall: Duration) {
        self.stall = stall;
    }

    /// Sends a message.
    pub fn send(&mut self, message: &Message) -> Result<()> {
        self.send_frame(message, &[])
    }

    /// Sends a range of a file: a payload from where it is, a small one with what was gathered.
    pub fn send_chunk(&mut self, chunk: &Chunk, payload: &[u8]) -> Result<()> {
        let message = Message::Chunk(chunk.clone());
        if payload.len() >= GATHER_BYTES {
            return self.send_frame(&message, payload);
        }
        self.encode(&message, payload.len())?;
        self.out.extend_from_slice(payload);
        self.flush_enough()
    }

    /// Sends a line for the other host's log.
    pub fn note(&mut self, text: &str) -> Result<()> {
        self.send(&Message::Note { text: cut(text, TEXT_BYTES_MAX).to_owned() })
    }

    /// Tells the peer that we are alive and busy.
    pub fn ping(&mut self, doing: &str) -> Result<()> {
        self.send(&Message::Ping { doing: cut(doing, TEXT_BYTES_MAX).to_owned() })
    }

    /// Waits for a message that has no payload, and meanwhile tells the peer that we live: a peer that is busy for long
    /// notices by our silence that we are gone.
    pub fn recv(&mut self) -> Result<Message> {
        let mut pinged = Instant::now();
        self.heard.1 = pinged;
        while self.pending.is_none() {
            self.attend("waiting", &mut pinged, None)?;
        }
        match self.take()? {
            (message, 0) => Ok(message),
            (message, _) => {
                Err(self
                    .broke(&format!("sent {} with a payload, which does not belong here", message.name())))
            }
        }
    }

    /// Waits for a message; its payload replaces what is in `payload`, which never grows beyond the limit of the
    /// protocol. A message without payload leaves it empty.
    pub fn recv_with_payload(&mut self, payload: &mut Vec<u8>) -> Result<Message> {
        let (message, len) = self.take()?;
        // Only what the buffer lacks is zeroed: chunks mostly have the same length.
        payload.truncate(len);
        payload.reserve_exact(len - payload.len());
        payload.resize(len, 0);
        self.wire.read_exact(payload, Patience::Stall(self.stall)).map_err(|e| self.failure(e))?;
        Ok(message)
    }

    /// Does a long work, and meanwhile tells the peer every [`PING_EVERY`] that we live and notices when the peer
    /// gives up or is gone: then the transfer is cancelled, so that the work ends early if it looks at the cancel.
    pub fn keep_alive_while<T: Send>(
        &mut self,
        doing: &str,
        work: impl FnOnce() -> Result<T> + Send,
    ) -> Result<T> {
        let done = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|e| Failure::new(Kind::Server, format!("cannot make an event descriptor: {e}")))?;
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let _rings = RingsOnDrop(&done);
                work()
            });
            let mut pinged = Instant::now();
            self.heard.1 = pinged;
            let lost = loop {
                match self.attend(doing, &mut pinged, Some(&done)) {
                    Ok(true) => break None,
                    Ok(false) => {}
                    Err(e) => break Some(e),
                }
            };
            if let (Some(failure), Some(cancel)) = (&lost, self.wire.cancel()) {
                cancel.cancel(crate::failure::kind_of(failure), format!("{failure:#}"));
            }
            let result = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            match lost {
                Some(failure) => Err(failure),
                None => result,
            }
        })
    }

    /// One round of waiting: until the work is done (true), the peer says something, a ping is due or it is time to look
    /// around. Fails when nothing came for the stall timeout: the peer waits, busy or not, and tells so with pings.
    fn attend(&mut self, doing: &str, pinged: &mut Instant, done: Option<&OwnedFd>) -> Result<bool> {
        self.wire.look().map_err(|e| self.failure(e))?;
        if pinged.elapsed() >= PING_EVERY {
            self.ping(doing)?;
            *pinged = Instant::now();
        }
        let mut fds: Vec<PollFd<'_>> =
            done.map(|done| PollFd::new(done, PollFlags::IN)).into_iter().collect();
        if self.pending.is_none() {
            self.pending = self.next(None)?;
        }
        self.listen_for_silence()?;
        if done.is_none() && self.pending.is_some() {
            return Ok(false);
        }
        // A message that waits for the caller would make the socket readable all the time.
        if self.pending.is_none() {
            fds.push(PollFd::new(self.wire.socket(), PollFlags::IN));
        }
        let timeout = PING_EVERY.saturating_sub(pinged.elapsed()).clamp(Duration::from_millis(1), LOOK_EVERY);
        let timeout = rustix::event::Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) => Ok(done.is_some() && fds.first().is_some_and(|done| !done.revents().is_empty())),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(e) => Err(Failure::new(Kind::Server, format!("cannot wait for {}: {e}", self.peer)).into()),
        }
    }

    /// Fails when nothing came from the peer for the stall timeout.
    fn listen_for_silence(&mut self) -> Result<()> {
        let received = self.wire.traffic().received();
        if received != self.heard.0 || self.pending.is_some() {
            self.heard = (received, Instant::now());
        }
        match self.heard.1.elapsed() >= self.stall {
            true => Err(self.failure(WireError::Silent(self.stall))),
            false => Ok(()),
        }
    }

    /// Tells the peer that we give up and why, within half a second or not at all. Has no error of its own: the
    /// caller's is the one that counts. Nothing can be sent afterwards.
    pub fn abort(&mut self, reason: &str) {
        let until = Instant::now() + ABORT_WITHIN;
        self.wire.stop_looking();
        self.out.clear();
        let message = Message::Abort { reason: cut(reason, TEXT_BYTES_MAX).to_owned() };
        // Behind half a frame the peer would take the message for a part of it; the closed connection must do.
        if !self.torn && codec::encode(&message, 0, &mut self.out).is_ok() {
            self.torn = true;
            let patience = Patience::Until(until);
            let _ = self.wire.write_all(&self.out, patience).and_then(|()| self.wire.flush(patience));
        }
        self.wire.part(until);
    }

    /// Ends a connection on which everything was said, so that the last message arrives: waits up to two seconds for
    /// the peer to close too, instead of leaving unread input behind, on which the kernel would reset the connection.
    pub fn close(mut self) {
        self.wire.part(Instant::now() + CLOSE_WITHIN);
    }

    /// Sends a message with those that follow it, when they are many enough or at the next [`Link::flush`] or other message:
    /// small ones cost less together.
    pub fn gather(&mut self, message: &Message) -> Result<()> {
        self.encode(message, 0)?;
        self.flush_enough()
    }

    fn flush_enough(&mut self) -> Result<()> {
        if self.out.len() >= GATHER_BYTES { self.flush() } else { Ok(()) }
    }

    /// Sends what was gathered.
    pub fn flush(&mut self) -> Result<()> {
        if self.out.is_empty() { Ok(()) } else { self.write(&[]) }
    }

    fn send_frame(&mut self, message: &Message, payload: &[u8]) -> Result<()> {
        self.encode(message, payload.len())?;
        self.write(payload)
    }

    fn encode(&mut self, message: &Message, payload: usize) -> Result<()> {
        let cannot = |why: String| Failure::new(Kind::Peer, format!("cannot send {}: {why}", message.name()));
        codec::encode(message, payload, &mut self.out).map_err(|e| cannot(e.to_string()).into())
    }

    /// Writes what was encoded and a payload behind it.
    fn write(&mut self, payload: &[u8]) -> Result<()> {
        // A peer that gave up says so while we are sending; and what it says must not pile up unread.
        if self.pending.is_none() && self.looked.elapsed() >= LOOK_EVERY {
            self.pending = self.next(None)?;
            self.looked = Instant::now();
        }
        let patience = Patience::Stall(self.stall);
        if std::mem::replace(&mut self.torn, true) {
            let text = format!("the connection with {} is over, nothing can be sent", self.peer);
            return Err(Failure::new(Kind::Peer, text).into());
        }
        let sent = self
            .wire
            .write_all(&self.out, patience)
            .and_then(|()| self.wire.write_all(payload, patience))
            .and_then(|()| self.wire.flush(patience));
        self.out.clear();
        match sent {
            Ok(()) => {
                self.torn = false;
                Ok(())
            }
            // The peer closed: its reason may be here already.
            Err(e @ (WireError::Io(_) | WireError::Closed)) if self.pending.is_none() => {
                let last = self.next(None).err().filter(|_| self.gave_up);
                Err(last.unwrap_or_else(|| self.failure(e)))
            }
            Err(e) => Err(self.failure(e)),
        }
    }

    fn take(&mut self) -> Result<(Message, usize)> {
        if let Some(pending) = self.pending.take() {
            return Ok(pending);
        }
        loop {
            if let Some(next) = self.next(Some(Patience::Stall(self.stall)))? {
                return Ok(next);
            }
        }
    }

    /// The next message for the caller and the length of its payload; without patience only if it is here.
    fn next(&mut self, patience: Option<Patience>) -> Result<Option<(Message, usize)>> {
        loop {
            let lengths = match self.head.first_chunk::<PREFIX_BYTES>() {
                Some(prefix) if self.have >= PREFIX_BYTES => Some(
                    codec::lengths(*prefix).map_err(|e| self.broke(&format!("broke the protocol: {e}")))?,
                ),
                _ => None,
            };
            let need = PREFIX_BYTES + lengths.map_or(0, |lengths| lengths.header);
            if let Some(lengths) = lengths.filter(|_| self.have == need) {
                let message = codec::decode(self.head.get(PREFIX_BYTES..need).unwrap_or_default(), lengths)
                    .map_err(|e| self.broke(&format!("broke the protocol: {e}")))?;
                self.have = 0;
                match message {
                    Message::Ping { doing } => {
                        tracing::trace!("{} is busy: {}", self.peer, printable(&doing))
                    }
                    Message::Note { text } => {
                        tracing::info!("{} says: {}", self.side.other().name(), printable(&text));
                    }
                    Message::Abort { reason } => {
                        self.gave_up = true;
                        let text =
                            format!("the {} gave up: {}", self.side.other().name(), printable(&reason));
                        return Err(Failure::new(Kind::Peer, text).into());
                    }
                    message => return Ok(Some((message, lengths.payload))),
                }
                continue;
            }
            self.head.resize(need, 0);
            let room = self.head.get_mut(self.have..).unwrap_or_default();
            match self.wire.read(room, patience).map_err(|e| self.failure(e))? {
                0 => return Ok(None),
                n => self.have += n,
            }
        }
    }

    fn broke(&self, what: &str) -> anyhow::Error {
        Failure::new(Kind::Peer, format!("{} {what}", self.peer)).into()
    }

    fn failure(&self, error: WireError) -> anyhow::Error {
        failure(error, self.side, &self.peer).into()
    }
}

/// Makes a sentence about `peer` ("the donor at H:P") of what went wrong on the wire.
pub(super) fn failure(error: WireError, side: Side, peer: &str) -> Failure {
    match error {
        WireError::Closed => Failure::new(Kind::Peer, format!("{peer} closed the connection")),
        WireError::Silent(limit) => {
            Failure::new(Kind::Timeout, format!("nothing came from {peer} for {} s", seconds(limit)))
        }
        WireError::Deaf(limit) => Failure::new(
            Kind::Timeout,
            format!("{peer} took nothing of what we send for {} s", seconds(limit)),
        ),
        WireError::Late => Failure::new(Kind::Timeout, format!("{peer} did not greet in time")),
        WireError::Ended(failure) => failure,
        WireError::Plain(first) => {
            Failure::new(Kind::Refused, format!("{peer} speaks plain text, not TLS (first bytes {first})"))
        }
        WireError::Tls(e) => super::tls::explain(&e, side, peer),
        WireError::Io(e) => Failure::new(Kind::Peer, format!("the connection with {peer} broke: {e}")),
    }
}

fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10.0).round() / 10.0
}

/// Wakes the thread that waits for the work, even when the work panics.
struct RingsOnDrop<'a>(&'a OwnedFd);

impl Drop for RingsOnDrop<'_> {
    fn drop(&mut self) {
        let _ = rustix::io::write(self.0, &1u64.to_ne_bytes());
    }
}
