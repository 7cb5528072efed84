//! The donor's side of deep IST: checks whether its archive reaches back to the joiner's position and whether
//! write-sets are cheaper than files, and sends them.
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use formats::Seqno;
use formats::galera::ist::Header;
use formats::wsrep::state_id::StateId;
use protocol::chunk::Packing;
use protocol::fingerprint::FingerprintKey;
use protocol::hello::cut;
use protocol::limits::{RANGE_BYTES, TEXT_BYTES_MAX};
use protocol::message::{CanIst, Message, ReplayRate};
use protocol::sample::{Decision, Sample};
use report::record::{Method, Plan};

use super::attempt::DonorSession;
use super::expected::{Position, expect, position_given, receive_sample, unexpected};
use super::history::History;
use crate::compare::comparison::Parts;
use crate::datadir::sample::shared;
use crate::failure::{Failure, Kind, kind_of};
use crate::human::{printable, size};
use crate::job::Job;
use crate::peer::link::Link;
use crate::peer::secret::random_bytes;
use crate::send::connections::hold_back;
use crate::server::ledger::NO_DEEP_IST;
use crate::settings::IstChoice;
use crate::writesets::archive::{RangeStatus, Status, default_dir, is_archive};
use crate::writesets::ist::cost::Ways;
use crate::writesets::store::StoredAction;

/// The version of IST's messages that we send; the joiner's relay replaces it by the group's version.
const VERSION: u8 = formats::galera::ist::VERSION_OLDEST;

/// Sends write-sets instead of files. `None` if files are to be sent; if there is an archive, both logs say why.
pub(super) fn send_write_sets(session: &DonorSession<'_>, link: &mut Link) -> Result<Option<Position>> {
    let job = session.job;
    let Some(dir) = archive_dir(job) else { return Ok(None) };
    match attempt(session, link, &dir)? {
        ControlFlow::Continue(position) => Ok(Some(position)),
        ControlFlow::Break(why) => {
            tracing::info!("{why}");
            link.note(&why)?;
            job.progress.ledger.donor_says(&why);
            Ok(None)
        }
    }
}

/// Tells a joiner to which IST follows what the archive holds, as its archiver last said: reading the archive takes longer than
/// such a transfer.
pub(super) fn tell_reach(job: &Job, link: &mut Link) -> Result<()> {
    let running = archive_dir(job).and_then(|dir| Status::read(&dir)).filter(Status::is_running);
    let Some(range) = running.and_then(|mut status| status.ranges.pop()) else { return Ok(()) };
    let RangeStatus { history, first, last, .. } = range;
    link.send(&Message::ArchiveReach { node: job.options.node_name(), history, first, last })
}

/// The directory of this node's archive: the option `archive`, or the default of `rejoin archive run` if an archive
/// is there. `None` with `ist=never`.
fn archive_dir(job: &Job) -> Option<PathBuf> {
    let default = || Some(default_dir(&job.datadir)).filter(|dir| is_archive(dir));
    job.settings.archive.clone().or_else(default).filter(|_| job.settings.ist != IstChoice::Never)
}

fn attempt(session: &DonorSession<'_>, link: &mut Link, dir: &Path) -> Result<ControlFlow<String, Position>> {
    let job = session.job;
    let none = |why: String| Ok(ControlFlow::Break(format!("{NO_DEEP_IST}{why}")));
    let history = match History::open(job, dir) {
        Ok(history) => history,
        Err(error) => return none(format!("the donor's archive: {error:#}")),
    };
    if session.context.notes_reach
        && let Some(reach) = history.reach_in_archive(job)
    {
        link.send(&reach)?;
    }
    let given = match position_given(job) {
        Ok(given) => given,
        Err(error) => return none(format!("{error:#}")),
    };
    let wanted = match ask(session, link)? {
        Ok(wanted) => wanted,
        Err(why) => return none(format!("{why}; the donor's archive {}", history.in_words())),
    };
    if let Err(why) = history.fits(wanted.position, given.0) {
        return none(why);
    }
    // Reading our own provider's cache takes time, so the joiner was asked first.
    let waits = "waiting for the donor's newest write-sets";
    let reaches = link.keep_alive_while(waits, || history.reach(job, dir, wanted.from, wanted.to))?;
    let history = match reaches {
        Ok(history) => history,
        Err(why) => return none(why),
    };
    let (ways, missing) = match costs(session, &history, &wanted) {
        Ok(costs) => costs,
        Err(error) => return none(format!("{error:#}")),
    };
    if job.settings.ist == IstChoice::Auto && !ways.replay_is_cheaper() {
        return none(format!("it would cost more: {}", ways.in_words()));
    }
    if missing > wanted.room {
        let room = size(wanted.room);
        return none(format!("the joiner has room for {room} of write-sets only: {}", ways.in_words()));
    }
    announce(job, link, &wanted, &ways, given)?;
    match send(session, link, &history, &wanted, (missing, given))? {
        Ok(()) => Ok(ControlFlow::Continue(given)),
        Err(why) => none(why),
    }
}

