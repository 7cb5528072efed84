//! The first bytes each way, inside TLS: fixed layout, frozen for all versions of the protocol, little-endian.
//!
//! Hello, 64 bytes and a name:
//! ```text
//!  0  8  magic "REJOIN\0\1"
//!  8  2  oldest protocol version spoken        10  2  newest protocol version spoken
//! 12  8  capabilities (bit set)                20  1  0 = control connection, 1 = worker
//! 21  2  worker number                         23  8  number of the donor's run
//! 31  1  length n of the program name          32 32  proof of the secret, bound to this TLS session
//! 64  n  program name and version, UTF-8
//! ```
//! Greeting, 53 bytes and a text:
//! ```text
//!  0  8  magic "REJOIN\0\1"                     8  1  0 = welcome, 1 = refused
//!  9  2  protocol version chosen               11  8  capabilities both sides have
//! 19 32  proof of the secret                   51  2  length n of the text
//! 53  n  program name and version, or the reason of the refusal, UTF-8
//! ```
use crate::limits::TEXT_BYTES_MAX;

/// First eight bytes each way. The last byte changes only if this layout itself does.
pub const MAGIC: [u8; 8] = *b"REJOIN\0\x01";
/// Oldest protocol version this program speaks.
pub const VERSION_OLDEST: u16 = 1;
/// Newest protocol version this program speaks. 1: first release, full copies by ranges.
pub const VERSION_NEWEST: u16 = 1;
/// Bytes of a Hello before the program name.
pub const HELLO_BYTES: usize = 64;
/// Bytes of a Greeting before its text.
pub const GREETING_BYTES: usize = 53;

/// Optional features. Both sides use only those that both have.
pub mod capability {
    /// Chunks may be compressed with zstd.
    pub const ZSTD: u64 = 1;
    /// Write-sets of the donor's archive may travel instead of files.
    pub const DEEP_IST: u64 = 2;
    /// The joiner answers whether it can prepare a backup of mariadb-backup.
    pub const PREPARE: u64 = 4;
    /// The joiner takes note of how far the donor's archive of write-sets reaches, also before IST.
    pub const ARCHIVE_REACH: u64 = 8;
    /// The donor counts with how long the joiner's disk takes for a page.
    pub const PAGE_TIME: u64 = 16;
    /// The donor takes note of the key under which the joiner remembers fingerprints.
    pub const OWN_KEY: u64 = 32;
    /// The donor counts with what work takes on the joiner.
    pub const PACE: u64 = 64;
    /// All this program has.
    pub const ALL: u64 = ZSTD | DEEP_IST | PREPARE | ARCHIVE_REACH | PAGE_TIME | OWN_KEY | PACE;
}

/// Proof that the sender knows the one-time secret of this transfer, bound to one TLS session.
pub type Proof = [u8; 32];

/// Which connection of the transfer this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// The first one; it lives as long as the transfer.
    Control,
    /// One of the data connections, numbered from 0.
    Worker(u16),
}

/// The donor's first bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Oldest and newest protocol version the donor speaks.
    pub versions: (u16, u16),
    /// The donor's [`capability`] bits.
    pub capabilities: u64,
    /// Which connection this is.
    pub connection: Connection,
    /// A random number that identifies the donor's run: a second connection with it repeats the first one.
    pub run: u64,
    /// The donor's proof.
    pub proof: Proof,
    /// Program name and version, for the log.
    pub program: String,
}

/// The joiner's response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// The connection is part of the transfer.
    Welcome {
        /// The version both will speak.
        version: u16,
        /// The capabilities both have.
        capabilities: u64,
        /// The joiner's proof.
        proof: Proof,
        /// Program name and version, for the log.
        program: String,
    },
    /// The connection is refused, and closed after this.
    Refused {
        /// The reason, the same text the joiner logs.
        reason: String,
    },
}

/// Bytes that are not a Hello or a Greeting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// The first bytes are not ours.
    #[error("the peer does not speak the rejoin protocol (first bytes {0:02x?})")]
    NotRejoin([u8; 8]),
    /// A field has a value this layout does not have.
    #[error("malformed greeting: {0}")]
    Malformed(&'static str),
    /// No version is common.
    #[error("no common protocol version: the donor speaks {0} to {1}, the joiner {2} to {3}")]
    NoCommonVersion(u16, u16, u16, u16),
}

/// Chooses the newest version that both support.
pub fn choose_version(theirs: (u16, u16), ours: (u16, u16)) -> Result<u16, HelloError> {
    let newest = theirs.1.min(ours.1);
    if newest >= theirs.0.max(ours.0) && theirs.0 <= theirs.1 {
        Ok(newest)
    } else {
        Err(HelloError::NoCommonVersion(theirs.0, theirs.1, ours.0, ours.1))
    }
}

