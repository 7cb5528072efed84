//! From the link to the staging directory.
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use protocol::inventory::{FileEntry, FileId};
use protocol::limits::FILES_MAX;
use protocol::message::{Attempt, Message};

use super::arrival::Arrival;
use super::{Position, parse_position, unexpected};
use crate::failure::{self, Failure, Kind};
use crate::job::Job;
use crate::peer::link::Link;
use crate::peer::listen::Door;
use crate::sink::base::Base;
use crate::sink::receiver::{self, Shared};

/// How long a look for one more worker takes: what the end of a transfer may wait for it.
const ADMIT_FOR: Duration = Duration::from_millis(20);

/// What the donor says the state is that it has sent.
pub(super) struct Announced {
    /// All files, their numbers ascending.
    pub files: Vec<FileEntry>,
    /// The position they are at.
    pub position: Position,
    /// GTID state of the donor's binary log.
    pub binlog_state: Option<String>,
}

/// How an attempt ended.
pub(super) enum Received {
    /// Everything is here.
    All(Announced),
    /// Void: the donor begins anew.
    Again(Attempt),
}

/// One attempt: takes workers as they come and receives on each in a thread of its own, until the donor says on the
/// control connection that all are done.
pub(super) fn receive_attempt(
    job: &Job,
    door: &Door,
    link: &mut Link,
    arrival: &Arrival,
    base: Option<&Base<'_>>,
) -> Result<Received> {
    let begin = |entry: &FileEntry| arrival.begin(entry);
    let (same, received) = (AtomicU64::new(0), AtomicU64::new(0));
    let shared = Shared {
        staging: arrival.staging(),
        coverage: arrival.coverage(),
        progress: &job.progress,
        begin: &begin,
        base,
        same: &same,
        received: &received,
    };
    let complete = AtomicBool::new(false);
    let chunks = AtomicU64::new(0);
    let said = std::thread::scope(|scope| {
        scope.spawn(|| {
            admit_workers(job, door, &complete, |mut link| {
                link.count_in(&job.progress);
                let (shared, chunks) = (&shared, &chunks);
                scope.spawn(move || match serve(&mut link, shared, base) {
                    Ok(count) => drop(chunks.fetch_add(count, Ordering::Relaxed)),
                    Err(e) => job.cancel.cancel_by_worker(&e),
                });
            })
        });
        let said = link.recv();
        complete.store(true, Ordering::Release);
        if let Err(e) = &said {
            job.cancel.cancel(failure::kind_of(e), format!("{e:#}"));
        }
        said
    });
    job.cancel.check()?;
    match said? {
        Message::Attempt(attempt) => Ok(Received::Again(attempt)),
        first => {
            if let Some(base) = base {
                base.rot().line().into_iter().for_each(|line| tracing::warn!("{line}"));
                let (same, received) = (same.into_inner(), received.into_inner());
                tracing::info!(
                    "incremental: {same} bytes were here already, {received} of them from a transfer that broke off"
                );
            }
            let announced = receive_list(link, first, base)?;
            match link.recv()? {
                Message::Complete { chunks: sent } if sent == chunks.into_inner() => {
                    Ok(Received::All(announced))
                }
                Message::Complete { chunks } => {
                    let text = format!("the donor sent {chunks} ranges, not all of them arrived");
                    Err(Failure::new(Kind::Peer, text).into())
                }
                other => Err(unexpected(&other, "Complete").into()),
            }
        }
    }
}

/// A connection of the donor's: its first message says what it is for. Returns the number of chunks.
fn serve(link: &mut Link, shared: &Shared<'_>, base: Option<&Base<'_>>) -> Result<u64> {
    match (link.recv()?, base) {
        (Message::Asks, Some(base)) => base.hear(link).map(|()| 0),
        (Message::Answers, Some(base)) => base.answer(link).map(|()| 0),
        (first, _) => receiver::receive_ranges(link, first, shared),
    }
}

fn receive_list(link: &mut Link, first: Message, base: Option<&Base<'_>>) -> Result<Announced> {
    let mut files: Vec<FileEntry> = Vec::new();
    let mut said = first;
    loop {
        match said {
            Message::Files(batch) => batch.into_iter().try_for_each(|entry| add(&mut files, entry))?,
            Message::FilesKnown { first: FileId(first), count } => {
                let text = "the donor names files that nothing was asked of";
                let base = base.ok_or_else(|| Failure::new(Kind::Peer, text))?;
                let mut known = (first..first.saturating_add(count)).map(|file| base.entry(FileId(file)));
                known.try_for_each(|entry| add(&mut files, entry?))?;
            }
            Message::FilesEnd { count, position, domain, binlog_state } if count as usize == files.len() => {
                return Ok(Announced { files, position: (parse_position(&position)?, domain), binlog_state });
            }
            other => return Err(unexpected(&other, "Files or FilesEnd").into()),
        }
        said = link.recv()?;
    }
}

fn add(files: &mut Vec<FileEntry>, entry: FileEntry) -> Result<()> {
    entry.check()?;
    if files.last().is_some_and(|last| last.id >= entry.id) || entry.id.0 >= FILES_MAX {
        return Err(Failure::new(Kind::Peer, "the donor numbers its files in no order").into());
    }
    files.push(entry);
    Ok(())
}

fn admit_workers(job: &Job, door: &Door, complete: &AtomicBool, receive: impl Fn(Link)) {
    while !complete.load(Ordering::Acquire) {
        match door.admit_worker(ADMIT_FOR, &job.cancel) {
            Ok(Some((_, link))) => receive(link),
            Ok(None) => {}
            // The cancel's reason is already known to whoever waits for it.
            Err(_) => return,
        }
    }
}
