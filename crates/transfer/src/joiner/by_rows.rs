//! A logical snapshot on the joiner. Its parts are staged like files, verified one by one, and loaded while others arrive. The files
//! that are made of them take their place in staging, and from there on are files like any other.
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, Result};
use formats::innodb::wsrep_position::StoredPosition;
use formats::wsrep::state_id::Gtid;
use protocol::entries::Entries;
use protocol::inventory::{FileEntry, FileId};
use protocol::message::Attempt;

use super::Transfer;
use super::file_list::FileList;
use super::incoming::IncomingTransfer;
use super::receive::Received;
use crate::cancel::Cancel;
use crate::failure::kind_of;
use crate::job::Job;
use crate::loading::arriving::{Arriving, Complete};
use crate::loading::{self, Loaded};
use crate::peer::link::Link;
use crate::threads::{Running, Thread, lock, scoped};

/// Parts that arrive, on their way to the threads that load them.
pub(super) struct IncomingRows<'a> {
    incoming: &'a IncomingTransfer,
    arriving: Arriving<'a>,
    cancel: &'a Cancel,
    /// They are compared with those that this node has.
    compares: bool,
    /// The parts that were begun and are not complete.
    begun: Mutex<HashMap<FileId, FileEntry>>,
}

impl IncomingRows<'_> {
    /// The donor begins a part, on one of its connections.
    pub fn begin(&self, entry: &FileEntry) {
        lock(&self.begun).entry(entry.id).or_insert_with(|| entry.clone());
    }

    /// Bytes of a part have arrived. If they were the last ones, the part is verified and can be loaded.
    ///
    /// # Errors
    /// It is not what the donor sent, or cannot be loaded.
    pub fn stored(&self, file: FileId) -> Result<()> {
        // Two connections may have brought the last bytes at the same time: one of them takes the part.
        let complete = {
            let mut begun = lock(&self.begun);
            let is_complete = begun.get(&file).is_some_and(|entry| self.incoming.has_all_of(entry));
            if is_complete { begun.remove(&file) } else { None }
        };
        let Some(entry) = complete else { return Ok(()) };
        let staging = self.incoming.staging();
        let staged = staging.complete(file, self.cancel)?;
        let Some(begins) = self.arriving.part(file, entry.path, &staged)? else { return Ok(()) };
        // Parts of the snapshot that begins take the places of those that are void now, and are sent only if they differ.
        staging.set_aside_before(begins)?;
        if self.compares { Ok(()) } else { staging.drop_leftovers() }
    }

    /// Everything has arrived: verifies it as a whole.
    fn complete(&self, job: &Job, list: &FileList, since: Instant) -> Result<()> {
        let parts = self.incoming.parts(job, list)?;
        let contents = parts.contents()?;
        let gtid =
            list.position.1.map(|domain| gtid_in(list.binlog_state.as_deref().unwrap_or_default(), domain));
        let gtid = gtid.or(Some(Gtid { domain: 0, server: 0, seq: 0 }));
        let position = StoredPosition { state: list.position.0, gtid };
        let first = list.files.iter().map(|part| part.id).min().context("a snapshot without parts")?;
        self.arriving.complete(Complete { contents, parts, position, since }, first)
    }
}

/// Receives an attempt, and loads its rows meanwhile. If it is complete, the list is that of the files that were made of it.
///
/// # Errors
/// A part is not what the donor sent, this node's server does not take something, or cancelled.
pub(super) fn receive(
    transfer: &Transfer<'_>,
    link: &mut Link,
    attempt: &Attempt,
    incoming: &IncomingTransfer,
) -> Result<Received> {
    let job = transfer.job;
    let rows = &IncomingRows {
        incoming,
        arriving: Arriving::new(usize::from(job.settings.threads), &transfer.layout),
        cancel: &job.cancel,
        compares: attempt.fingerprints.is_some(),
        begun: Mutex::default(),
    };
    std::thread::scope(|scope| {
        // However this ends, nobody waits for rows any more.
        let _stop = StopOnDrop(&rows.arriving);
        let load = || loading::load(job, &transfer.layout, incoming.staging(), &rows.arriving);
        let loading = scoped(scope, Thread::Loading, move || {
            load().inspect_err(|error| {
                // The donor still sends: the wait for it ends with this reason, which is sent to it.
                if rows.arriving.is_incomplete() {
                    job.cancel.cancel(kind_of(error), format!("{error:#}"));
                }
            })
        });
        let list = match transfer.receive_attempt(link, attempt, incoming, Some(rows))? {
            Received::All(list) => list,
            again => return Ok(again),
        };
        let since = Instant::now();
        link.peer_is_dispensable();
        job.progress.all_is_copied();
        job.progress.phase("loading rows", "");
        link.keep_alive_while("loading rows", || {
            rows.complete(job, &list, since)?;
            take_over(job, incoming, list, loading)
        })
    })
}

/// Stages the files that are made of parts, once all are loaded.
fn take_over(
    job: &Job,
    incoming: &IncomingTransfer,
    list: FileList,
    loading: Running<'_, Loaded>,
) -> Result<Received> {
    let loaded = loading.join()?;
    let mut files = Entries::default();
    // Behind the numbers of the parts, which stay in staging until the files have their names.
    let first = list.files.iter().map(|part| part.id.0 + 1).max().unwrap_or(0);
    for file in &loaded.files {
        job.cancel.check()?;
        let id = FileId(file.entry.id.0.saturating_add(first));
        let entry = FileEntry { id, ..file.entry.clone() };
        incoming.take_over(&entry, &file.path)?;
        files.insert(&entry);
    }
    loaded.remove()?;
    Ok(Received::All(FileList { files, ..list }))
}

/// Ends the loading.
struct StopOnDrop<'a>(&'a Arriving<'a>);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// The last GTID of a domain, which a server with `wsrep_gtid_mode` counts on from.
fn gtid_in(state: &str, domain: u32) -> Gtid {
    let gtids = state.lines().filter_map(|line| {
        let mut numbers = line.trim().split('-');
        let of = numbers.next()?.parse().ok().filter(|of: &u32| *of == domain)?;
        Some(Gtid { domain: of, server: numbers.next()?.parse().ok()?, seq: numbers.next()?.parse().ok()? })
    });
    gtids.max_by_key(|gtid| gtid.seq).unwrap_or(Gtid { domain, server: 0, seq: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_gtid_of_the_domain_counts() {
        let state = "0-1-9\n3-2-5\n3-1-7\n";
        assert_eq!(gtid_in(state, 3), Gtid { domain: 3, server: 1, seq: 7 });
        assert_eq!(gtid_in(state, 4), Gtid { domain: 4, server: 0, seq: 0 });
        assert_eq!(gtid_in("x", 0), Gtid { domain: 0, server: 0, seq: 0 });
    }
}
