//! A link while its own side does long work: pings, the peer's silence, and what it says meanwhile.
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::Result;
use protocol::message::Message;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::link::{IDLE, Link, PING_EVERY};
use super::side::Side;
use super::tls_stream::WireError;
use crate::cancel::LOOK_EVERY;
use crate::failure::{Failure, Kind};
use crate::threads::{Thread, scoped};

/// The beginning of a ping that names what the donor waits for.
const WAITING: &str = "waiting for ";
/// The beginning of a ping that names the sender's phase. A phase may be a wait, too, but not one that the joiner should show
/// as its own.
const PHASE: &str = "phase: ";

impl Link {
    /// Does long work while sending pings every [`PING_EVERY`]. If the peer gives up or is gone, the transfer
    /// is cancelled, so that the work ends early if it checks the cancel.
    pub fn keep_alive_while<T: Send>(
        &mut self,
        doing: &str,
        work: impl FnOnce() -> Result<T> + Send,
    ) -> Result<T> {
        let done = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|e| Failure::new(Kind::Server, format!("cannot make an event descriptor: {e}")))?;
        std::thread::scope(|scope| {
            let rings = RingsOnDrop(&done);
            let worker = scoped(scope, Thread::Work, move || {
                let _rings = rings;
                work()
            });
            let mut pinged = Instant::now();
            self.last_received.1 = pinged;
            let lost = loop {
                if self.lost {
                    break None;
                }
                match self.attend(doing, &mut pinged, Some(&done)) {
                    Ok(true) => break None,
                    Ok(false) => {}
                    Err(e) if self.can_do_without(&e) => {}
                    Err(e) => break Some(e),
                }
            };
            if let Some(failure) = &lost {
                if let Some(cancel) = self.wire.cancel() {
                    cancel.cancel(crate::failure::kind_of(failure), format!("{failure:#}"));
                }
                // The peer's other connections may be broken already, and it waits for the reason, so it is
                // sent before the work has ended, which may take long.
                self.abort(&format!("{failure:#}"));
            }
            let result = worker.join();
            match lost {
                Some(failure) => Err(failure),
                None => result,
            }
        })
    }

    /// One round of waiting: until the work is done (true), the peer sends something, a ping is due or it is
    /// time to check the cancel. Fails if nothing arrived within the stall timeout: a waiting peer sends
    /// pings, busy or not.
    pub(super) fn attend(
        &mut self,
        doing: &str,
        pinged: &mut Instant,
        done: Option<&OwnedFd>,
    ) -> Result<bool> {
        self.wire.look().map_err(|e| self.failure(e))?;
        // Not at once when the phase changes: what a peer that gives up has not read yet could cost us its reason.
        if pinged.elapsed() >= PING_EVERY {
            let activity = self.activity(doing);
            self.ping(&activity)?;
            self.count_wait(&activity);
            *pinged = Instant::now();
            // Send it again: the joiner may have begun an attempt since.
            self.total_told = 0;
        }
        self.tell_total()?;
        let told = self.waits.as_ref().filter(|_| self.side == Side::Donor).map(|told| told.take_told());
        told.unwrap_or_default().iter().try_for_each(|text| self.note(text))?;
        let mut fds: Vec<PollFd<'_>> =
            done.map(|done| PollFd::new(done, PollFlags::IN)).into_iter().collect();
        if self.pending.is_none() {
            self.pending = self.next(None)?;
        }
        self.check_silence()?;
        if done.is_none() && self.pending.is_some() {
            return Ok(false);
        }
        // A message that waits for the caller would keep the socket readable.
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

    /// What the peer is told of our work: what the donor waits for, or our phase if `doing` is nothing in particular, and how much is
    /// done.
    fn activity(&self, doing: &str) -> String {
        let Some(progress) = &self.waits else { return doing.to_owned() };
        let percent = progress.percent().map_or_else(String::new, |percent| format!(", {percent} %"));
        match progress.waits().filter(|_| self.side == Side::Donor) {
            Some(waits) => waits,
            None if doing == IDLE => format!("{PHASE}{}{percent}", progress.own_phase()),
            None => format!("{doing}{percent}"),
        }
    }

    /// Takes over what the peer says it is doing.
    pub(super) fn note_activity(&self, doing: &str) {
        if let Some(progress) = &self.waits {
            let (what, percent) = without_percent(doing.strip_prefix(PHASE).unwrap_or(doing));
            progress.peer_does(what, percent);
            // A donor that has sent everything has nothing left that could make progress. If its joiner hangs, that is no
            // reason to end the donor's server.
            if self.side == Side::Donor && self.only_waits {
                progress.local.step();
            }
        }
        self.count_wait(doing);
        self.show_wait(doing);
    }

    /// Counts as progress that the donor waits for something that it names, such as locks of another session: it ends by itself
    /// or by a time limit. Other pings do not count, because a side whose work hangs sends them, too.
    fn count_wait(&self, doing: &str) {
        if let Some(progress) = &self.waits
            && doing.starts_with(WAITING)
        {
            progress.local.step();
        }
    }

    fn show_wait(&self, doing: &str) {
        let Some(progress) = self.waits.as_ref().filter(|_| self.side == Side::Joiner) else { return };
        let whom = doing.starts_with(WAITING).then_some(doing);
        if progress.wait_for(whom)
            && let Some(whom) = whom
        {
            tracing::info!("the donor is {whom}");
        }
    }

    /// Donor: the joiner's progress is of the same total as ours from now on.
    ///
    /// # Errors
    /// As [`Link::send`].
    pub fn tell_total(&mut self) -> Result<()> {
        let total = self.waits.as_ref().filter(|_| self.side == Side::Donor).map(|progress| progress.total());
        match total.filter(|total| *total > 0 && *total != self.total_told) {
            None => Ok(()),
            Some(bytes) => {
                self.total_told = bytes;
                self.send(&Message::Total { bytes })
            }
        }
    }

    /// Fails if nothing arrived from the peer within the stall timeout.
    pub(super) fn check_silence(&mut self) -> Result<()> {
        let received = self.wire.traffic().received();
        if received != self.last_received.0 || self.pending.is_some() {
            self.last_received = (received, Instant::now());
        }
        match self.last_received.1.elapsed() >= self.stall {
            true => Err(self.failure(WireError::Silent(self.stall))),
            false => Ok(()),
        }
    }
}

/// What the peer is doing, and how many percent are done if it says so.
fn without_percent(doing: &str) -> (&str, Option<u8>) {
    let parts = doing.strip_suffix(" %").and_then(|doing| doing.rsplit_once(", "));
    let parts = parts.and_then(|(what, percent)| Some((what, percent.parse().ok()?)));
    parts
        .filter(|(_, percent)| *percent <= 100)
        .map_or((doing, None), |(what, percent)| (what, Some(percent)))
}

/// Wakes the thread that waits for the work, even if the work panics.
struct RingsOnDrop<'a>(&'a OwnedFd);

impl Drop for RingsOnDrop<'_> {
    fn drop(&mut self) {
        let _ = rustix::io::write(self.0, &1u64.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_may_end_with_a_percentage() {
        assert_eq!(without_percent("sending, 43 %"), ("sending", Some(43)));
        for text in ["sending", "sending, 101 %", "a, b %", "43 %", "sending, -1 %"] {
            assert_eq!(without_percent(text), (text, None));
        }
    }
}
