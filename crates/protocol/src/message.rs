//! The vocabulary after the greeting, protocol version 1. Encoded with postcard: order of variants and fields is the format.
use serde::{Deserialize, Serialize};

use crate::inventory::{FileEntry, FileId, Place};
use crate::marks::{Mark, MarkKey};
use crate::policy::NodeFacts;

/// Everything one side can say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Nothing new; the sender is alive and busy with what the text says.
    Ping {
        /// What it is doing.
        doing: String,
    },
    /// A line for the receiver's log.
    Note {
        /// The line.
        text: String,
    },
    /// The sender gives up; the connection is closed after this.
    Abort {
        /// Why.
        reason: String,
    },
    /// Donor: IST follows, no data is needed.
    Bypass {
        /// The position the joiner's server is to be told, `uuid:seqno`.
        position: String,
        /// Its GTID domain.
        domain: Option<u32>,
    },
    /// Donor: what a transfer would be.
    Offer(Offer),
    /// Joiner: let it begin (or: the bypass is understood).
    Accept {
        /// Connections the joiner allows beside this one.
        workers: u16,
        /// The old files must go as the new ones come: both do not fit.
        in_place: bool,
        /// The joiner's server will change the number of undo tablespaces, which it can only do while no undo log is left:
        /// the donor should give purge a moment before it stops.
        empty_undo: bool,
        /// The joiner's server is of a newer series: it must get files without redo to apply.
        still: bool,
        /// The joiner has files that may hold what would be sent.
        base: bool,
    },
    /// Donor: it begins to send, from this source. What came from an earlier one is void.
    Attempt {
        /// Where the files come from.
        source: Source,
        /// Why not from the source that would have come first; empty when it is that one.
        reason: String,
        /// What the joiner marks its files with; none when they are not compared.
        marks: Option<MarkKey>,
    },
    /// Joiner: everything is ready for an attempt; workers may come.
    Ready,
    /// Donor, on a worker connection: ranges of this file follow. Name and size are those of the moment; what counts
    /// is the list at the end.
    Begin(FileEntry),
    /// Donor, on a worker connection: a range of a file; data follows as the frame's payload.
    Chunk(Chunk),
    /// Donor, first on a connection: it will ask on this one what the joiner's files hold.
    Asks,
    /// Donor, first on a connection: it listens on this one for what the joiner answers.
    Answers,
    /// Donor, among its questions: this file will be sent; the joiner says what its own file of this name holds.
    Look(FileEntry),
    /// Donor, among its questions: this range of a file differs; the joiner tells its blocks.
    LookCloser {
        /// The file.
        file: FileId,
        /// Which range of it.
        range: u32,
    },
    /// Donor: it asks no more.
    LooksEnd,
    /// Joiner, among its answers: its own file is this long; none when it has none of that name.
    Base {
        /// The file.
        file: FileId,
        /// Bytes.
        size: Option<u64>,
    },
    /// Joiner, among its answers: the marks of ranges of its own file.
    Marks {
        /// The file.
        file: FileId,
        /// The first range.
        first: u32,
        /// One for each range.
        marks: Vec<Mark>,
    },
    /// Joiner, among its answers: the marks of the blocks of one range.
    Blocks {
        /// The file.
        file: FileId,
        /// The range.
        range: u32,
        /// One for each block.
        marks: Vec<Mark>,
    },
    /// Joiner: nothing more is answered.
    AnswersEnd,
    /// Donor, on a worker connection: nothing more comes on it.
    WorkerDone {
        /// Chunks sent on this connection.
        chunks: u64,
    },
    /// Joiner, on a worker connection: all of them are written.
    WorkerStored,
    /// Donor: files of the state that was sent, with their final names and sizes, ids ascending over all batches. A
    /// file that was begun and is not named does not count.
    Files(Vec<FileEntry>),
    /// Donor: these were all.
    FilesEnd {
        /// How many, over all batches.
        count: u32,
        /// The position the state is at, `uuid:seqno`.
        position: String,
        /// Its GTID domain.
        domain: Option<u32>,
        /// `gtid_binlog_state` at that position when the donor writes a binary log: `domain-server-seq` lines.
        binlog_state: Option<String>,
    },
    /// Donor: all workers are done, and everything has been said.
    Complete {
        /// Chunks sent on all connections.
        chunks: u64,
    },
    /// Joiner: everything is verified and on stable storage.
    Stored,
}

