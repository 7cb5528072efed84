//! Reads the files of a node for nothing but their fingerprints, between transfers. What is remembered already is not read
//! again, but for one range in a hundred.
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use protocol::fingerprint::Fingerprint;
use protocol::inventory::{FileEntry, FileId};

use super::files::CopyFiles;
use super::pages::{Copier, Wanted};
use super::unread::may_be_remembered;
use crate::cancel::Cancel;
use crate::datadir::engines::EnginePolicy;
use crate::datadir::layout::Layout;
use crate::datadir::scan::{self, ScannedFile};
use crate::failure::{Failure, Kind};
use crate::remembered::front::is_tablespace;
use crate::remembered::in_flight;
use crate::remembered::learn::Learner;
use crate::remembered::memory::Memory;
use crate::remembered::trust::state_of;
use crate::snapshot::declined::Declined;
use crate::snapshot::sink::SnapshotSink;

/// A server may write to the files: if none runs now, one may be started before the last file is read.
const LIVE: bool = true;

/// The result of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// Files whose fingerprints are remembered now.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that were read.
    pub read: u64,
    /// Files that are not remembered: they changed too lately, while they were read, or are on a filesystem whose times cannot
    /// be relied upon.
    pub left_out: usize,
}

/// Takes bytes and does nothing with them.
#[derive(Default)]
struct Nothing {
    read: AtomicU64,
}

impl SnapshotSink for Nothing {
    fn announce(&self, _: &FileEntry) -> Result<()> {
        Ok(())
    }

    fn write(&self, _: FileId, _: u64, bytes: &[u8]) -> Result<()> {
        self.read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn put_remembered(&self, _: FileId, _: u64, _: u32, _: &Fingerprint) -> Result<bool> {
        Ok(true)
    }
}

/// Remembers the fingerprints of the tables' files. If what was remembered is found to be wrong, everything is read.
///
/// # Errors
/// A file cannot be read, or the list cannot be written.
pub fn remember(layout: &Layout, engines: &EnginePolicy, cancel: &Cancel) -> Result<Ran> {
    let run = || {
        let text = "nothing can be remembered on this host: its boot id or its clocks cannot be read";
        let memory = Memory::open(&layout.datadir)?.ok_or_else(|| Failure::new(Kind::Server, text))?;
        once(layout, engines, &memory, cancel)
    };
    match run() {
        // It is forgotten.
        Err(error) if error.downcast_ref::<Declined>().is_some() => run(),
        other => other,
    }
}

fn once(layout: &Layout, engines: &EnginePolicy, memory: &Memory, cancel: &Cancel) -> Result<Ran> {
    let (sink, bytes, pace) = (Nothing::default(), AtomicU64::new(0), || Ok(()));
    let copier = Copier {
        sink: &sink,
        threads: 1,
        direct: false,
        allow_corrupt: true,
        cancel,
        bytes: &bytes,
        pace: &pace,
        checkpoints: None,
        memory: Some(memory),
        live: LIVE,
    };
    let system_files: Vec<PathBuf> = layout.system_files.iter().map(|file| file.path.clone()).collect();
    let copy = CopyFiles { copier, system_files: &system_files, damaged: Mutex::default() };
    let files = scan::scan(layout, engines)?.files;
    let tables = files.into_iter().filter(|file| may_be_remembered(&file.entry) && file.entry.size > 0);
    let (mut all, mut pages, mut small) = (0, Vec::new(), Vec::new());
    for ScannedFile { entry, path, look } in tables {
        all += 1;
        let quiet = in_flight::quiet(look.identity.device());
        let worth = Learner::may_be_learned(&path, &state_of(&look), quiet, LIVE);
        if worth || memory.find(&look).is_some() {
            let wanted: Wanted = copy.wanted(entry, path, look.identity)?;
            if is_tablespace(&wanted.path) { pages.push(wanted) } else { small.push(wanted) }
        }
    }
    copy.data_files(&pages)?;
    copy.small_files(&small)?;
    let (files, bytes) = memory.save()?.unwrap_or_default();
    Ok(Ran { files, bytes, read: sink.read.into_inner(), left_out: all - files.min(all) })
}
