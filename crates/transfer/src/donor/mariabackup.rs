//! When the snapshot of mariadb-backup is taken: `snapshot=mariabackup`, or by itself where the online
//! snapshot cannot read what the server writes. Both hosts need the program, of the series of their servers.
use std::time::Duration;

use anyhow::Result;
use protocol::message::Message;

use super::attempt::{DonorSession, Sent};
use super::expected::unexpected;
use crate::datadir::encrypted::first_encrypted;
use crate::datadir::scan;
use crate::failure::{Failure, Kind};
use crate::peer::link::Link;
use crate::server::version::server_version;
use crate::settings::SnapshotChoice;
use crate::snapshot::declined::{Declined, SnapshotError};
use crate::snapshot::mariabackup::Mariabackup;
use crate::snapshot::mariabackup::tool::Tool;

/// How often it is taken at most. DDL at its end ends mariadb-backup (11.8), and we end it when it waits for its locks too long. What
/// has arrived by then is reused.
const TRIES_MAX: u32 = 4;
/// How often it may trip over a table that is renamed while it lists them: once in a few tries where tables are renamed all the
/// time. It has read nothing then, so these are counted by themselves.
const TRIPS_MAX: u32 = 8;
/// How long we wait before it is taken again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Why mariadb-backup is not tried for a joiner that must get files without redo.
pub(crate) const ANOTHER_SERIES: &str = "the joiner's server may be of another series";

/// How often it was taken for nothing.
#[derive(Default)]
struct Tries {
    failed: u32,
    tripped: u32,
}

impl Tries {
    /// Whether it is taken once more after this.
    fn again(&mut self, declined: &Declined) -> bool {
        let (counted, most) = match declined {
            Declined::BackupFailed(_) | Declined::BackupHeldUp => (&mut self.failed, TRIES_MAX),
            Declined::BackupTripped(_) => (&mut self.tripped, TRIPS_MAX),
            _ => return false,
        };
        *counted += 1;
        *counted < most
    }
}

impl DonorSession<'_> {
    /// Sends the snapshot that the operator wants, and no other.
    pub(super) fn only_mariabackup(&self, link: &mut Link) -> Result<Sent> {
        self.mariabackup(link, "snapshot=mariabackup is set on the donor")?
            .map_err(|why| not_mariabackup(&why).into())
    }

    /// The online snapshot cannot read what the server writes: mariadb-backup may, and the blocking snapshot can.
    pub(super) fn unreadable(&self, link: &mut Link, reason: &str) -> Result<Sent> {
        match self.mariabackup(link, reason)? {
            Ok(sent) => Ok(sent),
            Err(why) => self.blocking(link, &neither(reason, &why)),
        }
    }

    /// What follows if the joiner could not prepare the backup.
    pub(super) fn instead_of_mariabackup(&self, link: &mut Link, why: &str) -> Result<Sent> {
        let why = format!("the joiner could not prepare the backup of mariadb-backup: {why}");
        match self.job.settings.snapshot {
            SnapshotChoice::Mariabackup => Err(not_mariabackup(&why).into()),
            _ => self.blocking(link, &why),
        }
    }

    /// Sends it, or says why it is not possible.
    fn mariabackup(&self, link: &mut Link, reason: &str) -> Result<Result<Sent, String>> {
        let tool = match self.tool(link)? {
            Ok(tool) => tool,
            Err(why) => return Ok(Err(why)),
        };
        let snapshot = Mariabackup {
            tool: &tool,
            login: self.login(),
            layout: self.layout,
            engines: self.engines,
            threads: usize::from(self.accepted.workers),
        };
        let mut tries = Tries::default();
        loop {
            let declined = match self.send_from(&snapshot, link, reason) {
                Ok(sent) => return Ok(Ok(sent)),
                Err(SnapshotError::Failed(error)) => return Err(error),
                Err(SnapshotError::Declined(declined)) => declined,
            };
            match declined {
                _ if tries.again(&declined) => {
                    tracing::warn!("mariadb-backup is started again: {declined}");
                    link.note(&format!("mariadb-backup is started again: {declined}"))?;
                    self.job.cancel.sleep(AGAIN_AFTER)?;
                }
                _ if declined.is_of_the_server() => return Err(self.sends_nothing(&declined).into()),
                _ => return Ok(Err(declined.to_string())),
            }
        }
    }

    /// The program, if both hosts have one that can be used.
    fn tool(&self, link: &mut Link) -> Result<Result<Tool, String>> {
        if self.accepted.without_redo {
            return Ok(Err(ANOTHER_SERIES.to_owned()));
        }
        let job = self.job;
        let found = Tool::find(&job.options, server_version(job.server).as_deref(), &job.cancel);
        job.cancel.check()?;
        let tool = match found {
            Ok(tool) => tool,
            Err(why) => return Ok(Err(format!("on the donor: {why}"))),
        };
        let listed = scan::scan(self.layout, self.engines)?;
        if let Some(encrypted) = first_encrypted(self.layout, &self.job.options, &listed.files) {
            return Ok(Err(needs_keys(&encrypted)));
        }
        if !self.context.prepares {
            return Ok(Err("the joiner's program is too old to prepare a backup".to_owned()));
        }
        link.send(&Message::AskPrepare { version: tool.version.clone() })?;
        match link.recv()? {
            Message::CanPrepare { why_not } if why_not.is_empty() => Ok(Ok(tool)),
            Message::CanPrepare { why_not } => Ok(Err(format!("on the joiner: {why_not}"))),
            other => Err(unexpected(&other, "CanPrepare").into()),
        }
    }
}

/// Why this file of the donor's, or this option, rules mariadb-backup out.
pub(crate) fn needs_keys(encrypted: &str) -> String {
    format!("{encrypted} is encrypted, and the joiner would need the keys to prepare it")
}

/// Why the blocking snapshot is taken if neither the online one nor mariadb-backup is possible.
pub(crate) fn neither(online: &str, mariabackup: &str) -> String {
    format!("{online}; not with mariadb-backup either: {mariabackup}")
}

/// The failure where `snapshot=mariabackup` is set.
pub(crate) fn not_mariabackup(why: &str) -> Failure {
    let failure =
        Failure::new(Kind::Refused, format!("the snapshot of mariadb-backup is not possible: {why}"));
    failure
        .hint("remove the cause, or take another kind of snapshot (snapshot=auto under [sst] on the donor)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_that_trips_at_once_does_not_use_up_the_others() {
        let mut tries = Tries::default();
        let (failed, tripped) =
            (Declined::BackupFailed(String::new()), Declined::BackupTripped(String::new()));
        let said = [&tripped, &failed, &tripped, &tripped, &Declined::BackupHeldUp, &tripped, &failed];
        assert!(said.iter().all(|declined| tries.again(declined)));
        assert!(!tries.again(&failed));
        let mut tries = Tries::default();
        assert_eq!((0..).take_while(|_| tries.again(&tripped)).count(), 7);
        assert!(!Tries::default().again(&Declined::Backup(String::new())));
    }
}
