//! The joiner's side of a transfer, top to bottom.
mod agree;
mod arrival;
mod receive;

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use formats::mariadb::file_kind::{self, FileKind};
use formats::wsrep::address::{DEFAULT_PORT, ListenAddress};
use formats::wsrep::report::ReportLine;
use formats::wsrep::state_id::StateId;
use protocol::limits::FURTHER_CONNECTIONS;
use protocol::message::{Attempt, Message, Offer, source_line};

use crate::datadir::layout::Layout;
use crate::datadir::lineage::Lineage;
use crate::datadir::managed::{self, ManagedFile};
use crate::datadir::own_position;
use crate::datadir::sample;
use crate::failure::{Failure, Kind, kind_of};
use crate::invitation;
use crate::job::Job;
use crate::keeper;
use crate::peer::Established;
use crate::peer::link::Link;
use crate::peer::listen::Door;
use crate::sink::base::Base;
use crate::sink::files::Disk;
use crate::sink::names::file_name;
use crate::sink::{in_place, install, kept, staging, tidy};
use crate::words::printable;
pub use agree::MARGIN_BYTES;
use agree::{Estimate, Room};
pub use arrival::old_files;
use arrival::{Arrival, Settled};
use receive::Received;

/// A position and its GTID domain.
type Position = (StateId, Option<u32>);

/// Receives one transfer, or learns that none is needed. The server hears the position only when it is true.
pub fn run(job: &Job) -> Result<()> {
    if let Some(finished) = install::finish_interrupted(&Disk, &job.datadir)? {
        tracing::warn!(
            "finished what an earlier run had begun: {:?} of {}",
            finished.purpose,
            finished.position
        );
    }
    job.progress.phase("waiting for the donor", "");
    let door = open_door(job)?;
    let Established { mut link, program, .. } =
        door.admit_control(job.settings.first_contact, &job.cancel)?;
    link.count_in(&job.progress);
    tracing::info!("connected to {}, {program}", link.peer());
    match serve(job, &door, &mut link) {
        Ok((state, domain)) => {
            keeper::start_if_needed(job);
            Ok(job.report.say(&ReportLine::JoinerState { state, domain })?)
        }
        Err(error) => {
            link.abort(&format!("{error:#}"));
            Err(error)
        }
    }
}

/// Listens, and only then tells the server (and through it the donor) where and with which secret.
fn open_door(job: &Job) -> Result<Door> {
    let given = job.args.address.as_deref().unwrap_or("");
    let address =
        ListenAddress::parse(given).with_context(|| format!("the server gave --address {given:?}"))?;
    let port = address.port.unwrap_or(DEFAULT_PORT);
    let door = Door::open(&address.host, port, job.terms(), &job.cancel)?;
    let text = invitation::write(&job.args, &address, port, door.invitation())?;
    job.report.say(&ReportLine::Ready(text))?;
    // In the provider's words for its own one ("Prepared IST receiver for 24-28, listening at: ...").
    tracing::info!("prepared SST receiver, listening at: {}", ListenAddress { port: Some(port), ..address });
    Ok(door)
}

fn serve(job: &Job, door: &Door, link: &mut Link) -> Result<Position> {
    match link.recv()? {
        Message::Bypass { position, domain } => bypass(job, link, &position, domain),
        Message::Offer(offer) => transfer(job, door, link, &offer),
        other => Err(unexpected(&other, "Bypass or Offer").into()),
    }
}

/// IST follows: nothing was looked at, and nothing is touched but what a broken transfer had left.
fn bypass(job: &Job, link: &mut Link, position: &str, domain: Option<u32>) -> Result<Position> {
    let state = parse_position(position)?;
    link.send(&Message::Accept {
        workers: 0,
        in_place: false,
        empty_undo: false,
        still: false,
        base: false,
    })?;
    tracing::info!("IST follows from {state}; no data is needed");
    tidy::remove_leftovers(&Disk, &job.datadir)?;
    Ok((state, domain))
}

