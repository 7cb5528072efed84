//! Sends the messages of other threads over one connection.
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Instant;

use anyhow::Result;
use protocol::message::Message;

use super::link::{Link, PING_EVERY};
use crate::cancel::{Cancel, LOOK_EVERY};

/// Sends messages as they arrive until all senders are gone, then the `last` one. Meanwhile pings tell the
/// peer what we are `doing`.
///
/// # Errors
/// The peer is gone, or the transfer was cancelled.
pub fn relay(
    link: &mut Link,
    messages: &Receiver<Message>,
    last: &Message,
    doing: &str,
    cancel: &Cancel,
) -> Result<()> {
    let mut spoke = Instant::now();
    loop {
        cancel.check()?;
        match messages.recv_timeout(LOOK_EVERY) {
            Ok(message) => {
                link.gather(&message)?;
                for message in messages.try_iter() {
                    link.gather(&message)?;
                }
                link.flush()?;
                spoke = Instant::now();
            }
            Err(RecvTimeoutError::Timeout) if spoke.elapsed() >= PING_EVERY => {
                link.ping(doing)?;
                spoke = Instant::now();
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return link.send(last),
        }
    }
}
