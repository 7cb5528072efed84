//! Where a snapshot goes: announced files, written ranges, and at the end the list that counts.
use std::ops::Range;

use anyhow::Result;
use formats::Lsn;
use formats::wsrep::state_id::StateId;
use protocol::entries::Entries;
use protocol::inventory::{FileEntry, FileId};
use protocol::limits::RANGE_BYTES;

/// Takes a snapshot. Called from several threads; a slow sink slows the copy down, never the redo tail.
///
/// What a file holds where nothing was written is zeros. Ranges of one file may come in any order, and a range may
/// be written again: the last one counts, zeros too. Nothing is final before [`SnapshotSink::finish`].
pub trait SnapshotSink: Sync {
    /// Files that will be written soon, in about this order.
    fn expect(&self, _entries: &mut dyn Iterator<Item = &FileEntry>) {}

    /// A file that is about to be written. Name, size and role are what they are at the moment; the manifest has
    /// the final ones.
    ///
    /// # Errors
    /// The transfer cannot go on.
    fn announce(&self, entry: &FileEntry) -> Result<()>;

    /// Bytes of a file. Parts that are zero may be left as holes.
    ///
    /// # Errors
    /// The transfer cannot go on.
    fn write(&self, file: FileId, offset: u64, bytes: &[u8]) -> Result<()>;

    /// A consistency point is about to begin: returns when what was handed over before is on its way. What comes in the
    /// moment should be taken without waiting for anyone, for locks are held.
    ///
    /// # Errors
    /// The transfer cannot go on.
    fn begin_consistency_point(&self) -> Result<()> {
        Ok(())
    }

    /// The moment is over, or did not come.
    fn end_consistency_point(&self) {}

    /// What the snapshot does now, for the operator who looks.
    fn phase(&self, _what: &str) {}

    /// Somebody is waited for, in words, or no longer.
    fn waits(&self, _for_whom: Option<&str>) {}

    /// What both hosts should know.
    fn tell(&self, _text: &str) {}

    /// So many bytes more will be written than was known.
    fn more(&self, _bytes: u64) {}

    /// So many bytes of redo will be written, as far as that is known now; `exact` once it is.
    fn expect_redo(&self, _bytes: u64, _exact: bool) {}

    /// How fast bytes go through, as far as that is known.
    fn rate(&self) -> Rate {
        Rate::default()
    }

    /// Bytes of the redo log that will never be read, written or not: they may become a hole. Ranges begin where the
    /// one before did and end later.
    ///
    /// # Errors
    /// The transfer cannot go on.
    fn drop_redo(&self, _file: FileId, _range: Range<u64>) -> Result<()> {
        Ok(())
    }

    /// What the snapshot consists of, once everything has been written.
    ///
    /// # Errors
    /// The transfer cannot go on.
    fn finish(&self, _manifest: &Manifest) -> Result<()> {
        Ok(())
    }
}

/// How fast bytes go through, in bytes a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// What the link carries, as measured.
    pub link: Option<u64>,
    /// What the operator allows.
    pub limit: Option<u64>,
}

/// Writes zeros, range by range, so that no range is sent in more parts than it must.
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
    /// Every file that counts, with its final name and size. What is beyond the size must go.
    pub files: Entries,
    /// Files that were announced and do not count.
    pub removed: Vec<FileId>,
    /// The redo log; one of `files`.
    pub redo: FileId,
    /// Recovery starts here.
    pub checkpoint: Lsn,
    /// The redo ends here.
    pub end: Lsn,
    /// The position that recovery will show; `None` when the server is no cluster member.
    pub position: Option<Position>,
    /// GTID state of the binary log at that position, as lines of a `.state` file; `None` without a binary log.
    pub binlog_state: Option<String>,
}

/// A position of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// History and number.
    pub state: StateId,
    /// `wsrep_gtid_domain_id`, when `wsrep_gtid_mode` is on.
    pub domain: Option<u32>,
}
