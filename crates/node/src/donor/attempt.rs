//! Which source sends, and what is tried when one does not serve.
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use protocol::inventory::{FileEntry, FileId};
use protocol::marks::MarkKey;
use protocol::message::{Message, Source};

use super::decision::Grounds;
use super::offer::{self, Accepted};
use super::{Means, Sent, begin, expect};
use crate::datadir::engines::EnginePolicy;
use crate::datadir::layout::Layout;
use crate::datadir::scan::{self, ScannedFile, Skipped};
use crate::failure::{Failure, Kind};
use crate::job::Job;
use crate::peer::dial::CONNECT_WITHIN;
use crate::peer::link::Link;
use crate::peer::secret::random_bytes;
use crate::server::synced;
use crate::settings::SourceChoice;
use crate::source::binlog_state;
use crate::source::compare::{Compare, Parts};
use crate::source::copy::files::CopyFiles;
use crate::source::copy::pages::Copier;
use crate::source::declined::{Declined, SnapshotError};
use crate::source::frozen::Frozen;
use crate::source::native::listing::Roots;
use crate::source::native::login::{Listens, Login};
use crate::source::native::redo_out::REDO;
use crate::source::native::snapshot::{self, Taken};
use crate::source::native::sql::Session;
use crate::source::outbox::Outbox;
use crate::source::still;
use crate::source::throttle::Throttle;
use crate::threads::joined;

/// Times the redo log may come round before the frozen source is taken: the second time the copy is nearly all in the
/// page cache and may be fast enough.
const OVERRUNS_MAX: u32 = 2;

/// Redo that a joiner's server replays in seconds: no newer checkpoint is looked for to make it less.
const REDO_ENOUGH: u64 = 64 << 20;
/// A server of a newer series may not be able to apply the donor's redo.
const NEWER: &str = "the joiner's server is of a newer series and gets files without redo to apply";
/// Damaged pages named in the error logs.
const DAMAGE_LINES: usize = 50;
/// How long our server may take to name the members of the cluster.
const MEMBERS_WITHIN: Duration = Duration::from_secs(5);

/// Everything an attempt needs.
pub(super) struct Donation<'a> {
    pub job: &'a Job,
    pub means: &'a Means,
    pub accepted: &'a Accepted,
    pub layout: &'a Layout,
    pub engines: &'a EnginePolicy,
    pub skipped: &'a Skipped,
    pub offered: &'a [ScannedFile],
}

