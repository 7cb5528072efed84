//! Checks before anything is sent: settings and free space.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use protocol::inventory::Place;
use protocol::message::Offer;
use protocol::policy::{self, Allowed, Verdict};

use crate::datadir::layout::Layout;
use crate::datadir::managed::ManagedFiles;
use crate::disk::filesystem::{FilesystemId, bytes_available, filesystem_of};
use crate::failure::{Failure, Kind};
use crate::human::size;
use crate::install::files::Disk;
use crate::install::in_place;
use crate::install::kept;
use crate::install::patch::DIFFERS_MAX;
use crate::job::Job;
use crate::receive::leftovers;
use crate::server::options::ServerOptions;
use crate::server::version::server_version;
use crate::settings::InPlace;
use crate::writesets::ist::spool;

/// Bytes that stay free on each filesystem, for logs and the server's first start.
pub const MARGIN_BYTES: u64 = 64 << 20;
/// The second engine's logs are installed as copies, and the old ones are kept as copies (see `install::forward`).
const SECOND_COPIES: u64 = 3;

/// One byte in this many of the donor's files is packed rows, about, which a joiner keeps until they are loaded.
pub(crate) const ROWS_OF_FILES: u64 = 2;

/// The share of all bytes by which a sample may be wrong: if none of 256 sampled blocks differs, one block in 85 may
/// still differ.
const SAMPLE_ERROR: f64 = 0.05;

/// How old and new files share the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Both fit.
    Beside,
    /// Both fit if little differs, which is known when the donor has seen a sample.
    Narrow,
    /// Old files are removed as new ones arrive.
    InPlace,
}

/// Compares the donor's settings with ours. Both sides log the same reasons if the two servers do not fit.
pub(super) fn compare_settings(job: &Job, layout: &Layout, offer: &Offer) -> Result<Verdict, Failure> {
    for line in &offer.left_out {
        tracing::warn!("from the donor: {line}");
    }
    let own = layout.facts(server_version(job.server));
    let verdict = policy::compare(
        &offer.facts,
        &own,
        Allowed { upgrade: job.settings.allow_upgrade, logical: offer.logical },
    );
    for warning in &verdict.warnings {
        tracing::warn!("{warning}");
    }
    permit_options(&job.options)?;
    match verdict.refusals.is_empty() {
        true => Ok(verdict),
        false => Err(Failure::new(Kind::Refused, verdict.refusals.join("; "))),
    }
}

/// Whether a server with these options can start on what a transfer installs.
///
/// # Errors
/// The option that prevents it.
pub(crate) fn permit_options(options: &ServerOptions) -> Result<(), Failure> {
    if options.server_bool("innodb-log-archive").is_ok_and(|on| on == Some(true)) {
        let text = "innodb_log_archive=ON on the joiner (its server would not start beside the redo log that a transfer installs)";
        let hint = "remove the option from the joiner's option file; on the Synced node, SET GLOBAL innodb_log_archive=ON";
        return Err(Failure::new(Kind::Refused, text).hint(hint));
    }
    Ok(())
}

/// Whether our server is configured to have another number of undo tablespaces than the donor. It changes the number at
/// its start, but only while no undo log is left ("Cannot change innodb_undo_tablespaces" in its error log otherwise).
pub(super) fn undo_tablespaces_will_change(job: &Job, offer: &Offer) -> bool {
    let configured = job.options.server("innodb-undo-tablespaces").and_then(|n| n.parse::<u32>().ok());
    configured.is_some_and(|n| n != offer.undo_tablespaces)
}

