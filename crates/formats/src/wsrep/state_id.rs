//! `UUID:SEQNO`, the name of a cluster state, with what MariaDB may append to it.
//!
//! The server prints `UUID:SEQNO` in `--gtid` and in `--wsrep_start_position`; with `wsrep_gtid_mode`
//! a `,DOMAIN-SERVER-SEQ` follows (sql/wsrep_sst.cc and sql/wsrep_utils.cc, MariaDB 10.11). A joiner's last
//! line and the file `tables_flushed` append ` DOMAIN` instead (sql/wsrep_sst.cc, MariaDB 10.11).

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::ids::{Seqno, Uuid};

/// A position in a cluster's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateId {
    /// The history.
    pub uuid: Uuid,
    /// The last write-set in it; -1 if it is not known.
    pub seqno: Seqno,
}

/// A MariaDB replication GTID, `domain-server-sequence`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gtid {
    /// Replication domain.
    pub domain: u32,
    /// Server that wrote the event group.
    pub server: u32,
    /// Sequence number in the domain.
    pub seq: u64,
}

/// A state with the rest of its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnnotatedStateId {
    /// The state itself.
    pub state: StateId,
    /// The replication domain, whether it came as ` DOMAIN` or as the first part of `,DOMAIN-SERVER-SEQ`.
    pub domain: Option<u32>,
    /// The whole replication GTID, if there was one.
    pub gtid: Option<Gtid>,
}

/// Why a text is not a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadStateId {
    /// No `:` between UUID and number.
    #[error("no ':' between UUID and sequence number")]
    NoColon,
    /// The part before `:` is not a UUID.
    #[error("the part before ':' is not a UUID")]
    Uuid,
    /// The part after `:` is not a signed 64-bit decimal number.
    #[error("the part after ':' is not a sequence number")]
    Seqno,
    /// Text after the number that is neither ` DOMAIN` nor `,DOMAIN-SERVER-SEQ`.
    #[error("unexpected text after the sequence number")]
    Trailing,
}

impl StateId {
    /// No history, no position.
    pub const UNDEFINED: StateId = StateId { uuid: Uuid::NIL, seqno: Seqno::UNDEFINED };

    /// Whether history and number are both defined.
    pub fn is_defined(&self) -> bool {
        !self.uuid.is_nil() && self.seqno.0 >= 0
    }

    /// Parses `UUID:SEQNO`, `UUID:SEQNO,DOMAIN-SERVER-SEQ` or `UUID:SEQNO DOMAIN`, with white space around.
    /// Words after the domain are ignored, as the server does.
    ///
    /// # Errors
    /// The first invalid part.
    pub fn parse_annotated(text: &str) -> Result<AnnotatedStateId, BadStateId> {
        let text = text.trim();
        let end = text.find(|c: char| c == ',' || c.is_ascii_whitespace()).unwrap_or(text.len());
        let (head, tail) = text.split_at_checked(end).ok_or(BadStateId::Trailing)?;
        let state: StateId = head.parse()?;
        let tail = tail.trim_start();
        if tail.is_empty() {
            return Ok(AnnotatedStateId { state, domain: None, gtid: None });
        }
        if let Some(gtid) = tail.strip_prefix(',') {
            let word = gtid.split_ascii_whitespace().next().unwrap_or_default();
            let gtid: Gtid = word.parse().map_err(|BadGtid| BadStateId::Trailing)?;
            return Ok(AnnotatedStateId { state, domain: Some(gtid.domain), gtid: Some(gtid) });
        }
        let word = tail.split_ascii_whitespace().next().unwrap_or_default();
        let domain = decimal(word).ok_or(BadStateId::Trailing)?;
        Ok(AnnotatedStateId { state, domain: Some(domain), gtid: None })
    }
}

/// A number of decimal digits only: Rust's own parser also takes a leading `+`.
fn decimal<T: FromStr>(word: &str) -> Option<T> {
    if word.bytes().all(|b| b.is_ascii_digit()) { word.parse().ok() } else { None }
}