impl Hello {
    /// Encodes this Hello; a program name longer than 255 bytes is truncated.
    pub fn encode(&self) -> Vec<u8> {
        let name = cut(&self.program, 255);
        let (kind, number) = match self.connection {
            Connection::Control => (0u8, 0u16),
            Connection::Worker(n) => (1, n),
        };
        let mut out = Vec::with_capacity(HELLO_BYTES + name.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.versions.0.to_le_bytes());
        out.extend_from_slice(&self.versions.1.to_le_bytes());
        out.extend_from_slice(&self.capabilities.to_le_bytes());
        out.push(kind);
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(&self.run.to_le_bytes());
        out.push(name.len() as u8);
        out.extend_from_slice(&self.proof);
        out.extend_from_slice(name.as_bytes());
        out
    }

    /// The number of bytes that follow the fixed part.
    pub fn tail_len(head: &[u8; HELLO_BYTES]) -> usize {
        usize::from(head.get(31).copied().unwrap_or(0))
    }

    /// Decodes the fixed part and a tail of [`Hello::tail_len`] bytes.
    pub fn decode(head: &[u8; HELLO_BYTES], tail: &[u8]) -> Result<Hello, HelloError> {
        let mut r = Fields::new(head);
        r.magic()?;
        let versions = (r.u16(), r.u16());
        let capabilities = r.u64();
        let kind = r.u8();
        let number = r.u16();
        let connection = match kind {
            0 => Connection::Control,
            1 => Connection::Worker(number),
            _ => return Err(HelloError::Malformed("unknown kind of connection")),
        };
        let run = r.u64();
        r.u8();
        let proof = r.array();
        Ok(Hello { versions, capabilities, connection, run, proof, program: text(tail)? })
    }
}

impl Greeting {
    /// Encodes this Greeting; a text longer than the limit is truncated.
    pub fn encode(&self) -> Vec<u8> {
        let (refused, version, capabilities, proof, words) = match self {
            Greeting::Welcome { version, capabilities, proof, program } => {
                (0u8, *version, *capabilities, *proof, program)
            }
            Greeting::Refused { reason } => (1, 0, 0, [0; 32], reason),
        };
        let words = cut(words, TEXT_BYTES_MAX);
        let mut out = Vec::with_capacity(GREETING_BYTES + words.len());
        out.extend_from_slice(&MAGIC);
        out.push(refused);
        out.extend_from_slice(&version.to_le_bytes());
        out.extend_from_slice(&capabilities.to_le_bytes());
        out.extend_from_slice(&proof);
        out.extend_from_slice(&(words.len() as u16).to_le_bytes());
        out.extend_from_slice(words.as_bytes());
        out
    }

    /// The number of bytes that follow the fixed part. More than the limit is an error.
    pub fn tail_len(head: &[u8; GREETING_BYTES]) -> Result<usize, HelloError> {
        let mut r = Fields::new(head);
        r.magic()?;
        r.u8();
        r.u16();
        r.u64();
        let _: Proof = r.array();
        let n = usize::from(r.u16());
        if n > TEXT_BYTES_MAX { Err(HelloError::Malformed("text too long")) } else { Ok(n) }
    }

    /// Decodes the fixed part and a tail of [`Greeting::tail_len`] bytes.
    pub fn decode(head: &[u8; GREETING_BYTES], tail: &[u8]) -> Result<Greeting, HelloError> {
        let mut r = Fields::new(head);
        r.magic()?;
        let refused = r.u8();
        let version = r.u16();
        let capabilities = r.u64();
        let proof = r.array();
        let words = text(tail)?;
        match refused {
            0 => Ok(Greeting::Welcome { version, capabilities, proof, program: words }),
            1 => Ok(Greeting::Refused { reason: words }),
            _ => Err(HelloError::Malformed("neither welcome nor refusal")),
        }
    }
}

/// Truncates a text at a character boundary.
pub fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or("")
}

fn text(bytes: &[u8]) -> Result<String, HelloError> {
    let words = std::str::from_utf8(bytes).map_err(|_| HelloError::Malformed("text is not UTF-8"))?;
    // The peer's text goes into our log, so line breaks and terminal codes are removed.
    Ok(words.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
}

/// A cursor over a fixed-size head. Reading past the end yields zeros, which cannot happen with the layouts
/// above.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn new(head: &'a [u8]) -> Self {
        Fields { rest: head }
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        if let Some((head, rest)) = self.rest.split_at_checked(N) {
            out.copy_from_slice(head);
            self.rest = rest;
        }
        out
    }

    fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    fn magic(&mut self) -> Result<(), HelloError> {
        let magic: [u8; 8] = self.array();
        if magic == MAGIC { Ok(()) } else { Err(HelloError::NotRejoin(magic)) }
    }
}
