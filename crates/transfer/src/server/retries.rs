//! How often in a row a join of this node received files and did not bring it to Synced, for `retry-limit`.
//!
//! Two files in the datadir, named as those of the Percona XtraDB Cluster operator (docs/kubernetes.md): the number, and an
//! empty file that is there once the limit has kept a join from receiving files. An operator who removes them permits further
//! tries. A join counts before its first byte, because what ends it may leave no time to count.
use std::path::{Path, PathBuf};

use anyhow::Result;
use formats::wsrep::state_id::StateId;

use crate::datadir::layout::Layout;
use crate::datadir::lineage::Lineage;
use crate::datadir::own_position;
use crate::disk::{durable, small_file};
use crate::limits::TransferLimits;

/// The number, in decimal digits.
pub const COUNT_FILE: &str = "sst_retry_count";
/// There once the limit was reached.
pub const LIMIT_FILE: &str = "sst_retry_limit_reached";

/// Bytes of the largest number, and of white space around it.
const COUNT_BYTES_MAX: u64 = 16;

/// The number of joins that failed since the node was Synced last, as far as they were counted. A file that holds no number
/// counts as 0.
pub fn failed_joins(datadir: &Path) -> u32 {
    let content = small_file::read(&datadir.join(COUNT_FILE), COUNT_BYTES_MAX).ok().flatten();
    content.and_then(|bytes| String::from_utf8(bytes).ok()?.trim().parse().ok()).unwrap_or(0)
}

/// Whether a join may receive files.
///
/// # Errors
/// `retry-limit` is reached.
pub fn permit(datadir: &Path, limits: &TransferLimits) -> Result<()> {
    let refusal = limits.permit_try(failed_joins(datadir), &datadir.join(COUNT_FILE));
    if let Err(failure) = refusal {
        let mark = datadir.join(LIMIT_FILE);
        if !mark.is_dir()
            && let Err(error) = durable::write_atomically(&mark, b"")
        {
            tracing::warn!("{error:#}");
        }
        return Err(failure.into());
    }
    Ok(())
}

/// Resets the count if a server has served on the files of the last transfer: their position is then newer than the installed one.
/// The process that waits for Synced may have died before it saw that.
///
/// # Errors
/// From the disk.
pub fn reset_if_served(layout: &Layout) -> Result<()> {
    if !are_counted(&layout.datadir) {
        return Ok(());
    }
    let installed: Option<StateId> =
        Lineage::read(&layout.datadir).and_then(|last| last.position.parse().ok());
    let now = own_position::position_in_files(layout).ok().flatten().map(|position| position.state);
    match installed.zip(now) {
        Some((then, now)) if then.uuid == now.uuid && now.seqno > then.seqno => reset(&layout.datadir),
        _ => Ok(()),
    }
}

/// Counts a join that is about to receive files, if there is a limit.
///
/// # Errors
/// From the disk.
pub fn count(datadir: &Path, limits: &TransferLimits) -> Result<()> {
    let path = datadir.join(COUNT_FILE);
    // A database may have this name; then nothing can be counted.
    if limits.retry_limit.is_none() || path.is_dir() {
        return Ok(());
    }
    let number = failed_joins(datadir).saturating_add(1);
    durable::write_atomically(&path, format!("{number}\n").as_bytes())?;
    files(datadir).skip(1).try_for_each(|mark| durable::remove_if_there(&mark).map(drop))
}

/// Whether joins were counted.
pub fn are_counted(datadir: &Path) -> bool {
    files(datadir).any(|path| path.symlink_metadata().is_ok_and(|meta| !meta.is_dir()))
}

/// The node has been Synced: the next join is the first again.
///
/// # Errors
/// From the disk.
pub fn reset(datadir: &Path) -> Result<()> {
    files(datadir).try_for_each(|path| durable::remove_if_there(&path).map(drop))
}

/// Both, as far as they are not directories of databases.
fn files(datadir: &Path) -> impl Iterator<Item = PathBuf> {
    [COUNT_FILE, LIMIT_FILE].map(|name| datadir.join(name)).into_iter().filter(|path| !path.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_are_counted_up_to_the_limit_until_the_node_is_synced() {
        let dir = tempfile::tempdir().unwrap();
        let datadir = dir.path();
        let limits = TransferLimits { retry_limit: Some(2), ..TransferLimits::default() };
        for before in 0..2 {
            assert_eq!(failed_joins(datadir), before);
            permit(datadir, &limits).unwrap();
            count(datadir, &limits).unwrap();
        }
        let refusal = permit(datadir, &limits).unwrap_err().to_string();
        assert!(refusal.contains("retry-limit=2") && refusal.contains("sst_retry_count"), "{refusal}");
        assert!(datadir.join(LIMIT_FILE).exists() && failed_joins(datadir) == 2);
        // As the operator of PXC writes and removes it.
        std::fs::write(datadir.join(COUNT_FILE), "1").unwrap();
        permit(datadir, &limits).unwrap();
        count(datadir, &limits).unwrap();
        assert!(!datadir.join(LIMIT_FILE).exists() && failed_joins(datadir) == 2 && are_counted(datadir));
        reset(datadir).unwrap();
        assert!(!are_counted(datadir) && failed_joins(datadir) == 0);
    }

    #[test]
    fn without_a_limit_nothing_is_written_and_damage_is_no_number() {
        let dir = tempfile::tempdir().unwrap();
        count(dir.path(), &TransferLimits::default()).unwrap();
        assert!(!are_counted(dir.path()));
        for content in ["", "many", "-1", "99999999999999999999"] {
            std::fs::write(dir.path().join(COUNT_FILE), content).unwrap();
            assert_eq!(failed_joins(dir.path()), 0, "{content}");
        }
        permit(dir.path(), &TransferLimits::default()).unwrap();
    }

    #[test]
    fn a_database_of_this_name_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let limits = TransferLimits { retry_limit: Some(1), ..TransferLimits::default() };
        [COUNT_FILE, LIMIT_FILE].iter().for_each(|name| std::fs::create_dir(dir.path().join(name)).unwrap());
        count(dir.path(), &limits).unwrap();
        reset(dir.path()).unwrap();
        assert!(!are_counted(dir.path()) && dir.path().join(LIMIT_FILE).is_dir());
    }
}
