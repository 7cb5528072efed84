//! Blocks of a segment: actions without a gap between them, a part of a large one, or a gap.
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::error::ArchiveError;
use crate::bytes::{array, le16, le32, le64, put};
use crate::galera::gcache::Action;
use crate::ids::Seqno;

/// Bytes of a block's header.
pub const BLOCK_HEADER_LEN: usize = 64;
/// The most bytes that a block's body has.
pub const BODY_MAX: usize = 4 << 20;
/// The most bytes it takes on disk: what does not shrink is stored as it is.
pub const STORED_MAX: usize = BODY_MAX;

/// What each block begins with.
pub const BLOCK_MAGIC: &[u8; 4] = b"rjbl";
const ENTRY_HEAD: usize = 8;
const PART_HEAD: usize = 24;

/// What a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockKind {
    /// All actions from its first seqno to its last.
    Actions,
    /// A part of one action, of which more comes.
    Part,
    /// The last part of an action: with it, and not before, the action is in the archive.
    LastPart,
    /// Its seqnos are not in the archive. It may have none: then what follows is not known to continue what came before.
    Gap(GapReason),
}

/// Why actions are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapReason {
    /// They were no longer in the provider's files when the archiver looked for them.
    Lost,
    /// The same seqno stands for another action than the one in the archive: the group began again from an older state.
    OtherBranch,
    /// The provider's file holds an action whose checksums do not fit.
    Damaged,
    /// A number not known here.
    Other(u16),
}

impl GapReason {
    fn number(self) -> u16 {
        match self {
            GapReason::Lost => 1,
            GapReason::OtherBranch => 2,
            GapReason::Damaged => 3,
            GapReason::Other(number) => number,
        }
    }

    fn of(number: u16) -> GapReason {
        match number {
            1 => GapReason::Lost,
            2 => GapReason::OtherBranch,
            3 => GapReason::Damaged,
            other => GapReason::Other(other),
        }
    }
}

impl std::fmt::Display for GapReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            GapReason::Lost => "not in the provider's files any more",
            GapReason::OtherBranch => "the group began again from an older state",
            GapReason::Damaged => "damaged in the provider's files",
            GapReason::Other(number) => return write!(f, "reason {number}"),
        })
    }
}

/// What stands before each body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockHeader {
    /// What the block is.
    pub kind: BlockKind,
    /// The body is stored as a zstd frame.
    pub compressed: bool,
    /// The first seqno of it.
    pub first: Seqno,
    /// The last one; only of a gap without seqnos less than the first.
    pub last: Seqno,
    /// Bytes of the body.
    pub body_len: u32,
    /// Bytes of it on disk.
    pub stored_len: u32,
    /// When it was written, in milliseconds since 1970.
    pub written_ms: u64,
    /// Checksum of the body on disk.
    pub checksum: u64,
}

impl BlockHeader {
    /// The header of a body that is stored as these bytes.
    pub fn of(kind: BlockKind, first: Seqno, last: Seqno, body_len: usize, stored: &[u8]) -> BlockHeader {
        BlockHeader {
            kind,
            compressed: stored.len() < body_len,
            first,
            last,
            body_len: u32::try_from(body_len).unwrap_or(u32::MAX),
            stored_len: u32::try_from(stored.len()).unwrap_or(u32::MAX),
            written_ms: 0,
            checksum: xxh3_64(stored),
        }
    }

    /// As bytes, in the segment of this number.
    pub fn encode(&self, serial: u64) -> [u8; BLOCK_HEADER_LEN] {
        let mut out = [0; BLOCK_HEADER_LEN];
        let (kind, reason) = match self.kind {
            BlockKind::Actions => (0, 0),
            BlockKind::Part => (1, 0),
            BlockKind::Gap(reason) => (2, reason.number()),
            BlockKind::LastPart => (3, 0),
        };
        put(&mut out, 0, BLOCK_MAGIC);
        put(&mut out, 4, &[kind, u8::from(self.compressed)]);
        put(&mut out, 6, &reason.to_le_bytes());
        put(&mut out, 8, &self.first.0.to_le_bytes());
        put(&mut out, 16, &self.last.0.to_le_bytes());
        put(&mut out, 24, &self.body_len.to_le_bytes());
        put(&mut out, 28, &self.stored_len.to_le_bytes());
        put(&mut out, 32, &self.written_ms.to_le_bytes());
        put(&mut out, 48, &self.checksum.to_le_bytes());
        let checksum = xxh3_64_with_seed(out.get(..56).unwrap_or_default(), serial);
        put(&mut out, 56, &checksum.to_le_bytes());
        out
    }