/// What the joiner needs.
struct Wanted {
    /// The position of its files.
    position: StateId,
    /// The write-set behind that.
    from: Seqno,
    /// The last one before those that the donor's provider sends.
    to: Seqno,
    /// The first one that it does not have from an earlier try.
    next: Seqno,
    /// Bytes that it has room for.
    room: u64,
    /// How fast its server applied write-sets last, if it knows.
    rate: Option<ReplayRate>,
    /// A sample of its files and the key of that, if files would be compared.
    sample: Option<(Sample, FingerprintKey)>,
}

/// Asks the joiner whether it can take write-sets, and from where; the inner error is why it cannot.
fn ask(session: &DonorSession<'_>, link: &mut Link) -> Result<Result<Wanted, String>> {
    let incremental = session.accepted.compare && session.job.settings.incremental;
    let key = if incremental { Some(random_bytes()?) } else { None };
    link.send(&Message::AskIst { fingerprints: key })?;
    let (position, first, next, room, rate) = match link.recv()? {
        Message::CanIst(CanIst::Yes { position, first, next, room, rate }) => {
            (position, first, Seqno(next), room, rate)
        }
        Message::CanIst(CanIst::No { why }) => return Ok(Err(printable(&why))),
        other => return Err(unexpected(&other, "CanIst").into()),
    };
    let sample = match key {
        None => None,
        Some(key) => Some((receive_sample(link)?.0, key)),
    };
    let position: StateId = position
        .parse()
        .map_err(|e| Failure::new(Kind::Peer, format!("the joiner gave position {position:?}: {e}")))?;
    let (from, to) = (Seqno(position.seqno.0.saturating_add(1)), Seqno(first.saturating_sub(1)));
    Ok(Ok(Wanted { position, from, to, next, room, rate, sample }))
}

/// What write-sets and files would cost, and the bytes of the write-sets that the joiner does not have yet.
fn costs(session: &DonorSession<'_>, history: &History, wanted: &Wanted) -> Result<(Ways, u64)> {
    let Wanted { from, to, next, rate, .. } = *wanted;
    let files = session.offered.bytes;
    let decided = wanted.sample.as_ref().map(|(sample, key)| {
        let parts = session.job.settings.delta != Parts::Never;
        sample.decide(shared(session.layout, sample, key, parts), files)
    });
    let sent = match decided {
        Some(Decision::Incremental { about, .. }) => about,
        Some(Decision::Full) | None => files,
    };
    let write_sets = to.0.saturating_sub(from.0).saturating_add(1).max(0).unsigned_abs();
    let write_set_bytes = history.bytes(from, to)?;
    let missing = if next > from { history.bytes(next, to)? } else { write_set_bytes };
    let rlimit = session.context.throttle.rate();
    let remembered = session.remembered;
    Ok((Ways { write_sets, write_set_bytes, rate, files, remembered, sent, rlimit }, missing))
}

/// Logs the plan on both hosts, and records it.
fn announce(job: &Job, link: &mut Link, wanted: &Wanted, ways: &Ways, given: Position) -> Result<()> {
    let position = wanted.position;
    let line = format!("plan: deep IST from {position}: {}", ways.in_words());
    tracing::info!("{line}");
    link.note(&line)?;
    job.progress.ledger.update(|record| {
        (record.method, record.position.after) = (Some(Method::WriteSets), Some(given.0.to_string()));
        record.position.before = Some(position.to_string());
        let (write_sets, write_set_bytes) = (Some(ways.write_sets), Some(ways.write_set_bytes));
        record.plan =
            Some(Plan { words: line, total: ways.files, write_sets, write_set_bytes, ..Plan::default() });
    });
    Ok(())
}

