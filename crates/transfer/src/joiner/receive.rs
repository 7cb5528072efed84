//! Receives one attempt: from the connections to the staging directories.
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use protocol::entries::Entries;
use protocol::hello::Connection;
use protocol::inventory::{FileEntry, FileId};
use protocol::limits::FILES_MAX;
use protocol::message::Message;

use super::by_rows::IncomingRows;
use super::expected::{parse_position, unexpected};
use super::file_list::FileList;
use super::incoming::IncomingTransfer;
use crate::failure::{self, Failure, Kind};
use crate::job::Job;
use crate::peer::link::Link;
use crate::peer::listen::Listener;
use crate::receive::base::Base;
use crate::receive::receiver::{self, Shared};
use crate::threads::{Thread, scoped};

/// How long one wait for a further connection takes. It can delay the end of a transfer by as much.
const ADMIT_FOR: Duration = Duration::from_millis(20);

/// How an attempt ended.
pub(super) enum Received {
    /// Everything has arrived.
    All(FileList),
    /// The attempt is void; the donor says this before the next one.
    Again(Message),
}

/// Receives one attempt: accepts connections and receives on each in a thread of its own, until the donor says on the
/// control connection that all are done. `rows`: takes what is complete, of a logical snapshot.
pub(super) fn receive_attempt(
    job: &Job,
    listener: &Listener,
    link: &mut Link,
    incoming: &IncomingTransfer,
    base: Option<&Base<'_>>,
    rows: Option<&IncomingRows<'_>>,
) -> Result<Received> {
    let begin = |entry: &FileEntry| {
        rows.into_iter().for_each(|rows| rows.begin(entry));
        incoming.begin(entry)
    };
    let stored = |file: FileId| rows.map_or(Ok(()), |rows| rows.stored(file));
    let (same, received) = (AtomicU64::new(0), AtomicU64::new(0));
    let shared = Shared {
        staging: incoming.staging(),
        coverage: incoming.coverage(),
        progress: &job.progress,
        begin: &begin,
        stored: &stored,
        base,
        same: &same,
        received: &received,
    };
    let complete = AtomicBool::new(false);
    let chunks = AtomicU64::new(0);
    let message = std::thread::scope(|scope| {
        scoped(scope, Thread::Admission, || {
            admit_workers(job, listener, &complete, |number, mut link| {
                link.count_in(&job.progress);
                let (shared, chunks) = (&shared, &chunks);
                scoped(scope, Thread::Receiver, move || {
                    match serve(&mut link, shared, base, || listener.begun(number)) {
                        Ok(count) => drop(chunks.fetch_add(count, Ordering::Relaxed)),
                        Err(e) => job.cancel.cancel_by_worker(&e),
                    }
                    Ok(())
                });
            });
            Ok(())
        });
        let message = link.recv();
        complete.store(true, Ordering::Release);
        if let Err(e) = &message {
            job.cancel.cancel(failure::kind_of(e), format!("{e:#}"));
            // Sent before the other threads end, because the donor's connections to them break and it waits for the
            // reason.
            if let Err(first) = job.cancel.check() {
                link.abort(&first.to_string());
            }
        }
        message
    });
    // Also of a transfer that fails: it may be this disk that made it fail.
    job.progress.found_corrupt_pages(base.map_or(0, |base| base.corruption().pages()));
    job.cancel.check()?;
    if let Some(counts) = base.map(Base::counts) {
        job.progress.read_bytes.store(counts.read.load(Ordering::Relaxed), Ordering::Relaxed);
        job.progress.remembered_bytes.store(counts.remembered.load(Ordering::Relaxed), Ordering::Relaxed);
    }
    match message? {
        next @ (Message::Attempt(_) | Message::AskPrepare { .. }) => Ok(Received::Again(next)),
        first => {
            if let Some(base) = base {
                base.corruption().line().into_iter().for_each(|line| tracing::warn!("{line}"));
                let (same, received) = (same.into_inner(), received.into_inner());
                let (same, received) = (crate::human::size(same), crate::human::size(received));
                let remembered = match base.counts().remembered.load(Ordering::Relaxed) {
                    0 => String::new(),
                    bytes => {
                        format!(
                            "; {} were not read: their fingerprints were remembered",
                            crate::human::size(bytes)
                        )
                    }
                };
                let void = if rows.is_some() { " or a void snapshot" } else { "" };
                tracing::info!(
                    "incremental: {same} were already here, {received} of them from an interrupted transfer{void}{remembered}"
                );
            }
            let file_list = receive_list(link, first, base)?;
            match link.recv()? {
                Message::Complete { chunks: sent } if sent == chunks.into_inner() => {
                    Ok(Received::All(file_list))
                }
                Message::Complete { chunks } => {
                    let text = format!("the donor sent {chunks} chunks, and not all of them arrived");
                    Err(Failure::new(Kind::Peer, text).into())
                }
                other => Err(unexpected(&other, "Complete").into()),
            }
        }
    }
}