    /// Reads a header of the segment of this number.
    ///
    /// # Errors
    /// It is none, is damaged, is of another segment, or says what no writer writes.
    pub fn parse(bytes: &[u8], serial: u64) -> Result<BlockHeader, ArchiveError> {
        let bytes: [u8; BLOCK_HEADER_LEN] = array(bytes, 0).ok_or(ArchiveError::Magic("block"))?;
        if !bytes.starts_with(BLOCK_MAGIC) {
            return Err(ArchiveError::Magic("block"));
        }
        let checksum = bytes.get(..56).map(|head| xxh3_64_with_seed(head, serial));
        if le64(&bytes, 56) != checksum {
            return Err(ArchiveError::Checksum("block header"));
        }
        let [kind, compressed] = array(&bytes, 4).unwrap_or_default();
        let kind = match (kind, le16(&bytes, 6).unwrap_or_default()) {
            (0, _) => BlockKind::Actions,
            (1, _) => BlockKind::Part,
            (2, reason) => BlockKind::Gap(GapReason::of(reason)),
            (3, _) => BlockKind::LastPart,
            _ => return Err(ArchiveError::Range("kind")),
        };
        let word = |at| le64(&bytes, at).unwrap_or_default();
        let half = |at| le32(&bytes, at).unwrap_or_default();
        let header = BlockHeader {
            kind,
            compressed: compressed == 1,
            first: Seqno(word(8).cast_signed()),
            last: Seqno(word(16).cast_signed()),
            body_len: half(24),
            stored_len: half(28),
            written_ms: word(32),
            checksum: word(48),
        };
        header.check().map(|()| header)
    }

    fn check(&self) -> Result<(), ArchiveError> {
        let lowest_last = match self.kind {
            BlockKind::Gap(_) => self.first.0.saturating_sub(1),
            BlockKind::Actions | BlockKind::Part | BlockKind::LastPart => self.first.0,
        };
        if self.first.0 < 1 || self.last.0 < lowest_last || self.last.0 == i64::MAX {
            return Err(ArchiveError::Range("seqno"));
        }
        let is_part = matches!(self.kind, BlockKind::Part | BlockKind::LastPart);
        if is_part && self.first != self.last {
            return Err(ArchiveError::Range("seqno"));
        }
        if self.body_len as usize > BODY_MAX || self.stored_len as usize > STORED_MAX {
            return Err(ArchiveError::Range("length"));
        }
        let grows =
            if self.compressed { self.stored_len >= self.body_len } else { self.stored_len != self.body_len };
        // Each action takes its head at least, so the count cannot be larger than the body allows.
        let room = self.body_len as usize / ENTRY_HEAD;
        let count = self.count();
        if grows || (self.kind == BlockKind::Actions && usize::try_from(count).is_ok_and(|n| n > room)) {
            return Err(ArchiveError::Range("length"));
        }
        Ok(())
    }

    /// How many seqnos it is about.
    pub fn count(&self) -> u64 {
        self.last.0.saturating_sub(self.first.0).saturating_add(1).try_into().unwrap_or(0)
    }

    /// Bytes of the block on disk, with this header.
    pub fn len(&self) -> u64 {
        BLOCK_HEADER_LEN as u64 + u64::from(self.stored_len)
    }