/// Everything arrives beside the old datadir; [`install`] is where that stops being so.
fn transfer(job: &Job, door: &Door, link: &mut Link, offer: &Offer) -> Result<Position> {
    job.progress.phase("looking at what is here", "");
    let layout = Layout::resolve(&job.args, &job.options)?;
    let verdict = agree::compare_settings(job, &layout, offer)?;
    let old = managed::managed(&layout)?;
    say_what_is_here(&layout);
    say_what_cpat_cannot_keep(&old);
    say_that_replication_ends(&old);
    let room = agree::look_at_room(job, &layout, offer, &old)?;
    refuse_base_that_is_none(job)?;
    let base = job.settings.incremental && room != Room::InPlace;
    if !base {
        staging::discard_staged(&job.datadir)?;
    }
    let empty_undo = agree::undo_tablespaces_will_change(job, offer);
    link.send(&Message::Accept {
        workers: job.settings.threads,
        in_place: room == Room::InPlace,
        empty_undo,
        still: verdict.upgrade,
        base,
    })?;
    kept::save_grastate(&Disk, &job.datadir)?;

    let offered =
        offer.bytes.iter().map(|(_, bytes)| bytes).chain(offer.external.iter().map(|(_, bytes)| bytes));
    job.progress.total_bytes.store(offered.sum(), Ordering::Relaxed);
    job.progress.phase("waiting for the donor to begin", "");
    let settled = receive(job, door, link, &layout, offer, &old, room)
        .inspect_err(|error| note_if_full(job, room, error))?;
    link.send(&Message::Stored)?;
    log_totals(job, settled.bytes());

    job.progress.phase("installing", "");
    let position = settled.position();
    // Before the install: a crash in it is followed by its end.
    let lineage = Lineage::now(&offer.node, &position.0.to_string());
    if let Err(error) = lineage.write(&job.datadir) {
        tracing::warn!("from whom the data comes could not be noted: {error:#}");
    }
    settled.install()?;
    job.progress.phase("done", "");
    Ok(position)
}

fn refuse_base_that_is_none(job: &Job) -> Result<(), Failure> {
    let Some(dir) = job.settings.base.as_ref().filter(|dir| !dir.is_dir()) else { return Ok(()) };
    let text = format!("base={} under [sst] is no directory that can be read", dir.display());
    Err(Failure::new(Kind::Configuration, text).hint("name a prepared backup, or leave it out"))
}

/// A sample was wrong about how much would fit: the next transfer must not believe one again.
fn note_if_full(job: &Job, room: Room, error: &anyhow::Error) {
    if room == Room::Narrow
        && kind_of(error) == Kind::Space
        && let Err(why) = in_place::note_ran_full(&Disk, &job.datadir)
    {
        tracing::warn!("that the disk ran full could not be noted: {why:#}");
    }
}

/// Attempts of the donor's, until one gave everything; that is verified where it lies then.
fn receive(
    job: &Job,
    door: &Door,
    link: &mut Link,
    layout: &Layout,
    offer: &Offer,
    old: &[ManagedFile],
    mut room: Room,
) -> Result<Settled> {
    let mut attempt = match link.recv()? {
        Message::Attempt(attempt) => attempt,
        other => return Err(unexpected(&other, "Attempt").into()),
    };
    loop {
        let mut arrival = Arrival::prepare(job, layout, old, room)?;
        let estimate = sample(job, link, layout, &attempt, &arrival)?;
        // Each time: another source may send more.
        if room == Room::Narrow && agree::look_again(job, layout, offer, old, estimate)? == Room::InPlace {
            room = Room::InPlace;
            link.note("the joiner has no room for old and new files: it replaces them in place")?;
            arrival.replace_in_place()?;
        }
        if room != Room::InPlace {
            reserve(&arrival, agree::will_need(layout, offer, estimate)?);
        }
        match receive_from(job, door, link, layout, &attempt, &arrival)? {
            Received::All(announced) => {
                let doing = "taking over what is the same";
                let settle = || arrival.settle(announced, job.settings.threads);
                let settled = link.keep_alive_while(doing, settle)?;
                let doing = "verifying what was staged";
                job.progress.phase(doing, &format!("{} bytes", settled.bytes()));
                link.keep_alive_while(doing, || settled.verify(job))?;
                return Ok(settled);
            }
            Received::Again(next) => attempt = next,
        }
    }
}

