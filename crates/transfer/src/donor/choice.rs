//! Which snapshot is sent, and which one next if that is declined.
use anyhow::Result;

use super::attempt::{DonorSession, Sent};
use crate::failure::{Failure, Kind};
use crate::peer::link::Link;
use crate::server::version::server_version;
use crate::settings::{Blocking as Permission, SnapshotChoice};
use crate::snapshot::blocking::Blocking;
use crate::snapshot::declined::{Declined, SnapshotError};
use crate::snapshot::logical::{Isolation, Logical};
use crate::snapshot::online::Online;
use crate::snapshot::online::listing::Roots;
use crate::snapshot::online::rounds::Policy;
use crate::snapshot::online::snapshot::Options;
use crate::sql::{ANSWER_WITHIN, Session};

/// How often the redo log may overrun the online snapshot before the blocking one is taken. At the second try most of
/// the data is in the page cache, so the copy may be fast enough.
const OVERRUNS_MAX: u32 = 2;

/// A server of another series may not be able to apply the donor's redo.
pub(crate) const NEWER: &str = "the joiner's server is of a newer series, or a version is not known: it gets files without redo to apply";

impl DonorSession<'_> {
    /// Sends everything from the first snapshot that is not declined. When this returns, the server has been
    /// released.
    pub fn send(&self, link: &mut Link) -> Result<Sent> {
        let choice = self.job.settings.snapshot;
        match choice {
            SnapshotChoice::Logical if self.accepted.logical.is_empty() => {
                return self.logical(link, "snapshot=logical is set on the donor");
            }
            _ if !self.accepted.logical.is_empty() => return self.logical(link, &self.accepted.logical),
            SnapshotChoice::Blocking => return self.blocking(link, "snapshot=blocking is set on the donor"),
            SnapshotChoice::Mariabackup => return self.only_mariabackup(link),
            SnapshotChoice::Online if self.accepted.without_redo => return Err(not_online(NEWER).into()),
            SnapshotChoice::Auto | SnapshotChoice::OnlineOrBlocking if self.accepted.without_redo => {
                return self.blocking(link, NEWER);
            }
            _ => {}
        }
        let online = Online(self.options());
        self.warn_of_undo(link)?;
        let mut overruns = 0;
        let mut reason = String::new();
        loop {
            let declined = match self.send_from(&online, link, &reason) {
                Ok(sent) => return Ok(sent),
                Err(SnapshotError::Failed(error)) => return Err(error),
                Err(SnapshotError::Declined(why)) => self.cut_off().unwrap_or(why),
            };
            reason = declined.to_string();
            match declined {
                Declined::NotGranted { .. } => return Err(not_granted(&reason).into()),
                _ if declined.is_of_the_server() => return Err(self.sends_nothing(&declined).into()),
                Declined::RedoOverrun { .. } if overruns + 1 < OVERRUNS_MAX => overruns += 1,
                _ if choice == SnapshotChoice::Online => return Err(not_online(&reason).into()),
                _ if choice == SnapshotChoice::Auto && declined.is_unreadable() => {
                    return self.unreadable(link, &reason);
                }
                _ => return self.blocking(link, &reason),
            }
            tracing::warn!("the online snapshot starts again: {reason}");
        }
    }

    /// Sends the logical snapshot. The joiner cannot use another one, or the operator wants none.
    fn logical(&self, link: &mut Link, reason: &str) -> Result<Sent> {
        let settings = &self.job.settings;
        let logical = Logical {
            login: self.login(),
            layout: self.layout,
            server_version: server_version(self.job.server),
            skip: &self.engines.skip,
            threads: usize::from(self.accepted.workers),
            budget: settings.consistency_point,
            desynced: 1,
            blocking: settings.blocking,
            isolation: Isolation::BackupLocks,
        };
        self.send_from(&logical, link, reason).map_err(|error| match error {
            SnapshotError::Declined(declined) if declined.is_of_the_server() => {
                self.sends_nothing(&declined).into()
            }
            SnapshotError::Declined(declined) => not_logical(&declined, reason).into(),
            SnapshotError::Failed(error) => error,
        })
    }

    /// Sends the blocking snapshot, if the operator allows it. It is the last one: if it is declined, the transfer
    /// fails.
    pub(super) fn blocking(&self, link: &mut Link, reason: &str) -> Result<Sent> {
        let settings = &self.job.settings;
        let hold_for = match settings.blocking {
            Permission::Never => return Err(not_blocking(reason).into()),
            Permission::AtMost(limit) => Some(limit),
            Permission::Auto => None,
        };
        let blocking = Blocking {
            report: &self.job.report,
            layout: self.layout,
            engines: self.engines,
            flush_within: settings.flush,
            hold_for,
            purged: self.accepted.empty_undo.then(|| self.login()),
            threads: self.readers(),
            allow_corrupt_pages: settings.allow_corrupt_pages,
            memory: self.memory.clone(),
        };
        self.send_from(&blocking, link, reason).map_err(|error| match error {
            SnapshotError::Declined(declined) => self.sends_nothing(&declined).into(),
            SnapshotError::Failed(error) => error,
        })
    }

    /// Tells both hosts that the number of undo tablespaces stays: the online snapshot cannot empty the donor's undo
    /// logs.
    fn warn_of_undo(&self, link: &mut Link) -> Result<()> {
        if self.accepted.empty_undo {
            let text = "the joiner keeps the donor's number of undo tablespaces: a server changes it only at a start after \
                        innodb_fast_shutdown=0";
            tracing::info!("{text}");
            link.note(text)?;
        }
        Ok(())
    }

    fn readers(&self) -> usize {
        usize::from(self.job.settings.readers_over(self.context.dialer.round_trip()))
    }

    fn options(&self) -> Options {
        let job = self.job;
        Options {
            login: self.login(),
            roots: Roots { layout: self.layout.clone(), skipped: self.skipped.clone() },
            threads: self.readers(),
            budget: job.settings.consistency_point,
            desynced: 1,
            spill_dir: job.settings.spill_dir.clone().unwrap_or_else(|| job.datadir.clone()),
            spill_max: job.settings.spill_max,
            newer: Policy::AsItPays,
            allow_corrupt_pages: job.settings.allow_corrupt_pages,
            memory: self.memory.clone(),
            creator: "rejoin".to_owned(),
        }
    }

    /// `OutsidePrimary`, if the server is outside the primary component. Most statements fail there, so the snapshot
    /// may have been declined for a reason that only follows from this one.
    fn cut_off(&self) -> Option<Declined> {
        let mut session = Session::open(&self.login(), ANSWER_WITHIN).ok()?;
        let status = session.status("wsrep_cluster_status").ok()??;
        (status != "Primary").then_some(Declined::OutsidePrimary { status })
    }

    /// The failure if every snapshot of this server would be declined. Another member may be able to send.
    pub(super) fn sends_nothing(&self, declined: &Declined) -> Failure {
        let failure = Failure::new(Kind::Refused, format!("this donor cannot send its data: {declined}"));
        if matches!(declined, Declined::RedoOnlyArchived) {
            return failure.hint(
                "SET GLOBAL innodb_log_archive=OFF on the donor until the transfer is over, or name another one with wsrep_sst_donor on the joiner",
            );
        }
        if !matches!(declined, Declined::CorruptPages { .. }) {
            return failure.hint(
                "bring the donor back into the primary component, or name another one with wsrep_sst_donor on the joiner",
            );
        }
        let members = Session::open(&self.login(), ANSWER_WITHIN).ok();
        let members =
            members.and_then(|mut session| session.status("wsrep_incoming_addresses").ok().flatten());
        let members = members.map(|list| format!(" (members: {list})")).unwrap_or_default();
        failure.hint(format!(
            "choose another donor{members} with wsrep_sst_donor on the joiner, restore the table on this one, or set \
             allow-corrupt-pages=1 under [sst] on the donor to send it as it is"
        ))
    }
}

