//! Messages of IST: what a donor's provider sends to a joiner's, and what the joiner answers.
//!
//! From galera/src/ist_proto.hpp (Galera 26.4.23) and from what real nodes say to each other. Little-endian: a header of
//! 24 bytes, whose first byte is the group's replication protocol, then the payload. Groups of Galera 3 (protocols up to 9)
//! use another header, which is not read here.
//!
//! ```text
//! joiner -> donor   HANDSHAKE
//! donor  -> joiner  HANDSHAKE_RESPONSE
//! joiner -> donor   CTRL ok
//! donor  -> joiner  TRX | CCHANGE | SKIP ...   one for each seqno, in order
//! donor  -> joiner  CTRL end
//! ```

use thiserror::Error;

use super::conf_change::ConfChange;
use super::gcache::Action;
use super::hash::fast64;
use super::write_set::WriteSet;
use crate::bytes::{array, le32, le64};
use crate::ids::Seqno;

/// Bytes of a message before its payload.
pub const HEADER_LEN: usize = 24;
/// The oldest protocol with this header.
pub const VERSION_OLDEST: u8 = 10;
/// The longest payload: `wsrep_max_ws_size` goes no higher.
pub const PAYLOAD_MAX: u32 = 0x7fff_ffff;
/// In [`Header::flags`]: the donor sends this action to build the certification index.
pub const PRELOAD: u8 = 1;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The joiner greets.
    Handshake,
    /// The donor answers.
    HandshakeResponse,
    /// A number: 0 go on, 1 the end, below 0 an error.
    Control,
    /// A write-set.
    WriteSet,
    /// A configuration change.
    ConfChange,
    /// A write-set that is not to be applied; it has no payload.
    Skip,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Kind::Handshake => 1,
            Kind::HandshakeResponse => 2,
            Kind::Control => 3,
            Kind::WriteSet => 4,
            Kind::ConfChange => 5,
            Kind::Skip => 6,
        }
    }

    /// Has a seqno of the history.
    pub fn is_ordered(self) -> bool {
        matches!(self, Kind::WriteSet | Kind::ConfChange | Kind::Skip)
    }
}

/// The first 24 bytes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The group's replication protocol.
    pub version: u8,
    /// What it is.
    pub kind: Kind,
    /// [`PRELOAD`] or 0.
    pub flags: u8,
    /// Of a [`Kind::Control`]: 0 go on, 1 the end, below 0 an error number.
    pub control: i8,
    /// Bytes that follow.
    pub len: u32,
    /// Of an ordered message its seqno, else -1.
    pub seqno: Seqno,
}

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum IstError {
    /// Of a protocol with another header.
    #[error("IST of protocol {0}")]
    Version(u8),
    /// The checksum does not fit.
    #[error("IST message with a wrong checksum")]
    Checksum,
    /// Of a kind not known here.
    #[error("IST message of kind {0}")]
    Kind(u8),
    /// A payload that no such message has.
    #[error("IST message of kind {kind} with {len} bytes of payload")]
    Length {
        /// The kind's number.
        kind: u8,
        /// Bytes announced.
        len: u32,
    },
    /// An ordered message without a seqno.
    #[error("IST message of kind {kind} with seqno {seqno}")]
    Seqno {
        /// The kind's number.
        kind: u8,
        /// As it says.
        seqno: Seqno,
    },
}

impl Header {
    /// A message without payload that has no seqno.
    pub fn plain(version: u8, kind: Kind, control: i8) -> Header {
        Header { version, kind, flags: 0, control, len: 0, seqno: Seqno(-1) }
    }

    /// The message of an action of the history. `None` for actions that no IST carries and payloads that are too long.
    pub fn of_action(
        version: u8,
        seqno: Seqno,
        action: Action,
        skipped: bool,
        payload: usize,
    ) -> Option<Header> {
        let kind = match action {
            Action::WriteSet if skipped => Kind::Skip,
            Action::WriteSet => Kind::WriteSet,
            Action::ConfChange => Kind::ConfChange,
            Action::Other(_) => return None,
        };
        let len = if kind == Kind::Skip { 0 } else { u32::try_from(payload).ok()? };
        let header = Header { version, kind, flags: 0, control: 0, len, seqno };
        header.check().ok().map(|()| header)
    }

