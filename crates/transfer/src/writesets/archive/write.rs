//! The writing end of an archive: blocks are compressed and appended, segments are closed and, by and by, removed.
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use formats::archive::{
    BLOCK_HEADER_LEN, BlockHeader, BlockKind, GapReason, SegmentHeader, file_name, index_bytes,
};
use formats::{Seqno, Uuid};

use super::read::Archive;
use super::segment::Segment;
use crate::clock::now_ms;
use crate::disk::durable::{sync_directory, write_behind};

/// A segment is closed when it has so many bytes.
const SEGMENT_BYTES: u64 = 64 << 20;
/// What was written is made durable with the end of its segment, and so long after it was written at the latest. A server's log
/// on the same filesystem may wait meanwhile, and oftener would not save the archive a gap (docs/archive.md).
const SYNC_AFTER: Duration = Duration::from_secs(30);
/// See docs/archive.md for what other levels and block sizes make of row events.
const LEVEL: i32 = 1;

/// How much of the past is kept.
#[derive(Debug, Clone, Copy, Default)]
pub struct Retention {
    /// At most so many bytes.
    pub bytes: Option<u64>,
    /// Not what was archived longer ago than this.
    pub time: Option<Duration>,
}

/// A block as the follower hands it over.
#[derive(Debug)]
pub struct Block {
    /// The history.
    pub history: Uuid,
    /// What it is.
    pub kind: BlockKind,
    /// The first seqno.
    pub first: Seqno,
    /// The last one.
    pub last: Seqno,
    /// Its body.
    pub body: Vec<u8>,
}

/// An archive that is open for writing. It holds the lock of its directory.
pub struct Writer {
    dir: PathBuf,
    /// Closed segments, and last the one that is written.
    segments: Vec<Segment>,
    open: Option<Open>,
    next_serial: u64,
    last_ms: u64,
    zstd: zstd::bulk::Compressor<'static>,
}

struct Open {
    file: File,
    blocks: Vec<BlockHeader>,
    /// When the first block was written that is not durable.
    since: Option<Instant>,
}

