//! The donor's side of deep IST: checks whether its archive reaches back to the joiner's position and whether
//! write-sets are cheaper than files, and sends them.
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use formats::galera::ist::Header;
use formats::wsrep::state_id::StateId;
use formats::{Seqno, Uuid};
use protocol::chunk::Packing;
use protocol::hello::cut;
use protocol::limits::{RANGE_BYTES, TEXT_BYTES_MAX};
use protocol::message::{CanIst, Message};
use protocol::sample::Decision;
use report::record::{Method, Plan};

use super::attempt::DonorSession;
use super::expected::{Position, expect, position_given, receive_sample, unexpected};
use crate::compare::comparison::Parts;
use crate::datadir::sample::shared;
use crate::failure::{Failure, Kind, kind_of};
use crate::human::{printable, size};
use crate::job::Job;
use crate::peer::link::Link;
use crate::peer::secret::random_bytes;
use crate::send::connections::hold_back;
use crate::server::provider_options;
use crate::settings::IstChoice;
use crate::writesets::archive::{Archive, RangeStatus, Status, default_dir, is_archive};
use crate::writesets::gcache::Gcache;
use crate::writesets::ist::cost::Ways;
use crate::writesets::store::{StoredAction, Take, WriteSetStore};

/// How long to wait until the newest write-sets are final: about a hundred of them are still being applied.
const FINAL_WITHIN: Duration = Duration::from_secs(10);
/// How often the archive, and the state of the newest one in the cache, are looked at meanwhile.
const LOOK: Duration = Duration::from_millis(100);
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
    let none = |why: String| Ok(ControlFlow::Break(format!("no deep IST: {why}")));
    // Our own provider's cache is large, so it is read only once the joiner can use it.
    let mut history = match open_store(job, dir) {
        Ok(archive) => History { archive, cache: None },
        Err(error) => {
            return none(format!("the donor's archive: {error:#}"));
        }
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
    let incremental = session.accepted.compare && job.settings.incremental;
    let key = if incremental { Some(random_bytes()?) } else { None };
    link.send(&Message::AskIst { fingerprints: key })?;
    let (position, first, next, room, rate) = match link.recv()? {
        Message::CanIst(CanIst::Yes { position, first, next, room, rate }) => {
            (position, Seqno(first), Seqno(next), room, rate)
        }
        Message::CanIst(CanIst::No { why }) => {
            return none(format!("{}; the donor's archive {}", printable(&why), history.in_words()));
        }
        other => return Err(unexpected(&other, "CanIst").into()),
    };
    let sample = match key {
        None => None,
        Some(key) => Some((receive_sample(link)?.0, key)),
    };
    let position: StateId = position
        .parse()
        .map_err(|e| Failure::new(Kind::Peer, format!("the joiner gave position {position:?}: {e}")))?;
    if let Err(why) = history.fits(position, given.0) {
        return none(why);
    }
    let (from, to) = (Seqno(position.seqno.0.saturating_add(1)), Seqno(first.0.saturating_sub(1)));
    let reaches = link.keep_alive_while("waiting for the donor's newest write-sets", || {
        history.cache = own_cache(job);
        history.reach(job, dir, from, to)
    })?;
    let history = match reaches {
        Ok(history) => history,
        Err(why) => return none(why),
    };
    let all = session.offered.bytes;
    let sent = match &sample {
        None => all,
        Some((sample, key)) => {
            let parts = job.settings.delta != Parts::Never;
            match sample.decide(shared(session.layout, sample, key, parts), all) {
                Decision::Full => all,
                Decision::Incremental { about, .. } => about,
            }
        }
    };
    let write_sets = to.0.saturating_sub(from.0).saturating_add(1).max(0).unsigned_abs();
    // An earlier try may have brought the first ones.
    let missing_of = |all| if next > from { history.bytes(next, to) } else { Ok(all) };
    let bytes = history.bytes(from, to).and_then(|all| Ok((all, missing_of(all)?)));
    let (write_set_bytes, missing) = match bytes {
        Ok(bytes) => bytes,
        Err(error) => return none(format!("{error:#}")),
    };
    let rlimit = session.context.throttle.rate();
    let ways = Ways { write_sets, write_set_bytes, rate, files: all, sent, rlimit };
    if job.settings.ist == IstChoice::Auto && !ways.replay_is_cheaper() {
        return none(format!("it would cost more: {}", ways.in_words()));
    }
    if missing > room {
        return none(format!(
            "the joiner has room for {} of write-sets only: {}",
            size(room),
            ways.in_words()
        ));
    }
    let line = format!("plan: deep IST from {position}: {}", ways.in_words());
    tracing::info!("{line}");
    link.note(&line)?;
    job.progress.ledger.update(|record| {
        (record.method, record.position.after) = (Some(Method::WriteSets), Some(given.0.to_string()));
        record.position.before = Some(position.to_string());
        let (write_sets, write_set_bytes) = (Some(write_sets), Some(write_set_bytes));
        record.plan = Some(Plan { words: line, total: all, write_sets, write_set_bytes, ..Plan::default() });
    });
    job.progress.phase("sending write-sets", &format!("{from} to {to}"));
    job.progress.copies(missing);
    let from = from.max(next);
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
        return none(why);
    }
    link.send(&Message::WriteSetsEnd)?;
    expect(link.recv()?, &Message::Stored)?;
    job.progress.all_is_copied();
    tracing::info!(
        "deep IST: sent write-sets {from} to {to} of the archive ({bytes} bytes), and no file; the donor's server sends those \
         from {first} on"
    );
    Ok(ControlFlow::Continue(given))
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