impl FromStr for StateId {
    type Err = BadStateId;

    /// Exactly `UUID:SEQNO`, nothing around it.
    fn from_str(text: &str) -> Result<Self, BadStateId> {
        let (uuid, seqno) = text.split_once(':').ok_or(BadStateId::NoColon)?;
        let uuid = uuid.parse().map_err(|_| BadStateId::Uuid)?;
        if seqno.starts_with('+') {
            return Err(BadStateId::Seqno);
        }
        let seqno = seqno.parse().map(Seqno).map_err(|_| BadStateId::Seqno)?;
        Ok(StateId { uuid, seqno })
    }
}

impl fmt::Display for StateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uuid, self.seqno)
    }
}

/// The text is not `DOMAIN-SERVER-SEQ`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a replication GTID (domain-server-sequence)")]
pub struct BadGtid;

impl FromStr for Gtid {
    type Err = BadGtid;

    fn from_str(text: &str) -> Result<Self, BadGtid> {
        let mut parts = text.split('-');
        let domain = parts.next().and_then(decimal).ok_or(BadGtid)?;
        let server = parts.next().and_then(decimal).ok_or(BadGtid)?;
        let seq = parts.next().and_then(decimal).ok_or(BadGtid)?;
        if parts.next().is_some() {
            return Err(BadGtid);
        }
        Ok(Gtid { domain, server, seq })
    }
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.domain, self.server, self.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const U: &str = "2f0eaefd-11aa-11f0-9b0e-0242ac110002";

    #[test]
    fn the_three_forms() {
        let plain = StateId::parse_annotated(&format!("{U}:3408\n")).unwrap();
        assert_eq!((plain.state.seqno, plain.domain, plain.gtid), (Seqno(3408), None, None));
        let domain = StateId::parse_annotated(&format!("{U}:-1 7 more words")).unwrap();
        assert_eq!((domain.state.seqno, domain.domain), (Seqno(-1), Some(7)));
        let gtid = StateId::parse_annotated(&format!("{U}:5,0-10-99")).unwrap();
        assert_eq!(gtid.gtid, Some(Gtid { domain: 0, server: 10, seq: 99 }));
        assert_eq!(gtid.domain, Some(0));
    }

    #[test]
    fn errors_name_the_part() {
        assert_eq!("x".parse::<StateId>(), Err(BadStateId::NoColon));
        assert_eq!("x:1".parse::<StateId>(), Err(BadStateId::Uuid));
        assert_eq!(format!("{U}:x").parse::<StateId>(), Err(BadStateId::Seqno));
        assert_eq!(format!("{U}:+1").parse::<StateId>(), Err(BadStateId::Seqno));
        assert_eq!(StateId::parse_annotated(&format!("{U}:1 x")), Err(BadStateId::Trailing));
        assert_eq!(StateId::parse_annotated(&format!("{U}:1,1-2")), Err(BadStateId::Trailing));
    }

    proptest! {
        #[test]
        fn round_trip(uuid: [u8; 16], seqno: i64, domain: u32, server: u32, seq: u64) {
            let state = StateId { uuid: Uuid(uuid), seqno: Seqno(seqno) };
            prop_assert_eq!(state.to_string().parse::<StateId>(), Ok(state));
            let gtid = Gtid { domain, server, seq };
            let read = StateId::parse_annotated(&format!("{state},{gtid}")).unwrap();
            prop_assert_eq!(read, AnnotatedStateId { state, domain: Some(domain), gtid: Some(gtid) });
            let read = StateId::parse_annotated(&format!("{state} {domain}")).unwrap();
            prop_assert_eq!(read, AnnotatedStateId { state, domain: Some(domain), gtid: None });
        }

        #[test]
        fn never_panics(text in "\\PC{0,80}", tail in "\\PC{0,20}") {
            let _ = StateId::parse_annotated(&text);
            let _ = StateId::parse_annotated(&format!("{U}:1{tail}"));
            let _ = text.parse::<Gtid>();
        }
    }
}
