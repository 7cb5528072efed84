//! What a snapshot consists of in the end: the head of its log, and the list of its files.
use anyhow::{Context, Result};
use formats::wsrep::state_id::StateId;
use formats::{Lsn, Seqno, Uuid};
use protocol::inventory::{FileEntry, FileRole, Place};

use super::catalog::Catalog;
use super::consistency_point::ConsistencyPoint;
use super::redo_out::{REDO, RedoOut};
use crate::snapshot::sink::{Manifest, Position, SnapshotSink, write_zeros};

/// Writes the parts of the log's file besides the redo: its head, up to the checkpoint `from` at which the log begins
/// (redo that newer checkpoints made needless was dropped before), and the room behind the redo. So the sink gets every
/// byte of the file.
pub(super) fn write_around(
    sink: &dyn SnapshotSink,
    out: &RedoOut,
    mut head: Vec<u8>,
    from: Lsn,
    end: Lsn,
) -> Result<()> {
    let flat = out.flat();
    let redo = flat.offset(from).context("the checkpoint is before the start of the log")?;
    head.resize(redo as usize, 0);
    sink.write(REDO, 0, &head)?;
    let written = flat.offset(out.written()).context("the end is before the start of the log")?;
    write_zeros(sink, REDO, written..flat.file_size(end))
}

/// The redo log's entry, as it is sent.
pub(super) fn redo_entry(size: u64) -> FileEntry {
    FileEntry {
        id: REDO,
        place: Place::LogHome,
        path: "ib_logfile0".to_owned(),
        size,
        allocated: size,
        role: FileRole::Redo,
    }
}

/// The files of the state, the redo log first, and the position.
pub(super) fn manifest(
    catalog: Catalog,
    out: &RedoOut,
    checkpoint: Lsn,
    point: &ConsistencyPoint,
    member: Option<(Uuid, Option<u32>)>,
) -> Manifest {
    let (files, removed) = catalog.result(&redo_entry(out.flat().file_size(point.end)));
    let position = match (member, point.seqno) {
        (Some((uuid, domain)), Some(seqno)) => {
            Some(Position { state: StateId { uuid, seqno: Seqno(seqno) }, domain })
        }
        _ => None,
    };
    Manifest {
        files,
        removed,
        redo: REDO,
        checkpoint,
        end: point.end,
        position,
        binlog_state: point.binlog_state.clone(),
    }
}
