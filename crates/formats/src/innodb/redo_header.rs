//! The head of `ib_logfile0`: header block and checkpoint blocks.
//!
//! From storage/innobase/include/log0log.h and log/log0log.cc (MariaDB 10.11 and 11.8: the one circular file since
//! 10.8) and from files of 10.11.19 servers, in clear and encrypted.

use crc32c::crc32c;
use thiserror::Error;

use crate::bytes::{be32, be64, put};
use crate::ids::Lsn;

/// Bytes of the header block.
pub const HEADER_BYTES: usize = 512;
/// Offsets of the two checkpoint blocks.
pub const CHECKPOINT_OFFSETS: [u64; 2] = [4096, 8192];
/// Bytes of a checkpoint block that are used.
pub const CHECKPOINT_BYTES: usize = 64;
/// Where the log records begin.
pub const DATA_START: u64 = 12288;

/// The layout of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RedoFormat {
    /// One circular file, since 10.8; unencrypted.
    Circular,
    /// One circular file, encrypted, with its own format word: 11.x and late 10.11 (seen with 10.11.19).
    CircularEncrypted,
    /// One circular file, encrypted by earlier servers since 10.8: it has the word of
    /// [`RedoFormat::Circular`], and differs from it by a key version at offset 48.
    CircularEncryptedUnmarked,
    /// Blocks of 512 bytes, 10.5 to 10.7.
    Blocks10_5 {
        /// The encryption bit of the format word.
        encrypted: bool,
    },
    /// Any other format: 10.4 and before (small numbers), MySQL, or a later format, with its format word.
    Other(u32),
}

const WORD_10_8: u32 = 0x5068_7973;
const WORD_ENCRYPTED: u32 = 0xf09f_979d;
const WORD_10_5: u32 = 0x5048_5953;
const WORD_10_5_ENCRYPTED: u32 = WORD_10_5 | 0x8000_0000;

impl RedoFormat {
    /// Whether it is unreadable without the key.
    pub fn is_encrypted(self) -> bool {
        use RedoFormat::{Blocks10_5, CircularEncrypted, CircularEncryptedUnmarked};
        matches!(self, CircularEncrypted | CircularEncryptedUnmarked | Blocks10_5 { encrypted: true })
    }

    /// Whether the offsets in this crate apply to the layout.
    pub fn is_circular(self) -> bool {
        matches!(
            self,
            RedoFormat::Circular | RedoFormat::CircularEncrypted | RedoFormat::CircularEncryptedUnmarked
        )
    }
}

/// The header block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedoHeader {
    /// Layout.
    pub format: RedoFormat,
    /// LSN at [`DATA_START`] on the first lap.
    pub first_lsn: Lsn,
    /// The creator of the file, up to 32 bytes; a leading `Backup ` tells the server that this is a restored
    /// copy.
    pub creator: String,
}

/// Why a block is invalid. A file that is being replaced can have this state for a moment, so read it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RedoError {
    /// Fewer bytes than the block has.
    #[error("the redo log's header is truncated")]
    Short,
    /// The checksum of the block is wrong.
    #[error("the redo log block has checksum {found:#010x} instead of {expected:#010x}")]
    Checksum {
        /// Over the bytes.
        expected: u32,
        /// Stored.
        found: u32,
    },
    /// A creator text of more than 32 bytes, or a format other than `Circular`, cannot be written.
    #[error("a redo log header of this kind cannot be written")]
    Unwritable,
}

impl RedoHeader {
    /// Parses the first 512 bytes of the file. The checksum is verified for every layout since 10.2; its
    /// position is the same in all of them.
    ///
    /// # Errors
    /// Truncated, or a wrong checksum.
    pub fn parse(block: &[u8]) -> Result<RedoHeader, RedoError> {
        let block = block.get(..HEADER_BYTES).ok_or(RedoError::Short)?;
        let word = |at| be32(block, at).ok_or(RedoError::Short);
        let (expected, found) = (crc32c(block.get(..508).ok_or(RedoError::Short)?), word(508)?);
        if expected != found {
            return Err(RedoError::Checksum { expected, found });
        }
        let format = match word(0)? {
            WORD_10_8 if word(48)? != 0 => RedoFormat::CircularEncryptedUnmarked,
            WORD_10_8 => RedoFormat::Circular,
            WORD_ENCRYPTED => RedoFormat::CircularEncrypted,
            WORD_10_5 => RedoFormat::Blocks10_5 { encrypted: false },
            WORD_10_5_ENCRYPTED => RedoFormat::Blocks10_5 { encrypted: true },
            other => RedoFormat::Other(other),
        };
        let creator = block.get(16..48).unwrap_or_default();
        let creator = creator.split(|&b| b == 0).next().unwrap_or_default();
        Ok(RedoHeader {
            format,
            first_lsn: Lsn(be64(block, 8).ok_or(RedoError::Short)?),
            creator: String::from_utf8_lossy(creator).into_owned(),
        })
    }

    /// The header block of an unencrypted circular log, with its checksum.
    ///
    /// # Errors
    /// `Unwritable` for any other format, or a creator text longer than 32 bytes.
    pub fn emit(&self) -> Result<[u8; HEADER_BYTES], RedoError> {
        if self.format != RedoFormat::Circular || self.creator.len() > 32 {
            return Err(RedoError::Unwritable);
        }
        let mut block = [0; HEADER_BYTES];
        put(&mut block, 0, &WORD_10_8.to_be_bytes());
        put(&mut block, 8, &self.first_lsn.0.to_be_bytes());
        put(&mut block, 16, self.creator.as_bytes());
        let crc = crc32c(block.get(..508).unwrap_or_default());
        put(&mut block, 508, &crc.to_be_bytes());
        Ok(block)
    }
}