impl Writer {
    /// Continues the archive. A segment that a killed archiver left stays as it is, ends before the first block that is not
    /// whole, and is never written again.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn open(dir: &Path) -> Result<Writer> {
        let segments = Archive::open(dir)?.segments().to_vec();
        let serials = fs::read_dir(dir)?.flatten();
        let serials =
            serials.filter_map(|e| formats::archive::serial_of_name(&e.file_name().to_string_lossy()));
        let next_serial = serials.max().map_or(1, |serial| serial.saturating_add(1));
        let last_ms = segments.last().map_or(0, Segment::newest_ms);
        let zstd = zstd::bulk::Compressor::new(LEVEL).context("cannot compress")?;
        Ok(Writer { dir: dir.to_owned(), segments, open: None, next_serial, last_ms, zstd })
    }

    /// What it holds.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Appends a block. After an error nothing of it is in the archive.
    ///
    /// # Errors
    /// From the disk.
    pub fn append(&mut self, block: &Block) -> Result<()> {
        let other_branch = block.kind == BlockKind::Gap(GapReason::OtherBranch);
        let same = self.segments.last().is_some_and(|segment| segment.header.history == block.history);
        let full = self.segments.last().is_some_and(|segment| segment.len >= SEGMENT_BYTES);
        // Parts of one action stay together, so that a segment is understood without its neighbours.
        if other_branch || !same || (full && !is_later_part(block)) {
            self.close()?;
        }
        if self.open.is_none() {
            self.begin(block)?;
        }
        let (Some(open), Some(segment)) = (&mut self.open, self.segments.last_mut()) else { return Ok(()) };
        // Clocks are set back at times; blocks stay in order.
        self.last_ms = self.last_ms.max(now_ms());
        let compressed = self.zstd.compress(&block.body).context("cannot compress")?;
        let stored = if compressed.len() < block.body.len() { &compressed } else { &block.body };
        let header = BlockHeader::of(block.kind, block.first, block.last, block.body.len(), stored);
        let header = BlockHeader { written_ms: self.last_ms, ..header };
        let mut bytes = Vec::with_capacity(BLOCK_HEADER_LEN + stored.len());
        bytes.extend_from_slice(&header.encode(segment.header.serial));
        bytes.extend_from_slice(stored);
        if let Err(error) = open.file.write_all(&bytes) {
            // Nothing may follow half a block.
            use std::io::Seek;
            open.file.set_len(segment.len)?;
            open.file.seek(std::io::SeekFrom::End(0))?;
            return Err(error).with_context(|| format!("cannot write {}", segment.path.display()));
        }
        let begin = segment.len;
        segment.len += bytes.len() as u64;
        write_behind(&open.file, begin..segment.len);
        segment.add(&header);
        open.blocks.push(header);
        open.since.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Makes durable what was written some time ago.
    ///
    /// # Errors
    /// From the disk.
    pub fn sync_if_due(&mut self) -> Result<()> {
        let due = |open: &&mut Open| open.since.is_some_and(|since| since.elapsed() >= SYNC_AFTER);
        if let Some(open) = self.open.as_mut().filter(due) {
            open.file.sync_data().context("cannot make the archive durable")?;
            open.since = None;
        }
        Ok(())
    }

    fn begin(&mut self, block: &Block) -> Result<()> {
        let header = SegmentHeader {
            serial: self.next_serial,
            history: block.history,
            first: block.first,
            created_ms: now_ms().max(self.last_ms),
        };
        let path = self.dir.join(file_name(header.serial));
        let failed = || format!("cannot write {}", path.display());
        let mut file = File::options().write(true).create_new(true).open(&path).with_context(failed)?;
        self.next_serial = self.next_serial.saturating_add(1);
        file.write_all(&header.encode()).with_context(failed)?;
        sync_directory(&self.dir)?;
        self.segments.push(Segment::new(path, header));
        self.open = Some(Open { file, blocks: Vec::new(), since: None });
        Ok(())
    }

    /// Writes the index of the segment that is open.
    ///
    /// # Errors
    /// From the disk.
    pub fn close(&mut self) -> Result<()> {
        let (Some(mut open), Some(segment)) = (self.open.take(), self.segments.last_mut()) else {
            return Ok(());
        };
        let index = index_bytes(&open.blocks, segment.header.serial);
        open.file.write_all(&index).with_context(|| format!("cannot write {}", segment.path.display()))?;
        segment.len += index.len() as u64;
        segment.complete = true;
        open.file.sync_all().context("cannot make the archive durable")
    }

    /// Removes the oldest segments that are not to be kept; never the newest one. Answers how many, and their bytes.
    ///
    /// # Errors
    /// From the disk.
    pub fn retire(&mut self, keep: Retention) -> Result<(u64, u64)> {
        let (mut count, mut bytes) = (0, 0);
        let mut all: u64 = self.segments.iter().map(|segment| segment.len).sum();
        let oldest =
            keep.time.map(|time| now_ms().saturating_sub(time.as_millis().try_into().unwrap_or(u64::MAX)));
        while self.segments.len() > 1 {
            let segment = &self.segments[0];
            let too_large = keep.bytes.is_some_and(|most| all > most);
            let too_old = oldest.is_some_and(|oldest| segment.newest_ms() < oldest);
            if !too_large && !too_old {
                break;
            }
            fs::remove_file(&segment.path)
                .with_context(|| format!("cannot remove {}", segment.path.display()))?;
            count += 1;
            bytes += segment.len;
            all -= segment.len;
            self.segments.remove(0);
        }
        Ok((count, bytes))
    }
}

/// A part of a large action other than its first one.
fn is_later_part(block: &Block) -> bool {
    let is_part = matches!(block.kind, BlockKind::Part | BlockKind::LastPart);
    is_part && formats::archive::PartHead::parse(&block.body).is_ok_and(|(head, _)| head.offset > 0)
}
