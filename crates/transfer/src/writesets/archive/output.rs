//! What the follower of a provider's cache hands to the writer of the archive.
use std::sync::Mutex;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use formats::archive::{BlockKind, GapReason, push_entry};
use formats::galera::gcache::Action;
use formats::{Seqno, Uuid};

use super::write::Block;
use crate::cancel::Cancel;
use crate::threads::lock;

/// Actions are handed to the writer in blocks of about so many bytes ...
pub(super) const BLOCK_BYTES: usize = 1 << 20;
/// ... or after so long, when fewer come.
const BLOCK_AFTER: Duration = Duration::from_secs(1);

/// What the follower tells the writer beside the actions.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) state: String,
    pub(super) history: Option<Uuid>,
    pub(super) newest: Option<Seqno>,
}

/// Where the follower hands over what it takes.
pub struct Output<'a> {
    pub(super) queue: SyncSender<Block>,
    pub(super) seen: &'a Mutex<Seen>,
    pub(super) cancel: &'a Cancel,
    pub(super) pending: Option<(Block, Instant)>,
}

impl Output<'_> {
    /// Says what is waited for.
    pub fn waits(&self, state: &str) {
        state.clone_into(&mut lock(self.seen).state);
    }

    /// Says which history is followed, and whose server writes it.
    pub fn follows(&self, history: Uuid, server: Option<u32>) {
        let mut seen = lock(self.seen);
        seen.state = match server {
            Some(pid) => format!("following server process {pid}"),
            None => "following the cache's files; no server process is visible".to_owned(),
        };
        if seen.history.replace(history) != Some(history) {
            tracing::info!("{} (history {history})", seen.state);
            seen.newest = None;
        }
    }

    /// Says what the newest seqno in the provider's files is.
    pub fn sees(&self, newest: Seqno) {
        let mut seen = lock(self.seen);
        seen.newest = seen.newest.max(Some(newest).filter(|newest| newest.0 > 0));
    }

    /// Hands on one action.
    pub fn action(
        &mut self,
        history: Uuid,
        seqno: Seqno,
        action: Action,
        skipped: bool,
        bytes: &[u8],
    ) -> Result<()> {
        let continues = |block: &Block| block.history == history && block.last.0 + 1 == seqno.0;
        if self.pending.as_ref().is_some_and(|(block, _)| !continues(block)) {
            self.flush()?;
        }
        let (block, _) = self.pending.get_or_insert_with(|| {
            let body = Vec::with_capacity(BLOCK_BYTES / 4);
            (Block { history, kind: BlockKind::Actions, first: seqno, last: seqno, body }, Instant::now())
        });
        block.last = seqno;
        push_entry(&mut block.body, action, skipped, bytes);
        let full = block.body.len() >= BLOCK_BYTES;
        if full { self.flush() } else { Ok(()) }
    }

    /// Records a gap.
    pub fn gap(&mut self, history: Uuid, first: Seqno, last: Seqno, reason: GapReason) -> Result<()> {
        if first <= last {
            tracing::warn!("write-sets {first} to {last} are missing in the archive: {reason}");
        } else {
            tracing::warn!("the write-sets after {last} do not continue the archive: {reason}");
        }
        self.block(history, BlockKind::Gap(reason), first, last, Vec::new())
    }

    /// Hands on a block.
    pub fn block(
        &mut self,
        history: Uuid,
        kind: BlockKind,
        first: Seqno,
        last: Seqno,
        body: Vec<u8>,
    ) -> Result<()> {
        self.flush()?;
        self.send(Block { history, kind, first, last, body })
    }

    /// Whether what is held should be handed on first.
    fn is_due(&self) -> bool {
        self.pending.as_ref().is_some_and(|(_, since)| since.elapsed() >= BLOCK_AFTER)
    }

    /// Hands on what has waited long enough.
    pub fn tick(&mut self) -> Result<()> {
        if self.is_due() { self.flush() } else { Ok(()) }
    }

    /// Hands on what is held.
    pub fn flush(&mut self) -> Result<()> {
        self.pending.take().map_or(Ok(()), |(block, _)| self.send(block))
    }

    fn send(&self, block: Block) -> Result<()> {
        let mut block = block;
        loop {
            match self.queue.try_send(block) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Disconnected(_)) => {
                    self.cancel.check()?;
                    bail!(anyhow!("the thread that writes the archive has ended"));
                }
                // Also while it waits for free space: what is overwritten meanwhile will be a gap.
                Err(TrySendError::Full(back)) => block = back,
            }
            self.cancel.check()?;
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
