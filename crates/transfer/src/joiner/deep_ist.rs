//! The joiner's side of deep IST: whether write-sets can bring this node back, and receiving them.
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use formats::galera::grastate::GraState;
use formats::wsrep::state_id::StateId;
use formats::{Seqno, Uuid};
use protocol::chunk::Packing;
use protocol::fingerprint::FingerprintKey;
use protocol::hello::cut;
use protocol::limits::TEXT_BYTES_MAX;
use protocol::message::{CanIst, Message};
use report::record::{Archive, Method};

use super::Transfer;
use super::agree::MARGIN_BYTES;
use super::backup::Backup;
use super::expected::{Position, parse_position, unexpected};
use super::settled::VerifiedStaging;
use crate::datadir::layout::Layout;
use crate::disk::filesystem::bytes_available;
use crate::failure::{Failure, Kind, kind_of};
use crate::human::{printable, size};
use crate::install::files::Disk;
use crate::install::in_place;
use crate::job::Job;
use crate::peer::link::Link;
use crate::server::ist_endpoints::IST_OPTIONS_HINT;
use crate::settings::IstChoice;
use crate::writesets::ist::rate;
use crate::writesets::ist::relay::{self, Relay};
use crate::writesets::ist::spool::{self, Spool};
use crate::writesets::ist::trust;

/// How long the donor's provider may take to send its first write-set. It connects before the donor's program is
/// started.
const FIRST_WITHIN: Duration = Duration::from_secs(15);

/// This node's part in a deep IST.
pub(super) struct OwnIst {
    /// The relay through which IST arrives, or why there is none.
    relay: Result<Relay, String>,
    /// What the provider had recorded of the data (`grastate.dat`) before this transfer.
    recorded: Option<GraState>,
}

/// What the donor sends.
pub(super) enum DonorSends {
    /// Write-sets. All have arrived; the server starts from this position, after a backup was installed if there is one.
    WriteSets(Position, Option<Box<VerifiedStaging>>),
    /// Files. This is the donor's first message about them.
    Files(Box<Message>),
}

/// Records what the donor says of its archive, for `rejoin plan`, if that is what this message says. Returns the message after
/// it, otherwise this one.
pub(super) fn after_reach(job: &Job, link: &mut Link, message: Message) -> Result<Message> {
    let Message::ArchiveReach { node, history, first, last } = message else { return Ok(message) };
    let parsed = history.parse::<Uuid>().ok().filter(|_| first <= last);
    let history = parsed.ok_or_else(|| {
        let text =
            format!("the donor says that its archive has {first} to {last} of {}", printable(&history));
        Failure::new(Kind::Peer, text)
    })?;
    tracing::debug!("the donor's archive has the write-sets {first} to {last} of {history}");
    let archive = Archive { history: history.to_string(), first, last };
    job.progress.ledger.update(|record| {
        record.archive = Some(archive);
        // Before IST there is no offer that tells the name.
        record.peer.iter_mut().for_each(|peer| peer.name = Some(node.clone()));
    });
    link.recv()
}

impl OwnIst {
    /// Starts the relay. Call this before `ready` is reported, because IST may arrive from then on.
    ///
    /// # Errors
    /// From the disk.
    pub fn prepare(job: &Job) -> Result<OwnIst> {
        let recorded = trust::provider_says(&job.datadir);
        let endpoints = relay::endpoints(&job.options, &job.datadir);
        let relay = endpoints.and_then(|endpoints| {
            Relay::start(job).map_err(|error| {
                let (host, port) = endpoints.advertised;
                tracing::warn!("the relay of IST at {host}:{port} did not start: {error:#}");
                format!("{error:#}")
            })
        });
        if relay.is_err() {
            trust::remove_note(&job.datadir)?;
        }
        Ok(OwnIst { relay, recorded })
    }

    /// Has the relay pass on the spooled write-sets after `position` before those of the donor's provider.
    pub fn splice(self, position: StateId) -> Result<()> {
        self.relay.map_err(|why| Failure::new(Kind::Server, why))?.splice(position)
    }

