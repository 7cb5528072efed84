//! Counters of a connection.
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a connection on the wire, TLS included; shared with the code that shows the progress.
#[derive(Debug, Default)]
pub struct Traffic {
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) messages: AtomicU64,
}

impl Traffic {
    /// Bytes given to the kernel.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes got from the kernel.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Both.
    pub fn total(&self) -> u64 {
        self.sent() + self.received()
    }

    /// Messages that were sent or received, without pings, notes and totals: a peer sends these while it makes no progress, too.
    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    pub(super) fn had_message(&self) {
        self.messages.fetch_add(1, Ordering::Relaxed);
    }
}
