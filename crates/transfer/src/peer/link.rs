//! One authenticated connection for messages.
//!
//! `Ping` and `Note` never reach the caller, and an `Abort` becomes the error of the caller's current
//! operation.
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use protocol::chunk::Chunk;
use protocol::codec::{self, PREFIX_BYTES};
use protocol::hello::cut;
use protocol::limits::TEXT_BYTES_MAX;
use protocol::message::Message;

use super::side::Side;
use super::tls_stream::{Deadlines, TlsStream, WireError};
use super::traffic::Traffic;
use crate::cancel::LOOK_EVERY;
use crate::failure::{Failure, Kind};
use crate::human::printable;
use crate::server::progress::{Moved, Progress};

/// How often a busy side sends a sign of life.
pub const PING_EVERY: Duration = Duration::from_secs(2);
/// How long sending an abort may take.
const ABORT_WITHIN: Duration = Duration::from_millis(500);
/// How long closing waits for the peer to close.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// What a side that only waits for the peer would say.
pub(super) const IDLE: &str = "waiting";
/// Gathered messages are sent when they have this many bytes: the overhead of TLS is then one percent.
const GATHER_BYTES: usize = 2 << 10;

/// One authenticated connection of a transfer.
pub struct Link {
    pub(super) wire: TlsStream,
    pub(super) side: Side,
    pub(super) peer: String,
    pub(super) stall: Duration,
    /// The received part of the prefix and header of the next frame.
    head: Vec<u8>,
    /// Bytes of `head` that are filled.
    have: usize,
    /// A message that arrived while we only checked for aborts; its payload has not been read.
    pub(super) pending: Option<(Message, usize)>,
    /// Encoded bytes that are not sent yet.
    out: Vec<u8>,
    /// A frame was sent in part, so no other frame can follow.
    torn: bool,
    /// An `Abort` was received.
    gave_up: bool,
    /// An `Abort` was sent.
    aborted: bool,
    looked: Instant,
    /// The number of bytes received so far, and when it last grew.
    pub(super) last_received: (u64, Instant),
    /// The progress that holds what the donor waits for.
    pub(super) waits: Option<Arc<Progress>>,
    /// We do nothing but wait for the peer ([`Link::recv`]).
    pub(super) only_waits: bool,
    /// The total that the joiner was told last.
    pub(super) total_told: u64,
    /// We need nothing more from the peer: see [`Link::peer_is_dispensable`].
    dispensable: bool,
    /// The dispensable peer is lost.
    pub(super) lost: bool,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Link {
    /// Takes over an authenticated connection. `at` is the peer's `HOST:PORT`.
    pub(super) fn new(wire: TlsStream, side: Side, at: &str, stall: Duration) -> Link {
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
            aborted: false,
            looked: Instant::now(),
            last_received: (0, Instant::now()),
            waits: None,
            only_waits: false,
            total_told: 0,
            dispensable: false,
            lost: false,
        }
    }

    /// From now on nothing is needed from the peer: if the connection fails or the peer gives up, work under
    /// [`Link::keep_alive_while`] continues, and [`Link::send_if_possible`] succeeds.
    pub fn peer_is_dispensable(&mut self) {
        self.dispensable = true;
    }

    /// Sends a message that a dispensable peer may miss.
    ///
    /// # Errors
    /// Like [`Link::send`], but for a dispensable peer only the reason of a cancellation.
    pub fn send_if_possible(&mut self, message: &Message) -> Result<()> {
        match self.send(message) {
            Err(error) if self.can_do_without(&error) => Ok(()),
            sent => sent,
        }
    }

    /// Whether this error is the loss of a dispensable peer. It is logged once, and nothing more is sent.
    pub(super) fn can_do_without(&mut self, error: &anyhow::Error) -> bool {
        let ended = self.wire.cancel().is_some_and(|cancel| cancel.check().is_err());
        if !self.dispensable || ended {
            return false;
        }
        // A lost connection fails repeatedly; one log line is enough.
        if !std::mem::replace(&mut self.lost, true) {
            tracing::warn!("{error:#}; everything has arrived, so the transfer is completed without it");
        }
        true
    }

    /// Describes the peer: "the donor at 10.0.0.1:53124".
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// The peer's `HOST:PORT`.
    pub fn peer_address(&self) -> &str {
        self.peer.rsplit_once(" at ").map_or("", |(_, address)| address)
    }

    /// The counters of this connection, readable from any thread.
    pub fn traffic(&self) -> Arc<Traffic> {
        self.wire.traffic().clone()
    }

