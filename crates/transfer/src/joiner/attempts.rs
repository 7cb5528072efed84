//! The donor's attempts, until one is complete and its staged files are verified.
use std::sync::Arc;

use anyhow::Result;
use protocol::hello::capability;
use protocol::hello::cut;
use protocol::limits::{FURTHER_CONNECTIONS, TEXT_BYTES_MAX};
use protocol::message::{Attempt, Message, SnapshotKind};

use super::agree::Room;
use super::by_rows::IncomingRows;
use super::expected::unexpected;
use super::file_list::FileList;
use super::incoming::IncomingTransfer;
use super::receive::{self, Received};
use super::settled::VerifiedStaging;
use super::{Transfer, beforehand, by_rows, prepare};
use crate::failure::{Kind, kind_of};
use crate::human::size;
use crate::install::files::Disk;
use crate::install::in_place;
use crate::job::Job;
use crate::peer::link::Link;
use crate::receive::base::Base;
use crate::receive::staging;
use crate::remembered::memory::Memory;

impl Transfer<'_> {
    /// Receives the donor's attempts until one is complete, and verifies the staged files of that one.
    pub(super) fn receive(
        mut self,
        link: &mut Link,
        first: Message,
    ) -> Result<(VerifiedStaging, Option<Arc<Memory>>)> {
        let (job, room) = (self.job, self.room);
        if !job.settings.incremental || room == Room::InPlace {
            staging::discard_staged(&job.datadir)?;
        }
        let verified = self.attempts(link, first).inspect_err(|error| record_if_full(job, room, error))?;
        link.send_if_possible(&Message::Stored)?;
        log_totals(job, verified.bytes());
        Ok((verified, self.memory))
    }

    fn attempts(&mut self, link: &mut Link, first: Message) -> Result<VerifiedStaging> {
        let mut message = first;
        loop {
            let attempt = match message {
                Message::Attempt(attempt) => attempt,
                Message::AskPrepare { version } => {
                    prepare::answer(self.job, link, &version)?;
                    message = link.recv()?;
                    continue;
                }
                other => return Err(unexpected(&other, "Attempt").into()),
            };
            // Checked before anything is done, because a transfer in place deletes the old files next.
            if attempt.fingerprints.is_none() {
                self.permit(true, attempt.bytes)?;
            }
            if self.room == Room::InPlace {
                self.begins()?;
            }
            let mut incoming =
                IncomingTransfer::prepare(self.job, &self.layout, &self.old, self.room, attempt.snapshot)?;
            let estimate = self.sample(link, &attempt, &incoming)?;
            self.make_room(link, &attempt, &mut incoming, estimate)?;
            self.begins()?;
            self.memory = beforehand::memory_under(self.job, attempt.remember);
            if let Some(memory) = &self.memory {
                incoming.staging().remember_with(memory.key());
            }
            let received = match attempt.snapshot {
                SnapshotKind::Logical => by_rows::receive(self, link, &attempt, &incoming),
                SnapshotKind::Online | SnapshotKind::Blocking | SnapshotKind::Mariabackup => {
                    self.receive_attempt(link, &attempt, &incoming, None)
                }
            };
            match received? {
                Received::All(file_list) => match self.finish(link, incoming, file_list, attempt.snapshot) {
                    Err(error) if prepare::permits_another_snapshot(&error, self.job) => {
                        tracing::warn!("{error:#}");
                        let why = cut(&format!("{error:#}"), TEXT_BYTES_MAX).to_owned();
                        link.send(&Message::NotPrepared { why })?;
                        message = link.recv()?;
                    }
                    verified => return verified,
                },
                Received::Again(next) => message = next,
            }
        }
    }

    /// Receives one attempt: the donor's files from one snapshot, or rows, which `rows` takes.
    pub(super) fn receive_attempt(
        &self,
        link: &mut Link,
        attempt: &Attempt,
        incoming: &IncomingTransfer,
        rows: Option<&IncomingRows<'_>>,
    ) -> Result<Received> {
        let job = self.job;
        let (readers, staging, backup) = (job.settings.readers, incoming.staging(), self.base.dir());
        // If the attempt has another key than the remembered fingerprints, the donor wants everything to be read.
        let memory = self.memory.clone().filter(|memory| attempt.fingerprints == Some(memory.key()));
        let with = |key| {
            Base::new(&self.layout, staging, backup, key, readers, &job.cancel)
                .with_memory(memory.clone())
                .telling(self.capabilities & capability::PACE != 0)
        };
        let base = attempt.fingerprints.map(with);
        job.progress.attempt(attempt.bytes);
        self.listener.allow_workers(job.settings.threads + FURTHER_CONNECTIONS);
        link.send(&Message::Ready)?;
        job.progress.phase("receiving", attempt.snapshot.name());
        receive::receive_attempt(job, self.listener, link, incoming, base.as_ref(), rows)
    }

    /// The donor has sent everything: copies unchanged bytes from the old files, and checks that the staged files are what the donor
    /// read. That is our own work, so it does no harm if the donor ends now. But a backup that cannot be prepared needs another snapshot.
    fn finish(
        &self,
        link: &mut Link,
        incoming: IncomingTransfer,
        file_list: FileList,
        snapshot: SnapshotKind,
    ) -> Result<VerifiedStaging> {
        if snapshot != SnapshotKind::Mariabackup {
            link.peer_is_dispensable();
        }
        self.job.progress.all_is_copied();
        let settle = || incoming.settle(file_list, self.job);
        let doing = "copying unchanged bytes";
        self.job.progress.phase(doing, "");
        let settled = link.keep_alive_while(doing, settle)?;
        link.peer_is_dispensable();
        let doing = "verifying the staged files";
        self.job.progress.phase(doing, &size(settled.bytes()));
        link.keep_alive_while(doing, || settled.verify(self.job))
    }
}

/// Records that the disk ran full although the sample said that everything fits: the next transfer must not rely on a
/// sample.
fn record_if_full(job: &Job, room: Room, error: &anyhow::Error) {
    if room == Room::Narrow
        && kind_of(error) == Kind::Space
        && let Err(why) = in_place::note_ran_full(&Disk, &job.datadir)
    {
        tracing::warn!("cannot record that the disk ran full: {why:#}");
    }
}

fn log_totals(job: &Job, bytes: u64) {
    let wire = job.progress.wire_bytes();
    let seconds = job.progress.elapsed().as_secs_f64();
    let (bytes, wire) = (size(bytes), size(wire));
    tracing::info!("received {bytes} as {wire} on the network; {seconds:.1} s since the start");
}
