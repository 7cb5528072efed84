//! How the last archived action is recognised in the provider's files when they are looked through again. Another one under its
//! seqno shows that the group began again from an older state and gave up the branch that is archived.
use std::path::Path;

use anyhow::Result;
use formats::archive::{BlockKind, PartHead, entries};
use formats::{Seqno, Uuid};
use xxhash_rust::xxh3::xxh3_64;

use super::read::Archive;
use super::segment::Reader;
use crate::failure::{Kind, kind_of};
use crate::writesets::store::WriteSetStore;

/// So much of an action tells it from others: its header is in it, with its origin, its time and its checksums.
pub const START: usize = 1 << 20;

/// What the archive ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Last {
    /// The history.
    pub history: Uuid,
    /// The seqno of the last action, or of the end of a gap behind it.
    pub seqno: Seqno,
    /// The last action, and what [`digest`] makes of it; `None` where it cannot be read.
    pub known: Option<(Seqno, u64)>,
}

/// What an action is recognised by. `start`: its first [`START`] bytes of so many in all. Its verdict is none of it: the provider
/// may not have come to it again.
pub fn digest(total: u64, start: &[u8]) -> u64 {
    xxh3_64(&start[..start.len().min(START)]) ^ total
}

/// What the archive in this directory ends with; `None` if it is empty.
///
/// # Errors
/// It cannot be read.
pub(super) fn last_of(dir: &Path) -> Result<Option<Last>> {
    let archive = Archive::open(dir)?;
    let (runs, gaps) = archive.runs();
    let Some(run) = runs.last().filter(|run| run.history == archive.history()) else { return Ok(None) };
    let is_behind = |gap: &&super::Gap| gap.history == run.history && gap.last > run.last;
    let seqno = gaps.last().filter(is_behind).map_or(run.last, |gap| gap.last);
    // What is damaged stays so; what follows is archived all the same.
    let known = match digest_of(&archive, run.serials.1, run.last) {
        Err(error) if kind_of(&error) == Kind::Disk => {
            tracing::warn!("the last write-set of the archive cannot be read: {error:#}");
            None
        }
        read => read?,
    };
    Ok(Some(Last { history: run.history, seqno, known: known.map(|digest| (run.last, digest)) }))
}

/// Of an action in this segment. Of a large one only the first part is read: the whole may have gigabytes.
fn digest_of(archive: &Archive, serial: u64, seqno: Seqno) -> Result<Option<u64>> {
    let Some(segment) = archive.segments().iter().find(|segment| segment.header.serial == serial) else {
        return Ok(None);
    };
    let reader = Reader::open(&segment.path, serial)?;
    let with_it = reader.blocks.iter().rev().filter(|(_, block)| block.first <= seqno && seqno <= block.last);
    for (at, block) in with_it {
        let refuse = |what: &str| reader.damaged(*at, block, what);
        match block.kind {
            BlockKind::Gap(_) => {}
            BlockKind::Actions => {
                let body = reader.body(*at, block)?;
                let found = entries(block, &body).map_err(|error| refuse(&error.to_string()))?;
                let found = found.into_iter().find(|entry| entry.seqno == seqno);
                return Ok(found.map(|e| digest(e.bytes.len() as u64, e.bytes)));
            }
            BlockKind::Part | BlockKind::LastPart => {
                let body = reader.body(*at, block)?;
                let (head, piece) = PartHead::parse(&body).map_err(|error| refuse(&error.to_string()))?;
                if head.offset == 0 {
                    return Ok(Some(digest(head.total, piece)));
                }
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use formats::archive::{PartHead, push_entry};
    use formats::galera::gcache::Action;

    use super::*;
    use crate::writesets::archive::{Block, Writer};

    const HISTORY: Uuid = Uuid([1; 16]);

    fn append(writer: &mut Writer, kind: BlockKind, range: (i64, i64), body: Vec<u8>) {
        let (first, last) = (Seqno(range.0), Seqno(range.1));
        writer.append(&Block { history: HISTORY, kind, first, last, body }).unwrap();
    }

    fn entry(bytes: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        push_entry(&mut body, Action::Other(9), false, bytes);
        body
    }

    #[test]
    fn a_large_action_and_one_before_a_gap_are_recognised() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(dir.path()).unwrap();
        append(&mut writer, BlockKind::Actions, (1, 1), entry(&[5; 300]));
        let (total, piece) = (2 * START as u64, vec![7; START]);
        for (offset, kind) in [(0, BlockKind::Part), (START as u64, BlockKind::LastPart)] {
            let head = PartHead { offset, total, action: Action::WriteSet, skipped: true };
            append(&mut writer, kind, (2, 2), head.body(&piece));
        }
        writer.close().unwrap();
        let large = Some((Seqno(2), digest(total, &piece)));
        let last = Last { history: HISTORY, seqno: Seqno(2), known: large };
        assert_eq!(last_of(dir.path()).unwrap(), Some(last));

        let gap = BlockKind::Gap(formats::archive::GapReason::Lost);
        append(&mut writer, gap, (3, 9), Vec::new());
        writer.close().unwrap();
        assert_eq!(last_of(dir.path()).unwrap(), Some(Last { seqno: Seqno(9), ..last }));
    }

    #[test]
    fn a_damaged_last_block_does_not_keep_the_archiver_from_going_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(dir.path()).unwrap();
        append(&mut writer, BlockKind::Actions, (1, 1), entry(&[5; 300]));
        writer.close().unwrap();
        let path = writer.segments()[0].path.clone();
        drop(writer);
        let undamaged = last_of(dir.path()).unwrap().unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[formats::archive::SEGMENT_HEADER_LEN + formats::archive::BLOCK_HEADER_LEN + 2] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let damaged = last_of(dir.path()).unwrap().unwrap();
        assert_eq!(undamaged.known, Some((Seqno(1), digest(300, &[5; 300]))));
        assert_eq!(damaged, Last { known: None, ..undamaged });
    }
}
