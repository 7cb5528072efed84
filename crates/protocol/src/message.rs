//! The vocabulary after the greeting, protocol version 1. Encoded with postcard: order of variants and fields is the format.
use serde::{Deserialize, Serialize};

use crate::chunk::Chunk;
use crate::inventory::{FileEntry, FileId, Place};
use crate::marks::{Mark, MarkKey};
use crate::policy::NodeFacts;
use crate::sample::Sample;

/// One try of the donor's to send a state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Where the files come from.
    pub source: Source,
    /// Why not from the source that would have come first; empty when it is that one.
    pub reason: String,
    /// What the joiner marks its files with; none when they are not compared.
    pub marks: Option<MarkKey>,
}

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
    Attempt(Attempt),
    /// Joiner, before it is ready for an attempt in which files are compared: a few blocks of what it has.
    Sample(Sample),
    /// Donor, after a sample: what it plans.
    Plan {
        /// Bytes that will probably be sent, before packing; none when everything is sent.
        about: Option<u64>,
    },
    /// Joiner: everything is ready for an attempt; workers may come.
    Ready,
    /// Donor, on a worker connection: ranges of this file follow. Name and size are those of the moment; what counts
    /// is the list at the end.
    Begin(FileEntry),
    /// Donor, on a worker connection: as [`Message::Begin`], of a file that is what it was asked for as.
    BeginKnown {
        /// The file.
        file: FileId,
    },
    /// Donor, on a worker connection: a range of a file; data follows as the frame's payload.
    Chunk(Chunk),
    /// Donor, on a worker connection: a range that the joiner's own file holds, a chunk in few bytes.
    Same {
        /// The file.
        file: FileId,
        /// First byte.
        offset: u64,
        /// Length in bytes.
        len: u32,
    },
    /// Donor, on a worker connection: all files that were asked for together are the joiner's own, whole.
    SameTogether {
        /// The first of them.
        first: FileId,
    },
    /// Donor, first on a connection: it will ask on this one what the joiner's files hold.
    Asks,
    /// Donor, first on a connection: it listens on this one for what the joiner answers.
    Answers,
    /// Donor, among its questions: these files will be sent; the joiner says of each what its own file of this name holds.
    Look(Vec<FileEntry>),
    /// Donor, among its questions: as [`Message::Look`] of small files; one mark tells of each of their
    /// [`groups`](crate::inventory::groups).
    LookTogether(Vec<FileEntry>),
    /// Donor, among its questions: files that were asked for together differ; the joiner tells of each.
    LookApart {
        /// The first of them.
        first: FileId,
    },
    /// Donor, among its questions: this range of a file differs; the joiner tells its blocks.
    LookCloser {
        /// The file.
        file: FileId,
        /// Which range of it.
        range: u32,
    },
    /// Donor, among its questions: these blocks of a range differ; the joiner tells their pieces.
    LookInside {
        /// The file.
        file: FileId,
        /// Which range of it.
        range: u32,
        /// Numbers of blocks in the range.
        blocks: Vec<u8>,
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
    /// Joiner, among its answers: the mark of its own files of some names together ([`crate::marks::Together`]).
    Together {
        /// The first of them.
        first: FileId,
        /// Of all.
        mark: Mark,
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
    /// Joiner, among its answers: the marks of the pieces of the blocks that were asked for.
    Pieces {
        /// The file.
        file: FileId,
        /// The range.
        range: u32,
        /// For each block those of all its pieces; empty where it has no such block.
        marks: Vec<Vec<u8>>,
    },
    /// Joiner, among its answers: what became of the blocks of a chunk that it was to rebuild.
    Rebuilt {
        /// The file.
        file: FileId,
        /// First byte of the chunk.
        offset: u64,
        /// Where those begin, from there, that did not become what the donor has: they must be sent whole.
        failed: Vec<u32>,
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
    /// Donor, among the files of the state: files with numbers that follow each other which are what they were asked for as.
    FilesKnown {
        /// The first of them.
        first: FileId,
        /// How many.
        count: u32,
    },
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
    /// `wsrep_node_name` of the donor.
    pub node: String,
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
            Message::Attempt(_) => "Attempt",
            Message::Sample(_) => "Sample",
            Message::Plan { .. } => "Plan",
            Message::Ready => "Ready",
            Message::Begin(_) => "Begin",
            Message::BeginKnown { .. } => "BeginKnown",
            Message::Files(_) => "Files",
            Message::FilesKnown { .. } => "FilesKnown",
            Message::FilesEnd { .. } => "FilesEnd",
            Message::Chunk(_) => "Chunk",
            Message::Same { .. } => "Same",
            Message::SameTogether { .. } => "SameTogether",
            Message::Asks => "Asks",
            Message::Answers => "Answers",
            Message::Look(_) => "Look",
            Message::LookTogether(_) => "LookTogether",
            Message::LookApart { .. } => "LookApart",
            Message::LookCloser { .. } => "LookCloser",
            Message::LookInside { .. } => "LookInside",
            Message::LooksEnd => "LooksEnd",
            Message::Base { .. } => "Base",
            Message::Together { .. } => "Together",
            Message::Marks { .. } => "Marks",
            Message::Blocks { .. } => "Blocks",
            Message::Pieces { .. } => "Pieces",
            Message::Rebuilt { .. } => "Rebuilt",
            Message::AnswersEnd => "AnswersEnd",
            Message::WorkerDone { .. } => "WorkerDone",
            Message::WorkerStored => "WorkerStored",
            Message::Complete { .. } => "Complete",
            Message::Stored => "Stored",
        }
    }
}
