//! The interface between a snapshot and its receiver: files are announced, ranges are written, and a final list says
//! which files belong to the state.
use std::ops::Range;
use std::time::Duration;

use anyhow::Result;
use formats::Lsn;
use formats::wsrep::state_id::StateId;
use protocol::entries::Entries;
use protocol::fingerprint::Fingerprint;
use protocol::inventory::{FileEntry, FileId};
use protocol::limits::RANGE_BYTES;

use crate::send::in_flight::Turn;

/// Receives a snapshot. It is called from several threads. A slow sink slows down the copying of files, never the
/// reading of the redo log.
///
/// Parts of a file that were never written are zeros. Ranges of one file may come in any order, and a range may be
/// written again: the last version counts, zeros included. Nothing is final before [`SnapshotSink::finish`].
pub trait SnapshotSink: Sync {
    /// Files that will be written soon, roughly in this order.
    fn expect(&self, _entries: &mut dyn Iterator<Item = &FileEntry>) {}

    /// A file that is about to be written. Its name, size and role may still change; the manifest has the final ones.
    ///
    /// # Errors
    /// The transfer cannot go on.
    fn announce(&self, entry: &FileEntry) -> Result<()>;

    /// Writes bytes of a file. Zeros may become holes.
    ///
    /// # Errors
    /// The transfer cannot go on.
    fn write(&self, file: FileId, offset: u64, bytes: &[u8]) -> Result<()>;

    /// Called before [`SnapshotSink::expect`]: the fingerprint of a file of one range is remembered, so the file need not be read
    /// if the joiner has the same.
    fn remember(&self, _file: FileId, _fingerprint: &Fingerprint) {}

    /// Whether [`SnapshotSink::put_remembered`] can succeed: nobody need look at the files for it otherwise.
    fn compares(&self) -> bool {
        true
    }

    /// Waits until so many bytes may be read from the disk. `None`: at once, and beside everything else.
    fn turn_to_read(&self, _bytes: usize) -> Option<Turn<'_>> {
        None
    }

    /// Hands over a range by its fingerprint, without its bytes. Returns false if that is not enough: the joiner has something
    /// else, or it is not known what it has. Then the range must be written.
    ///
    /// # Errors
    /// The transfer cannot go on.
    fn put_remembered(
        &self,
        _file: FileId,
        _offset: u64,
        _len: u32,
        _fingerprint: &Fingerprint,
    ) -> Result<bool> {
        Ok(false)
    }

    /// A consistency point is about to begin. Returns when everything that was handed over before is on its way. Until
    /// [`SnapshotSink::end_consistency_point`], writes should not wait for the network or the joiner, because locks are
    /// held.
    ///
    /// # Errors
    /// The transfer cannot go on.
    fn begin_consistency_point(&self) -> Result<()> {
        Ok(())
    }

    /// The consistency point is over, or was not reached.
    fn end_consistency_point(&self) {}

    /// From now on commits wait until everything is read: nothing is slowed for the server's sake.
    fn holds_writes(&self) {}

    /// What the snapshot is doing now, for the status that the operator sees.
    fn phase(&self, _what: &str) {}

    /// What the snapshot is waiting for, in words; `None` when the wait is over.
    fn waits(&self, _for_whom: Option<&str>) {}

    /// The server stood still for so long, and does no more: its `replication`, or all `writes`.
    fn paused(&self, _what: &str, _took: Duration) {}

    /// So many pages that were read are corrupt.
    fn found_corrupt_pages(&self, _pages: u64) {}

    /// A message for the logs of both hosts.
    fn tell(&self, _text: &str) {}

    /// This many bytes will be written in addition to those known so far.
    fn more(&self, _bytes: u64) {}

    /// Bytes of files and redo that are still to be handled, as far as that is known.
    fn left(&self) -> Option<u64> {
        None
    }

    /// How many bytes of redo will be written, as far as that is known; `exact` once it is final.
    fn expect_redo(&self, _bytes: u64, _exact: bool) {}

    /// Whether the threads that read files leave the processors to the server now.
    fn gives_way(&self) -> bool {
        false
    }

    /// Whether the donor's server is strained now, so that nothing more is asked of it than must be.
    fn is_strained(&self) -> bool {
        false
    }

    /// The measured throughput and the limit, as far as they are known.
    fn rate(&self) -> Rate {
        Rate::default()
    }

    /// Bytes of the redo log that will never be read, whether they were written or not: they may become a hole. Each
    /// range begins where the previous one began, and ends later.
    ///
    /// # Errors
    /// The transfer cannot go on.
    fn drop_redo(&self, _file: FileId, _range: Range<u64>) -> Result<()> {
        Ok(())
    }

    /// What the snapshot consists of. Called once, after everything has been written.
    ///
    /// # Errors
    /// The transfer cannot go on.
    fn finish(&self, _manifest: &Manifest) -> Result<()> {
        Ok(())
    }
}

/// Throughput, in bytes per second, and the joiner's disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Measured throughput of the link.
    pub link: Option<u64>,
    /// The operator's limit (`rlimit`).
    pub limit: Option<u64>,
    /// How fast files may be read while the server needs the machine (`adaptive-throttle`).
    pub reading: Option<u64>,
    /// How long the joiner's disk takes to read a page.
    pub page_time: Option<Duration>,
}

/// Writes zeros, split at the boundaries of ranges, so that no range is sent in more parts than necessary.
///
/// # Errors
/// From the sink.
pub fn write_zeros(sink: &dyn SnapshotSink, file: FileId, range: Range<u64>) -> Result<()> {
    let range_bytes = u64::from(RANGE_BYTES);
    let zeros = vec![0; RANGE_BYTES as usize];
    let mut at = range.start;
    while at < range.end {
        let len = (range.end - at).min(range_bytes - at % range_bytes);
        sink.write(file, at, &zeros[..len as usize])?;
        at += len;
    }
    Ok(())
}

/// What a snapshot consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// All files of the state, with final names and sizes. Bytes beyond a file's size must be removed.
    pub files: Entries,
    /// Files that were announced and do not belong to the state.
    pub removed: Vec<FileId>,
    /// The redo log; one of `files`.
    pub redo: FileId,
    /// LSN at which recovery starts.
    pub checkpoint: Lsn,
    /// LSN at which the redo ends.
    pub end: Lsn,
    /// The position that recovery will show; `None` if the server is not a member of a cluster.
    pub position: Option<Position>,
    /// GTID state of the binary log at that position, as the lines of a `.state` file; `None` without a binary log.
    pub binlog_state: Option<String>,
}

/// A position in the cluster's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// UUID of the history, and seqno.
    pub state: StateId,
    /// `wsrep_gtid_domain_id`, when `wsrep_gtid_mode` is on.
    pub domain: Option<u32>,
}
