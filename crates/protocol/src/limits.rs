//! Limits on everything that a peer may make us allocate, queue or wait for. Changing one is a protocol
//! change.

/// Bytes of a file that travel in one chunk: a multiple of every InnoDB page size (4 KiB to 64 KiB).
/// 1 MiB keeps a worker's buffers (raw, compressed, received) near 4 MiB, so 16 workers stay below 128 MB.
pub const RANGE_BYTES: u32 = 1 << 20;

/// The granularity at which zeros are recognised and stored as holes: the smallest block that InnoDB punches.
pub const HOLE_BYTES: u32 = 4096;

/// Longest encoded message header. A `Files` batch is the largest message; the sender splits below this.
pub const HEADER_BYTES_MAX: u32 = 1 << 20;

/// The longest payload behind a header: a range, and the overhead of zstd for incompressible data.
pub const PAYLOAD_BYTES_MAX: u32 = RANGE_BYTES + (64 << 10);

/// Longest path of a file on the wire, in bytes (Linux PATH_MAX is 4096).
pub const PATH_BYTES_MAX: usize = 4096;

/// The most files that one transfer may name: two million tables of one file each, or 200 MB of file list.
pub const FILES_MAX: u32 = 2_000_000;

/// Entries in one `Files` message at most.
pub const FILES_PER_MESSAGE_MAX: usize = 1024;

/// The longest text (reason, log line) accepted from a peer, in bytes. The sender truncates longer ones.
pub const TEXT_BYTES_MAX: usize = 2048;

/// The most write-sets a second that a joiner may say its server applies, and their bytes: more than any does.
pub const REPLAY_WRITE_SETS_MAX: u64 = 100_000_000;

/// See [`REPLAY_WRITE_SETS_MAX`].
pub const REPLAY_BYTES_MAX: u64 = 1 << 40;

/// Most workers of one transfer.
pub const WORKERS_MAX: u16 = 16;

/// Connections of a transfer besides the control connection and the workers: one for the redo log, one for
/// the donor's questions about the joiner's files, and one for the answers.
pub const FURTHER_CONNECTIONS: u16 = 3;

/// The most connections of one transfer besides the control connection.
pub const CONNECTIONS_MAX: u16 = WORKERS_MAX + FURTHER_CONNECTIONS;

/// The most pieces in which a partly arrived file may lie. A donor sends files from the front with a few
/// ranges in progress.
pub const PIECES_MAX: usize = 4096;
