//! The messages after the greeting, protocol version 1. They are encoded with postcard, so the order of
//! variants and fields is the format.
mod attempt;
mod ist;
mod offer;
mod pace;

use serde::{Deserialize, Serialize};

pub use self::attempt::{Attempt, SnapshotKind, snapshot_line};
pub use self::ist::{CanIst, ReplayRate};
pub use self::offer::{Logical, Offer};
pub use self::pace::{JoinerPace, JoinerWork};
use crate::chunk::{Chunk, Packing};
use crate::fingerprint::{Fingerprint, FingerprintKey};
use crate::inventory::{FileEntry, FileId};
use crate::sample::Sample;

/// Every message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// A sign of life, with a text that names the current activity.
    Ping {
        /// The current activity.
        doing: String,
    },
    /// A line for the receiver's log.
    Note {
        /// The line.
        text: String,
    },
    /// The sender gives up, and closes the connection after this.
    Abort {
        /// Why.
        reason: String,
    },
    /// Donor: IST follows, no data is needed.
    Bypass {
        /// The position for the joiner's server, `uuid:seqno`.
        position: String,
        /// Its GTID domain.
        domain: Option<u32>,
    },
    /// Donor: the description of a transfer.
    Offer(Offer),
    /// Joiner: the transfer may begin (or: the bypass is accepted).
    Accept {
        /// Connections the joiner allows beside this one.
        workers: u16,
        /// Old files must be removed while new ones arrive, because there is no room for both.
        in_place: bool,
        /// The joiner's server will change the number of undo tablespaces, which requires that no undo log is
        /// left. The donor should give purge a moment before it stops.
        empty_undo: bool,
        /// The joiner's server is of a newer series, or a version is unknown, so the joiner must get files
        /// that need no redo.
        without_redo: bool,
        /// The joiner has files that may contain part of the data: they are compared.
        compare: bool,
        /// Why the joiner cannot use the donor's files, so that it must get a logical snapshot; empty if it can.
        logical: String,
    },
    /// Donor: sending begins, from this snapshot. Data of an earlier attempt is void.
    Attempt(Attempt),
    /// Joiner, before it is ready for an attempt in which files are compared: a few blocks of its files.
    Sample(Sample),
    /// Donor, after a sample: its plan.
    Plan {
        /// The estimate of the bytes to be sent, before packing; none if everything is sent.
        about: Option<u64>,
    },
    /// Joiner: ready for an attempt; workers may connect.
    Ready,
    /// Donor, on a worker connection: ranges of this file follow. Name and size are the current ones; the
    /// list at the end is authoritative.
    Begin(FileEntry),
    /// Donor, on a worker connection: like [`Message::Begin`], for a file with the name and size under which
    /// it was asked for.
    BeginKnown {
        /// The file.
        file: FileId,
    },
    /// Donor, on a worker connection: a range of a file; data follows as the frame's payload.
    Chunk(Chunk),
    /// Donor, on a worker connection: a range that the joiner's own file already holds. A short form of a
    /// chunk.
    Same {
        /// The file.
        file: FileId,
        /// First byte.
        offset: u64,
        /// Length in bytes.
        len: u32,
    },
    /// Donor, on a worker connection: every file of this group is identical to the joiner's own.
    SameGroup {
        /// The first of them.
        first: FileId,
    },
    /// Donor, first on a connection: it will carry questions about the joiner's files.
    Asks,
    /// Donor, first on a connection: it will carry the joiner's answers.
    Answers,
    /// Donor, a question: these files will be sent; the joiner describes its own file of each name.
    CompareFiles(Vec<FileEntry>),
    /// Donor, a question: like [`Message::CompareFiles`] for small files. The joiner sends one fingerprint
    /// for each of their [`groups`](crate::inventory::groups).
    CompareGroups(Vec<FileEntry>),
    /// Donor, a question: the files of this group differ; the joiner describes each of them.
    SplitGroup {
        /// The first of them.
        first: FileId,
    },
    /// Donor, a question: this range of a file differs; the joiner sends the fingerprints of its blocks.
    CompareBlocks {
        /// The file.
        file: FileId,
        /// Which range of it.
        range: u32,
    },
    /// Donor, a question: these blocks of a range differ; the joiner sends the fingerprints of their pieces.
    ComparePieces {
        /// The file.
        file: FileId,
        /// Which range of it.
        range: u32,
        /// Numbers of blocks in the range.
        blocks: Vec<u8>,
    },
    /// Donor: no more questions follow.
    CompareEnd,
    /// Joiner, an answer: the length of its own file; none if it has no file of this name.
    JoinersFile {
        /// The file.
        file: FileId,
        /// Bytes.
        size: Option<u64>,
    },
    /// Joiner, an answer: the common fingerprint of its own files of a group
    /// ([`crate::fingerprint::GroupHasher`]).
    GroupFingerprint {
        /// The first of them.
        first: FileId,
        /// The fingerprint of the group.
        fingerprint: Fingerprint,
    },
    /// Joiner, an answer: the fingerprints of ranges of its own file.
    RangeFingerprints {
        /// The file.
        file: FileId,
        /// The first range.
        first: u32,
        /// One for each range.
        fingerprints: Vec<Fingerprint>,
    },
    /// Joiner, an answer: the fingerprints of the blocks of one range.
    BlockFingerprints {
        /// The file.
        file: FileId,
        /// The range.
        range: u32,
        /// One for each block.
        fingerprints: Vec<Fingerprint>,
    },
    /// Joiner, an answer: the fingerprints of the pieces of the requested blocks.
    PieceFingerprints {
        /// The file.
        file: FileId,
        /// The range.
        range: u32,
        /// For each block the fingerprints of all its pieces; empty if it has no such block.
        fingerprints: Vec<Vec<u8>>,
    },
    /// Joiner, an answer: the result of rebuilding the blocks of a chunk.
    Rebuilt {
        /// The file.
        file: FileId,
        /// First byte of the chunk.
        offset: u64,
        /// The starts, relative to the chunk, of the blocks whose result has a wrong fingerprint: they must be sent whole.
        failed: Vec<u32>,
    },
    /// Joiner: no more answers follow.
    AnswersEnd,
    /// Donor, on a worker connection: no more data follows on it.
    WorkerDone {
        /// Chunks sent on this connection.
        chunks: u64,
    },
    /// Joiner, on a worker connection: all its chunks are written.
    WorkerStored,
    /// Donor: files of the state that was sent, with their final names and sizes, ids ascending over all
    /// batches. A file that was begun but is not listed is not part of the state.
    Files(Vec<FileEntry>),
    /// Donor, among the files of the state: consecutive file numbers whose files still have the names and
    /// sizes under which they were asked for.
    FilesKnown {
        /// The first of them.
        first: FileId,
        /// How many.
        count: u32,
    },
    /// Donor: the list of files is complete.
    FilesEnd {
        /// The number of files in all batches.
        count: u32,
        /// The position of the state, `uuid:seqno`.
        position: String,
        /// Its GTID domain.
        domain: Option<u32>,
        /// `gtid_binlog_state` at that position, if the donor writes a binary log: `domain-server-seq` lines.
        binlog_state: Option<String>,
    },
    /// Donor: all workers are done, and nothing more follows.
    Complete {
        /// Chunks sent on all connections.
        chunks: u64,
    },
    /// Joiner: everything is verified and on stable storage.
    Stored,
    /// Donor, now and then while it sends: how many bytes there are in all, with the redo and what is read again, for the
    /// joiner's progress.
    Total {
        /// Bytes, whatever of them the joiner has.
        bytes: u64,
    },
    /// Donor, after its offer was accepted and before an attempt: can write-sets bring the joiner back? With a key, a
    /// [`Message::Sample`] follows a yes.
    AskIst {
        /// What the joiner fingerprints its files with; none when they are not compared.
        fingerprints: Option<FingerprintKey>,
    },
    /// Joiner: whether they can.
    CanIst(CanIst),
    /// Donor: no file is sent. The joiner's server starts on its own files, and these write-sets follow as IST messages.
    WriteSets {
        /// The first seqno that is sent.
        from: i64,
        /// The last one; nothing is sent when it is lower.
        to: i64,
        /// The GTID domain that the joiner's server is to be told.
        domain: Option<u32>,
    },
    /// Donor: a piece of the IST messages, cut anywhere; it follows as the frame's payload.
    WriteSetBytes {
        /// Bytes when unpacked, at most [`crate::limits::RANGE_BYTES`].
        len: u32,
        /// How it is packed.
        packing: Packing,
    },
    /// Donor: these were all.
    WriteSetsEnd,
    /// Donor: the others cannot be read; an attempt with files follows.
    WriteSetsFail {
        /// Why.
        why: String,
    },
    /// Donor, before an attempt: can the joiner prepare a backup of mariadb-backup?
    AskPrepare {
        /// The version of the donor's program, as it says it.
        version: String,
    },
    /// Joiner: whether it can.
    CanPrepare {
        /// Why not; empty if it can.
        why_not: String,
    },
    /// Joiner, instead of [`Message::Stored`]: the backup could not be prepared. Another attempt may follow.
    NotPrepared {
        /// Why.
        why: String,
    },
    /// Joiner, an answer: what it remembered of a file is not what the file contains. All its answers are void; the donor
    /// begins another attempt, in which nothing is remembered.
    WrongFingerprints {
        /// What is wrong.
        what: String,
    },
    /// Donor, after its offer was accepted, or before [`Message::Bypass`]: what its archive of write-sets holds without a gap up
    /// to its newest one. The joiner notes it for the next time that it is away.
    ArchiveReach {
        /// The donor's node name.
        node: String,
        /// The history, a UUID.
        history: String,
        /// The first write-set.
        first: i64,
        /// The last one.
        last: i64,
    },
    /// Joiner, before a [`Message::Sample`]: how long its disk took for a block of it, with several reads in flight. Not sent if
    /// the page cache was read, or too few blocks.
    PageTime {
        /// Nanoseconds for each block.
        nanos: u64,
    },
    /// Joiner, before [`Message::Accept`] of an offer: the key under which it remembers fingerprints of its files. Not sent if it
    /// remembers none.
    OwnKey {
        /// The key.
        key: FingerprintKey,
    },
    /// Joiner, among its answers: what its work takes.
    Pace(JoinerPace),
}

