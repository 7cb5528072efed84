//! An archive as its readers see it: runs of actions, and what is missing between them.
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use formats::archive::{BlockKind, GapReason, PartHead, entries, serial_of_name};
use formats::galera::gcache::Action;
use formats::galera::write_set_check::WriteSetCheck;
use formats::{Seqno, Uuid};

use super::segment::{Piece, Reader, Segment};
use crate::failure::{Failure, Kind};
use crate::writesets::store::{StoredAction, Take, WriteSetStore, verify_action};

/// A segment of no more bytes has no block.
const HEADER: u64 = formats::archive::SEGMENT_HEADER_LEN as u64;

/// An archive's segments, as they were when it was opened.
#[derive(Debug)]
pub struct Archive {
    dir: PathBuf,
    segments: Vec<Segment>,
    /// Segments that cannot be read at all, and why.
    unreadable: Vec<String>,
}

/// Actions of one history without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The history.
    pub history: Uuid,
    /// The first seqno.
    pub first: Seqno,
    /// The last one.
    pub last: Seqno,
    /// When the first actions were archived, in milliseconds since 1970.
    pub first_ms: u64,
    /// When the last ones were.
    pub last_ms: u64,
    /// The segments it lies in. After the group began again from an older state, a seqno may be in two runs, never in two
    /// of one segment.
    pub serials: (u64, u64),
}

/// What is missing between two runs of one history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The history.
    pub history: Uuid,
    /// The first missing seqno.
    pub first: Seqno,
    /// The last one; less than the first when none is known to be missing.
    pub last: Seqno,
    /// Why, and when that was found; `None` when no gap was recorded: what was here is damaged.
    pub recorded: Option<(String, u64)>,
}

/// Runs and gaps of segments in their order.
pub fn runs_of<'a>(segments: impl IntoIterator<Item = &'a Segment>) -> (Vec<Run>, Vec<Gap>) {
    let (mut runs, mut gaps): (Vec<Run>, Vec<Gap>) = (Vec::new(), Vec::new());
    let mut broken = true;
    for segment in segments {
        let (history, serial) = (segment.header.history, segment.header.serial);
        broken |= runs.last().is_some_and(|run| run.history != history);
        for piece in &segment.pieces {
            match *piece {
                Piece::Gap { first, last, reason, at_ms } => {
                    gaps.push(Gap { history, first, last, recorded: Some((reason.to_string(), at_ms)) });
                    broken = true;
                }
                Piece::Run { first, last, first_ms, last_ms } => {
                    match runs.last_mut() {
                        Some(run) if !broken && run.last.0.checked_add(1) == Some(first.0) => {
                            (run.last, run.last_ms, run.serials.1) = (last, last_ms, serial);
                            continue;
                        }
                        Some(run) if !broken => gaps.push(Gap {
                            history,
                            first: Seqno(run.last.0.saturating_add(1)),
                            last: Seqno(first.0.saturating_sub(1)),
                            recorded: None,
                        }),
                        _ => {}
                    }
                    runs.push(Run { history, first, last, first_ms, last_ms, serials: (serial, serial) });
                    broken = false;
                }
            }
        }
    }
    (runs, gaps)
}

impl Gap {
    /// Why there is one, and when it was recorded: 0 for a gap that nobody recorded.
    pub fn reason(&self) -> (String, u64) {
        self.recorded.clone().unwrap_or_else(|| ("damaged in the archive".to_owned(), 0))
    }
}

/// Whether a directory is, or was, an archive: it has a segment.
pub fn is_archive(dir: &Path) -> bool {
    let Ok(entries) = dir.read_dir() else { return false };
    entries.flatten().any(|entry| serial_of_name(&entry.file_name().to_string_lossy()).is_some())
}