/// Fails unless files that are made of rows fit beside the old ones, and the rows beside both: nothing is replaced before all of
/// them are made.
pub(super) fn check_room_for_rows(layout: &Layout, offer: &Offer, old: &ManagedFiles) -> Result<Room> {
    let mut demands = demands(layout, offer, old)?;
    let datadir = filesystem_of(&layout.datadir)?;
    let rows = offer.bytes.iter().map(|(_, bytes)| bytes / ROWS_OF_FILES).sum::<u64>();
    for demand in &mut demands {
        if filesystem_of(&demand.at)? == datadir {
            demand.needed = demand.needed.saturating_add(rows);
        }
    }
    let Some((worst, missing)) = worst(&demands) else { return Ok(Room::Beside) };
    let missing = size(missing);
    let text = format!(
        "rows, the files made of them and the old files do not fit together: the filesystem of {} needs {missing} more",
        worst.at.display()
    );
    Err(Failure::new(Kind::Space, text)
        .hint(format!("free {missing} there: a logical transfer is never in place"))
        .into())
}

/// Decides whether the new files fit beside the old ones, filesystem by filesystem.
pub(super) fn check_room(job: &Job, layout: &Layout, offer: &Offer, old: &ManagedFiles) -> Result<Room> {
    let ran_full = in_place::take_ran_full(&Disk, &layout.datadir)?;
    let demands = demands(layout, offer, old)?;
    let Some((_, missing)) = worst(&demands) else { return Ok(Room::Beside) };
    if ran_full {
        tracing::warn!(
            "the last transfer filled the disk although it should have fitted beside the old files: this one does \
             not rely on such an estimate"
        );
        return without_room(job, &demands);
    }
    if !job.settings.incremental || old.is_empty() || in_place::was_begun(&Disk, &layout.datadir)? {
        return without_room(job, &demands);
    }
    tracing::info!(
        "two complete sets of files need {} more: whether they fit depends on how much is unchanged",
        size(missing)
    );
    Ok(Room::Narrow)
}

/// What a sample and the donor's answer say about the bytes that will be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Estimate {
    /// Bytes of the files that were sampled.
    pub sampled: u64,
    /// Bytes that the donor will probably send, including files that were not sampled; `None` if it sends everything.
    pub about: Option<u64>,
}

/// Decides again, after the donor has seen a sample.
pub(super) fn check_room_again(
    job: &Job,
    layout: &Layout,
    offer: &Offer,
    old: &ManagedFiles,
    estimate: Estimate,
) -> Result<Room> {
    let demands = demands(layout, offer, old)?;
    let share = estimate.share_of(demands.iter().map(Demand::of_files).sum());
    let scaled = |d: &Demand| Demand { at: d.at.clone(), needed: d.of_share(share) + MARGIN_BYTES, ..*d };
    if worst(&demands.iter().map(scaled).collect::<Vec<_>>()).is_some() {
        return without_room(job, &demands);
    }
    let percent = (share * 100.0).ceil();
    tracing::info!(
        "the differences fit beside the old files: they need at most {percent} % of the space of a whole set"
    );
    Ok(Room::Beside)
}

/// How many bytes will be needed at most, with one directory for each filesystem. Leaves out filesystems on which
/// twice a whole set of files is free, and all of them if a whole set of files is expected: reserving space and
/// giving it back costs time.
pub(super) fn will_need(layout: &Layout, offer: &Offer, estimate: Estimate) -> Result<Vec<(PathBuf, u64)>> {
    // The sizes of the old files do not matter here, so they are not read again.
    let demands = demands(layout, offer, &ManagedFiles::default())?;
    let share = estimate.share_of(demands.iter().map(Demand::of_files).sum());
    let tight = demands.iter().filter(|d| share < 1.0 && d.available / 2 < d.needed);
    Ok(tight.map(|d| (d.at.clone(), d.of_share(share))).collect())
}

impl Demand {
    /// Bytes of files, without the margin.
    fn of_files(&self) -> u64 {
        self.needed.saturating_sub(MARGIN_BYTES)
    }

    fn of_share(&self, share: f64) -> u64 {
        (self.of_files() as f64 * share) as u64
    }
}