impl Message {
    /// The name of its variant, for the log and for errors.
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
            Message::SameGroup { .. } => "SameGroup",
            Message::Asks => "Asks",
            Message::Answers => "Answers",
            Message::CompareFiles(_) => "CompareFiles",
            Message::CompareGroups(_) => "CompareGroups",
            Message::SplitGroup { .. } => "SplitGroup",
            Message::CompareBlocks { .. } => "CompareBlocks",
            Message::ComparePieces { .. } => "ComparePieces",
            Message::CompareEnd => "CompareEnd",
            Message::JoinersFile { .. } => "JoinersFile",
            Message::GroupFingerprint { .. } => "GroupFingerprint",
            Message::RangeFingerprints { .. } => "RangeFingerprints",
            Message::BlockFingerprints { .. } => "BlockFingerprints",
            Message::PieceFingerprints { .. } => "PieceFingerprints",
            Message::Rebuilt { .. } => "Rebuilt",
            Message::WrongFingerprints { .. } => "WrongFingerprints",
            Message::AnswersEnd => "AnswersEnd",
            Message::WorkerDone { .. } => "WorkerDone",
            Message::WorkerStored => "WorkerStored",
            Message::Complete { .. } => "Complete",
            Message::Stored => "Stored",
            Message::Total { .. } => "Total",
            Message::AskIst { .. } => "AskIst",
            Message::CanIst(_) => "CanIst",
            Message::WriteSets { .. } => "WriteSets",
            Message::WriteSetBytes { .. } => "WriteSetBytes",
            Message::WriteSetsEnd => "WriteSetsEnd",
            Message::WriteSetsFail { .. } => "WriteSetsFail",
            Message::AskPrepare { .. } => "AskPrepare",
            Message::CanPrepare { .. } => "CanPrepare",
            Message::NotPrepared { .. } => "NotPrepared",
            Message::ArchiveReach { .. } => "ArchiveReach",
            Message::PageTime { .. } => "PageTime",
            Message::OwnKey { .. } => "OwnKey",
            Message::Pace(_) => "Pace",
        }
    }
}
