//! Before a transfer: the joiner checks its settings and logs the state of its old files.
use std::sync::Arc;

use protocol::fingerprint::FingerprintKey;

use crate::datadir::layout::Layout;
use crate::datadir::lineage::Lineage;
use crate::datadir::managed::ManagedFiles;
use crate::datadir::own_position;
use crate::failure::{Failure, Kind};
use crate::flavor::{Flavor, InDatadir};
use crate::human::printable;
use crate::install::names::file_name;
use crate::job::Job;
use crate::remembered::memory::Memory;
use crate::remembered::store;

pub(super) fn refuse_missing_base(job: &Job) -> Result<(), Failure> {
    let Some(dir) = job.settings.base.as_ref().filter(|dir| !dir.is_dir()) else { return Ok(()) };
    let text = format!("base={} under [sst] is not a readable directory", dir.display());
    Err(Failure::new(Kind::Configuration, text).hint("name a prepared backup, or leave it out"))
}

/// Logs and records the position of the old files, and logs their origin, as far as the files show them.
pub(super) fn log_previous_state(job: &Job, layout: &Layout) {
    if let Ok(Some(position)) = own_position::position_in_files(layout) {
        job.progress.ledger.update(|record| record.position.before = Some(position.state.to_string()));
        tracing::info!("the old files were at {} at their last checkpoint", position.state);
    }
    if let Some(Lineage { donor, position, .. }) = Lineage::read(&layout.datadir) {
        tracing::info!("the last transfer installed here came from {} at {position}", printable(&donor));
    }
}

/// Records what the donor plans: to send about so many bytes of `total`, or all of them.
pub(super) fn record_plan(job: &Job, total: u64, about: Option<u64>) {
    job.progress.ledger.update(|record| {
        let plan = record.plan.get_or_insert_default();
        (plan.total, plan.full, plan.sent) = (total, about.is_none(), Some(about.unwrap_or(total)));
    });
}

/// The key under which this node remembers fingerprints, if it remembers any.
pub(super) fn own_key(job: &Job) -> Option<FingerprintKey> {
    // An error is logged when the memory is opened.
    job.settings.remember_fingerprints.then(|| store::key_in_use(&job.datadir).ok().flatten()).flatten()
}

/// What this node remembers of its files under the key of the donor, `None` if nothing is remembered.
pub(super) fn memory_under(job: &Job, key: Option<FingerprintKey>) -> Option<Arc<Memory>> {
    let key = key.filter(|_| job.settings.remember_fingerprints)?;
    let memory = Memory::with_key(&job.datadir, key).unwrap_or_else(|error| {
        tracing::warn!("fingerprints are not remembered: {error:#}");
        None
    });
    memory.map(Arc::new)
}

/// Warns of files that `cpat` matches but that are not kept, because they would act on the new data.
pub(super) fn warn_of_cpat_conflicts(old: &ManagedFiles) {
    let names: Vec<String> =
        old.iter().filter(|f| f.keep_overruled).map(|f| f.path.display().to_string()).collect();
    if !names.is_empty() {
        tracing::warn!("cpat matches files that cannot be kept beside new data: {}", names.join(", "));
    }
}

/// Warns that replication from outside the cluster ends: its settings belong to a position of the old data.
pub(super) fn warn_that_replication_ends(flavor: &dyn Flavor, old: &ManagedFiles) {
    let settings = old.iter().map(|file| file.path).filter(|path| {
        let name = file_name(path);
        flavor.in_datadir(name) == InDatadir::ReplicationSource && name.starts_with("master")
    });
    for path in settings {
        tracing::warn!(
            "{} is removed with the old data: this node is no longer a replica afterwards (CHANGE MASTER TO makes it one \
             again; cpat under [sst] would keep the file)",
            path.display()
        );
    }
}
