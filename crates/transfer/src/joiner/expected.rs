//! The messages that must come next from the donor, and the positions in them.
use formats::wsrep::state_id::StateId;
use protocol::message::Message;

use crate::failure::{Failure, Kind};

/// A position and its GTID domain.
pub(super) type Position = (StateId, Option<u32>);

pub(super) fn parse_position(text: &str) -> Result<StateId, Failure> {
    text.parse().map_err(|e| Failure::new(Kind::Peer, format!("the donor gave position {text:?}: {e}")))
}

pub(super) fn unexpected(message: &Message, wanted: &str) -> Failure {
    Failure::new(Kind::Peer, format!("the donor sent {}, expected {wanted}", message.name()))
}
