//! What is looked at before anything moves: settings, and room.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use protocol::inventory::Place;
use protocol::message::Offer;
use protocol::policy::{self, Allowed, Verdict};

use crate::datadir::layout::Layout;
use crate::datadir::managed::ManagedFile;
use crate::disk::filesystem::{FilesystemId, bytes_available, filesystem_of};
use crate::failure::{Failure, Kind};
use crate::job::Job;
use crate::server::version::server_version;
use crate::settings::InPlace;
use crate::sink::leftovers;

/// Bytes that stay free on each filesystem, for logs and the server's first start.
pub const MARGIN_BYTES: u64 = 64 << 20;
/// The Aria logs are placed by copies and kept by copies (see `sink::forward`).
const ARIA_COPIES: u64 = 3;

/// How old and new files share the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Both fit.
    Beside,
    /// Old files go as new ones come.
    InPlace,
}

/// Both sides log the same reasons when the two servers do not fit.
pub(super) fn compare_settings(job: &Job, layout: &Layout, offer: &Offer) -> Result<Verdict, Failure> {
    for line in &offer.left_out {
        tracing::warn!("from the donor: {line}");
    }
    let own = layout.facts(server_version(job.server));
    let verdict = policy::compare(&offer.facts, &own, Allowed { upgrade: job.settings.allow_upgrade });
    for warning in &verdict.warnings {
        tracing::warn!("{warning}");
    }
    match verdict.refusals.is_empty() {
        true => Ok(verdict),
        false => Err(Failure::new(Kind::Refused, verdict.refusals.join("; "))),
    }
}

/// Whether our server is configured to have another number of undo tablespaces than the donor. It changes the number at
/// its start, but only while no undo log is left ("Cannot change innodb_undo_tablespaces" in its error log otherwise).
pub(super) fn undo_tablespaces_will_change(job: &Job, offer: &Offer) -> bool {
    let configured = job.options.server("innodb-undo-tablespaces").and_then(|n| n.parse::<u32>().ok());
    configured.is_some_and(|n| n != offer.undo_tablespaces)
}

/// Decides whether the new files fit beside the old ones, filesystem by filesystem.
pub(super) fn look_at_room(job: &Job, layout: &Layout, offer: &Offer, old: &[ManagedFile]) -> Result<Room> {
    let demands = demands(layout, offer, old)?;
    let beside = demands.iter().map(|d| (d, d.needed.saturating_sub(d.available))).max_by_key(|(_, m)| *m);
    let Some((worst, missing)) = beside.filter(|(_, missing)| *missing > 0) else { return Ok(Room::Beside) };
    let at = worst.at.display();
    let both = format!(
        "old and new files do not fit together: {missing} bytes are missing on the filesystem of {at}"
    );
    if job.settings.in_place == InPlace::Never {
        let hint = format!("free {missing} bytes there, or set in-place=auto under [sst] on the joiner");
        return Err(Failure::new(Kind::Space, format!("{both}, and in-place=never")).hint(hint).into());
    }
    let lacking = |d: &&Demand| d.needed > d.available.saturating_add(d.freed);
    if let Some(full) = demands.iter().find(lacking) {
        let missing = full.needed - full.available - full.freed;
        let text = format!(
            "{missing} bytes are missing on the filesystem of {} even without the old files",
            full.at.display()
        );
        return Err(Failure::new(Kind::Space, text).into());
    }
    tracing::warn!("{both}: the old files are replaced in place, file by file, and cannot be put back");
    Ok(Room::InPlace)
}

/// What one filesystem must take and can.
struct Demand {
    at: PathBuf,
    needed: u64,
    available: u64,
    /// Bytes that the old files on it take.
    freed: u64,
}

fn demands(layout: &Layout, offer: &Offer, old: &[ManagedFile]) -> Result<Vec<Demand>> {
    let mut demands: BTreeMap<FilesystemId, Demand> = BTreeMap::new();
    let mut need = |directory: &Path, bytes: u64| -> Result<()> {
        let filesystem = filesystem_of(directory)?;
        if let Some(known) = demands.get_mut(&filesystem) {
            known.needed = known.needed.saturating_add(bytes);
            return Ok(());
        }
        let needed = bytes.saturating_add(MARGIN_BYTES);
        let available = bytes_available(directory)?;
        demands.insert(filesystem, Demand { at: directory.to_owned(), needed, available, freed: 0 });
        Ok(())
    };
    for (place, bytes) in &offer.bytes {
        let copies = if *place == Place::AriaLogDir { ARIA_COPIES } else { 1 };
        need(layout.directory(*place).unwrap_or(&layout.datadir), bytes.saturating_mul(copies))?;
    }
    for (directory, bytes) in &offer.external {
        need(Path::new(directory), *bytes)?;
    }
    // What a broken transfer left is taken over or removed.
    for (path, bytes) in leftovers::allocated(&layout.datadir)? {
        if let Some(demand) = demands.get_mut(&filesystem_of(&path)?) {
            demand.available = demand.available.saturating_add(bytes);
        }
    }
    for file in old {
        if let Some(demand) = demands.get_mut(&filesystem_of(&file.path)?) {
            demand.freed += file.allocated;
        }
    }
    Ok(demands.into_values().collect())
}
