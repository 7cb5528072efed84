//! One attempt to send a snapshot: what is agreed before it, and the connections that carry it.
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use formats::wsrep::credentials::Account;
use protocol::fingerprint::FingerprintKey;
use protocol::message::{Attempt, Message, SnapshotKind};
use protocol::sample::Sample;

use super::decision::{Comparing, PlanInputs};
use super::expected::{Position, expect, receive_sample};
use super::offer::Accepted;
use crate::compare::comparison::{Compare, Parts};
use crate::compare::worth;
use crate::datadir::engines::EnginePolicy;
use crate::datadir::layout::Layout;
use crate::datadir::scan::Skipped;
use crate::human::size;
use crate::job::Job;
use crate::panics::caught;
use crate::peer::dial::{CONNECT_WITHIN, Dialer};
use crate::peer::link::Link;
use crate::peer::secret::random_bytes;
use crate::remembered::memory::{Memory, WRONG};
use crate::send::file_list::FileList;
use crate::send::packer::Compression;
use crate::send::queue::SendQueue;
use crate::send::throttle::Throttle;
use crate::snapshot::Snapshot;
use crate::snapshot::declined::{Declined, SnapshotError};
use crate::snapshot::logical::locked::{Hold, LockedTables};
use crate::snapshot::online::outlook::{Outlook, RedoClock};
use crate::sql::{ANSWER_WITHIN, Login, Session};
use crate::threads::{Running, Thread, scoped};

/// Maximum number of corrupt pages named in the error logs.
const CORRUPT_LINES: usize = 50;

/// What a transfer needs besides its job and its link.
pub(super) struct TransferContext {
    pub dialer: Dialer,
    pub compression: Compression,
    pub account: Option<Account>,
    pub throttle: Arc<Throttle>,
    /// The joiner supports deep IST.
    pub deep_ist: bool,
    /// The joiner answers whether it can prepare a backup.
    pub prepares: bool,
    /// The joiner notes how far the archive of write-sets reaches.
    pub notes_reach: bool,
}

/// A state that was sent completely: its files and its position.
pub(super) struct Sent {
    /// The list of its files, for the joiner.
    pub list: FileList,
    pub position: Position,
    /// GTID state of our binary log, as lines of a `.state` file.
    pub binlog_state: Option<String>,
    pub chunks: u64,
}

/// The size of what was offered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offered {
    /// Bytes of all files.
    pub bytes: u64,
    /// The same without the redo log.
    pub without_redo: u64,
    /// Number of tablespaces.
    pub tablespaces: u64,
}

/// Everything an attempt needs.
pub(super) struct DonorSession<'a> {
    pub job: &'a Job,
    pub context: &'a TransferContext,
    pub accepted: &'a Accepted,
    pub layout: &'a Layout,
    pub engines: &'a EnginePolicy,
    pub skipped: &'a Skipped,
    pub offered: Offered,
    /// What this node remembers of its files.
    pub memory: Option<Arc<Memory>>,
    /// Bytes of the files whose fingerprints are remembered.
    pub remembered: u64,
}

