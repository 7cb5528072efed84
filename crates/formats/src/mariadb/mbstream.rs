//! The stream in which `mariadb-backup --stream=mbstream` writes a backup (XBSTREAM): files in chunks, which of several
//! files may alternate.
//!
//! ```text
//!  0  8  magic "XBSTCK01"
//!  8  1  flags; bit 0: a reader that does not know the type ignores the chunk; bit 1: the file replaces one that is complete
//!  9  1  type
//! 10  4  length of the path            14  path, and what the type says:
//! 'P' bytes of a file: 8 bytes, how many; 8, where in the file they begin; 4, their CRC-32 (IEEE); the bytes
//! 'E' the file is complete
//! 'D' the file, which is complete, is removed
//! 'R' it gets another name: 4 bytes, the length of the new path; the new path
//! 'S' MariaDB: the next bytes of the file go elsewhere: 8 bytes, where. The chunk with them says so too.
//! 'S' XtraBackup: bytes with holes: 4 bytes, how many holes; the three numbers of a 'P'; for each hole 4 bytes of the file to skip
//!     and 4 bytes, how many to write after them; the bytes. The checksum is of the holes and the bytes.
//! ```
//! Little-endian. 'P', 'E' and ignored types are from extra/mariabackup/xbstream_read.cc (MariaDB 10.11), 'D', 'R', 'S' and bit 1
//! from a newer xbstream_write.cc; all of them were tried with `mbstream -x` of 10.11.19, and met in streams of `mariadb-backup`
//! 10.11.19 while tables were renamed. XtraBackup's 'S' is from its page `xbstream_file_format.md` and compared with the example
//! there; no stream of XtraBackup itself was read.
//!
//! A chunk of type 'P' has 10 MiB as a rule and the format has no limit, so bytes are given out as they come. The checksum
//! is before them and is verified after them: what was given out is valid only once [`Event::ChunkEnd`] has followed.
mod payload;

use thiserror::Error;

use self::payload::{HOLE_BYTES, NUMBERS_BYTES, Part, Payload};
use crate::bytes::le32;

/// The longest path: `mbstream` accepts no longer one.
pub const PATH_BYTES_MAX: usize = 511;
/// The most holes in one chunk. A chunk of XtraBackup has 10 MiB of payload, and at least one page before each hole.
pub const HOLES_MAX: u32 = 1 << 18;

const MAGIC: [u8; 8] = *b"XBSTCK01";
/// Magic, flags, type, length of the path.
const HEAD_BYTES: usize = 14;
const IGNORABLE: u8 = 1;
const REPLACES: u8 = 2;
const OFFSET_BYTES: usize = 8;

/// What a stream says next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A chunk of the file [`Decoder::path`] begins.
    Chunk {
        /// If a file of this name is complete, this one replaces it.
        replaces: bool,
    },
    /// Bytes of that file.
    Data {
        /// Where in the file they begin.
        offset: u64,
        /// The bytes, at least one.
        bytes: &'a [u8],
    },
    /// The chunk is complete and its checksum is right.
    ChunkEnd {
        /// Where in the file the chunk ends, holes included.
        end: u64,
    },
    /// The file [`Decoder::path`] is complete.
    FileEnd,
    /// The file [`Decoder::path`] is removed.
    Removed,
    /// The file [`Decoder::path`] is called [`Decoder::new_path`] from now on.
    Renamed,
}

/// What is wrong with a stream. Nothing after it can be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MbstreamError {
    /// A chunk does not begin with the magic.
    #[error("no chunk begins at byte {at} of the stream")]
    Magic {
        /// Where in the stream.
        at: u64,
    },
    /// The type of a chunk is not known, and the chunk may not be ignored.
    #[error("the chunk at byte {at} of the stream has the unknown type {kind:#04x}")]
    Kind {
        /// Where in the stream.
        at: u64,
        /// The type.
        kind: u8,
    },
    /// A path that no backup contains.
    #[error("the stream names an impossible file: {0:?}")]
    Path(String),
    /// Numbers that do not fit together, or are too large.
    #[error("a chunk of {path} is impossible: {why}")]
    Numbers {
        /// Its file.
        path: String,
        /// What is wrong.
        why: &'static str,
    },
    /// The bytes of a chunk are not those that were written.
    #[error("a chunk of {path} that ends at {end} has a wrong checksum")]
    Checksum {
        /// Its file.
        path: String,
        /// Where in the file the chunk ends.
        end: u64,
    },
}