    /// Reads a header and verifies it.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Header, IstError> {
        let [version, kind, flags, control] = array(bytes, 0).unwrap_or_default();
        if version < VERSION_OLDEST {
            return Err(IstError::Version(version));
        }
        if le64(bytes, 16) != bytes.get(..16).map(fast64) {
            return Err(IstError::Checksum);
        }
        let kind = match kind {
            1 => Kind::Handshake,
            2 => Kind::HandshakeResponse,
            3 => Kind::Control,
            4 => Kind::WriteSet,
            5 => Kind::ConfChange,
            6 => Kind::Skip,
            other => return Err(IstError::Kind(other)),
        };
        let len = le32(bytes, 4).unwrap_or_default();
        let seqno = Seqno(le64(bytes, 8).unwrap_or_default().cast_signed());
        let header = Header { version, kind, flags, control: control.cast_signed(), len, seqno };
        header.check().map(|()| header)
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut words = [0; 16];
        let head = [self.version, self.kind.code(), self.flags, self.control.cast_unsigned()];
        crate::bytes::put(&mut words, 0, &head);
        crate::bytes::put(&mut words, 4, &self.len.to_le_bytes());
        crate::bytes::put(&mut words, 8, &self.seqno.0.to_le_bytes());
        let mut bytes = [0; HEADER_LEN];
        crate::bytes::put(&mut bytes, 0, &words);
        crate::bytes::put(&mut bytes, 16, &fast64(&words).to_le_bytes());
        bytes
    }

    fn check(&self) -> Result<(), IstError> {
        let kind = self.kind.code();
        if self.kind.is_ordered() && self.seqno.0 <= 0 {
            return Err(IstError::Seqno { kind, seqno: self.seqno });
        }
        let fits = match self.kind {
            Kind::WriteSet | Kind::ConfChange => (1..=PAYLOAD_MAX).contains(&self.len),
            Kind::Handshake | Kind::HandshakeResponse | Kind::Control | Kind::Skip => self.len == 0,
        };
        if fits { Ok(()) } else { Err(IstError::Length { kind, len: self.len }) }
    }

    /// Verifies the payload of an ordered message by the checksums in it.
    ///
    /// # Errors
    /// In words what is wrong.
    pub fn check_payload(&self, payload: &[u8]) -> Result<(), String> {
        let inside = match self.kind {
            Kind::WriteSet => WriteSet::parse(payload).map_err(|error| error.to_string())?.header.seqno,
            Kind::ConfChange => ConfChange::parse(payload).map_err(|error| error.to_string())?.state.seqno,
            _ if payload.is_empty() => return Ok(()),
            _ => return Err(format!("a payload of {} bytes where there is none", payload.len())),
        };
        if inside == self.seqno { Ok(()) } else { Err(format!("says that its seqno is {inside}")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REAL: &[u8] = include_bytes!("../../tests/data/writeset-653465.bin");

    fn checksum(header: Header) -> String {
        header.encode()[16..].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Checksums that real nodes sent.
    #[test]
    fn headers_are_those_of_real_nodes() {
        let hello = Header::plain(11, Kind::Handshake, 0);
        assert_eq!(hello.encode()[..16], *b"\x0b\x01\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff");
        assert_eq!(checksum(hello), "a839807fdad500d3");
        assert_eq!(checksum(Header::plain(11, Kind::HandshakeResponse, 0)), "77c223b512e0b626");
        assert_eq!(checksum(Header::plain(11, Kind::Control, 0)), "9280caa5698dc07f");
        assert_eq!(checksum(Header::plain(11, Kind::Control, 1)), "ecd1f7e09f869fb3");
        let seqno = Seqno(653_465);
        let set = Header::of_action(11, seqno, Action::WriteSet, false, 296).unwrap();
        assert_eq!(checksum(Header { flags: PRELOAD, ..set }), "508d98250b13c8c2");
        set.check_payload(&REAL[24..]).unwrap();
        let next = Header { seqno: Seqno(653_466), ..set };
        assert!(next.check_payload(&REAL[24..]).unwrap_err().contains("653465"));
    }

    #[test]
    fn a_skipped_write_set_has_no_payload() {
        let skip = Header::of_action(11, Seqno(7), Action::WriteSet, true, 296).unwrap();
        assert_eq!((skip.kind, skip.len), (Kind::Skip, 0));
        assert!(skip.check_payload(&[]).is_ok() && skip.check_payload(&[0]).is_err());
        assert_eq!(Header::of_action(11, Seqno(7), Action::Other(9), false, 1), None);
        assert_eq!(Header::of_action(11, Seqno(0), Action::WriteSet, false, 1), None);
        assert_eq!(Header::of_action(11, Seqno(7), Action::ConfChange, false, usize::MAX), None);
    }

    #[test]
    fn any_changed_bit_is_seen() {
        let bytes = Header::of_action(11, Seqno(5), Action::ConfChange, false, 152).unwrap().encode();
        for at in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[at / 8] ^= 1 << (at % 8);
            assert!(Header::parse(&damaged).is_err(), "bit {at}");
        }
        let mut old = bytes;
        old[0] = 9;
        assert_eq!(Header::parse(&old), Err(IstError::Version(9)));
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(version in 10u8.., code in 1u8..7, flags: u8, control: i8, len: u32, seqno: i64) {
            let kinds = [Kind::Handshake, Kind::HandshakeResponse, Kind::Control, Kind::WriteSet, Kind::ConfChange, Kind::Skip];
            let header = Header { version, kind: kinds[usize::from(code) - 1], flags, control, len, seqno: Seqno(seqno) };
            match Header::parse(&header.encode()) {
                Ok(read) => prop_assert_eq!(read, header),
                Err(error) => prop_assert!(matches!(error, IstError::Length { .. } | IstError::Seqno { .. }), "{}", error),
            }
        }

        #[test]
        fn never_panics(bytes: [u8; HEADER_LEN], payload in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(header) = Header::parse(&bytes) {
                prop_assert_eq!(header.encode(), bytes);
                let _ = header.check_payload(&payload);
            }
        }
    }
}