impl DonorSession<'_> {
    /// Sends what `snapshot` reads. If either host finds that a fingerprint it remembered is wrong, everything is sent again,
    /// and nothing that is remembered is used.
    pub(super) fn send_from(
        &self,
        snapshot: &dyn Snapshot,
        link: &mut Link,
        reason: &str,
    ) -> Result<Sent, SnapshotError> {
        match (self.attempt(snapshot, link, reason), &self.memory) {
            (Err(SnapshotError::Declined(Declined::WrongFingerprints(what))), Some(memory)) => {
                memory.distrust(&what);
                let text = format!("{what}; the transfer starts again, and both hosts read everything");
                tracing::warn!("{text}");
                link.note(&text).map_err(SnapshotError::from)?;
                self.attempt(snapshot, link, &format!("again, because {WRONG}"))
            }
            (sent, _) => sent,
        }
    }

    /// Makes one attempt: sends what `snapshot` reads through the queues to the joiner.
    fn attempt(&self, snapshot: &dyn Snapshot, link: &mut Link, reason: &str) -> Result<Sent, SnapshotError> {
        let job = self.job;
        let (comparing, page_time) = self.begin(link, snapshot.kind(), reason)?;
        job.progress.phase("sending", snapshot.kind().name());
        let send_queue = self.send_queue(snapshot, comparing).with_page_time(page_time);
        let (taken, chunks) = link
            .keep_alive_while("sending", || {
                self.through(&send_queue, || Ok(snapshot.take(&send_queue, &job.cancel)))
            })
            .map_err(SnapshotError::from)?;
        let taken = taken?;
        self.log_reused(link, &send_queue)?;
        for line in &taken.summary {
            tracing::info!("{line}");
            link.note(line)?;
        }
        log_corruption(link, &taken.corrupt)?;
        self.job.progress.ledger.update(|record| record.redo_rounds = taken.redo_rounds);
        let list = send_queue.list(taken.files);
        Ok(Sent {
            list,
            position: (taken.position.state, taken.position.domain),
            binlog_state: taken.binlog_state,
            chunks,
        })
    }

    /// Logs on both hosts how many bytes the joiner already had.
    fn log_reused(&self, link: &mut Link, send_queue: &SendQueue<'_>) -> Result<()> {
        if let Some(compare) = send_queue.compare() {
            let same = compare.same_bytes();
            let mut line = format!("incremental: the joiner already had {}", size(same));
            let unread = compare.unread_bytes();
            if unread > 0 {
                line += &format!(
                    "; {} were not read on the donor: their fingerprints were remembered",
                    size(unread)
                );
            }
            tracing::info!("{line}");
            link.note(&line)?;
        }
        Ok(())
    }

    pub(super) fn login(&self) -> Login {
        super::login(self.job, self.context.account.as_ref())
    }

    /// Begins an attempt. Returns how files are compared, or `None` if they are not. The key is that of the remembered
    /// fingerprints, or a new one if nothing is remembered. Also returns how long the joiner's disk takes to read a page, if
    /// the joiner has told.
    fn begin(
        &self,
        link: &mut Link,
        kind: SnapshotKind,
        reason: &str,
    ) -> Result<(Option<Comparing>, Option<Duration>)> {
        let (compare, incremental) = (self.accepted.compare, self.job.settings.incremental);
        let memory = self.memory.as_ref().filter(|memory| !memory.is_wrong());
        let remember = memory.map(|memory| memory.key());
        let key = match (compare && incremental, remember) {
            (false, _) => None,
            (true, None) => Some(random_bytes()?),
            (true, remembered) => remembered,
        };
        let Offered { bytes, without_redo, .. } = self.offered;
        let bytes = if kind == SnapshotKind::Blocking { bytes } else { without_redo };
        let mut measured = if kind == SnapshotKind::Online { self.redo_outlook() } else { None };
        let redo = measured.as_ref().map(|(outlook, ..)| *outlook);
        let (rlimit, limits) = (self.context.throttle.rate(), self.job.settings.limits);
        let parts = self.job.settings.delta != Parts::Never;
        let remembered = memory.map_or(0, |_| self.remembered);
        let (layout, page_time) = (self.layout, None);
        let inputs = PlanInputs {
            layout,
            bytes,
            remembered,
            compare,
            incremental,
            redo,
            rlimit,
            page_time,
            parts,
            limits,
        };
        if key.is_none() {
            // A joiner that replaces its files in place deletes them when it receives the attempt.
            inputs.permit(None)?;
        }
        let (sample, page_time) = begin(self.job, link, kind, reason, (key, remember), bytes)?.unzip();
        // The rate of the redo is that of the time in which the joiner took its sample.
        let redo = measured.as_mut().map(|(outlook, clock, session)| Outlook {
            written: clock.rate(session).unwrap_or(0),
            ..*outlook
        });
        let inputs = PlanInputs { page_time: page_time.flatten(), redo, ..inputs };
        let comparing = match kind {
            // A sample says nothing about rows: the joiner's leftovers of parts are compared.
            SnapshotKind::Logical => {
                let hold = self.hold(bytes);
                inputs.decide_by_rows(link, &self.job.progress.ledger, key, hold.as_ref())?
            }
            _ => inputs.decide(link, &self.job.progress.ledger, key, sample.as_ref())?,
        };
        expect(link.recv()?, &Message::Ready)?;
        Ok((comparing, inputs.page_time))
    }

    /// The outlook of our server's redo, and what measures how fast it is written; `None` if the server cannot be asked.
    fn redo_outlook(&self) -> Option<(Outlook, RedoClock, Session)> {
        let mut session = Session::open(&self.login(), ANSWER_WITHIN).ok()?;
        let clock = RedoClock::start(&mut session).ok()?;
        let outlook = Outlook::of(&mut session, self.offered.tablespaces).ok()??;
        Some((outlook, clock, session))
    }

    /// What holds writes while rows of so many bytes are read. If the server cannot be asked, the snapshot says why.
    fn hold(&self, bytes: u64) -> Option<Hold> {
        let mut session = Session::open(&self.login(), ANSWER_WITHIN).ok()?;
        let tables = LockedTables::seen(&mut session, &self.engines.skip)?;
        tables.hold(Some(bytes), self.context.throttle.rate(), self.job.settings.blocking, false)
    }

    fn send_queue(&self, snapshot: &dyn Snapshot, comparing: Option<Comparing>) -> SendQueue<'_> {
        let throttle = Arc::clone(&self.context.throttle);
        // The sooner a server that blocks writes is released the better.
        throttle.set_yields(!snapshot.blocks_writes());
        let differing = comparing.as_ref().and_then(|c| Some(c.prospect?.differing()));
        let compare = comparing.map(|Comparing { key, prospect }| {
            let compare = Compare::new(key, self.job.settings.delta, &self.job.cancel);
            match prospect {
                Some(prospect) => compare.may_stop(prospect, worth::WINDOW),
                None => compare,
            }
        });
        let compare = if snapshot.blocks_writes() { compare.map(Compare::held_still) } else { compare };
        SendQueue::new(
            self.accepted.workers,
            snapshot.redo(),
            self.context.compression,
            throttle,
            compare,
            &self.job.progress,
            &self.job.cancel,
        )
        .expecting(differing)
    }

    /// Runs `source`, with the connections of the send queue open. Returns its result and the number of
    /// chunks, once the joiner has written all of them.
    fn through<T>(&self, send_queue: &SendQueue<'_>, source: impl FnOnce() -> Result<T>) -> Result<(T, u64)> {
        std::thread::scope(|scope| {
            let connection = |number| {
                let send = move |link: &mut Link| send_queue.send(number, link);
                scoped(scope, Thread::Sender, move || self.talk(number, send))
            };
            let threads: Vec<_> = (0..send_queue.connections()).map(connection).collect();
            let comparing = send_queue.compare().map(|compare| {
                let (asks, answers) = (send_queue.connections(), send_queue.connections() + 1);
                let ask = move || self.talk(asks, |link| compare.send_questions(link));
                let receive = move || self.talk(answers, |link| compare.receive_answers(link));
                [scoped(scope, Thread::Questions, ask), scoped(scope, Thread::Answers, receive)]
            });
            // Close the queues after a panic too: the connections wait for their end.
            let given = caught(source).and_then(|given| send_queue.settle().map(|()| given));
            send_queue.close(given.is_err());
            let compared = comparing.into_iter().flatten().try_for_each(Running::join);
            let sent: Result<u64> = threads.into_iter().map(Running::join).sum();
            let given = given?;
            compared?;
            // An answer that counted may have been given before the joiner found out that it is wrong.
            send_queue.compare().map_or(Ok(()), Compare::refuse_wrong_answers)?;
            Ok((given, sent?))
        })
    }

    /// Opens connection `number` and runs `talk` on it. A failure cancels the transfer, so that the other connections
    /// do not go on filling the joiner's disk.
    fn talk<T>(&self, number: u16, talk: impl FnOnce(&mut Link) -> Result<T>) -> Result<T> {
        let talked = self.context.dialer.dial_worker(number, CONNECT_WITHIN);
        let talked = talked.and_then(|mut link| {
            link.count_in(&self.job.progress);
            talk(&mut link)
        });
        talked.inspect_err(|e| self.job.cancel.cancel_by_worker(e))
    }
}

