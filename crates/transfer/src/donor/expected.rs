//! The messages that must come next from the joiner, and the position that our server gave us.
use std::time::Duration;

use anyhow::{Context, Result};
use formats::wsrep::state_id::StateId;
use protocol::message::Message;
use protocol::sample::Sample;

use crate::failure::{Failure, Kind};
use crate::job::Job;
use crate::peer::link::Link;

/// A position and its GTID domain.
pub(super) type Position = (StateId, Option<u32>);

/// The position the server gave us for `done` when nothing is copied.
pub(super) fn position_given(job: &Job) -> Result<Position> {
    let text = job.args.gtid.as_deref().unwrap_or("");
    let state = text.parse::<StateId>().with_context(|| format!("the server gave --gtid {text:?}"))?;
    Ok((state, job.args.gtid_domain_id))
}

/// The joiner's sample, and how long its disk took for a page of it, if it tells.
pub(super) fn receive_sample(link: &mut Link) -> Result<(Sample, Option<Duration>)> {
    let (page_time, next) = match link.recv()? {
        Message::PageTime { nanos } => (Some(Duration::from_nanos(nanos)), link.recv()?),
        next => (None, next),
    };
    match next {
        Message::Sample(sample) => Ok((sample, page_time)),
        other => Err(unexpected(&other, "Sample").into()),
    }
}

pub(super) fn expect(message: Message, wanted: &Message) -> Result<(), Failure> {
    if message == *wanted { Ok(()) } else { Err(unexpected(&message, wanted.name())) }
}

pub(super) fn unexpected(message: &Message, wanted: &str) -> Failure {
    Failure::new(Kind::Peer, format!("the joiner sent {}, expected {wanted}", message.name()))
}