/// The write-sets of the archive, followed by those in our own provider's cache.
struct History {
    archive: Box<dyn WriteSetStore + Send>,
    cache: Option<Gcache>,
}

impl History {
    fn in_words(&self) -> String {
        match self.archive.range() {
            None => "is empty".to_owned(),
            Some((first, last)) => {
                format!("has the write-sets {first} to {last} of {}", self.archive.history())
            }
        }
    }

    /// Checks that the joiner's files, the archive and the group have one history, and that the joiner is not ahead
    /// of the group.
    fn fits(&self, position: StateId, group: StateId) -> Result<(), String> {
        let archive: Uuid = self.archive.history();
        if position.uuid != group.uuid {
            return Err(format!(
                "the joiner's files are of the history {}, the group's is {}",
                position.uuid, group.uuid
            ));
        }
        if archive != group.uuid {
            return Err(format!(
                "the donor's archive is of the history {archive}, the group's is {}",
                group.uuid
            ));
        }
        if let Some(branched) = self.archive.branched_at().filter(|branched| position.seqno <= *branched) {
            return Err(format!(
                "the joiner is at {}; the group began again from an older state when it was at {branched}, so the joiner may \
                 hold what the group no longer has",
                position.seqno
            ));
        }
        if position.seqno > group.seqno {
            let (joiner, group) = (position.seqno, group.seqno);
            return Err(format!("the joiner is at {joiner}, ahead of the group at {group}"));
        }
        Ok(())
    }

    /// What the archive holds, for the joiner to note.
    fn reach_in_archive(&self, job: &Job) -> Option<Message> {
        let (first, last) = self.archive.range()?;
        let (node, history) = (job.options.node_name(), self.archive.history().to_string());
        Some(Message::ArchiveReach { node, history, first: first.0, last: last.0 })
    }

    /// Whether archive and cache contain all write-sets from `from` to `to`, all of them final; otherwise the reason.
    /// Waits up to `FINAL_WITHIN` for the newest ones.
    fn reach(mut self, job: &Job, dir: &Path, from: Seqno, to: Seqno) -> Result<Result<History, String>> {
        let until = Instant::now() + FINAL_WITHIN;
        loop {
            if from > to || self.holds(from, to) {
                return Ok(Ok(self));
            }
            if self.archive.range().is_none_or(|(first, _)| first > from) || Instant::now() >= until {
                let cache = self.cache.as_ref().and_then(WriteSetStore::range);
                let cache = cache.map_or("nothing".to_owned(), |(first, last)| format!("{first} to {last}"));
                return Ok(Err(format!(
                    "the write-sets {from} to {to} are needed; the donor's archive {}, and its provider's cache {cache}",
                    self.in_words()
                )));
            }
            job.cancel.sleep(LOOK)?;
            self.archive = open_store(job, dir)?;
            // A cache is read from end to end, which takes seconds if it is large. Once it has `to`, only the state of that
            // is read again.
            if self.cache.as_ref().and_then(WriteSetStore::range).is_none_or(|(_, high)| high < to) {
                self.cache = own_cache(job);
            }
        }
    }