/// Serves one data connection; its first message says what it is for. Returns the number of chunks.
fn serve(link: &mut Link, shared: &Shared<'_>, base: Option<&Base<'_>>, begun: impl Fn()) -> Result<u64> {
    let first = match link.recv() {
        // The donor connects again. If the donor is gone, the control connection shows it.
        Err(error) if failure::is_lost(&error) => {
            tracing::warn!("{error:#} before it was used");
            return Ok(0);
        }
        first => first?,
    };
    begun();
    match (first, base) {
        (Message::Asks, Some(base)) => base.receive_questions(link).map(|()| 0),
        (Message::Answers, Some(base)) => base.answer(link).map(|()| 0),
        (first, _) => receiver::receive_ranges(link, first, shared),
    }
}

fn receive_list(link: &mut Link, first: Message, base: Option<&Base<'_>>) -> Result<FileList> {
    let (mut files, mut last) = (Entries::default(), None);
    let mut add = |files: &mut Entries, entry: FileEntry| add(files, &mut last, &entry);
    let mut message = first;
    loop {
        match message {
            Message::Files(batch) => batch.into_iter().try_for_each(|entry| add(&mut files, entry))?,
            Message::FilesKnown { first: FileId(first), count } => {
                let text = "the donor refers to files for which it asked nothing";
                let base = base.ok_or_else(|| Failure::new(Kind::Peer, text))?;
                let mut known = (first..first.saturating_add(count)).map(|file| base.entry(FileId(file)));
                known.try_for_each(|entry| add(&mut files, entry?))?;
            }
            Message::FilesEnd { count, position, domain, binlog_state } if count as usize == files.len() => {
                return Ok(FileList { files, position: (parse_position(&position)?, domain), binlog_state });
            }
            other => return Err(unexpected(&other, "Files or FilesEnd").into()),
        }
        message = link.recv()?;
    }
}

fn add(files: &mut Entries, last: &mut Option<FileId>, entry: &FileEntry) -> Result<()> {
    entry.check()?;
    if last.is_some_and(|last| last >= entry.id) || entry.id.0 >= FILES_MAX {
        return Err(Failure::new(
            Kind::Peer,
            "the donor did not send its files in the order of their numbers",
        )
        .into());
    }
    *last = Some(entry.id);
    files.insert(entry);
    Ok(())
}

fn admit_workers(job: &Job, listener: &Listener, complete: &AtomicBool, receive: impl Fn(Connection, Link)) {
    while !complete.load(Ordering::Acquire) {
        match listener.admit_worker(ADMIT_FOR, &job.cancel) {
            Ok(Some((number, link))) => receive(Connection::Worker(number), link),
            Ok(None) => {}
            // Cancelled. Those who wait for the reason know it already.
            Err(_) => return,
        }
    }
}
