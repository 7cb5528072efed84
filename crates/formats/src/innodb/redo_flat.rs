//! A new log file that contains the mini-transactions of another one once, in order, without wrapping.
//!
//! A server that finds it recovers from it as after a crash. The creator text must begin with `Backup `: only then
//! does the server treat the start as one after a restore and drop orphaned `#sql` tables whose files were not
//! carried (storage/innobase/log/log0recv.cc, MariaDB 10.11). Every end marker must be that of the first lap; the
//! checksums do not cover it.

use super::redo_header::{
    CHECKPOINT_OFFSETS, Checkpoint, DATA_START, HEADER_BYTES, RedoError, RedoFormat, RedoHeader,
};
use super::redo_mtr::Mtr;
use crate::bytes::put;
use crate::ids::Lsn;
use crc32c::crc32c;

/// The end marker of each mini-transaction on the first lap.
pub const FIRST_LAP: u8 = 1;
/// Offsets in the file and LSNs stay equal modulo this, the largest block a server writes the log in.
const BLOCK: u64 = 4096;
/// Extra space for what the server writes before its first checkpoint.
const ROOM: u64 = 16 << 20;

/// Positions in a flat log that begins at a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlatLog {
    first_lsn: Lsn,
    checkpoint: Checkpoint,
}

impl FlatLog {
    /// A log that recovery reads from `checkpoint` on.
    pub fn new(checkpoint: Checkpoint) -> FlatLog {
        FlatLog { first_lsn: Lsn(checkpoint.lsn.0 / BLOCK * BLOCK), checkpoint }
    }

    /// The same log, which recovery reads from this later checkpoint on. Nothing moves; the part below
    /// `checkpoint` is never read and may be a hole. (A server reads the checkpoint block, then the
    /// FILE_CHECKPOINT record from `end_lsn` on, then everything from `lsn` on: log0recv.cc
    /// `recv_recovery_from_checkpoint_start`, MariaDB 10.11.)
    #[must_use]
    pub fn recovered_from(self, checkpoint: Checkpoint) -> FlatLog {
        FlatLog { checkpoint, ..self }
    }

    /// The LSN at [`DATA_START`]: the block of the checkpoint at which the log begins.
    pub fn first_lsn(&self) -> Lsn {
        self.first_lsn
    }

    /// Offset of a byte of the log in the file; `None` before the checkpoint's block.
    pub fn offset(&self, lsn: Lsn) -> Option<u64> {
        DATA_START.checked_add(lsn.0.checked_sub(self.first_lsn().0)?)
    }

    /// The size that the file needs if the log ends at `end`: recovery writes redo before its first
    /// checkpoint, so it is a third more than the redo it replays, plus 16 MiB, rounded up to a block.
    pub fn file_size(&self, end: Lsn) -> u64 {
        let log = end.0.saturating_sub(self.first_lsn.0);
        let replayed = end.0.saturating_sub(self.checkpoint.lsn.0);
        (DATA_START + log + replayed / 3 + ROOM).next_multiple_of(BLOCK)
    }

    /// The first [`DATA_START`] bytes: header and checkpoint. `donor` is the donor's header block, because an
    /// encrypted log's key information must be copied. `creator` follows `Backup `.
    ///
    /// # Errors
    /// The donor's block is not the header of a circular log, or the creator text is too long.
    pub fn head(&self, donor: &[u8], creator: &str) -> Result<Vec<u8>, RedoError> {
        let header = RedoHeader::parse(donor)?;
        let creator = format!("Backup {creator}");
        if !header.format.is_circular() || creator.len() > 32 {
            return Err(RedoError::Unwritable);
        }
        let mut head = vec![0; DATA_START as usize];
        if header.format == RedoFormat::Circular {
            let own = RedoHeader { format: RedoFormat::Circular, first_lsn: self.first_lsn(), creator };
            put(&mut head, 0, &own.emit()?);
        } else {
            put(&mut head, 0, donor.get(..HEADER_BYTES).ok_or(RedoError::Short)?);
            put(&mut head, 8, &self.first_lsn().0.to_be_bytes());
            put(&mut head, 16, &[0; 32]);
            put(&mut head, 16, creator.as_bytes());
            let crc = crc32c(head.get(..508).unwrap_or_default());
            put(&mut head, 508, &crc.to_be_bytes());
        }
        for at in CHECKPOINT_OFFSETS {
            put(&mut head, at as usize, &self.checkpoint.emit());
        }
        Ok(head)
    }
}

/// Appends a mini-transaction to `out` in the form that a flat log needs.
pub fn push_mtr(out: &mut Vec<u8>, mtr: &Mtr<'_>) {
    let start = out.len();
    out.extend_from_slice(mtr.bytes);
    if let Some(marker) = out.get_mut(start + mtr.records_len) {
        *marker = FIRST_LAP;
    }
}