/// What a transfer would be, before anything was stopped on the donor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The donor's server and settings.
    pub facts: NodeFacts,
    /// Number of files.
    pub files: u32,
    /// Bytes allocated in each place.
    pub bytes: Vec<(Place, u64)>,
    /// Bytes allocated in each directory outside the places (absolute path).
    pub external: Vec<(String, u64)>,
    /// Undo tablespaces of the donor.
    pub undo_tablespaces: u32,
    /// What will not travel, one line each.
    pub left_out: Vec<String>,
}

/// Where a donor's files come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// A snapshot of a server that goes on working: files may grow and change their names while they are sent, and the
    /// redo log brings them to one point.
    Native,
    /// A server that holds its files still.
    Frozen,
}

impl Source {
    /// Its name, as in `[sst] source=`.
    pub fn name(self) -> &'static str {
        match self {
            Source::Native => "native",
            Source::Frozen => "frozen",
        }
    }
}

/// The line in both hosts' logs that says where the files come from.
pub fn source_line(source: Source, reason: &str) -> String {
    match reason {
        "" => format!("source: {}", source.name()),
        why => format!("source: {} ({why})", source.name()),
    }
}

/// Bytes of a file that lie in one range of [`crate::limits::RANGE_BYTES`]; mostly the whole range. A part of a file
/// may come again: what came last counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// The file.
    pub file: FileId,
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub len: u32,
    /// Parts of it that are sent: (start from the first byte, length), ascending; the payload holds them in order.
    pub parts: Vec<(u32, u32)>,
    /// Parts of it that the joiner's own file holds, ascending. What is in neither is zero.
    pub same: Vec<(u32, u32)>,
    /// How the payload is packed.
    pub packing: Packing,
    /// XXH3-128 of the unpacked payload.
    pub digest: u128,
}

/// How a payload is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Packing {
    /// As it is.
    Plain,
    /// One zstd frame.
    Zstd,
}

/// A chunk whose parts do not fit its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("chunk at {offset} of file number {file} describes impossible parts")]
pub struct BadParts {
    /// File number.
    pub file: u32,
    /// First byte of the range.
    pub offset: u64,
}

impl Chunk {
    /// Length of the unpacked payload, when the parts of each kind are ascending, apart, not empty and inside the range,
    /// and no part is of both kinds.
    pub fn payload_len(&self) -> Result<u32, BadParts> {
        let bad = BadParts { file: self.file.0, offset: self.offset };
        let sent = sum_of(&self.parts, self.len).ok_or(bad.clone())?;
        sum_of(&self.same, self.len).ok_or(bad.clone())?;
        let mut same = self.same.iter().peekable();
        for &(start, len) in &self.parts {
            while same.next_if(|(from, held)| from + held <= start).is_some() {}
            if same.peek().is_some_and(|(from, _)| *from < start + len) {
                return Err(bad);
            }
        }
        Ok(sent)
    }
}

/// Length of parts that are ascending, apart, not empty and inside a range of `range` bytes.
fn sum_of(parts: &[(u32, u32)], range: u32) -> Option<u32> {
    let (mut end, mut sum) = (None, 0u32);
    for &(start, len) in parts {
        let next = start.checked_add(len)?;
        if len == 0 || end.is_some_and(|end| start <= end) || next > range {
            return None;
        }
        end = Some(next);
        sum += len;
    }
    Some(sum)
}

impl Message {
    /// Its name, for the log and for errors.
    pub fn name(&self) -> &'static str {
        match self {
            Message::Ping { .. } => "Ping",
            Message::Note { .. } => "Note",
            Message::Abort { .. } => "Abort",
            Message::Bypass { .. } => "Bypass",
            Message::Offer(_) => "Offer",
            Message::Accept { .. } => "Accept",
            Message::Attempt { .. } => "Attempt",
            Message::Ready => "Ready",
            Message::Begin(_) => "Begin",
            Message::Files(_) => "Files",
            Message::FilesEnd { .. } => "FilesEnd",
            Message::Chunk(_) => "Chunk",
            Message::Asks => "Asks",
            Message::Answers => "Answers",
            Message::Look(_) => "Look",
            Message::LookCloser { .. } => "LookCloser",
            Message::LooksEnd => "LooksEnd",
            Message::Base { .. } => "Base",
            Message::Marks { .. } => "Marks",
            Message::Blocks { .. } => "Blocks",
            Message::AnswersEnd => "AnswersEnd",
            Message::WorkerDone { .. } => "WorkerDone",
            Message::WorkerStored => "WorkerStored",
            Message::Complete { .. } => "Complete",
            Message::Stored => "Stored",
        }
    }
}