/// What is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Path { kind: Kind, len: usize },
    NewPathLength,
    NewPath { len: usize },
    Seek,
    Holes { kind: Kind },
    Numbers { kind: Kind, holes: u32 },
    Hole { left: u32 },
    Payload { ignored: bool },
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Payload,
    Sparse,
    End,
    Remove,
    Rename,
    Seek,
    Ignored,
}

/// Reads a stream, in pieces of any length. It keeps one path and the holes of one chunk, never the payload.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// An 'S' is one of XtraBackup.
    sparse: bool,
    replaces: bool,
    new_path: String,
    /// Bytes of a header that is not complete.
    partial: Vec<u8>,
    path: String,
    /// Bytes of the stream that were read.
    at: u64,
    payload: Payload,
    error: Option<MbstreamError>,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder::new()
    }
}

impl Decoder {
    /// At the beginning of a stream of MariaDB.
    pub fn new() -> Decoder {
        Decoder {
            state: State::Head,
            sparse: false,
            replaces: false,
            new_path: String::new(),
            partial: Vec::new(),
            path: String::new(),
            at: 0,
            payload: Payload::default(),
            error: None,
        }
    }

    /// At the beginning of a stream of Percona XtraBackup.
    pub fn of_xtrabackup() -> Decoder {
        Decoder { sparse: true, ..Decoder::new() }
    }

    /// The path of the last event's file: relative, without `.` and `..`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The name that a renamed file got: relative, without `.` and `..`.
    pub fn new_path(&self) -> &str {
        &self.new_path
    }

    /// Whether the stream may end here.
    pub fn is_between_chunks(&self) -> bool {
        self.state == State::Head && self.partial.is_empty()
    }

