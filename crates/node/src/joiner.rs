//! The joiner's side of a transfer, top to bottom.
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use formats::wsrep::address::{DEFAULT_PORT, ListenAddress};
use formats::wsrep::report::ReportLine;
use formats::wsrep::state_id::StateId;
use protocol::coverage::Coverage;
use protocol::inventory::FileEntry;
use protocol::limits::FILES_MAX;
use protocol::message::{Message, Offer};
use protocol::policy::{self, Allowed};

use crate::datadir::layout::Layout;
use crate::datadir::managed;
use crate::failure::{Failure, Kind};
use crate::invitation;
use crate::job::Job;
use crate::keeper;
use crate::peer::link::Link;
use crate::peer::listen::Door;
use crate::server::version::server_version;
use crate::settings::{InPlace, KeepOld};
use crate::sink::install;
use crate::sink::receiver::{self, Shared};
use crate::sink::staging::{self, Room, Staging};

/// A position and its GTID domain.
type Position = (StateId, Option<u32>);

/// What the donor announced, its files by now being still.
struct Announced {
    files: Vec<FileEntry>,
    position: Position,
    binlog_state: Option<String>,
}

/// Receives one transfer, or learns that none is needed. The server hears the position only when it is true.
pub fn run(job: &Job) -> Result<()> {
    if install::finish_interrupted(&job.datadir)?.is_some() {
        tracing::warn!("finished an install that an earlier transfer had begun");
    }
    job.progress.phase("waiting for the donor", "");
    let door = open_door(job)?;
    let mut link = door.admit_control(job.settings.first_contact, &job.cancel)?;
    tracing::info!("connected to the donor at {}", link.peer());
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
    let address = ListenAddress::parse(given).with_context(|| format!("the server gave --address {given:?}"))?;
    let port = address.port.unwrap_or(DEFAULT_PORT);
    let door = Door::open(&address.host, port, job.settings.certificates.as_ref(), job.settings.stall, &job.cancel)?;
    let text = invitation::write(&job.args, &address, port, door.invitation())?;
    job.report.say(&ReportLine::Ready(text))?;
    Ok(door)
}

fn serve(job: &Job, door: &Door, link: &mut Link) -> Result<Position> {
    match link.recv()? {
        Message::Bypass { position, domain } => bypass(link, &position, domain),
        Message::Offer(offer) => transfer(job, door, link, &offer),
        other => Err(unexpected(&other, "Bypass or Offer").into()),
    }
}

/// IST follows: nothing was looked at, nothing is touched.
fn bypass(link: &mut Link, position: &str, domain: Option<u32>) -> Result<Position> {
    let state = parse_position(position)?;
    link.send(&Message::Accept { workers: 0, in_place: false })?;
    tracing::info!("IST follows from {state}; no data is needed");
    Ok((state, domain))
}

fn transfer(job: &Job, door: &Door, link: &mut Link, offer: &Offer) -> Result<Position> {
    job.progress.phase("looking at what is here", "");
    let layout = Layout::resolve(&job.args, &job.options)?;
    compare_settings(job, &layout, offer)?;
    let old = managed::managed(&layout)?;
    let in_place = look_at_room(job, &layout, offer)?;
    link.send(&Message::Accept { workers: job.settings.threads, in_place })?;

    job.progress.phase("waiting for the donor's files to hold still", "");
    let announced = receive_list(link)?;
    let targets = targets_of(&layout, &announced.files)?;
    managed::refuse_foreign_targets(&layout, &announced.files)?;
    let mut staging = Staging::prepare(&layout.datadir, &targets)?;
    link.send(&Message::Ready)?;

    let bytes: u64 = announced.files.iter().map(|f| f.size).sum();
    job.progress.total_bytes.store(bytes, Ordering::Relaxed);
    job.progress.phase("receiving", &format!("{} files, {bytes} bytes", announced.files.len()));
    receive_all(job, door, link, &staging, &announced.files)?;

    job.progress.phase("making it durable", "");
    link.keep_alive_while("making everything durable", || staging.sync_all())?;
    link.send(&Message::Stored)?;
    log_totals(job, bytes);

    job.progress.phase("installing", "");
    let plan = staging.plan(old, &announced.position.0.to_string())?;
    install::install(&plan)?;
    job.progress.phase("done", "");
    Ok(announced.position)
}
