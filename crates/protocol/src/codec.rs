//! Frames: u32 header length, u32 payload length (both little-endian), the message in postcard, the payload.
//!
//! With the highest bit of its length set a header is packed: one zstd frame of the message. Lists of files become a tenth.
use crate::limits::{
    FILES_PER_MESSAGE_MAX, HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX, RANGE_BYTES, TEXT_BYTES_MAX,
};
use crate::message::{Attempt, CanIst, Message};
use crate::sample::SAMPLE_BLOCKS;

/// Set in the length of a header that is packed.
const PACKED: u32 = 1 << 31;
/// Shorter headers are not packed, because that would save nothing.
const WORTH_PACKING: usize = 256;
/// The level that makes lists of files smallest at a negligible cost.
const LEVEL: i32 = 9;

/// Bytes before the header of a frame.
pub const PREFIX_BYTES: usize = 8;

/// Bytes that are not a frame, or a frame that breaks a limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// A length above its limit; nothing was allocated.
    #[error("the peer announced a {what} of {len} bytes, the limit is {max}")]
    TooLong {
        /// Header or payload.
        what: &'static str,
        /// The announced length.
        len: u32,
        /// The limit.
        max: u32,
    },
    /// The header is not a message.
    #[error("the peer sent bytes that are not a message of protocol version 1")]
    NoMessage,
    /// A payload behind a message that has none.
    #[error("the peer sent a payload behind {0}")]
    StrayPayload(&'static str),
    /// A field is longer than its limit.
    #[error("the peer sent {0} beyond its limit")]
    FieldTooLong(&'static str),
}

/// Lengths announced by a frame's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// Bytes of the message.
    pub header: usize,
    /// Whether the message is packed.
    pub packed: bool,
    /// Bytes of the payload.
    pub payload: usize,
}

/// Appends a frame's prefix and header to `out`; the caller sends the payload of `payload_len` bytes behind it.
pub fn encode(message: &Message, payload_len: usize, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let too_long = |what, len: usize, max| CodecError::TooLong { what, len: len as u32, max };
    if payload_len > PAYLOAD_BYTES_MAX as usize {
        return Err(too_long("payload", payload_len, PAYLOAD_BYTES_MAX));
    }
    let header = postcard::to_stdvec(message).map_err(|_| CodecError::NoMessage)?;
    if header.len() > HEADER_BYTES_MAX as usize {
        return Err(too_long("header", header.len(), HEADER_BYTES_MAX));
    }
    let packed = if is_of_fingerprints(message) { None } else { pack(&header) };
    let (header, flag) = packed.as_deref().map_or((&header[..], 0), |packed| (packed, PACKED));
    out.extend_from_slice(&(header.len() as u32 | flag).to_le_bytes());
    out.extend_from_slice(&(payload_len as u32).to_le_bytes());
    out.extend_from_slice(header);
    Ok(())
}

/// Fingerprints look random: trying to pack those of every differing range would waste time.
fn is_of_fingerprints(message: &Message) -> bool {
    matches!(
        message,
        Message::RangeFingerprints { .. }
            | Message::BlockFingerprints { .. }
            | Message::PieceFingerprints { .. }
    )
}

/// Returns a header in fewer bytes, if zstd makes it smaller.
fn pack(header: &[u8]) -> Option<Vec<u8>> {
    let worth = header.len() >= WORTH_PACKING;
    let packed = if worth { zstd::bulk::compress(header, LEVEL).ok() } else { None };
    packed.filter(|packed| packed.len() < header.len())
}

/// Reads a prefix and applies the limits before anything is allocated.
pub fn lengths(prefix: [u8; PREFIX_BYTES]) -> Result<Lengths, CodecError> {
    let [a, b, c, d, e, f, g, h] = prefix;
    let (header, payload) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
    let (header, packed) = (header & !PACKED, header & PACKED != 0);
    if header > HEADER_BYTES_MAX {
        return Err(CodecError::TooLong { what: "header", len: header, max: HEADER_BYTES_MAX });
    }
    if payload > PAYLOAD_BYTES_MAX {
        return Err(CodecError::TooLong { what: "payload", len: payload, max: PAYLOAD_BYTES_MAX });
    }
    Ok(Lengths { header: header as usize, packed, payload: payload as usize })
}

/// Decodes the header of a frame with these lengths.
pub fn decode(header: &[u8], lengths: Lengths) -> Result<Message, CodecError> {
    let unpacked = if lengths.packed { Some(unpack(header)?) } else { None };
    let header = unpacked.as_deref().unwrap_or(header);
    let (message, rest) = postcard::take_from_bytes::<Message>(header).map_err(|_| CodecError::NoMessage)?;
    if !rest.is_empty() {
        return Err(CodecError::NoMessage);
    }
    if lengths.payload > 0 && !matches!(message, Message::Chunk(_) | Message::WriteSetBytes { .. }) {
        return Err(CodecError::StrayPayload(message.name()));
    }
    check_fields(&message)?;
    Ok(message)
}

/// Unpacks a header, up to the limit of its length.
fn unpack(packed: &[u8]) -> Result<Vec<u8>, CodecError> {
    zstd::bulk::decompress(packed, HEADER_BYTES_MAX as usize).map_err(|_| CodecError::NoMessage)
}

fn check_fields(message: &Message) -> Result<(), CodecError> {
    match message {
        Message::Ping { doing: text } | Message::Note { text } | Message::Abort { reason: text }
            if text.len() > TEXT_BYTES_MAX =>
        {
            Err(CodecError::FieldTooLong("a text"))
        }
        Message::Attempt(Attempt { reason: text, .. })
        | Message::CanIst(CanIst::No { why: text } | CanIst::Yes { position: text, .. })
        | Message::WriteSetsFail { why: text }
        | Message::WrongFingerprints { what: text }
            if text.len() > TEXT_BYTES_MAX =>
        {
            Err(CodecError::FieldTooLong("a reason"))
        }
        Message::ArchiveReach { node, history, .. } if node.len().max(history.len()) > TEXT_BYTES_MAX => {
            Err(CodecError::FieldTooLong("a name or a history"))
        }
        Message::CanIst(CanIst::Yes { rate: Some(rate), .. }) if !rate.is_possible() => {
            Err(CodecError::FieldTooLong("a rate"))
        }
        Message::WriteSetBytes { len, .. } if *len > RANGE_BYTES => {
            Err(CodecError::FieldTooLong("a piece of write-sets"))
        }
        Message::Sample(sample) if sample.blocks.len() > SAMPLE_BLOCKS => {
            Err(CodecError::FieldTooLong("a sample"))
        }
        Message::Files(files) | Message::CompareFiles(files) | Message::CompareGroups(files)
            if files.len() > FILES_PER_MESSAGE_MAX =>
        {
            Err(CodecError::FieldTooLong("a batch of files"))
        }
        _ => Ok(()),
    }
}
