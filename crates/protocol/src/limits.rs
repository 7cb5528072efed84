//! Every bound on what a peer may make us allocate, queue or wait for. Changing one is a protocol change.

/// Bytes of a file that travel in one chunk: a multiple of every InnoDB page size (4 KiB to 64 KiB).
/// 1 MiB keeps a worker's buffers (raw, compressed, received) near 4 MiB, so 16 workers stay below 128 MB.
pub const RANGE_BYTES: u32 = 1 << 20;

/// Granularity at which zeros are recognised and kept as holes: the smallest block InnoDB punches.
pub const HOLE_BYTES: u32 = 4096;

/// Longest encoded message header. A `Files` batch is the largest message; the sender splits below this.
pub const HEADER_BYTES_MAX: u32 = 1 << 20;

/// Longest payload behind a header: a range, and what zstd may add to incompressible data.
pub const PAYLOAD_BYTES_MAX: u32 = RANGE_BYTES + (64 << 10);

/// Longest path of a file on the wire, in bytes (Linux PATH_MAX is 4096).
pub const PATH_BYTES_MAX: usize = 4096;

/// Most files one transfer may name: two million tables of one file each, or 200 MB of inventory.
pub const FILES_MAX: u32 = 2_000_000;

/// Entries in one `Files` message at most.
pub const FILES_PER_MESSAGE_MAX: usize = 1024;

/// Longest human text (reason, note) accepted from a peer, in bytes; longer ones are cut by the sender.
pub const TEXT_BYTES_MAX: usize = 2048;

/// Most workers of one transfer.
pub const WORKERS_MAX: u16 = 16;

/// Connections of a transfer beside the control connection and the workers: one for the redo log, and two on which the
/// donor asks what the joiner's files hold and hears the answers.
pub const FURTHER_CONNECTIONS: u16 = 3;

/// Most connections of one transfer beside the control connection.
pub const CONNECTIONS_MAX: u16 = WORKERS_MAX + FURTHER_CONNECTIONS;

/// Pieces in which what has arrived of one file may lie. A donor sends files from the front with a few ranges under way.
pub const PIECES_MAX: usize = 4096;
