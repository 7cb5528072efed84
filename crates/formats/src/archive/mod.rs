//! Segments of an archive of write-sets: rejoin's own format, version 1. Little-endian.
//!
//! A segment is a file: a header of 64 bytes that names the history, then blocks, and at its end, once it is complete, an
//! index. Segments have serial numbers; in their order, and in the order of the blocks in each, lie all actions and gaps.
//!
//! | offset | bytes | segment header |
//! |---|---|---|
//! | 0 | 8 | `rjsegmnt` |
//! | 8 | 4 | version, 1 |
//! | 12 | 4 | zero |
//! | 16 | 16 | history |
//! | 32 | 8 | the seqno that comes first, at the earliest |
//! | 40 | 8 | when it was begun: milliseconds since 1970 |
//! | 48 | 8 | serial number |
//! | 56 | 8 | XXH3 of bytes 0 to 55 |
//!
//! | offset | bytes | block header |
//! |---|---|---|
//! | 0 | 4 | `rjbl` |
//! | 4 | 1 | 0 actions, 1 a part of a large action, 3 its last part, 2 a gap |
//! | 5 | 1 | 0 stored as it is, 1 zstd |
//! | 6 | 2 | of a gap: its reason; else 0 |
//! | 8, 16 | 8, 8 | first and last seqno |
//! | 24, 28 | 4, 4 | bytes of the body, and as it is stored |
//! | 32 | 8 | when it was written: milliseconds since 1970 |
//! | 40 | 8 | zero |
//! | 48 | 8 | XXH3 of the stored body |
//! | 56 | 8 | XXH3 of bytes 0 to 55, seeded with the segment's serial number |
//!
//! The body of a block of actions is, for each seqno from the first to the last, 8 bytes (flags, kind, zero, length) and the
//! action's bytes. An action that is larger than a block lies in several blocks of parts. The index is a copy of all block
//! headers and a trailer of 32 bytes, the file's last. A segment without one (its writer was killed) is read from block to
//! block and ends before the first that is not whole.
mod block;
mod error;
mod index;
mod segment;
mod walk;

pub use block::{
    BLOCK_HEADER_LEN, BODY_MAX, BlockHeader, BlockKind, Entry, GapReason, PartHead, STORED_MAX, entries,
    push_entry,
};
pub use error::ArchiveError;
pub use index::{INDEX_MAX, TRAILER_LEN, Trailer, index_bytes, parse_index};
pub use segment::{SEGMENT_HEADER_LEN, SegmentHeader, file_name, serial_of_name};
pub use walk::{Blocks, Damage};
