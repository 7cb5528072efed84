//! Whether a transfer makes progress, for probes: the server answers no client while it receives its data.
use std::path::Path;
use std::time::Duration;

use super::markers::is_transfer;
use super::status::Status;
use crate::clock::now_ms;

/// What a probe wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// No transfer is running.
    NoTransfer,
    /// A transfer is running, and its phase, a count of bytes or local work changed lately.
    Progress,
    /// A transfer is running, and nothing has changed for longer than that.
    Stalled,
}

impl Health {
    /// The health of a node whose status file says this. `stalled_after`: how long a transfer may go without progress.
    pub fn of(status: Option<&Status>, datadir: &Path, stalled_after: Duration) -> Health {
        match status.filter(|status| is_running(status, datadir)) {
            None => Health::NoTransfer,
            Some(status) if u128::from(as_of_now(status).idle_ms) > stalled_after.as_millis() => {
                Health::Stalled
            }
            Some(_) => Health::Progress,
        }
    }
}

/// Whether the transfer's program still runs.
pub fn is_running(status: &Status, datadir: &Path) -> bool {
    status.outcome.is_none() && is_transfer(status.pid, datadir)
}

/// The status of a running transfer, with its times as of now: a program that is stopped itself does not write its status either.
pub fn as_of_now(status: &Status) -> Status {
    let written_ms = status.began_ms.saturating_add(status.elapsed_ms);
    let age_ms = now_ms().saturating_sub(written_ms);
    Status {
        idle_ms: status.idle_ms.saturating_add(age_ms),
        elapsed_ms: status.elapsed_ms.saturating_add(age_ms),
        ..status.clone()
    }
}