    /// Takes bytes from the front of `input` until something happens; `None` if it needs more of them.
    ///
    /// # Errors
    /// The stream cannot be read; the same again at each later call.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, MbstreamError> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        self.step(input).inspect_err(|error| {
            (self.state, self.error) = (State::Failed, Some(error.clone()));
        })
    }

    fn step<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, MbstreamError> {
        loop {
            match self.state {
                State::Failed => return Ok(None),
                State::Head => {
                    if self.gather(input, HEAD_BYTES).is_none() {
                        return self.checked_magic().map(|()| None);
                    }
                    self.head()?;
                }
                State::Path { kind, len } => {
                    let Some(path) = self.gather(input, len) else { return Ok(None) };
                    self.path = clean(path)?;
                    self.partial.clear();
                    self.state = match kind {
                        Kind::End | Kind::Remove => State::Head,
                        Kind::Rename => State::NewPathLength,
                        Kind::Seek => State::Seek,
                        Kind::Sparse => State::Holes { kind },
                        Kind::Payload | Kind::Ignored => State::Numbers { kind, holes: 0 },
                    };
                    match kind {
                        Kind::End => return Ok(Some(Event::FileEnd)),
                        Kind::Remove => return Ok(Some(Event::Removed)),
                        _ => {}
                    }
                }
                State::Seek => {
                    if self.gather(input, OFFSET_BYTES).is_none() {
                        return Ok(None);
                    }
                    self.partial.clear();
                    self.state = State::Head;
                }
                State::NewPathLength => {
                    let Some(bytes) = self.gather(input, 4) else { return Ok(None) };
                    let len = path_length(bytes, 0)?;
                    self.partial.clear();
                    self.state = State::NewPath { len };
                }
                State::NewPath { len } => {
                    let Some(path) = self.gather(input, len) else { return Ok(None) };
                    self.new_path = clean(path)?;
                    self.partial.clear();
                    self.state = State::Head;
                    return Ok(Some(Event::Renamed));
                }
                State::Holes { kind } => {
                    let Some(bytes) = self.gather(input, 4) else { return Ok(None) };
                    let holes = le32(bytes, 0).unwrap_or_default();
                    self.partial.clear();
                    if holes > HOLES_MAX {
                        return Err(self.impossible("too many holes"));
                    }
                    self.state = State::Numbers { kind, holes };
                }
                State::Numbers { kind, holes } => {
                    let Some(numbers) = self.gather(input, NUMBERS_BYTES) else { return Ok(None) };
                    let described = Payload::described(numbers);
                    self.partial.clear();
                    self.payload = described.map_err(|why| self.impossible(why))?;
                    let ignored = kind == Kind::Ignored;
                    self.state = if kind == Kind::Sparse {
                        State::Hole { left: holes }
                    } else {
                        State::Payload { ignored }
                    };
                    if !ignored {
                        return Ok(Some(Event::Chunk { replaces: self.replaces }));
                    }
                }
                State::Hole { left: 0 } => {
                    self.payload.check_holes().map_err(|why| self.impossible(why))?;
                    self.state = State::Payload { ignored: false };
                }
                State::Hole { left } => {
                    if self.gather(input, HOLE_BYTES).is_none() {
                        return Ok(None);
                    }
                    self.payload.add_hole(&self.partial);
                    self.partial.clear();
                    self.state = State::Hole { left: left - 1 };
                }
                State::Payload { ignored } => match self.payload_part(input) {
                    None => return Ok(None),
                    Some(Part::Bytes { .. }) if ignored => {}
                    Some(Part::Bytes { offset, bytes }) => return Ok(Some(Event::Data { offset, bytes })),
                    Some(Part::End { end, intact }) => {
                        self.state = State::Head;
                        match (ignored, intact) {
                            (true, _) => {}
                            (false, true) => return Ok(Some(Event::ChunkEnd { end })),
                            (false, false) => {
                                return Err(MbstreamError::Checksum { path: self.path.clone(), end });
                            }
                        }
                    }
                },
            }
        }
    }

    /// Collects `len` bytes of a header; `None` while some are missing.
    fn gather(&mut self, input: &mut &[u8], len: usize) -> Option<&[u8]> {
        let missing = len.saturating_sub(self.partial.len());
        let (now, rest) = input.split_at(missing.min(input.len()));
        self.partial.extend_from_slice(now);
        self.at += now.len() as u64;
        *input = rest;
        (self.partial.len() >= len).then_some(&self.partial)
    }

    /// A stream that is none is recognised by its first bytes.
    fn checked_magic(&self) -> Result<(), MbstreamError> {
        let known = self.partial.len().min(MAGIC.len());
        match self.partial.get(..known) == MAGIC.get(..known) {
            true => Ok(()),
            false => Err(MbstreamError::Magic { at: self.at - self.partial.len() as u64 }),
        }
    }

    fn head(&mut self) -> Result<(), MbstreamError> {
        self.checked_magic()?;
        let at = self.at - HEAD_BYTES as u64;
        let byte = |at: usize| self.partial.get(at).copied().unwrap_or_default();
        let kind = match (byte(9), byte(8) & IGNORABLE != 0) {
            (b'P', _) => Kind::Payload,
            (b'S', _) if self.sparse => Kind::Sparse,
            (b'S', _) => Kind::Seek,
            (b'E', _) => Kind::End,
            (b'D', _) => Kind::Remove,
            (b'R', _) => Kind::Rename,
            (_, true) => Kind::Ignored,
            (kind, false) => return Err(MbstreamError::Kind { at, kind }),
        };
        self.replaces = byte(8) & REPLACES != 0;
        let len = path_length(&self.partial, 10)?;
        self.partial.clear();
        self.state = State::Path { kind, len };
        Ok(())
    }

    fn payload_part<'a>(&mut self, input: &mut &'a [u8]) -> Option<Part<'a>> {
        let before = input.len();
        let part = self.payload.next(input);
        self.at += (before - input.len()) as u64;
        part
    }

    fn impossible(&self, why: &'static str) -> MbstreamError {
        MbstreamError::Numbers { path: self.path.clone(), why }
    }
}

/// The length of a path, where it stands in a header.
fn path_length(bytes: &[u8], at: usize) -> Result<usize, MbstreamError> {
    let len = le32(bytes, at).map_or(usize::MAX, |len| len as usize);
    match len {
        0..=PATH_BYTES_MAX => Ok(len),
        _ => Err(MbstreamError::Path(format!("a path of {len} bytes"))),
    }
}

/// A path in a backup, without the `./` that some begin with.
fn clean(bytes: &[u8]) -> Result<String, MbstreamError> {
    let bad = || MbstreamError::Path(String::from_utf8_lossy(bytes).into_owned());
    let path = std::str::from_utf8(bytes).map_err(|_| bad())?;
    let path = path.strip_prefix("./").unwrap_or(path);
    let fits = |part: &str| !matches!(part, "" | "." | "..");
    match path.split('/').all(fits) && !path.contains(['\0', '\n']) {
        true => Ok(path.to_owned()),
        false => Err(bad()),
    }
}

#[cfg(test)]
#[path = "mbstream_tests.rs"]
mod tests;