impl Estimate {
    /// The share of all bytes that will be needed at most. A byte that differs can need up to four: a table of which
    /// a quarter differs is written anew, and for the others both the new bytes and those they replace are stored.
    /// `SAMPLE_ERROR` is added because a sample may be wrong.
    fn share_of(&self, all: u64) -> f64 {
        let Some(about) = self.about else { return 1.0 };
        let differs = about.saturating_sub(all.saturating_sub(self.sampled)) as f64;
        let needed = about as f64 + (DIFFERS_MAX - 1) as f64 * differs + SAMPLE_ERROR * self.sampled as f64;
        (needed / all.max(1) as f64).min(1.0)
    }
}

/// The filesystem that lacks most, and how many bytes it lacks.
fn worst(demands: &[Demand]) -> Option<(&Demand, u64)> {
    let missing = demands.iter().map(|d| (d, d.needed.saturating_sub(d.available)));
    missing.filter(|(_, missing)| *missing > 0).max_by_key(|(_, missing)| *missing)
}

/// Replaces files in place, if the operator allows it.
fn without_room(job: &Job, demands: &[Demand]) -> Result<Room> {
    let Some((worst, missing)) = worst(demands) else { return Ok(Room::Beside) };
    let at = worst.at.display();
    let missing = size(missing);
    let both = format!("old and new files do not fit together: the filesystem of {at} needs {missing} more");
    if job.settings.in_place == InPlace::Never {
        let hint = format!("free {missing} there, or set in-place=auto under [sst] on the joiner");
        return Err(Failure::new(Kind::Space, format!("{both}, and in-place=never")).hint(hint).into());
    }
    let lacking = |d: &&Demand| d.needed > d.available.saturating_add(d.freed);
    if let Some(full) = demands.iter().find(lacking) {
        let missing = full.needed - full.available - full.freed;
        let text = format!(
            "the filesystem of {} needs {} more, even without the old files",
            full.at.display(),
            size(missing)
        );
        return Err(Failure::new(Kind::Space, text).into());
    }
    tracing::warn!("{both}: the old files are replaced in place, file by file, and cannot be put back");
    Ok(Room::InPlace)
}

/// What one filesystem must hold, and what it can hold.
struct Demand {
    at: PathBuf,
    needed: u64,
    available: u64,
    /// Bytes that the old files on it take.
    freed: u64,
}

fn demands(layout: &Layout, offer: &Offer, old: &ManagedFiles) -> Result<Vec<Demand>> {
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
        let copies = if *place == Place::SecondLogDir { SECOND_COPIES } else { 1 };
        need(layout.directory(*place).unwrap_or(&layout.datadir), bytes.saturating_mul(copies))?;
    }
    for (directory, bytes) in &offer.external {
        need(Path::new(directory), *bytes)?;
    }
    // The leftovers of an interrupted transfer are reused or removed, and write-sets that an earlier try received are removed
    // before files come.
    let mut leftovers = leftovers::allocated(&layout.datadir)?;
    for path in spool::all(&layout.datadir)? {
        let bytes = kept::allocated(&path)?;
        leftovers.push((path, bytes));
    }
    for (path, bytes) in leftovers {
        if let Some(demand) = demands.get_mut(&filesystem_of(&path)?) {
            demand.available = demand.available.saturating_add(bytes);
        }
    }
    for file in old.iter() {
        if let Some(demand) = demands.get_mut(&filesystem_of(&file.path)?) {
            demand.freed += file.allocated;
        }
    }
    Ok(demands.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_grows_with_what_differs() {
        let share = |about, sampled| (Estimate { sampled, about }.share_of(1000) * 1000.0).round() as u64;
        // 100 of the 1000 bytes are in files that were not sampled and are always sent.
        assert_eq!(share(Some(100), 900), 145);
        assert_eq!(share(Some(110), 900), 110 + 30 + 45);
        assert_eq!(share(Some(600), 900), 1000);
        assert_eq!(share(None, 900), 1000);
        assert_eq!(share(Some(0), 0), 0);
    }
}
