//! The live `ib_logfile0`: its head, and bytes of it by LSN.
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use formats::Lsn;
use formats::innodb::redo_header::{Checkpoint, DATA_START, HEADER_BYTES, RedoFormat, RedoHeader};
use formats::innodb::redo_mtr::Geometry;

use crate::disk::direct::{ALIGN, Buffer, Direct};
use crate::disk::identity::{Identity, look, look_at};
use crate::snapshot::declined::Declined;

/// Since this series of MariaDB the redo log is one circular file, which the online snapshot follows.
pub const CIRCULAR_SINCE: (u32, u32) = (10, 8);

/// How long an unreadable head is read again: the server may be replacing the log.
const HEAD_PATIENCE: Duration = Duration::from_secs(3);

/// The log file as it was when it was opened.
pub struct LogFile {
    path: PathBuf,
    file: Direct,
    identity: Identity,
    /// Gives the offset of an LSN.
    pub geometry: Geometry,
    /// The log is encrypted: types and lengths are in clear, names are not.
    pub encrypted: bool,
    /// The newest checkpoint.
    pub checkpoint: Checkpoint,
    /// The header block.
    pub header: Vec<u8>,
}

impl LogFile {
    /// Opens the log and reads its head; tries again while the server replaces it.
    ///
    /// # Errors
    /// [`Declined::RedoFormat`], [`Declined::RedoUnreadable`], or from the system.
    pub fn open(path: &Path) -> Result<LogFile> {
        let began = Instant::now();
        loop {
            match Self::try_open(path) {
                Err(e) if began.elapsed() < HEAD_PATIENCE && !is_format(&e) => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                result => return result,
            }
        }
    }

    /// Why this log cannot be followed, if its head shows that it has the layout of another server version. It is read once.
    pub fn unknown_layout(path: &Path) -> Option<Declined> {
        let error = Self::try_open(path).err().filter(is_format)?;
        error.downcast().ok()
    }

    fn try_open(path: &Path) -> Result<LogFile> {
        let file = Direct::open(path, true).with_context(|| format!("cannot open {}", path.display()))?;
        let seen = look_at(file.file()).with_context(|| format!("cannot look at {}", path.display()))?;
        let mut buffer = Buffer::new(DATA_START as usize);
        let read = file.read(buffer.bytes(), 0).with_context(|| format!("cannot read {}", path.display()))?;
        let head = &buffer.bytes()[..read];
        let unreadable = |why: String| Declined::RedoUnreadable { at: Lsn(0), why };
        let header = RedoHeader::parse(head).map_err(|e| unreadable(e.to_string()))?;
        if !header.format.is_circular() || is_unknown_on_purpose() {
            return Err(Declined::RedoFormat(format!("{:?}", header.format)).into());
        }
        let checkpoint = Checkpoint::newest(head).map_err(|e| unreadable(e.to_string()))?;
        let geometry = Geometry::new(header.first_lsn, seen.signature.size);
        Ok(LogFile {
            path: path.to_owned(),
            identity: seen.identity,
            geometry: geometry.ok_or_else(|| unreadable("no room for records".to_owned()))?,
            encrypted: header.format != RedoFormat::Circular,
            checkpoint,
            header: head[..HEADER_BYTES].to_vec(),
            file,
        })
    }

    /// True if another file has the log's name now: the log was resized.
    pub fn is_replaced(&self) -> bool {
        matches!(look(&self.path), Ok(Some(now)) if now.identity != self.identity)
    }

    /// Opens the file that has the log's name now.
    ///
    /// # Errors
    /// As [`LogFile::open`].
    pub fn reopen(&self) -> Result<LogFile> {
        Self::open(&self.path)
    }

    /// Bytes from `lsn` on, at most `len`, at most to the end of the lap and of the buffer.
    ///
    /// # Errors
    /// From the system.
    pub fn read<'a>(&self, lsn: Lsn, len: u64, buffer: &'a mut Buffer) -> Result<&'a [u8]> {
        let offset = self.geometry.offset(lsn).context("the LSN is before the start of the log")?;
        let lap_end = DATA_START + self.geometry.capacity;
        let aligned = offset / ALIGN as u64 * ALIGN as u64;
        let skip = (offset - aligned) as usize;
        let room = buffer.bytes().len() - skip;
        let want = len.min(lap_end - offset).min(room as u64) as usize;
        let span = (skip + want).next_multiple_of(ALIGN);
        let got = self
            .file
            .read(&mut buffer.bytes()[..span], aligned)
            .with_context(|| format!("cannot read {}", self.path.display()))?;
        Ok(&buffer.bytes()[skip.min(got)..got.min(skip + want)])
    }
}

/// In a debug build a test can make any log one of an unknown format: `REJOIN_UNKNOWN_REDO`.
#[cfg(debug_assertions)]
fn is_unknown_on_purpose() -> bool {
    std::env::var_os("REJOIN_UNKNOWN_REDO").is_some()
}

#[cfg(not(debug_assertions))]
fn is_unknown_on_purpose() -> bool {
    false
}

fn is_format(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<Declined>(), Some(Declined::RedoFormat(_)))
}
