//! The blocking snapshot: the server does not write to its files until the last one has been read, and its clients
//! cannot write.
//!
//! It needs no account and no knowledge of the redo log, so it is possible where the online snapshot is not.
mod copy;
mod hold;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use formats::wsrep::state_id::AnnotatedStateId;
use protocol::inventory::FileId;
use protocol::message::SnapshotKind;

use super::copy::files::CopyFiles;
use super::copy::pages::Copier;
use super::declined::{Declined, SnapshotError};
use super::sink::{Position, SnapshotSink};
use super::{Snapshot, Taken, binlog_state};
use crate::cancel::Cancel;
use crate::datadir::engines::EnginePolicy;
use crate::datadir::layout::Layout;
use crate::datadir::scan;
use crate::remembered::memory::Memory;
use crate::server::report::Report;
use crate::sql::{ANSWER_WITHIN, Login, Session};
use hold::BlockedWrites;

/// How long to wait for purge if the joiner wants another number of undo tablespaces.
const PURGE_WITHIN: Duration = Duration::from_secs(10);

/// How the snapshot is taken.
pub struct Blocking<'a> {
    /// The output on which the server is asked to stop writing.
    pub report: &'a Arc<Report>,
    /// Where its files are.
    pub layout: &'a Layout,
    /// Which engines' files can be sent.
    pub engines: &'a EnginePolicy,
    /// How long the server may take to stop writing.
    pub flush_within: Duration,
    /// How long it may be blocked, counted from the request; `None` = without limit.
    pub hold_for: Option<Duration>,
    /// The account with which to wait until purge has processed all undo logs; `None` = do not wait.
    pub purged: Option<Login>,
    /// Threads that read data files.
    pub threads: usize,
    /// Corrupt pages are sent as they are.
    pub allow_corrupt_pages: bool,
    /// What this node remembers of its files.
    pub memory: Option<Arc<Memory>>,
}

impl Snapshot for Blocking<'_> {
    fn kind(&self) -> SnapshotKind {
        SnapshotKind::Blocking
    }

    fn redo(&self) -> Option<FileId> {
        None
    }

    fn blocks_writes(&self) -> bool {
        true
    }

    fn take(&self, sink: &dyn SnapshotSink, cancel: &Cancel) -> Result<Taken, SnapshotError> {
        self.check_redo()?;
        if let Some(login) = &self.purged {
            wait_for_purge(login, cancel)?;
        }
        let held_still = self.hold(sink, cancel)?;
        let taken = self.copy(held_still.position(), sink, cancel);
        sink.paused("writes", held_still.held_for());
        // None of the server's files is needed any more, so it may continue while the rest is sent.
        drop(held_still);
        taken
    }
}

impl Blocking<'_> {
    /// Declines where a joiner's server would not start on the files.
    fn check_redo(&self) -> Result<(), SnapshotError> {
        match scan::redo_is_archived(self.layout)? {
            true => Err(Declined::RedoOnlyArchived.into()),
            false => Ok(()),
        }
    }

    /// Copies everything while the server holds its files still.
    fn copy(
        &self,
        position: &AnnotatedStateId,
        sink: &dyn SnapshotSink,
        cancel: &Cancel,
    ) -> Result<Taken, SnapshotError> {
        if !position.state.is_defined() {
            return Err(Declined::NoPosition { shown: position.state.to_string() }.into());
        }
        let position = Position { state: position.state, domain: position.domain };
        tracing::info!("the donor's server blocks writes at {}", position.state);

        sink.phase("listing files (blocking)");
        // It can have been switched on meanwhile.
        self.check_redo()?;
        let files = scan::scan(self.layout, self.engines)?;
        files.refuse_what_cannot_travel().map_err(anyhow::Error::from)?;
        let files = files.files;
        let binlog_state = binlog_state::read(self.layout)?;

        // Without their number: the name of a phase is a label of metrics.
        sink.phase("sending files (blocking)");
        let system_files: Vec<PathBuf> = self.layout.system_files.iter().map(|f| f.path.clone()).collect();
        let (pace, bytes) = (|| Ok(()), Default::default());
        let copier = Copier {
            sink,
            threads: self.threads,
            direct: false,
            allow_corrupt: self.allow_corrupt_pages,
            cancel,
            bytes: &bytes,
            pace: &pace,
            checkpoints: None,
            memory: self.memory.as_deref(),
            live: true,
        };
        let copy = CopyFiles { copier, system_files: &system_files, damaged: Mutex::default() };
        copy::copy(&files, &copy)?;
        Ok(Taken {
            files: files.iter().map(|file| &file.entry).collect(),
            position,
            binlog_state,
            corrupt: copy.damaged.into_inner().unwrap_or_else(PoisonError::into_inner),
            redo_rounds: None,
            summary: vec![],
        })
    }

    fn hold(&self, sink: &dyn SnapshotSink, cancel: &Cancel) -> Result<BlockedWrites> {
        sink.waits(Some("the donor's server to block writes"));
        let (datadir, asked) = (&self.layout.datadir, Instant::now());
        let held = BlockedWrites::take(self.report, datadir, self.flush_within, self.hold_for, cancel);
        sink.waits(None);
        if held.is_err() {
            // It may have blocked writes before it refused.
            sink.paused("writes", asked.elapsed());
        }
        held
    }
}

/// Gives purge some time to process the last undo logs. Without a login, or if it takes longer, the transfer continues:
/// the joiner's server then refuses to change the number of undo tablespaces, and says so.
fn wait_for_purge(login: &Login, cancel: &Cancel) -> Result<()> {
    let Ok(mut session) = Session::open(login, ANSWER_WITHIN) else { return Ok(()) };
    let until = Instant::now() + PURGE_WITHIN;
    let mut left = || session.history_length().ok().flatten();
    while Instant::now() < until && left().is_some_and(|left| left > 0) {
        cancel.sleep(Duration::from_millis(100))?;
    }
    Ok(())
}