/// Begins an attempt and voids the previous one. With a fingerprint key the joiner answers with a sample of its
/// files, and perhaps with how long its disk took for that.
fn begin(
    job: &Job,
    link: &mut Link,
    kind: SnapshotKind,
    reason: &str,
    (fingerprints, remember): (Option<FingerprintKey>, Option<FingerprintKey>),
    bytes: u64,
) -> Result<Option<(Sample, Option<Duration>)>> {
    job.progress.attempt(bytes);
    job.progress.ledger.attempt(kind, reason);
    tracing::info!("{}", protocol::message::snapshot_line(kind, reason));
    let reason = protocol::hello::cut(reason, protocol::limits::TEXT_BYTES_MAX).to_owned();
    link.send(&Message::Attempt(Attempt { snapshot: kind, reason, fingerprints, remember, bytes }))?;
    if fingerprints.is_none() {
        return Ok(None);
    }
    receive_sample(link).map(Some)
}

/// Logs on both hosts every corrupt page that was sent, at most `CORRUPT_LINES` of them.
fn log_corruption(link: &mut Link, damaged: &[String]) -> Result<()> {
    for page in damaged.iter().take(CORRUPT_LINES) {
        tracing::warn!("sent a corrupt page (allow-corrupt-pages=1): {page}");
        link.note(&format!("sent a corrupt page (allow-corrupt-pages=1): {page}"))?;
    }
    if damaged.len() > CORRUPT_LINES {
        tracing::warn!("and {} more corrupt pages were sent", damaged.len() - CORRUPT_LINES);
    }
    Ok(())
}