/// Sends the write-sets that the joiner does not have yet. The inner error is why files must be sent instead.
fn send(
    session: &DonorSession<'_>,
    link: &mut Link,
    history: &History,
    wanted: &Wanted,
    (missing, given): (u64, Position),
) -> Result<Result<(), String>> {
    let job = session.job;
    let (from, to) = (wanted.from.max(wanted.next), wanted.to);
    job.progress.phase("sending write-sets", &format!("{} to {to}", wanted.from));
    job.progress.copies(missing);
    link.send(&Message::WriteSets { from: from.0, to: to.0, domain: given.1 })?;
    link.tell_total()?;
    let mut sender = Sender { session, link, waiting: Vec::new(), bytes: 0 };
    let sent = if from <= to { history.read(from, to, &mut |action| sender.take(&action)) } else { Ok(()) };
    // A broken link ends the transfer. A broken archive does not: files are sent instead.
    let (sent, bytes) = match sent {
        Err(error) if kind_of(&error) != Kind::Disk => return Err(error),
        sent => (sent, sender.finish()?),
    };
    job.progress.ledger.update(|record| record.bytes.write_sets = bytes);
    job.cancel.check()?;
    if let Err(error) = sent {
        let why = cut(&format!("{error:#}"), TEXT_BYTES_MAX).to_owned();
        link.send(&Message::WriteSetsFail { why: why.clone() })?;
        return Ok(Err(why));
    }
    link.send(&Message::WriteSetsEnd)?;
    expect(link.recv()?, &Message::Stored)?;
    job.progress.all_is_copied();
    tracing::info!(
        "deep IST: sent write-sets {from} to {to} of the archive ({bytes} bytes), and no file; the donor's server sends those \
         from {} on",
        to.0.saturating_add(1)
    );
    Ok(Ok(()))
}

/// Sends IST messages in pieces of at most `RANGE_BYTES`, within the rate limit.
struct Sender<'a> {
    session: &'a DonorSession<'a>,
    link: &'a mut Link,
    waiting: Vec<u8>,
    bytes: u64,
}

impl Sender<'_> {
    fn take(&mut self, action: &StoredAction) -> Result<bool> {
        let StoredAction { seqno, action: kind, skipped, bytes, .. } = action;
        let header = Header::of_action(VERSION, *seqno, *kind, *skipped, bytes.len());
        let header = header.with_context(|| format!("action {seqno} is of a kind that IST does not send"))?;
        self.waiting.extend_from_slice(&header.encode());
        if header.len > 0 {
            self.waiting.extend_from_slice(bytes);
        }
        let whole = self.waiting.len() - self.waiting.len() % RANGE_BYTES as usize;
        if whole > 0 {
            let waiting = std::mem::take(&mut self.waiting);
            let (pieces, rest) = waiting.split_at(whole);
            pieces.chunks(RANGE_BYTES as usize).try_for_each(|piece| self.send(piece))?;
            self.waiting.extend_from_slice(rest);
        }
        Ok(true)
    }

    fn send(&mut self, piece: &[u8]) -> Result<()> {
        let packed = zstd::bulk::compress(piece, 1).ok().filter(|packed| packed.len() < piece.len());
        let packing = if packed.is_some() { Packing::Zstd } else { Packing::Plain };
        let payload = packed.as_deref().unwrap_or(piece);
        let DonorSession { job, context, .. } = self.session;
        hold_back(self.link, &context.throttle, payload.len(), &job.cancel)?;
        self.bytes += piece.len() as u64;
        let message = Message::WriteSetBytes { len: piece.len() as u32, packing };
        self.link.send_with_payload(&message, payload)?;
        job.progress.has_sent(self.bytes);
        self.link.tell_total()
    }

    /// Sends the remaining bytes. Returns how many were sent in all, before compression.
    fn finish(mut self) -> Result<u64> {
        let rest = std::mem::take(&mut self.waiting);
        if !rest.is_empty() {
            self.send(&rest)?;
        }
        Ok(self.bytes)
    }
}