    /// Counts this connection's bytes among those of a transfer.
    pub fn count_in(&self, progress: &Progress) {
        let traffic = self.traffic();
        progress.count(move || Moved { bytes: traffic.total(), steps: traffic.messages() });
    }

    /// Shows on both hosts what the donor waits for: the donor's pings send the text from its `progress`, and
    /// the joiner's `progress` shows it.
    pub fn share_waits(&mut self, progress: &Arc<Progress>) {
        self.waits = Some(Arc::clone(progress));
    }

    /// Sets how long the peer may be silent while we wait for it, or accept no data while we send.
    pub fn set_stall(&mut self, stall: Duration) {
        self.stall = stall;
    }

    /// Sends a message.
    pub fn send(&mut self, message: &Message) -> Result<()> {
        self.send_frame(message, &[])
    }

    /// Sends a range of a file. A large payload is sent from its buffer, a small one together with gathered
    /// messages.
    pub fn send_chunk(&mut self, chunk: &Chunk, payload: &[u8]) -> Result<()> {
        let message = Message::Chunk(chunk.clone());
        if payload.len() >= GATHER_BYTES {
            return self.send_frame(&message, payload);
        }
        self.encode(&message, payload.len())?;
        self.out.extend_from_slice(payload);
        self.flush_enough()
    }

    /// Sends a message with a payload.
    pub fn send_with_payload(&mut self, message: &Message, payload: &[u8]) -> Result<()> {
        self.send_frame(message, payload)
    }

    /// Sends a line for the other host's log.
    pub fn note(&mut self, text: &str) -> Result<()> {
        self.send(&Message::Note { text: cut(text, TEXT_BYTES_MAX).to_owned() })
    }

    /// Sends a sign of life with the current activity.
    pub fn ping(&mut self, doing: &str) -> Result<()> {
        self.send(&Message::Ping { doing: cut(doing, TEXT_BYTES_MAX).to_owned() })
    }

    /// Waits for a message without payload, and sends pings meanwhile, so that a busy peer notices by our
    /// silence if we are gone.
    pub fn recv(&mut self) -> Result<Message> {
        let mut pinged = Instant::now();
        self.last_received.1 = pinged;
        self.only_waits = true;
        while self.pending.is_none() {
            self.attend(IDLE, &mut pinged, None)?;
        }
        self.only_waits = false;
        match self.take()? {
            (message, 0) => Ok(message),
            (message, _) => {
                Err(self
                    .broke(&format!("sent {} with a payload, which does not belong here", message.name())))
            }
        }
    }

    /// Waits for a message. Its payload replaces the content of `payload`, which never grows beyond the
    /// protocol's limit. A message without payload leaves it empty.
    pub fn recv_with_payload(&mut self, payload: &mut Vec<u8>) -> Result<Message> {
        let (message, len) = self.take()?;
        // Only the missing bytes are zeroed: most chunks have the same length.
        payload.truncate(len);
        payload.reserve_exact(len - payload.len());
        payload.resize(len, 0);
        self.wire.read_exact(payload, Deadlines::Stall(self.stall)).map_err(|e| self.failure(e))?;
        Ok(message)
    }

    /// Sends the peer an abort with the reason, within half a second or not at all. It returns no error,
    /// because the caller's own error counts. Nothing can be sent afterwards, and only the first reason is
    /// sent.
    pub fn abort(&mut self, reason: &str) {
        if std::mem::replace(&mut self.aborted, true) {
            return;
        }
        let until = Instant::now() + ABORT_WITHIN;
        self.wire.stop_looking();
        self.out.clear();
        let message = Message::Abort { reason: cut(reason, TEXT_BYTES_MAX).to_owned() };
        // After half a frame the peer would read the message as part of it, so we only close the connection.
        if !self.torn && codec::encode(&message, 0, &mut self.out).is_ok() {
            self.torn = true;
            let patience = Deadlines::Until(until);
            let _ = self.wire.write_all(&self.out, patience).and_then(|()| self.wire.flush(patience));
        }
        self.wire.part(until);
    }

    /// Ends a connection on which everything was sent, so that the last message arrives. Waits up to two
    /// seconds for the peer to close too, because the kernel would reset a connection with unread input.
    pub fn close(mut self) {
        self.wire.part(Instant::now() + CLOSE_WITHIN);
    }

    /// Sends a message together with those that follow it: once there are enough bytes, or at the next
    /// [`Link::flush`] or other message. Small messages cost less together.
    pub fn gather(&mut self, message: &Message) -> Result<()> {
        self.encode(message, 0)?;
        self.flush_enough()
    }

    fn flush_enough(&mut self) -> Result<()> {
        if self.out.len() >= GATHER_BYTES { self.flush() } else { Ok(()) }
    }