fn not_granted(why: &str) -> Failure {
    let failure = Failure::new(Kind::Timeout, why);
    failure.hint("end the session that holds the lock on the donor, or raise consistency-point-timeout under [sst] there")
}

/// The failure where [`Permission::Never`] is set.
pub(crate) fn not_blocking(why: &str) -> Failure {
    let text = format!("only the blocking snapshot is possible ({why}), and blocking=never forbids it");
    let failure = Failure::new(Kind::Refused, text);
    failure.hint(
        "remove the cause, choose another donor, or allow blocking with blocking=auto or \
         blocking=SECONDS under [sst]",
    )
}

/// The failure where the joiner needs rows, and there is no snapshot of them.
pub(crate) fn not_logical(declined: &Declined, reason: &str) -> Failure {
    let text = format!("the joiner needs a logical snapshot ({reason}), which is not possible: {declined}");
    let failure = Failure::new(Kind::Refused, text);
    match declined {
        Declined::NotGranted { .. } => not_granted(&failure.text),
        _ => failure.hint("remove the cause, or give the joiner the donor's settings and version, so that it can use its files"),
    }
}

/// The failure where `snapshot=online` is set.
pub(crate) fn not_online(why: &str) -> Failure {
    let failure = Failure::new(Kind::Refused, format!("the online snapshot is not possible: {why}"));
    failure.hint("with snapshot=auto under [sst] the donor takes the blocking snapshot instead")
}