/// Takes the room for what will come before anything does, so that nobody else fills the disk meanwhile.
fn reserve(arrival: &Arrival, needs: Vec<(PathBuf, u64)>) {
    for (at, bytes) in needs {
        if let Err(error) = arrival.staging().reserve(&at, bytes) {
            let at = at.display();
            tracing::info!("{bytes} bytes cannot be reserved on the filesystem of {at}: {error:#}");
        }
    }
}

/// A few blocks of what is here, when files are compared: the donor answers about how much it will send.
fn sample(
    job: &Job,
    link: &mut Link,
    layout: &Layout,
    Attempt { source, reason, marks }: &Attempt,
    arrival: &Arrival,
) -> Result<Estimate> {
    tracing::info!("{}", source_line(*source, reason));
    let Some(key) = marks else {
        arrival.staging().drop_leftovers()?;
        return Ok(Estimate { sampled: 0, about: None });
    };
    let more = job.settings.base.is_some() || arrival.staging().has_leftovers();
    let sample = sample::of(&layout.datadir, arrival.old(), key, more);
    let sampled = sample.bytes;
    link.send(&Message::Sample(sample))?;
    match link.recv()? {
        Message::Plan { about } => Ok(Estimate { sampled, about }),
        other => Err(unexpected(&other, "Plan").into()),
    }
}

/// One attempt of the donor's, from one source.
fn receive_from(
    job: &Job,
    door: &Door,
    link: &mut Link,
    layout: &Layout,
    Attempt { source, marks, .. }: &Attempt,
    arrival: &Arrival,
) -> Result<Received> {
    let (staging, backup) = (arrival.staging(), job.settings.base.as_deref());
    let base = marks.map(|key| Base::new(layout, staging, backup, key, job.settings.threads, &job.cancel));
    job.progress.done_bytes.store(0, Ordering::Relaxed);
    door.allow_workers(job.settings.threads + FURTHER_CONNECTIONS);
    link.send(&Message::Ready)?;
    job.progress.phase("receiving", source.name());
    receive::receive_attempt(job, door, link, arrival, base.as_ref())
}

/// The base of what follows, as far as its files tell: for whoever reads the log later.
fn say_what_is_here(layout: &Layout) {
    if let Ok(Some(position)) = own_position::position_in_files(layout) {
        tracing::info!("the old files were at {} at their last checkpoint", position.state);
    }
    if let Some(Lineage { donor, position, .. }) = Lineage::read(&layout.datadir) {
        tracing::info!("the last transfer installed here came from {} at {position}", printable(&donor));
    }
}

/// The operator asked for these files, but they would act on the new data.
fn say_what_cpat_cannot_keep(old: &[ManagedFile]) {
    let names: Vec<String> =
        old.iter().filter(|f| f.keep_overruled).map(|f| f.path.display().to_string()).collect();
    if !names.is_empty() {
        tracing::warn!("cpat matches files that cannot be kept beside new data: {}", names.join(", "));
    }
}

/// What the node replicates from outside the cluster goes on at a position of the old data, or not at all.
fn say_that_replication_ends(old: &[ManagedFile]) {
    let settings = old.iter().map(|file| &file.path).filter(|path| {
        let name = file_name(path);
        file_kind::top_level(name) == FileKind::ReplicaState && name.starts_with("master")
    });
    for path in settings {
        tracing::warn!(
            "{} leaves with the old data: this node is no replica afterwards (CHANGE MASTER TO makes it one again; cpat \
             under [sst] would keep the file)",
            path.display()
        );
    }
}

fn parse_position(text: &str) -> Result<StateId, Failure> {
    text.parse().map_err(|e| Failure::new(Kind::Peer, format!("the donor gave position {text:?}: {e}")))
}

fn unexpected(message: &Message, wanted: &str) -> Failure {
    Failure::new(Kind::Peer, format!("the donor said {} where {wanted} was due", message.name()))
}

fn log_totals(job: &Job, bytes: u64) {
    let wire = job.progress.wire_bytes();
    let seconds = job.progress.elapsed().as_secs_f64();
    tracing::info!("received {bytes} bytes as {wire} on the network; {seconds:.1} s since the start");
}
