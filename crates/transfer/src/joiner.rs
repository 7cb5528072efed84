//! The joiner's side of a transfer, top to bottom.
mod agree;
mod attempts;
mod backup;
mod base_command;
mod beforehand;
mod beginning;
mod by_rows;
mod deep_ist;
mod expected;
mod expulsion;
mod file_list;
mod incoming;
mod places;
mod prepare;
mod receive;
mod settled;

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use formats::wsrep::address::{DEFAULT_PORT, ListenAddress};
use formats::wsrep::report::ReportLine;
use protocol::hello::{Connection, capability};
use protocol::message::{Logical, Message, Offer};

use crate::cleanup;
use crate::datadir::layout::Layout;
use crate::datadir::lineage::Lineage;
use crate::datadir::managed::{self, ManagedFiles};
use crate::failure::{Failure, Kind, is_lost};
use crate::human::{printable, size};
use crate::install::counted_disk::CountedDisk;
use crate::install::files::Disk;
use crate::install::in_place;
use crate::install::kept;
use crate::install::record_check;
use crate::install::roots;
use crate::install::tidy;
use crate::install::unfinished::Unfinished;
use crate::invitation;
use crate::job::Job;
use crate::panics::caught;
use crate::peer::Established;
use crate::peer::link::Link;
use crate::peer::listen::Listener;
use crate::remembered::memory::Memory;
use crate::server::error_log::ErrorLog;
use crate::server::retries;
use crate::threads::Thread;
use crate::writesets::ist::{spool, trust};
pub use agree::MARGIN_BYTES;
use agree::Room;
pub(crate) use agree::{ROWS_OF_FILES, permit_options};
pub(crate) use backup::Backup;
use base_command::Base as BaseDirectory;
pub(crate) use base_command::filled_base;
use beforehand::{
    log_previous_state, own_key, refuse_missing_base, warn_of_cpat_conflicts, warn_that_replication_ends,
};
use deep_ist::{DonorSends, OwnIst};
use expected::{Position, parse_position, unexpected};
pub use incoming::old_files;
use places::Places;
use settled::VerifiedStaging;

/// Where the data came from if a backup was installed: no donor has this name.
const BACKUP: &str = "a backup (base)";

/// Receives one transfer, or only its position if IST follows. The position is reported to the server only once
/// everything at that position is durably in place.
///
/// The caller holds the lock of the datadir.
pub fn run(job: &Job) -> Result<()> {
    record_check::check(&job.datadir, || Layout::resolve(&job.args, &job.options))?;
    let disk = CountedDisk(&job.progress.local);
    if let Some(finished) = crate::install::run::finish_interrupted(&disk, &job.datadir)? {
        tracing::warn!("finished the interrupted {} of {}", finished.purpose, finished.position);
    }
    in_place::guard_again(&Disk, &job.datadir)?;
    // Before free space is computed.
    roots::clear_after_programs(&Disk, &job.datadir)?;
    let mut base = BaseDirectory::find(job)?;
    let limit = job.limit()?;
    job.progress.phase("waiting for the donor", "");
    let error_log = ErrorLog::from_now();
    let mut ist = OwnIst::prepare(job)?;
    let listener = invite_donor(job)?;
    let end = Instant::now() + job.settings.first_contact;
    // The link stays open until we end. If it were closed while a ping is unread, the donor could lose our last
    // message.
    let (_link, agreed) = loop {
        let left = end.saturating_duration_since(Instant::now());
        let Established { mut link, capabilities, program, .. } =
            listener.admit_control(left, &job.cancel)?;
        job.connected(&mut link, &program);
        let agreed = caught(|| {
            Thread::Main.panic_on_purpose();
            serve(job, &listener, (&mut link, capabilities), &mut ist, &mut base)
        });
        match agreed {
            // The donor will connect again.
            Err(error) if is_lost(&error) && !listener.has_begun(Connection::Control) => {
                tracing::warn!(
                    "{error:#} before anything was agreed on; waiting for the donor to connect again"
                );
                job.progress.phase("waiting for the donor", "");
            }
            Err(error) => {
                link.abort(&format!("{error:#}"));
                break (None, Err(error));
            }
            Ok(agreed) => break (Some(link), Ok(agreed)),
        }
    };
    // Free the port before any wait below. After a failure the link to the donor is closed already, so that its
    // program can end.
    drop(listener);
    // The time limit ends here: a complete transfer is installed, however long that takes.
    drop(limit);
    let (state, domain) = match agreed {
        Ok(Agreed::NothingNeeded(position)) => position,
        Ok(Agreed::WriteSets(position, backup)) => {
            if let Some(verified) = backup {
                caught(|| install(job, *verified, BACKUP, None))?;
            }
            ist.splice(position.0)?;
            Unfinished::remove(&job.datadir)?;
            tidy::remove_leftovers(&Disk, &job.datadir)?;
            position
        }
        // If the install fails, we do not wait for the group: to it the transfer is over, and a member that applies
        // nothing can hold it up.
        Ok(Agreed::Arrived(verified, donor, memory)) => {
            trust::remove_note(&job.datadir)?;
            caught(|| install(job, *verified, &donor, memory.as_deref()))?
        }
        Err(error) => {
            expulsion::wait_after_failure(job, &error);
            return Err(error);
        }
    };
    job.progress.ledger.update(|record| record.position.after = Some(state.to_string()));
    base_command::discard(&job.datadir)?;
    // Do not report success if another thread has panicked.
    job.cancel.check()?;
    refuse_if_expelled(&error_log)?;
    cleanup::start_if_needed(job);
    Ok(job.report.print(&ReportLine::JoinerState { state, domain })?)
}