    /// Sends the gathered messages.
    pub fn flush(&mut self) -> Result<()> {
        if self.out.is_empty() { Ok(()) } else { self.write(&[]) }
    }

    fn send_frame(&mut self, message: &Message, payload: &[u8]) -> Result<()> {
        self.encode(message, payload.len())?;
        self.write(payload)
    }

    fn encode(&mut self, message: &Message, payload: usize) -> Result<()> {
        let cannot = |why: String| Failure::new(Kind::Peer, format!("cannot send {}: {why}", message.name()));
        // These are sent again and again, also by a side whose work hangs.
        if !matches!(message, Message::Ping { .. } | Message::Note { .. } | Message::Total { .. }) {
            self.wire.traffic().had_message();
        }
        codec::encode(message, payload, &mut self.out).map_err(|e| cannot(e.to_string()).into())
    }

    /// Writes the encoded bytes and a payload behind them.
    fn write(&mut self, payload: &[u8]) -> Result<()> {
        // A peer that gives up reports it while we are sending, and its messages must not pile up unread.
        if self.pending.is_none() && self.looked.elapsed() >= LOOK_EVERY {
            self.pending = self.next(None)?;
            self.looked = Instant::now();
        }
        let patience = Deadlines::Stall(self.stall);
        if std::mem::replace(&mut self.torn, true) {
            let text = format!("the connection with {} has ended: nothing can be sent", self.peer);
            return Err(Failure::new(Kind::Peer, text).into());
        }
        let mut sent =
            self.wire.write_all(&self.out, patience).and_then(|()| self.wire.write_all(payload, patience));
        if sent.is_ok() {
            // TLS has the whole frame and keeps what is not sent yet: an abort can follow it.
            self.torn = false;
            sent = self.wire.flush(patience);
        }
        self.out.clear();
        match sent {
            Ok(()) => Ok(()),
            // The peer closed the connection: its reason may have arrived already.
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
            if let Some(next) = self.next(Some(Deadlines::Stall(self.stall)))? {
                return Ok(next);
            }
        }
    }

    /// Returns the next message for the caller and the length of its payload. Without patience, only if it
    /// has already arrived.
    pub(super) fn next(&mut self, patience: Option<Deadlines>) -> Result<Option<(Message, usize)>> {
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
                        tracing::trace!("{} is busy: {}", self.peer, printable(&doing));
                        self.note_activity(&printable(&doing));
                    }
                    Message::Note { text } => {
                        let text = printable(&text);
                        tracing::info!("{} says: {text}", self.side.other().name());
                        let joiner = self.waits.as_ref().filter(|_| self.side == Side::Joiner);
                        joiner.into_iter().for_each(|progress| progress.ledger.donor_says(&text));
                    }
                    Message::Total { bytes } => {
                        let joiner = self.waits.as_ref().filter(|_| self.side == Side::Joiner);
                        joiner.into_iter().for_each(|progress| progress.total_is(bytes));
                    }
                    Message::Abort { reason } => {
                        self.gave_up = true;
                        let text =
                            format!("the {} gave up: {}", self.side.other().name(), printable(&reason));
                        return Err(Failure::new(Kind::Peer, text).into());
                    }
                    message => {
                        self.wire.traffic().had_message();
                        return Ok(Some((message, lengths.payload)));
                    }
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

    pub(super) fn failure(&self, error: WireError) -> anyhow::Error {
        failure(error, self.side, &self.peer).into()
    }
}

/// Describes a failure of the connection in a sentence about `peer` ("the donor at H:P").
pub(super) fn failure(error: WireError, side: Side, peer: &str) -> Failure {
    match error {
        WireError::Closed => Failure::new(Kind::Peer, format!("{peer} closed the connection")).lost(),
        WireError::Silent(limit) => {
            Failure::new(Kind::Timeout, format!("received nothing from {peer} for {} s", seconds(limit)))
        }
        WireError::Deaf(limit) => {
            Failure::new(Kind::Timeout, format!("{peer} accepted no data for {} s", seconds(limit)))
        }
        WireError::Late => {
            Failure::new(Kind::Timeout, format!("{peer} did not send its greeting in time")).lost()
        }
        WireError::Ended(failure) => failure,
        WireError::Plain(first) => {
            Failure::new(Kind::Refused, format!("{peer} speaks plain text, not TLS (first bytes {first})"))
        }
        WireError::Tls(e) => super::tls::explain(&e, side, peer),
        WireError::Io(e) => Failure::new(Kind::Peer, format!("the connection with {peer} broke: {e}")).lost(),
    }
}

fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10.0).round() / 10.0
}