    fn holds(&self, from: Seqno, to: Seqno) -> bool {
        let Some((first, last)) = self.archive.range() else { return false };
        if first > from || last.0.saturating_add(1) < from.0 {
            return false;
        }
        if last >= to {
            return true;
        }
        // Only the cache's buffers show whether write-sets are final. If the last one is, all before it are.
        let Some(cache) = &self.cache else { return false };
        let reaches =
            cache.range().is_some_and(|(low, high)| low.0 <= last.0.saturating_add(1) && high >= to);
        let mut is_final = false;
        let read = reaches && {
            let look = |action: StoredAction| {
                is_final = action.is_final;
                Ok(false)
            };
            cache.read(to, to, &mut { look }).is_ok()
        };
        read && is_final
    }

    /// About how many bytes these write-sets have.
    fn bytes(&self, from: Seqno, to: Seqno) -> Result<u64> {
        let last = self.archive.range().map_or(Seqno(0), |(_, last)| last);
        let archived = self.archive.bytes_of(from, to.min(last))?;
        let behind = from.max(Seqno(last.0.saturating_add(1)));
        let cached = self.cache.as_ref().map_or(Ok(0), |cache| cache.bytes_of(behind, to))?;
        Ok(archived.saturating_add(cached))
    }

    fn read(&self, from: Seqno, to: Seqno, take: &mut Take<'_>) -> Result<()> {
        let last = self.archive.range().map_or(Seqno(0), |(_, last)| last);
        let mut more = true;
        let mut next = from;
        if from <= last {
            self.archive.read(from, to.min(last), &mut |action| {
                next = Seqno(action.seqno.0.saturating_add(1));
                more = take(action)?;
                Ok(more)
            })?;
        }
        if !more || next > to {
            return Ok(());
        }
        let behind = || Failure::new(Kind::Disk, format!("write-set {next} is not in the donor's archive"));
        let cache = self.cache.as_ref().ok_or_else(behind)?;
        cache.read(next, to, &mut |action| match action.is_final {
            true => take(action),
            false => {
                let text = format!("whether write-set {} is to be applied is not known yet", action.seqno);
                Err(Failure::new(Kind::Disk, text).into())
            }
        })
    }
}

/// Opens the archive's directory, which contains segments, or a copy of a provider's cache.
fn open_store(job: &Job, dir: &Path) -> Result<Box<dyn WriteSetStore + Send>> {
    match is_archive(dir) {
        true => Ok(Box::new(Archive::open(dir)?)),
        false => Ok(Box::new(Gcache::open_unless(dir, &job.cancel)?)),
    }
}

/// Our own provider's cache, if it can be read.
fn own_cache(job: &Job) -> Option<Gcache> {
    let options = provider_options::parse(job.options.server("wsrep-provider-options").unwrap_or_default());
    let path = provider_options::cache_file(&options, &job.datadir);
    let cache = Gcache::open_unless(&path, &job.cancel);
    cache.inspect_err(|why| tracing::debug!("no cache of our own: {why:#}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::writesets::store::Take;

    const HISTORY: Uuid = Uuid([7; 16]);

    /// An archive of a group that began again from an older state when it was at 100.
    struct Branched;

    impl WriteSetStore for Branched {
        fn history(&self) -> Uuid {
            HISTORY
        }

        fn range(&self) -> Option<(Seqno, Seqno)> {
            Some((Seqno(51), Seqno(200)))
        }

        fn read(&self, _: Seqno, _: Seqno, _: &mut Take<'_>) -> Result<()> {
            Ok(())
        }

        fn branched_at(&self) -> Option<Seqno> {
            Some(Seqno(100))
        }
    }

    #[test]
    fn a_joiner_that_may_be_of_the_branch_that_was_given_up_gets_files() {
        let history = History { archive: Box::new(Branched), cache: None };
        let at = |seqno| StateId { uuid: HISTORY, seqno: Seqno(seqno) };
        for lost in [60, 100] {
            let why = history.fits(at(lost), at(200)).unwrap_err();
            assert!(why.contains("began again from an older state when it was at 100"), "{why}");
        }
        assert_eq!(history.fits(at(101), at(200)), Ok(()));
    }
}