    /// Answers the donor's question, and receives the write-sets if the donor decides to send them.
    pub fn answer(
        &mut self,
        transfer: &Transfer<'_>,
        link: &mut Link,
        key: Option<&FingerprintKey>,
    ) -> Result<DonorSends> {
        let Transfer { job, offer, layout, old, base, .. } = transfer;
        let base = base.dir();
        let group = parse_position(&offer.position)?;
        // An error here only rules out deep IST: files can still be sent.
        let able =
            link.keep_alive_while("reading its own position", || Ok(self.able(job, base, layout, group)))?;
        let able = able.unwrap_or_else(|error| Err(format!("{error:#}")));
        job.cancel.check()?;
        let Able { position, backup, first, spool, room } = match able {
            Ok(able) => able,
            Err(why) => {
                let why = cut(&why, TEXT_BYTES_MAX).to_owned();
                link.send(&Message::CanIst(CanIst::No { why }))?;
                return link.recv().map(|first| DonorSends::Files(Box::new(first)));
            }
        };
        let (text, next) = (position.to_string(), spool.next().0);
        let rate = rate::remembered(&job.datadir);
        link.send(&Message::CanIst(CanIst::Yes { position: text, first: first.0, next, room, rate }))?;
        if let Some(key) = key {
            transfer.send_sample(link, key, base.is_some())?;
        }
        match link.recv()? {
            Message::WriteSets { from, to, domain } => {
                let instead = receive(job, link, spool, (Seqno(from), Seqno(to)), (position, domain))?;
                // The donor is released by now, because none of this is its business.
                match (instead, backup) {
                    (DonorSends::WriteSets(at, None), Some(backup)) => {
                        let verified = backup.stage(job, layout, old, domain)?;
                        Ok(DonorSends::WriteSets(at, Some(Box::new(verified))))
                    }
                    (instead, _) => Ok(instead),
                }
            }
            first => Ok(DonorSends::Files(Box::new(first))),
        }
    }

    /// Whether write-sets can bring this node back, or why not. If they can, a note on disk says that they are about
    /// to.
    fn able(
        &mut self,
        job: &Job,
        base: Option<&Path>,
        layout: &Layout,
        group: StateId,
    ) -> Result<Result<Able, String>> {
        if job.settings.ist == IstChoice::Never {
            return Ok(Err("ist=never is set on the joiner".to_owned()));
        }
        let relay = match &mut self.relay {
            Ok(relay) => relay,
            Err(why) => return Ok(Err(format!("{why} ({IST_OPTIONS_HINT})"))),
        };
        if let Some(why) = relay.passes_unread() {
            return Ok(Err(why.to_owned()));
        }
        if in_place::was_begun(&Disk, &layout.datadir)? {
            return Ok(Err("its files are in the middle of a transfer in place".to_owned()));
        }
        let (position, backup) = match start(job, base, layout, self.recorded.as_ref(), group)? {
            Ok(start) => start,
            Err(why) => return Ok(Err(why)),
        };
        let Some(first) = relay.first(FIRST_WITHIN, &job.cancel)? else {
            return Ok(Err("the donor's provider has sent no write-set to the joiner".to_owned()));
        };
        trust::write_note(&job.datadir, position)?;
        let spool = Spool::open(&job.datadir, position.uuid, position.seqno)?;
        let taken = MARGIN_BYTES.saturating_add(backup.as_ref().map_or(0, Backup::bytes));
        let room = bytes_available(&job.datadir)?.saturating_sub(taken);
        Ok(Ok(Able { position, backup, first, spool, room }))
    }
}