impl Archive {
    /// Reads what the archive in this directory holds. It may be written meanwhile.
    ///
    /// # Errors
    /// The directory cannot be read. Damage is no error here.
    pub fn open(dir: &Path) -> Result<Archive> {
        let listing = dir.read_dir().with_context(|| format!("cannot read the archive {}", dir.display()))?;
        let mut serials = Vec::new();
        for entry in listing {
            serials.extend(serial_of_name(&entry?.file_name().to_string_lossy()));
        }
        serials.sort_unstable();
        let (mut segments, mut unreadable) = (Vec::new(), Vec::new());
        for serial in serials {
            let path = dir.join(formats::archive::file_name(serial));
            match Reader::open(&path, serial) {
                Ok(reader) => segments.push(reader.segment),
                // The archiver's retention removed it, or its header was not yet written.
                Err(_) if std::fs::metadata(&path).map_or(true, |meta| meta.len() <= HEADER) => {}
                Err(error) => unreadable.push(format!("{error:#}")),
            }
        }
        Ok(Archive { dir: dir.to_owned(), segments, unreadable })
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its segments, the oldest first.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// What is known to be damaged before any checksum of an action is read: segments that cannot be read, and bytes between
    /// blocks.
    pub fn damage(&self) -> Vec<String> {
        let of_segment = |segment: &Segment| {
            let shown = segment.path.display().to_string();
            segment.damaged.iter().map(move |text| format!("{shown}: {text}")).collect::<Vec<_>>()
        };
        self.unreadable.iter().cloned().chain(self.segments.iter().flat_map(of_segment)).collect()
    }

    /// Its runs and the gaps between them, the oldest first.
    pub fn runs(&self) -> (Vec<Run>, Vec<Gap>) {
        runs_of(&self.segments)
    }

    /// The newest run.
    pub fn newest_run(&self) -> Option<Run> {
        self.runs().0.pop()
    }

    /// Bytes on disk, and of all actions before they were compressed.
    pub fn bytes(&self) -> (u64, u64) {
        let sum = |of: fn(&Segment) -> u64| self.segments.iter().map(of).sum();
        (sum(|segment| segment.len), sum(|segment| segment.body_bytes))
    }

    /// Reads and verifies everything: each block's checksum and each action's own. Tells of what is wrong, and answers how many
    /// actions are sound.
    ///
    /// # Errors
    /// Reading failed.
    pub fn verify(&self, bad: &mut dyn FnMut(String)) -> Result<u64> {
        let mut sound = 0;
        self.damage().into_iter().for_each(&mut *bad);
        for segment in &self.segments {
            let reader = match Reader::open(&segment.path, segment.header.serial) {
                Ok(reader) => reader,
                // Retention removed it meanwhile.
                Err(_) if !segment.path.exists() => continue,
                Err(error) => {
                    bad(format!("{error:#}"));
                    continue;
                }
            };
            let mut parts = None;
            for (at, block) in &reader.blocks {
                let checked = reader
                    .body(*at, block)
                    .and_then(|body| verify_block(&reader, *at, block, &body, &mut parts, bad));
                match checked {
                    Ok(actions) => sound += actions,
                    Err(error) => bad(format!("{error:#}")),
                }
            }
        }
        for gap in self.runs().1.iter().filter(|gap| gap.recorded.is_none()) {
            bad(format!("seqnos {} to {} are missing, and no gap was recorded", gap.first, gap.last));
        }
        Ok(sound)
    }
}

/// Verifies the actions of one block.
fn verify_block(
    reader: &Reader,
    at: u64,
    block: &formats::archive::BlockHeader,
    body: &[u8],
    parts: &mut Option<WriteSetCheck>,
    bad: &mut dyn FnMut(String),
) -> Result<u64> {
    let refuse = |what: &str| reader.damaged(at, block, what);
    match block.kind {
        BlockKind::Gap(_) => Ok(0),
        BlockKind::Actions => {
            let mut sound = 0;
            for entry in entries(block, body).map_err(|error| refuse(&error.to_string()))? {
                match verify_action(entry.seqno, entry.action, entry.bytes) {
                    Ok(()) => sound += 1,
                    Err(what) => {
                        bad(format!("seqno {} in {}: {what}", entry.seqno, reader.segment.path.display()))
                    }
                }
            }
            Ok(sound)
        }
        BlockKind::Part | BlockKind::LastPart => {
            let (head, piece) = PartHead::parse(body).map_err(|error| refuse(&error.to_string()))?;
            if head.offset == 0 {
                *parts = Some(WriteSetCheck::default());
            }
            let Some(check) = parts else { return Ok(0) };
            check.take(piece).map_err(|error| refuse(&error.to_string()))?;
            if block.kind == BlockKind::Part {
                return Ok(0);
            }
            let header =
                parts.take().unwrap_or_default().finish().map_err(|error| refuse(&error.to_string()))?;
            if header.seqno == block.first { Ok(1) } else { Err(refuse("another seqno inside").into()) }
        }
    }
}

impl WriteSetStore for Archive {
    fn history(&self) -> Uuid {
        self.segments.last().map_or(Uuid::NIL, |segment| segment.header.history)
    }

    fn range(&self) -> Option<(Seqno, Seqno)> {
        // A newer history may have begun without an action so far.
        self.newest_run().filter(|run| run.history == self.history()).map(|run| (run.first, run.last))
    }

