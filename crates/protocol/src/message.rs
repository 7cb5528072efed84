//! The messages after the greeting, protocol version 1. They are encoded with postcard, so the order of
//! variants and fields is the format.
use serde::{Deserialize, Serialize};

use crate::chunk::{Chunk, Packing};
use crate::fingerprint::{Fingerprint, FingerprintKey};
use crate::inventory::{FileEntry, FileId, Place};
use crate::limits::{REPLAY_BYTES_MAX, REPLAY_WRITE_SETS_MAX};
use crate::policy::NodeFacts;
use crate::sample::Sample;

/// One try of the donor to send a state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The kind of snapshot that the files come from.
    pub snapshot: SnapshotKind,
    /// Why the preferred kind of snapshot is not used; empty if it is.
    pub reason: String,
    /// The key for the joiner's fingerprints; none if files are not compared.
    pub fingerprints: Option<FingerprintKey>,
    /// The key of fingerprints that are remembered after the transfer; none if nothing is to be remembered. If it is the
    /// same as the other one, what was remembered before may be used in this attempt.
    pub remember: Option<FingerprintKey>,
    /// Bytes of the files that this snapshot contains, including those that the joiner already has. For the
    /// progress.
    pub bytes: u64,
}

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
        still: bool,
        /// The joiner has files that may contain part of the data.
        base: bool,
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
}

/// Whether write-sets can bring a joiner back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CanIst {
    /// They can.
    Yes {
        /// The position that the joiner's server will start from, `uuid:seqno`.
        position: String,
        /// The first seqno that the donor's provider sends by itself.
        first: i64,
        /// The first seqno that the joiner has not from an earlier try.
        next: i64,
        /// Bytes of write-sets that the joiner has room for.
        room: u64,
        /// How fast the joiner's server applied them last, if that is known.
        rate: Option<ReplayRate>,
    },
    /// They cannot.
    No {
        /// Why.
        why: String,
    },
}

/// How fast a server applies write-sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayRate {
    /// Write-sets in a second.
    pub write_sets: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl ReplayRate {
    /// Whether a server can be that fast, or that slow.
    pub fn is_possible(&self) -> bool {
        (1..=REPLAY_WRITE_SETS_MAX).contains(&self.write_sets) && (1..=REPLAY_BYTES_MAX).contains(&self.bytes)
    }
}

/// The description of a transfer, before anything is stopped on the donor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// `wsrep_node_name` of the donor.
    pub node: String,
    /// The position of the donor's server when it was asked, `uuid:seqno`.
    pub position: String,
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
    /// Files that will not be sent, one line each.
    pub left_out: Vec<String>,
    /// Directories of the donor's databases, as far as they fit into one message: the joiner checks the
    /// places where they will go.
    pub databases: Vec<String>,
    /// Whether the donor takes a logical snapshot.
    pub logical: Logical,
}

/// Whether a donor takes a logical snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Logical {
    /// Never.
    #[default]
    Never,
    /// If the joiner cannot use the donor's files.
    IfNeeded,
    /// In any case.
    Always,
}

/// The kind of snapshot that a donor's files come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotKind {
    /// A snapshot of a working server: files may grow and be renamed while they are sent, and the redo log
    /// brings them to one consistent position.
    Online,
    /// A snapshot of a server that blocks writes to its files.
    Blocking,
    /// Definitions and rows as the server shows them, from which the joiner's server makes files of its own.
    Logical,
    /// A backup that mariadb-backup takes of a working server: the joiner has mariadb-backup prepare the files once all of them
    /// have arrived.
    Mariabackup,
}

impl SnapshotKind {
    /// Its name, as in `[sst] snapshot=`.
    pub fn name(self) -> &'static str {
        match self {
            SnapshotKind::Online => "online",
            SnapshotKind::Blocking => "blocking",
            SnapshotKind::Logical => "logical",
            SnapshotKind::Mariabackup => "mariabackup",
        }
    }
}

/// The line in both hosts' logs that names the kind of snapshot.
pub fn snapshot_line(kind: SnapshotKind, reason: &str) -> String {
    match reason {
        "" => format!("snapshot: {}", kind.name()),
        why => format!("snapshot: {} ({why})", kind.name()),
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
            Message::SameGroup { .. } => "SameGroup",
            Message::Asks => "Asks",
            Message::Answers => "Answers",
            Message::CompareFiles(_) => "Look",
            Message::CompareGroups(_) => "CompareGroups",
            Message::SplitGroup { .. } => "SplitGroup",
            Message::CompareBlocks { .. } => "CompareBlocks",
            Message::ComparePieces { .. } => "ComparePieces",
            Message::CompareEnd => "CompareEnd",
            Message::JoinersFile { .. } => "Base",
            Message::GroupFingerprint { .. } => "Together",
            Message::RangeFingerprints { .. } => "Fingerprints",
            Message::BlockFingerprints { .. } => "Blocks",
            Message::PieceFingerprints { .. } => "Pieces",
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
        }
    }
}