impl Donation<'_> {
    /// Sends everything, from the first source that serves. The server is as free as before when this returns.
    pub fn send(&self, link: &mut Link) -> Result<Sent> {
        let choice = self.job.settings.source;
        match choice {
            SourceChoice::Frozen => return self.frozen(link, "source=frozen is set on the donor"),
            SourceChoice::Native if self.accepted.still => return Err(not_native(NEWER).into()),
            SourceChoice::Auto if self.accepted.still => return self.frozen(link, NEWER),
            _ => {}
        }
        let mut overruns = 0;
        let mut reason = String::new();
        loop {
            let key = self.begin(link, Source::Native, &reason)?;
            let declined = match self.native(link, key) {
                Ok(sent) => return Ok(sent),
                Err(SnapshotError::Failed(error)) => return Err(error),
                Err(SnapshotError::Declined(why)) => why,
            };
            reason = declined.to_string();
            match declined {
                // The other source would send the same rot.
                Declined::CorruptPages { .. } => return Err(self.corrupt(&declined).into()),
                Declined::RedoOverrun { .. } if overruns + 1 < OVERRUNS_MAX => overruns += 1,
                _ if choice == SourceChoice::Native => return Err(not_native(&reason).into()),
                _ => return self.frozen(link, &reason),
            }
            tracing::warn!("the native source begins anew: {reason}");
        }
    }

    /// A snapshot of the server as it works.
    fn native(&self, link: &mut Link, key: Option<MarkKey>) -> Result<Sent, SnapshotError> {
        let job = self.job;
        job.progress.phase("sending", "native");
        if self.accepted.empty_undo {
            let text = "the joiner keeps the donor's number of undo tablespaces: a server changes it only at a start after \
                        innodb_fast_shutdown=0";
            tracing::info!("{text}");
            link.note(text)?;
        }
        let options = self.options();
        let outbox = self.outbox(Some(REDO), key);
        let (taken, chunks) = link
            .keep_alive_while("sending", || {
                self.through(&outbox, || Ok(snapshot::take(&options, &outbox, &job.cancel)))
            })
            .map_err(SnapshotError::from)?;
        let taken = taken?;
        say_what_was_there(link, &outbox)?;
        let moment = moment_line(&taken);
        tracing::info!("{moment}");
        link.note(&moment)?;
        log_figures(&taken);
        say_damage(link, &taken.damaged)?;
        let position = taken.manifest.position.context("the server is no member of a cluster")?;
        let list = outbox.list(&taken.manifest.files);
        Ok(Sent {
            files: taken.manifest.files,
            list,
            position: (position.state, position.domain),
            binlog_state: taken.manifest.binlog_state,
            chunks,
        })
    }

    fn login(&self) -> Login {
        let socket = synced::socket_path(self.job.args.socket.as_deref(), &self.job.datadir);
        Login { at: Listens::Socket(socket), account: self.means.account.clone() }
    }

    fn options(&self) -> snapshot::Options {
        let job = self.job;
        snapshot::Options {
            login: self.login(),
            roots: Roots { layout: self.layout.clone(), skipped: self.skipped.clone() },
            threads: usize::from(self.accepted.workers),
            budget: job.settings.moment,
            spill_dir: job.settings.spill_dir.clone().unwrap_or_else(|| job.datadir.clone()),
            spill_max: job.settings.spill_max,
            checkpoint_first: job.settings.checkpoint_first,
            round_after: job.settings.redo_round_after,
            redo_enough: REDO_ENOUGH,
            allow_corrupt_pages: job.settings.allow_corrupt_pages,
            creator: "rejoin".to_owned(),
        }
    }

    /// The server holds its files still until the last one has been read.
    fn frozen(&self, link: &mut Link, reason: &str) -> Result<Sent> {
        let job = self.job;
        let key = self.begin(link, Source::Frozen, reason)?;
        if self.accepted.empty_undo {
            let account = self.means.account.as_ref();
            link.keep_alive_while("waiting for purge", || offer::wait_for_purge(job, account))?;
        }
        job.progress.phase("waiting for the server to hold still", "");
        let frozen = link
            .keep_alive_while("waiting for the donor's server to hold its files still", || {
                Frozen::take(&job.report, &job.datadir, job.settings.flush, &job.cancel)
            })?;
        let position = (frozen.position().state, frozen.position().domain);
        tracing::info!("the donor's files are still at {}", position.0);

        job.progress.phase("listing still files", "");
        let files = scan::scan(self.layout, self.engines)?;
        offer::refuse_what_cannot_travel(&files)?;
        let files = files.files;
        let binlog_state = binlog_state::read(self.layout)?;

        job.progress.phase("sending", &format!("frozen, {} files", files.len()));
        let outbox = self.outbox(None, key);
        let sent = link.keep_alive_while("sending", || {
            self.through(&outbox, || {
                let system_files: Vec<_> = self.layout.system_files.iter().map(|f| f.path.clone()).collect();
                let (pace, bytes) = (|| Ok(()), Default::default());
                let copier = Copier {
                    sink: &outbox,
                    threads: usize::from(self.accepted.workers),
                    direct: false,
                    allow_corrupt: job.settings.allow_corrupt_pages,
                    cancel: &job.cancel,
                    bytes: &bytes,
                    pace: &pace,
                };
                let copy = CopyFiles { copier, system_files: &system_files, damaged: Mutex::default() };
                let copied = still::copy(&files, &copy);
                // Nothing of ours needs its files any more: the server may go on while the rest is sent.
                drop(frozen);
                copied.map(|()| copy.damaged.into_inner().unwrap_or_else(PoisonError::into_inner))
            })
        });
        let (damaged, chunks) = match sent {
            Ok(sent) => sent,
            Err(error) => return Err(self.explain(error)),
        };
        say_what_was_there(link, &outbox)?;
        say_damage(link, &damaged)?;
        let files: Vec<FileEntry> = files.into_iter().map(|f| f.entry).collect();
        let list = outbox.list(&files);
        Ok(Sent { files, list, position, binlog_state, chunks })
    }

    /// Begins an attempt. Answers the key with which the joiner's files are compared, when they are: a new one each time.
    fn begin(&self, link: &mut Link, source: Source, reason: &str) -> Result<Option<MarkKey>> {
        let (base, incremental) = (self.accepted.base, self.job.settings.incremental);
        let key = if base && incremental { Some(random_bytes()?) } else { None };
        let sample = begin(self.job, link, source, reason, key)?;
        let bytes = scan::bytes(self.offered, source == Source::Frozen);
        let parts = self.job.settings.delta != Parts::Never;
        let grounds = Grounds { layout: self.layout, bytes, base, incremental, parts };
        let key = grounds.decide(link, key, sample.as_ref())?;
        expect(link.recv()?, &Message::Ready)?;
        Ok(key)
    }

    fn outbox(&self, redo: Option<FileId>, key: Option<MarkKey>) -> Outbox<'_> {
        let throttle = Throttle::new(self.job.settings.rlimit);
        let compare = key.map(|key| Compare::new(key, self.job.settings.delta, &self.job.cancel));
        Outbox::new(
            self.accepted.workers,
            redo,
            self.means.compression,
            throttle,
            compare,
            &self.job.progress,
            &self.job.cancel,
        )
    }

    /// Runs a source with a connection for each lane of its outbox. Answers what the source gave and the number of
    /// chunks, once the joiner has written them all.
    fn through<T>(&self, outbox: &Outbox<'_>, source: impl FnOnce() -> Result<T>) -> Result<(T, u64)> {
        std::thread::scope(|scope| {
            let lane = |number| scope.spawn(move || self.talk(number, |link| outbox.send(number, link)));
            let threads: Vec<_> = (0..outbox.lanes()).map(lane).collect();
            let comparing = outbox.compare().map(|compare| {
                let (asks, hears) = (outbox.lanes(), outbox.lanes() + 1);
                [
                    scope.spawn(move || self.talk(asks, |link| compare.send_questions(link))),
                    scope.spawn(move || self.talk(hears, |link| compare.hear_answers(link))),
                ]
            });
            let given = source().and_then(|given| outbox.settle().map(|()| given));
            outbox.close(given.is_err());
            let compared = comparing.into_iter().flatten().try_for_each(|thread| joined(thread.join()));
            let sent: Result<u64> = threads.into_iter().map(|thread| joined(thread.join())).sum();
            let given = given?;
            compared?;
            Ok((given, sent?))
        })
    }

    /// One further connection. If it breaks, so does the transfer: the others must not go on filling the joiner's disk.
    fn talk<T>(&self, number: u16, talk: impl FnOnce(&mut Link) -> Result<T>) -> Result<T> {
        let talked = self.means.dialer.dial_worker(number, CONNECT_WITHIN);
        let talked = talked.and_then(|mut link| {
            link.count_in(&self.job.progress);
            talk(&mut link)
        });
        talked.inspect_err(|e| self.job.cancel.cancel_by_worker(e))
    }

    /// The frozen source fails for the same reason as the native one when a page is damaged.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        match SnapshotError::from(error) {
            SnapshotError::Declined(declined) => self.corrupt(&declined).into(),
            SnapshotError::Failed(error) => error,
        }
    }

    /// Rot is not shipped; another member may have the page as it should be.
    fn corrupt(&self, declined: &Declined) -> Failure {
        let members = Session::open(&self.login(), MEMBERS_WITHIN).ok();
        let members =
            members.and_then(|mut session| session.status("wsrep_incoming_addresses").ok().flatten());
        let members = members.map(|list| format!(" (members: {list})")).unwrap_or_default();
        let failure = Failure::new(Kind::Refused, format!("this donor sends nothing: {declined}"));
        failure.hint(format!(
            "choose another donor{members} with wsrep_sst_donor on the joiner, restore the table on this one, or set \
             allow-corrupt-pages=1 under [sst] on the donor to send it as it is"
        ))
    }
}