    /// Never: a block has its header.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Verifies the body as it is on disk.
    ///
    /// # Errors
    /// It is damaged.
    pub fn verify(&self, stored: &[u8]) -> Result<(), ArchiveError> {
        let right = stored.len() == self.stored_len as usize && xxh3_64(stored) == self.checksum;
        if right { Ok(()) } else { Err(ArchiveError::Checksum("block")) }
    }
}

/// An action in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its seqno.
    pub seqno: Seqno,
    /// What it is.
    pub action: Action,
    /// Its verdict.
    pub skipped: bool,
    /// Its bytes.
    pub bytes: &'a [u8],
}

fn number(action: Action) -> u8 {
    match action {
        Action::WriteSet => 0,
        Action::ConfChange => 3,
        Action::Other(number) => number,
    }
}

fn action(number: u8) -> Action {
    match number {
        0 => Action::WriteSet,
        3 => Action::ConfChange,
        other => Action::Other(other),
    }
}

/// Adds an action to a body.
pub fn push_entry(body: &mut Vec<u8>, action: Action, skipped: bool, bytes: &[u8]) {
    body.extend_from_slice(&[u8::from(skipped), number(action), 0, 0]);
    body.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    body.extend_from_slice(bytes);
}

/// The actions of a block of [`BlockKind::Actions`] with this body.
///
/// # Errors
/// The body does not consist of just the actions that the header announces.
pub fn entries<'a>(header: &BlockHeader, body: &'a [u8]) -> Result<Vec<Entry<'a>>, ArchiveError> {
    let short = ArchiveError::Body("cut short");
    if body.len() != header.body_len as usize || header.kind != BlockKind::Actions {
        return Err(ArchiveError::Body("of another length"));
    }
    let (mut rest, mut found) = (body, Vec::new());
    for seqno in header.first.0..=header.last.0 {
        let [flags, kind, _, _] = array(rest, 0).ok_or(short)?;
        let len = le32(rest, 4).ok_or(short)? as usize;
        let bytes = rest.get(ENTRY_HEAD..).and_then(|rest| rest.get(..len)).ok_or(short)?;
        found.push(Entry { seqno: Seqno(seqno), action: action(kind), skipped: flags & 1 != 0, bytes });
        rest = rest.get(ENTRY_HEAD.saturating_add(len)..).unwrap_or_default();
    }
    if rest.is_empty() { Ok(found) } else { Err(ArchiveError::Body("has more than its actions")) }
}

/// What stands before a part of a large action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartHead {
    /// Where in the action the part begins.
    pub offset: u64,
    /// Bytes of the whole action.
    pub total: u64,
    /// What it is.
    pub action: Action,
    /// Its verdict.
    pub skipped: bool,
}

impl PartHead {
    /// The body of a block of [`BlockKind::Part`] or [`BlockKind::LastPart`].
    pub fn body(&self, piece: &[u8]) -> Vec<u8> {
        let mut body = Vec::with_capacity(PART_HEAD.saturating_add(piece.len()));
        body.extend_from_slice(&self.offset.to_le_bytes());
        body.extend_from_slice(&self.total.to_le_bytes());
        body.extend_from_slice(&[u8::from(self.skipped), number(self.action), 0, 0, 0, 0, 0, 0]);
        body.extend_from_slice(piece);
        body
    }

    /// Reads such a body.
    ///
    /// # Errors
    /// It is cut short, or lies outside of its action.
    pub fn parse(body: &[u8]) -> Result<(PartHead, &[u8]), ArchiveError> {
        let short = ArchiveError::Body("cut short");
        let (offset, total) = (le64(body, 0).ok_or(short)?, le64(body, 8).ok_or(short)?);
        let [flags, kind] = array(body, 16).ok_or(short)?;
        let piece = body.get(PART_HEAD..).ok_or(short)?;
        if offset.checked_add(piece.len() as u64).is_none_or(|end| end > total) || total > u64::from(u32::MAX)
        {
            return Err(ArchiveError::Body("part outside of its action"));
        }
        Ok((PartHead { offset, total, action: action(kind), skipped: flags & 1 != 0 }, piece))
    }
}