    fn read(&self, from: Seqno, to: Seqno, take: &mut Take<'_>) -> Result<()> {
        let history = self.history();
        let missing = |seqno: Seqno| {
            let text = format!("write-set {seqno} is not in the archive {}", self.dir.display());
            Failure::new(Kind::Disk, text).hint("rejoin archive status shows its ranges and gaps")
        };
        let of_run = |run: &&Run| run.history == history && (run.first..=run.last).contains(&from);
        let (runs, _) = self.runs();
        let Some(run) = runs.iter().rev().find(of_run).filter(|_| from <= to) else {
            if from > to {
                return Ok(());
            }
            bail!(missing(from));
        };
        let mut next = from;
        let of_run = |segment: &&Segment| (run.serials.0..=run.serials.1).contains(&segment.header.serial);
        for segment in self.segments.iter().filter(of_run) {
            if next > to.min(run.last) {
                break;
            }
            if !touches(segment, next, to) {
                continue;
            }
            let reader = Reader::open(&segment.path, segment.header.serial)?;
            if !read_segment(&reader, &mut next, to.min(run.last), take)? {
                return Ok(());
            }
        }
        if next <= to {
            bail!(missing(next));
        }
        Ok(())
    }

    fn branched_at(&self) -> Option<Seqno> {
        let of_history = |segment: &&Segment| segment.header.history == self.history();
        let pieces = self.segments.iter().filter(of_history).flat_map(|segment| &segment.pieces);
        let branches = pieces.filter_map(|piece| match piece {
            // It was found when the archive ended there.
            Piece::Gap { last, reason: GapReason::OtherBranch, .. } => Some(*last),
            _ => None,
        });
        branches.max()
    }

    /// What their segments say: the first ones may be much smaller than those that follow.
    fn bytes_of(&self, from: Seqno, to: Seqno) -> Result<u64> {
        let Some(run) = self.newest_run() else { return Ok(0) };
        let of_run = |segment: &&Segment| (run.serials.0..=run.serials.1).contains(&segment.header.serial);
        let bytes = self.segments.iter().filter(of_run).map(|segment| {
            let all = actions_in(segment, Seqno(i64::MIN), Seqno(i64::MAX));
            let wanted = actions_in(segment, from, to);
            (segment.body_bytes as f64 * wanted as f64 / all.max(1) as f64) as u64
        });
        Ok(bytes.sum())
    }
}

/// How many actions between these seqnos a segment has.
fn actions_in(segment: &Segment, from: Seqno, to: Seqno) -> u64 {
    let counts = segment.pieces.iter().map(|piece| match piece {
        Piece::Run { first, last, .. } if (*first).max(from) <= (*last).min(to) => {
            (*last).min(to).0.abs_diff((*first).max(from).0).saturating_add(1)
        }
        Piece::Run { .. } | Piece::Gap { .. } => 0,
    });
    counts.sum()
}

/// Whether some of these seqnos lie in a segment.
fn touches(segment: &Segment, from: Seqno, to: Seqno) -> bool {
    segment.pieces.iter().any(|piece| match piece {
        Piece::Run { first, last, .. } => *first <= to && *last >= from,
        Piece::Gap { .. } => false,
    })
}

/// Hands over what one segment has of the run from `next` on. False when no more is wanted.
fn read_segment(reader: &Reader, next: &mut Seqno, to: Seqno, take: &mut Take<'_>) -> Result<bool> {
    let mut large: Option<(PartHead, Vec<u8>)> = None;
    for (at, block) in &reader.blocks {
        if block.last < *next {
            continue;
        }
        if block.first > to {
            break;
        }
        let refuse = |what: &str| reader.damaged(*at, block, what);
        let start = *next;
        let mut give = |seqno: Seqno, action: Action, skipped: bool, bytes: Vec<u8>| -> Result<bool> {
            if seqno != *next {
                bail!(refuse(&format!("seqno {next} is missing before it")));
            }
            verify_action(seqno, action, &bytes).map_err(|what| {
                Failure::new(Kind::Disk, format!("write-set {seqno} is damaged in the archive: {what}"))
            })?;
            *next = Seqno(seqno.0.saturating_add(1));
            take(StoredAction { seqno, action, skipped, is_final: true, bytes })
        };
        match block.kind {
            BlockKind::Gap(_) => {}
            BlockKind::Actions => {
                let body = reader.body(*at, block)?;
                let found = entries(block, &body).map_err(|error| refuse(&error.to_string()))?;
                for entry in found {
                    if entry.seqno < start || entry.seqno > to {
                        continue;
                    }
                    if !give(entry.seqno, entry.action, entry.skipped, entry.bytes.to_vec())? {
                        return Ok(false);
                    }
                }
            }
            BlockKind::Part | BlockKind::LastPart => {
                let body = reader.body(*at, block)?;
                let (head, piece) = PartHead::parse(&body).map_err(|error| refuse(&error.to_string()))?;
                if head.offset == 0 {
                    large = Some((head, Vec::new()));
                }
                // Parts of an attempt that broke off have no beginning here, or another continuation.
                let Some((whole, bytes)) = &mut large else { continue };
                if whole.total != head.total || bytes.len() as u64 != head.offset {
                    large = None;
                    continue;
                }
                bytes.extend_from_slice(piece);
                if block.kind == BlockKind::LastPart
                    && let Some((whole, bytes)) = large.take()
                    && !give(block.first, whole.action, whole.skipped, bytes)?
                {
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}
