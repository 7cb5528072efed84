//! How often in a row a join of this node received files and did not bring it to Synced, for `retry-limit`.
//!
//! Two files in the datadir, named as those of the Percona XtraDB Cluster operator (docs/kubernetes.md): the number, and an
//! empty file that is there once the limit has kept a join from receiving files. An operator who removes either permits further
//! tries. A join counts before its first byte, because what ends it may leave no time to count.
//!
//! That the empty file was there is noted beside the number, as a second line end, which a shell and whoever else reads a number
//! passes over. Without it the first refusal would look like one whose file an operator has removed.
use std::io::ErrorKind;
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

/// What follows a number at which [`LIMIT_FILE`] was written.
const REFUSED_AT: &str = "\n\n";

/// The number of joins that failed since the node was Synced last, as far as they were counted, or since an operator permitted
/// further ones. A file that holds no number counts as 0.
pub fn failed_joins(datadir: &Path) -> u32 {
    let content = small_file::read(&datadir.join(COUNT_FILE), COUNT_BYTES_MAX).ok().flatten();
    let Some(text) = content.and_then(|bytes| String::from_utf8(bytes).ok()) else { return 0 };
    let is_permitted = || {
        let mark = datadir.join(LIMIT_FILE).symlink_metadata();
        mark.is_err_and(|error| error.kind() == ErrorKind::NotFound)
    };
    match text.ends_with(REFUSED_AT) && is_permitted() {
        true => 0,
        false => text.trim().parse().unwrap_or(0),
    }
}

/// Whether the limit has kept the last join from receiving files, and no operator has permitted further ones since.
pub fn limit_is_reached(datadir: &Path) -> bool {
    datadir.join(LIMIT_FILE).symlink_metadata().is_ok_and(|meta| !meta.is_dir())
}

/// Whether a join may receive files.
///
/// # Errors
/// `retry-limit` is reached.
pub fn permit(datadir: &Path, limits: &TransferLimits) -> Result<()> {
    let failed = failed_joins(datadir);
    let permitted = limits.permit_try(failed, &datadir.join(COUNT_FILE));
    if permitted.is_err()
        && let Err(error) = mark(datadir, failed)
    {
        tracing::warn!("{error:#}");
    }
    permitted.map_err(anyhow::Error::from)
}

/// Leaves [`LIMIT_FILE`], and notes that beside the number afterwards: if this is interrupted, the next join is refused too.
fn mark(datadir: &Path, failed: u32) -> Result<()> {
    let mark = datadir.join(LIMIT_FILE);
    if mark.is_dir() {
        return Ok(());
    }
    durable::write_atomically(&mark, b"")?;
    durable::write_atomically(&datadir.join(COUNT_FILE), format!("{failed}{REFUSED_AT}").as_bytes())
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
        assert!(limit_is_reached(datadir) && failed_joins(datadir) == 2);
        // As the operator of PXC writes and removes it.
        std::fs::write(datadir.join(COUNT_FILE), "1").unwrap();
        permit(datadir, &limits).unwrap();
        count(datadir, &limits).unwrap();
        assert!(!datadir.join(LIMIT_FILE).exists() && failed_joins(datadir) == 2 && are_counted(datadir));
        reset(datadir).unwrap();
        assert!(!are_counted(datadir) && failed_joins(datadir) == 0);
    }

    /// As the documentation of the operator of PXC says: the count stayed, and the next join was refused again.
    #[test]
    fn whoever_removes_the_mark_of_the_limit_permits_further_joins() {
        let dir = tempfile::tempdir().unwrap();
        let (count_file, mark) = (dir.path().join(COUNT_FILE), dir.path().join(LIMIT_FILE));
        let limits = TransferLimits { retry_limit: Some(2), ..TransferLimits::default() };
        let refused = |limits| permit(dir.path(), &limits).is_err();
        count(dir.path(), &limits).unwrap();
        count(dir.path(), &limits).unwrap();
        assert!(!mark.exists() && refused(limits) && refused(limits), "the mark was never there before");
        // What a shell's `$(cat FILE)` makes of it.
        assert_eq!(std::fs::read_to_string(&count_file).unwrap().trim_end_matches('\n'), "2");
        std::fs::remove_file(&mark).unwrap();
        assert!(!refused(limits) && failed_joins(dir.path()) == 0);
        for failed in 1..=2 {
            count(dir.path(), &limits).unwrap();
            assert!(failed_joins(dir.path()) == failed && !mark.exists());
        }
        assert!(refused(limits) && mark.exists());
        // A higher limit goes on with the number.
        let more = TransferLimits { retry_limit: Some(3), ..limits };
        assert!(!refused(more));
        count(dir.path(), &more).unwrap();
        assert!(failed_joins(dir.path()) == 3 && !mark.exists() && refused(more));
        // Another program has written the number: it says nothing about the mark.
        std::fs::write(&count_file, "3").unwrap();
        std::fs::remove_file(&mark).unwrap();
        assert!(refused(more) && mark.exists());
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
        assert!(!limit_is_reached(dir.path()));
    }
}