/// Fails if this node left the primary component during the transfer and came back: the group then no longer counts
/// it as a joiner. Its provider takes the state, but the group rejects the provider's report ("new State Transfer
/// required"), and the provider asks for no other transfer: the server would run and refuse every query until it is
/// started again. This happens with any SST method. A server that ends is started again by its supervisor.
fn refuse_if_expelled(error_log: &ErrorLog) -> Result<(), Failure> {
    if !error_log.joiner_was_expelled() {
        return Ok(());
    }
    let text = "the group expelled this node during the transfer and would not accept it as a member with this state";
    let hint = "the received state is installed: start the server again, and it joins with that; check this node's \
                network";
    Err(Failure::new(Kind::Server, text).hint(hint))
}

/// The outcome of a transfer that has not failed.
enum Agreed {
    /// IST follows from this position.
    NothingNeeded(Position),
    /// The server starts at this position, on its own files or on those of a backup; the write-sets after it have arrived.
    WriteSets(Position, Option<Box<VerifiedStaging>>),
    /// All files have arrived and are verified. The text is the donor's name.
    Arrived(Box<VerifiedStaging>, String, Option<Arc<Memory>>),
}

/// Listens, and then tells the server, and through it the donor, the address and the secret.
fn invite_donor(job: &Job) -> Result<Listener> {
    let given = job.args.address.as_deref().unwrap_or("");
    let address =
        ListenAddress::parse(given).with_context(|| format!("the server gave --address {given:?}"))?;
    let port = address.port.unwrap_or(DEFAULT_PORT);
    let listener = Listener::open(&address.host, port, job.terms(), &job.cancel)?;
    job.record(&listener.invitation().secret);
    let text = invitation::write(&job.args, &address, port, listener.invitation())?;
    job.report.print(&ReportLine::Ready(text))?;
    // Worded like the provider's line for its own receiver ("Prepared IST receiver for 24-28, listening at: ...").
    tracing::info!("prepared SST receiver, listening at: {}", ListenAddress { port: Some(port), ..address });
    Ok(listener)
}

fn serve(
    job: &Job,
    listener: &Listener,
    (link, capabilities): (&mut Link, u64),
    ist: &mut OwnIst,
    base: &mut BaseDirectory,
) -> Result<Agreed> {
    let first = link.recv()?;
    match deep_ist::after_reach(job, link, first)? {
        Message::Bypass { position, domain } => {
            bypass(job, link, &position, domain).map(Agreed::NothingNeeded)
        }
        Message::Offer(offer) => {
            let host = link.peer().rsplit_once(':').map_or(link.peer(), |(host, _)| host);
            job.progress.set_peer(format!("{}, {host}", printable(&offer.node)));
            job.progress.ledger.update(|record| {
                record.peer.iter_mut().for_each(|peer| peer.name = Some(offer.node.clone()));
            });
            let transfer = Transfer::accept(job, listener, (link, capabilities), &offer, base)?;
            let first = match transfer.by_write_sets(link, ist)? {
                DonorSends::WriteSets(position, backup) => return Ok(Agreed::WriteSets(position, backup)),
                DonorSends::Files(first) => *first,
            };
            job.settings.limits.permit_files()?;
            retries::reset_if_served(&transfer.layout)?;
            retries::permit(&job.datadir, &job.settings.limits)?;
            // What an earlier try received of write-sets was counted as room for files.
            spool::discard(&job.datadir)?;
            let (verified, memory) = transfer.receive(link, first)?;
            Ok(Agreed::Arrived(Box::new(verified), offer.node, memory))
        }
        other => Err(unexpected(&other, "Bypass or Offer").into()),
    }
}

/// IST follows: no data is read or changed. Only the leftovers of an interrupted transfer are removed.
fn bypass(job: &Job, link: &mut Link, position: &str, domain: Option<u32>) -> Result<Position> {
    let state = parse_position(position)?;
    link.send(&Message::Accept {
        workers: 0,
        in_place: false,
        empty_undo: false,
        without_redo: false,
        compare: false,
        logical: String::new(),
    })?;
    job.progress.ledger.ist_follows(state);
    tracing::info!("IST follows from {state}; no data is needed");
    Unfinished::remove(&job.datadir)?;
    spool::discard(&job.datadir)?;
    tidy::remove_leftovers(&Disk, &job.datadir)?;
    Ok((state, domain))
}

