//! A configuration change (a view): the members of the group, their states, and the oldest write-set that
//! each could serve.
//!
//! From gcs/src/gcs_act_cchange.cpp (Galera 26.4.23) and from changes of real clusters: a version byte 0, a
//! text of comma-separated numbers that ends with NUL, an entry for each member, zeros up to a multiple of 8,
//! and a checksum of 8 bytes. It has its own seqno, so every gcache records what the whole cluster could
//! serve at its last change.

use thiserror::Error;

use super::hash::fast128;
use crate::bytes::{array, le64};
use crate::ids::{Seqno, Uuid};
use crate::wsrep::state_id::StateId;

/// More members than any group has.
const MAX_MEMBERS: usize = 4096;

/// A configuration change with a correct checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfChange {
    /// Protocol of the replicator, 11 with Galera 26.4.23.
    pub replication_protocol: i32,
    /// Protocol of the server.
    pub application_protocol: i32,
    /// The history, and the seqno of this change in it.
    pub state: StateId,
    /// Number of the configuration; -1 if it is not primary.
    pub conf_id: i64,
    /// The members in the group's order.
    pub members: Vec<Member>,
}

/// A member at the time of the change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The node's identity in the group.
    pub uuid: Uuid,
    /// `wsrep_node_name`.
    pub name: String,
    /// The address at which it accepts clients (`wsrep_node_incoming_address`).
    pub incoming: String,
    /// The lowest seqno in its gcache, `None` if it was empty.
    pub lowest_cached: Option<Seqno>,
    /// Its state.
    pub state: MemberState,
}

/// State of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberState {
    /// Not part of a primary component.
    NonPrimary,
    /// In the primary component, but without the group's data.
    Primary,
    /// Receiving a state transfer.
    Joiner,
    /// Sending a state transfer, or desynchronized.
    Donor,
    /// It has its data, and catches up.
    Joined,
    /// Up to date.
    Synced,
    /// An unknown number.
    Other(u8),
}

impl std::fmt::Display for MemberState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            MemberState::NonPrimary => "Non-primary",
            MemberState::Primary => "Primary",
            MemberState::Joiner => "Joiner",
            MemberState::Donor => "Donor",
            MemberState::Joined => "Joined",
            MemberState::Synced => "Synced",
            MemberState::Other(number) => return write!(f, "state {number}"),
        })
    }
}

/// What is wrong with a configuration change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ConfChangeError {
    /// The version is unknown.
    #[error("configuration change of version {0}")]
    Version(u8),
    /// The payload ends too early.
    #[error("configuration change is truncated")]
    Short,
    /// A number or identifier in it cannot be parsed.
    #[error("configuration change: bad {0}")]
    Value(&'static str),
    /// The checksum does not match the bytes.
    #[error("configuration change: wrong checksum")]
    Checksum,
}

impl ConfChange {
    /// Parses a buffer's payload and verifies it.
    ///
    /// # Errors
    /// The first problem.
    pub fn parse(payload: &[u8]) -> Result<ConfChange, ConfChangeError> {
        let (&version, rest) = payload.split_first().ok_or(ConfChangeError::Short)?;
        if version != 0 {
            return Err(ConfChangeError::Version(version));
        }
        let (head, mut rest) = text(rest)?;
        let mut fields = head.split(',');
        let mut field = |name| fields.next().ok_or(ConfChangeError::Value(name)).map(|text| (text, name));
        let _version = field("version")?;
        let replication_protocol = number(field("replication protocol")?)?;
        let application_protocol = number(field("application protocol")?)?;
        let state = field("state")?.0.parse().map_err(|_| ConfChangeError::Value("state"))?;
        let conf_id = number(field("configuration number")?)?;
        let _vote = (field("vote's seqno")?, field("vote's result")?);
        let count: usize = number(field("number of members")?)?;
        if count > MAX_MEMBERS {
            return Err(ConfChangeError::Value("number of members"));
        }
        let mut members = Vec::new();
        for _ in 0..count {
            let (member, behind) = Member::parse(rest)?;
            members.push(member);
            rest = behind;
        }
        // The parsed bytes precede `rest`; the checksum follows their padding.
        let used = payload.len().saturating_sub(rest.len());
        let covered_len = used.checked_next_multiple_of(8).ok_or(ConfChangeError::Short)?;
        let covered = payload.get(..covered_len).ok_or(ConfChangeError::Short)?;
        let stored = le64(payload, covered_len).ok_or(ConfChangeError::Short)?;
        let [low, _] = fast128(covered);
        if low != stored {
            return Err(ConfChangeError::Checksum);
        }
        Ok(ConfChange { replication_protocol, application_protocol, state, conf_id, members })
    }
}

impl Member {
    fn parse(bytes: &[u8]) -> Result<(Member, &[u8]), ConfChangeError> {
        let (uuid, bytes) = text(bytes)?;
        let (name, bytes) = text(bytes)?;
        let (incoming, bytes) = text(bytes)?;
        let cached = array(bytes, 0).map(i64::from_le_bytes).ok_or(ConfChangeError::Short)?;
        let [state] = array(bytes, 8).ok_or(ConfChangeError::Short)?;
        let member = Member {
            uuid: uuid.parse().map_err(|_| ConfChangeError::Value("member's identity"))?,
            name,
            incoming,
            lowest_cached: (cached > 0).then_some(Seqno(cached)),
            state: match state {
                0 => MemberState::NonPrimary,
                1 => MemberState::Primary,
                2 => MemberState::Joiner,
                3 => MemberState::Donor,
                4 => MemberState::Joined,
                5 => MemberState::Synced,
                other => MemberState::Other(other),
            },
        };
        Ok((member, bytes.get(9..).unwrap_or_default()))
    }
}

/// Returns the text up to the next NUL, and the bytes after that.
fn text(bytes: &[u8]) -> Result<(String, &[u8]), ConfChangeError> {
    let end = bytes.iter().position(|&b| b == 0).ok_or(ConfChangeError::Short)?;
    let (text, rest) = bytes.split_at(end);
    Ok((String::from_utf8_lossy(text).into_owned(), rest.get(1..).unwrap_or_default()))
}

fn number<T: std::str::FromStr>((text, name): (&str, &'static str)) -> Result<T, ConfChangeError> {
    text.parse().map_err(|_| ConfChangeError::Value(name))
}