/// A checkpoint block of a circular log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// Recovery starts here.
    pub lsn: Lsn,
    /// The position of this checkpoint's FILE_CHECKPOINT record.
    pub end_lsn: Lsn,
}

impl Checkpoint {
    /// Parses 64 bytes at one of [`CHECKPOINT_OFFSETS`].
    ///
    /// # Errors
    /// Truncated, or a wrong checksum; a block that was never used is all zero, which has a wrong checksum
    /// too.
    pub fn parse(block: &[u8]) -> Result<Checkpoint, RedoError> {
        let covered = block.get(..60).ok_or(RedoError::Short)?;
        let (expected, found) = (crc32c(covered), be32(block, 60).ok_or(RedoError::Short)?);
        if expected != found {
            return Err(RedoError::Checksum { expected, found });
        }
        let at = |at| be64(covered, at).map(Lsn).ok_or(RedoError::Short);
        Ok(Checkpoint { lsn: at(0)?, end_lsn: at(8)? })
    }

    /// The block with its checksum.
    pub fn emit(&self) -> [u8; CHECKPOINT_BYTES] {
        let mut block = [0; CHECKPOINT_BYTES];
        put(&mut block, 0, &self.lsn.0.to_be_bytes());
        put(&mut block, 8, &self.end_lsn.0.to_be_bytes());
        let crc = crc32c(block.get(..60).unwrap_or_default());
        put(&mut block, 60, &crc.to_be_bytes());
        block
    }

    /// The newest valid checkpoint in the first [`DATA_START`] bytes of the file (9 KiB are enough).
    ///
    /// # Errors
    /// The error of the first block if neither is valid.
    pub fn newest(head: &[u8]) -> Result<Checkpoint, RedoError> {
        let read = |at: u64| {
            let block = usize::try_from(at).ok().and_then(|at| head.get(at..));
            Checkpoint::parse(block.unwrap_or_default())
        };
        let [first, second] = CHECKPOINT_OFFSETS.map(read);
        match (first, second) {
            (Ok(a), Ok(b)) => Ok(if b.lsn > a.lsn { b } else { a }),
            (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(one),
            (Err(error), Err(_)) => Err(error),
        }
    }
}

/// Offset of `lsn` in the file of a circular log of `file_size` bytes; `None` for an LSN before the first, or
/// a file without room for records.
pub fn offset_of(lsn: Lsn, first_lsn: Lsn, file_size: u64) -> Option<u64> {
    let capacity = file_size.checked_sub(DATA_START).filter(|&c| c > 0)?;
    Some(DATA_START + lsn.0.checked_sub(first_lsn.0)? % capacity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn damage_is_named() {
        let header = RedoHeader {
            format: RedoFormat::Circular,
            first_lsn: Lsn(12288),
            creator: "Backup rejoin".into(),
        };
        let mut block = header.emit().unwrap();
        assert_eq!(RedoHeader::parse(&block), Ok(header));
        block[100] = 1;
        assert!(matches!(RedoHeader::parse(&block), Err(RedoError::Checksum { .. })));
        assert_eq!(RedoHeader::parse(&block[..511]), Err(RedoError::Short));
        // The block was never used: the CRC-32C of zeros is not zero.
        assert!(Checkpoint::parse(&[0; 64]).is_err());
    }

    #[test]
    fn the_newest_checkpoint_counts() {
        let mut head = vec![0; DATA_START as usize];
        assert!(Checkpoint::newest(&head).is_err());
        let at = |lsn| Checkpoint { lsn: Lsn(lsn), end_lsn: Lsn(lsn + 5) };
        put(&mut head, 4096, &at(100).emit());
        assert_eq!(Checkpoint::newest(&head), Ok(at(100)));
        put(&mut head, 8192, &at(200).emit());
        assert_eq!(Checkpoint::newest(&head), Ok(at(200)));
        put(&mut head, 4096, &at(300).emit());
        assert_eq!(Checkpoint::newest(&head), Ok(at(300)));
    }

    #[test]
    fn offsets_wrap() {
        let first = Lsn(1000);
        assert_eq!(offset_of(Lsn(1000), first, 12288 + 100), Some(12288));
        assert_eq!(offset_of(Lsn(1150), first, 12288 + 100), Some(12338));
        assert_eq!(offset_of(Lsn(999), first, 20000), None);
        assert_eq!(offset_of(Lsn(1000), first, 12288), None);
    }

    proptest! {
        #[test]
        fn round_trips(first: u64, creator in "[ -~]{0,32}", lsn: u64, end: u64) {
            let header = RedoHeader { format: RedoFormat::Circular, first_lsn: Lsn(first), creator };
            prop_assert_eq!(RedoHeader::parse(&header.emit().unwrap()), Ok(header));
            let checkpoint = Checkpoint { lsn: Lsn(lsn), end_lsn: Lsn(end) };
            prop_assert_eq!(Checkpoint::parse(&checkpoint.emit()), Ok(checkpoint));
        }

        #[test]
        fn never_panics(block in prop::collection::vec(any::<u8>(), 0..600), a: u64, b: u64, c: u64) {
            let _ = RedoHeader::parse(&block);
            let _ = Checkpoint::parse(&block);
            let _ = Checkpoint::newest(&block);
            let _ = offset_of(Lsn(a), Lsn(b), c);
        }
    }
}
