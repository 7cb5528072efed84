//! From the link to the staging directory.
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use protocol::coverage::Coverage;
use protocol::inventory::FileEntry;
use protocol::limits::FILES_MAX;
use protocol::message::Message;

use super::arrival::Arrival;
use super::{Position, parse_position, unexpected};
use crate::failure::{self, Failure, Kind};
use crate::job::Job;
use crate::peer::link::Link;
use crate::peer::listen::Door;
use crate::sink::receiver::{self, Shared};

/// How long a look for one more worker takes: what the end of a transfer may wait for it.
const ADMIT_FOR: Duration = Duration::from_millis(20);

/// What the donor announced, its files by now being still.
pub(super) struct Announced {
    /// All files, numbered in order.
    pub files: Vec<FileEntry>,
    /// Where they are.
    pub position: Position,
    /// GTID state of the donor's binary log.
    pub binlog_state: Option<String>,
}

pub(super) fn receive_list(link: &mut Link) -> Result<Announced> {
    let mut files = Vec::new();
    loop {
        match link.recv()? {
            Message::Files(batch) => {
                for entry in batch {
                    entry.check()?;
                    let in_order = entry.id.0 as usize == files.len() && entry.id.0 < FILES_MAX;
                    if !in_order {
                        return Err(
                            Failure::new(Kind::Peer, "the donor numbers its files in no order").into()
                        );
                    }
                    files.push(entry);
                }
            }
            Message::FilesEnd { count, position, domain, binlog_state } if count as usize == files.len() => {
                return Ok(Announced { files, position: (parse_position(&position)?, domain), binlog_state });
            }
            other => return Err(unexpected(&other, "Files or FilesEnd").into()),
        }
    }
}

/// Takes workers as they come and receives on each in a thread of its own, until the donor says that all are done.
pub(super) fn receive_all(job: &Job, door: &Door, link: &mut Link, arrival: &Arrival) -> Result<()> {
    let files = arrival.files();
    let coverage = Mutex::new(Coverage::new(files));
    let before_first = |file| arrival.make_room_for(file);
    let shared = Shared {
        staging: arrival.staging(),
        coverage: &coverage,
        progress: &job.progress,
        before_first: &before_first,
    };
    let complete = AtomicBool::new(false);
    let chunks = AtomicU64::new(0);
    let sent = std::thread::scope(|scope| {
        scope.spawn(|| {
            admit_workers(job, door, &complete, |mut link| {
                let (shared, chunks) = (&shared, &chunks);
                scope.spawn(move || match receiver::receive_ranges(&mut link, shared) {
                    Ok(count) => drop(chunks.fetch_add(count, Ordering::Relaxed)),
                    Err(e) => job.cancel.cancel_by_worker(&e),
                });
            })
        });
        let sent = link.recv();
        complete.store(true, Ordering::Release);
        if let Err(e) = &sent {
            job.cancel.cancel(failure::kind_of(e), format!("{e:#}"));
        }
        sent
    });
    job.cancel.check()?;
    let received = chunks.into_inner();
    match sent? {
        Message::Complete { chunks } if chunks == received => {}
        Message::Complete { chunks } => {
            let text = format!("the donor sent {chunks} ranges, {received} arrived");
            return Err(Failure::new(Kind::Peer, text).into());
        }
        other => return Err(unexpected(&other, "Complete").into()),
    }
    let coverage = coverage.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    match coverage.first_incomplete().and_then(|(id, ranges)| Some((files.get(id.0 as usize)?, ranges))) {
        None => Ok(()),
        Some((file, ranges)) => {
            let text = format!("{ranges} ranges of {} never arrived", file.path);
            Err(Failure::new(Kind::Peer, text).into())
        }
    }
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