/// A transfer from the agreement until the staged files are verified. The old datadir is untouched until
/// [`install()`].
struct Transfer<'a> {
    job: &'a Job,
    listener: &'a Listener,
    /// What both programs support.
    capabilities: u64,
    offer: &'a Offer,
    layout: Layout,
    /// The previous files, which will be replaced.
    old: Arc<ManagedFiles>,
    room: Room,
    base: &'a BaseDirectory,
    /// The beginning of this transfer was recorded.
    begun: bool,
    /// What this node remembers of its files, under the key of the current attempt.
    memory: Option<Arc<Memory>>,
}

impl<'a> Transfer<'a> {
    /// Checks settings, directories and free space, and accepts or refuses the offer.
    fn accept(
        job: &'a Job,
        listener: &'a Listener,
        (link, capabilities): (&mut Link, u64),
        offer: &'a Offer,
        base: &'a mut BaseDirectory,
    ) -> Result<Transfer<'a>> {
        job.progress.phase("checking settings and free space", "");
        let layout = Layout::resolve(&job.args, &job.options)?;
        let verdict = agree::compare_settings(job, &layout, offer)?;
        let old = Arc::new(managed::managed(&layout)?);
        log_previous_state(job, &layout);
        warn_of_cpat_conflicts(&old);
        warn_that_replication_ends(layout.flavor, &old);
        // Before the check of the free space, because a transfer in place removes the old files soon after it.
        let places = Places::new(&layout, &job.options, offer.facts.server_version.as_deref(), &old);
        places.try_all(&layout, &old, &offer.databases)?;
        let by_rows = !verdict.logical.is_empty() || offer.logical == Logical::Always;
        let check = || match by_rows {
            true => agree::check_room_for_rows(&layout, offer, &old),
            false => agree::check_room(job, &layout, offer, &old),
        };
        let room = match check() {
            Ok(Room::Beside) => Room::Beside,
            narrow => match base.give_up()? {
                false => narrow?,
                true => {
                    tracing::warn!(
                        "removing the directory that base-command filled: the donor's files need its space"
                    );
                    check()?
                }
            },
        };
        refuse_missing_base(job)?;
        let compare = job.settings.incremental && room != Room::InPlace;
        if let Some(key) = own_key(job).filter(|_| compare && capabilities & capability::OWN_KEY != 0) {
            link.send(&Message::OwnKey { key })?;
        }
        link.send(&Message::Accept {
            workers: job.settings.threads,
            in_place: room == Room::InPlace,
            empty_undo: agree::undo_tablespaces_will_change(job, offer),
            without_redo: verdict.without_redo,
            compare,
            logical: verdict.logical.join("; "),
        })?;
        kept::save_grastate(&Disk, &job.datadir)?;
        let (begun, memory) = (false, None);
        Ok(Transfer { job, listener, capabilities, offer, layout, old, room, base, begun, memory })
    }

    /// Receives write-sets of the donor's archive, if the donor sends these. Otherwise returns its first message
    /// about files.
    fn by_write_sets(&self, link: &mut Link, ist: &mut OwnIst) -> Result<DonorSends> {
        self.job.progress.phase("waiting for the donor to begin", "");
        let first = link.recv()?;
        // The donor has received our answer, so it need not connect again.
        self.listener.begun(Connection::Control);
        match deep_ist::after_reach(self.job, link, first)? {
            Message::AskIst { fingerprints } => ist.answer(self, link, fingerprints.as_ref()),
            first => Ok(DonorSends::Files(Box::new(first))),
        }
    }
}

/// Installs the verified files. The donor is not needed for this.
fn install(job: &Job, verified: VerifiedStaging, donor: &str, memory: Option<&Memory>) -> Result<Position> {
    job.progress.phase("installing", "");
    let position = verified.position();
    let arrived = verified.install(&job.progress.local)?;
    if let Some(memory) = memory {
        match arrived.remember(memory) {
            Ok(Some((files, bytes))) => {
                tracing::info!("the fingerprints of {} in {files} files are remembered", size(bytes));
            }
            Ok(None) => {}
            // It costs the next transfer time, and this one nothing.
            Err(error) => {
                tracing::warn!("the fingerprints of the installed files are not remembered: {error:#}")
            }
        }
    }
    if let Err(error) = Unfinished::remove(&job.datadir) {
        tracing::warn!("cannot remove the record of the transfer: {error:#}");
    }
    // Written only after the install: before it, the datadir holds the old data, which came from another donor.
    let lineage = Lineage::now(donor, &position.0.to_string());
    if let Err(error) = lineage.write(&job.datadir) {
        tracing::warn!("cannot record which donor the data came from: {error:#}");
    }
    job.progress.phase("done", "");
    Ok(position)
}