/// Both hosts hear how much of what would have been sent the joiner had.
fn say_what_was_there(link: &mut Link, outbox: &Outbox<'_>) -> Result<()> {
    if let Some(compare) = outbox.compare() {
        let line = format!("incremental: {} bytes were on the joiner already", compare.same_bytes());
        tracing::info!("{line}");
        link.note(&line)?;
    }
    Ok(())
}

fn not_native(why: &str) -> Failure {
    let failure = Failure::new(Kind::Refused, format!("the native source does not serve: {why}"));
    failure.hint("source=auto under [sst] on the donor takes the frozen source then")
}

fn moment_line(taken: &Taken) -> String {
    let ms = |d: Duration| format!("{:.1} ms", d.as_secs_f64() * 1000.0);
    let moment = &taken.moment;
    let position = taken.manifest.position.map(|p| p.state.to_string()).unwrap_or_default();
    format!(
        "the settled moment is at {position}: replication paused for {} (granted after {}), commits held for {}, {} files \
         read in it, {} tries, failed tries held {}",
        ms(moment.ddl_held),
        ms(moment.granting),
        ms(moment.commits_held),
        moment.files,
        moment.tries,
        ms(moment.failed_held),
    )
}

fn log_figures(taken: &Taken) {
    tracing::info!(
        "snapshot: {} bytes of data files in {:.1} s and {} rounds; {} bytes of redo to replay ({} dropped in {} newer \
         checkpoints), at most {} of it waiting to be read",
        taken.bytes,
        taken.copying.as_secs_f64(),
        taken.rounds,
        taken.redo_bytes,
        taken.redo_rounds.dropped,
        taken.redo_rounds.rounds,
        taken.redo_behind_max
    );
}

/// Both hosts hear of every damaged page that was sent, up to a number that a log can take.
fn say_damage(link: &mut Link, damaged: &[String]) -> Result<()> {
    for page in damaged.iter().take(DAMAGE_LINES) {
        tracing::warn!("sent although it is damaged: {page}");
        link.note(&format!("sent although it is damaged: {page}"))?;
    }
    if damaged.len() > DAMAGE_LINES {
        tracing::warn!("and {} more damaged pages", damaged.len() - DAMAGE_LINES);
    }
    Ok(())
}