/// The position from which the server will start: that of its own files, or of the backup in `base`, if that is newer or
/// the only one of the group's history. Otherwise why there is none.
fn start(
    job: &Job,
    base: Option<&Path>,
    layout: &Layout,
    recorded: Option<&GraState>,
    group: StateId,
) -> Result<Result<(StateId, Option<Backup>), String>> {
    let own = trust::position(layout, recorded)?;
    let Some(dir) = base else { return Ok(own.map(|own| (own, None))) };
    let backup = match Backup::find(&job.options, layout, dir) {
        Ok(Ok(backup)) => Ok(backup),
        Ok(Err(why)) => Err(why),
        Err(error) => Err(format!("{error:#}")),
    };
    let ours = |at: &StateId| at.uuid == group.uuid;
    Ok(match (own, backup) {
        (Ok(own), Ok(backup))
            if ours(&own) && (!ours(&backup.position) || own.seqno >= backup.position.seqno) =>
        {
            Ok((own, None))
        }
        (_, Ok(backup)) => {
            let (position, bytes) = (backup.position, size(backup.bytes()));
            tracing::info!("base {}: {bytes} at {position}, from which deep IST can start", dir.display());
            Ok((position, Some(backup)))
        }
        (Ok(own), Err(_)) => Ok((own, None)),
        (Err(own), Err(why)) => Err(format!("{own}; base {}: {why}", dir.display())),
    })
}

/// What the donor needs to know of a node that write-sets can bring back.
struct Able {
    /// The position from which its server will start.
    position: StateId,
    /// What must be installed before that.
    backup: Option<Backup>,
    /// The first seqno that the donor's provider sends by itself.
    first: Seqno,
    /// The spool, with what an earlier try received.
    spool: Spool,
    /// Free bytes for write-sets.
    room: u64,
}

fn receive(
    job: &Job,
    link: &mut Link,
    mut spool: Spool,
    (from, to): (Seqno, Seqno),
    at: Position,
) -> Result<DonorSends> {
    if from != spool.next() && from <= to {
        let text = format!("the donor sends write-sets from {from} on, but {} was requested", spool.next());
        return Err(Failure::new(Kind::Peer, text).into());
    }
    job.progress.phase("receiving write-sets", &format!("{from} to {to}"));
    // The donor tells the total.
    job.progress.copies_nothing();
    job.progress.ledger.update(|record| {
        (record.method, record.position.before) = (Some(Method::WriteSets), Some(at.0.to_string()));
    });
    let mut payload = Vec::new();
    loop {
        let message = link.recv_with_payload(&mut payload);
        let message = match message {
            Ok(message) => message,
            Err(error) => {
                // What has arrived need not be sent again.
                spool.store()?;
                return Err(error);
            }
        };
        match message {
            Message::WriteSetBytes { len, packing } => {
                if let Packing::Zstd = packing {
                    payload = zstd::bulk::decompress(&payload, len as usize)
                        .context("write-sets from the donor do not unpack")?;
                }
                if let Err(error) = spool.take(&payload) {
                    // A full disk leaves no room for files either.
                    if kind_of(&error) == Kind::Space {
                        drop(spool);
                        spool::discard(&job.datadir)?;
                    }
                    return Err(error);
                }
                let bytes = payload.len() as u64;
                job.progress.done_bytes.fetch_add(bytes, Ordering::Relaxed);
                job.progress.ledger.update(|record| record.bytes.write_sets += bytes);
            }
            Message::WriteSetsEnd => {
                spool.finish(to)?;
                job.progress.all_is_copied();
                link.send(&Message::Stored)?;
                tracing::info!("deep IST: the server starts from {}, its write-sets to {to} are here", at.0);
                return Ok(DonorSends::WriteSets(at, None));
            }
            Message::WriteSetsFail { why } => {
                tracing::warn!("deep IST broke off, so files are sent: {}", printable(&why));
                // The room for files was counted before the write-sets took any.
                drop(spool);
                spool::discard(&job.datadir)?;
                return link.recv().map(|first| DonorSends::Files(Box::new(first)));
            }
            other => return Err(unexpected(&other, "WriteSetBytes").into()),
        }
    }
}
