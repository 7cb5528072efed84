//! Which snapshot a donor would take of its files, as far as that shows before a transfer. The donor decides in the same order
//! (`donor/choice.rs`).
use protocol::message::SnapshotKind;
use protocol::policy::series;

use crate::cancel::Cancel;
use crate::datadir::encrypted::first_encrypted;
use crate::datadir::engines::EnginePolicy;
use crate::datadir::layout::Layout;
use crate::datadir::scan;
use crate::donor::{ANOTHER_SERIES, NEWER, needs_keys, neither, not_blocking, not_mariabackup, not_online};
use crate::server::options::ServerOptions;
use crate::settings::{Blocking, Settings, SnapshotChoice};
use crate::snapshot::declined::Declined;
use crate::snapshot::mariabackup::tool::Tool;
use crate::snapshot::online::log_file::{CIRCULAR_SINCE, LogFile};
use crate::snapshot::online::sql_checks;
use crate::sql::Session;

/// Added to the reason where nothing of the donor's host can be seen.
const UNSEEN: &str =
    "whether mariadb-backup is installed on the donor's host is known only when the transfer begins";

/// The snapshot from which a donor would send its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predicted {
    /// Its kind.
    pub kind: SnapshotKind,
    /// Why it is not the online one; empty if it is.
    pub why: String,
}

/// What shows of a donor before a transfer.
#[derive(Clone, Debug)]
pub(super) struct Donor {
    /// `snapshot`, and `blocking`: the defaults if it runs on another host.
    pub snapshot: SnapshotChoice,
    pub blocking: Blocking,
    /// Why the online snapshot is not possible.
    pub not_online: Option<Declined>,
    /// Why that of mariadb-backup is not, on either host. None also where it would not be taken.
    pub not_mariabackup: Option<String>,
    /// It runs on this host, so its option files and programs were looked at.
    pub is_here: bool,
}

impl Donor {
    /// Which snapshot it would take for a joiner that must, or need not, get files without redo.
    ///
    /// # Errors
    /// Why it would send nothing.
    pub fn predict(&self, without_redo: bool) -> Result<Predicted, String> {
        let of = |kind, why: String| Ok(Predicted { kind, why });
        let blocking = |why: String| match self.blocking {
            _ if self.not_online == Some(Declined::RedoArchived) => {
                Err(Declined::RedoOnlyArchived.to_string())
            }
            Blocking::Never => Err(not_blocking(&why).text),
            Blocking::Auto | Blocking::AtMost(_) => of(SnapshotKind::Blocking, why),
        };
        let mariabackup = |why: &str| {
            let not = match without_redo {
                true => Some(ANOTHER_SERIES.to_owned()),
                false => self.not_mariabackup.clone(),
            };
            match (not, self.is_here) {
                (Some(not), _) => Err(not),
                (None, true) => Ok(Predicted { kind: SnapshotKind::Mariabackup, why: why.to_owned() }),
                (None, false) => {
                    Ok(Predicted { kind: SnapshotKind::Mariabackup, why: format!("{why}; {UNSEEN}") })
                }
            }
        };
        match (self.snapshot, without_redo) {
            (SnapshotChoice::Blocking, _) => blocking("snapshot=blocking is set on the donor".to_owned()),
            (SnapshotChoice::Mariabackup, _) => mariabackup("snapshot=mariabackup is set on the donor")
                .map_err(|not| not_mariabackup(&not).text),
            (SnapshotChoice::Online, true) => Err(not_online(NEWER).text),
            (_, true) => blocking(NEWER.to_owned()),
            (choice, false) => {
                let Some(declined) = &self.not_online else { return of(SnapshotKind::Online, String::new()) };
                let why = declined.to_string();
                match choice {
                    SnapshotChoice::Online => Err(not_online(&why).text),
                    SnapshotChoice::Auto if declined.is_unreadable() => {
                        mariabackup(&why).or_else(|not| blocking(neither(&why, &not)))
                    }
                    _ => blocking(why),
                }
            }
        }
    }
}

/// A donor that can be asked.
pub(super) struct Asked<'a> {
    pub session: &'a mut Session,
    /// Where its files are, and the version of its server.
    pub layout: &'a Layout,
    pub version: Option<&'a str>,
    /// Its options, if it runs on this host.
    pub options: Option<&'a ServerOptions>,
}

impl Asked<'_> {
    /// Looks at everything that decides. `joiners`: the joiner's mariadb-backup.
    pub fn look(mut self, joiners: &dyn Fn() -> Result<Tool, String>) -> Donor {
        let settings = self.options.and_then(|options| Settings::read(options).ok());
        let snapshot = settings.as_ref().map_or(SnapshotChoice::Auto, |settings| settings.snapshot);
        let blocking = settings.map_or(Blocking::Auto, |settings| settings.blocking);
        let not_online = self.not_online();
        // Its programs are not run for nothing.
        let is_taken = match snapshot {
            SnapshotChoice::Mariabackup => true,
            SnapshotChoice::Auto => not_online.as_ref().is_some_and(Declined::is_unreadable),
            _ => false,
        };
        let not_mariabackup = if is_taken { self.not_mariabackup(joiners).err() } else { None };
        Donor { snapshot, blocking, not_online, not_mariabackup, is_here: self.options.is_some() }
    }

    fn not_online(&mut self) -> Option<Declined> {
        let by_sql = match self.options {
            // At its socket the donor's program logs in as we did; over the network another account counts.
            Some(_) => sql_checks::check(self.session, &self.layout.datadir).map(drop),
            None => sql_checks::check_settings(self.session),
        };
        let in_log = || self.options.and_then(|_| LogFile::unknown_layout(&self.layout.redo_log()));
        let by_version = || {
            let version = self.version?;
            let is_old = series(&Some(version.to_owned()))? < CIRCULAR_SINCE;
            is_old.then(|| Declined::RedoFormat(format!("of MariaDB {version}")))
        };
        reason(by_sql).or_else(in_log).or_else(by_version)
    }

    /// Looks in the order in which the donor does.
    fn not_mariabackup(&mut self, joiners: &dyn Fn() -> Result<Tool, String>) -> Result<(), String> {
        if let Some(options) = self.options {
            Tool::find(options, self.version, &Cancel::new())
                .map_err(|why| format!("on the donor: {why}"))?;
            // Files that we may not read are left to the donor.
            let listed = scan::scan(self.layout, &EnginePolicy::from_options(options)).ok();
            let encrypted = listed.and_then(|listed| first_encrypted(self.layout, options, &listed.files));
            if let Some(encrypted) = encrypted {
                return Err(needs_keys(&encrypted));
            }
        }
        joiners().and_then(|tool| tool.fits(self.version)).map_err(|why| format!("on the joiner: {why}"))?;
        let by_sql = match self.options {
            Some(_) => sql_checks::check_for_backup(self.session, &self.layout.datadir).map(drop),
            None => sql_checks::check_settings_for_backup(self.session),
        };
        reason(by_sql).map_or(Ok(()), |declined| Err(declined.to_string()))
    }
}

/// A session that is gone says nothing about the server.
fn reason(checked: Result<(), Declined>) -> Option<Declined> {
    checked.err().filter(|declined| !matches!(declined, Declined::SessionLost(_)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn donor(snapshot: SnapshotChoice, not_online: Option<Declined>) -> Donor {
        Donor { snapshot, blocking: Blocking::Auto, not_online, not_mariabackup: None, is_here: true }
    }

    fn predicted(donor: &Donor) -> (&'static str, String) {
        match donor.predict(false) {
            Ok(Predicted { kind, why }) => (kind.name(), why),
            Err(why) => ("none", why),
        }
    }

    #[test]
    fn the_online_snapshot_is_taken_where_nothing_is_against_it() {
        use SnapshotChoice::{Auto, Blocking, Mariabackup, Online, OnlineOrBlocking};
        for choice in [Auto, OnlineOrBlocking, Online] {
            assert_eq!(predicted(&donor(choice, None)), ("online", String::new()), "{choice:?}");
        }
        let (kind, why) = predicted(&donor(Blocking, None));
        assert_eq!((kind, why.as_str()), ("blocking", "snapshot=blocking is set on the donor"));
        let (kind, why) = predicted(&donor(Mariabackup, None));
        assert_eq!((kind, why.as_str()), ("mariabackup", "snapshot=mariabackup is set on the donor"));
    }

    #[test]
    fn mariabackup_serves_where_the_redo_log_cannot_be_read_and_both_hosts_have_it() {
        use SnapshotChoice::{Auto, Online, OnlineOrBlocking};
        let with = |choice| donor(choice, Some(Declined::RedoArchived));
        let (kind, why) = predicted(&with(Auto));
        assert!(kind == "mariabackup" && why.starts_with("innodb_log_archive=ON"), "{kind}: {why}");
        assert!(!why.contains(UNSEEN), "{why}");
        let (kind, why) = predicted(&with(OnlineOrBlocking));
        assert!(kind == "none" && why.contains("without ib_logfile0"), "{kind}: {why}");
        assert_eq!(predicted(&with(Online)).0, "none");
        assert_eq!(predicted(&with(SnapshotChoice::Blocking)).0, "none");

        let far = Donor { is_here: false, ..with(Auto) };
        assert!(predicted(&far).1.ends_with(UNSEEN), "{far:?}");
        let not = Some("on the joiner: mariadb-backup is not installed".to_owned());
        let unknown = Declined::RedoFormat("of MariaDB 10.6".to_owned());
        let (kind, why) = predicted(&Donor { not_mariabackup: not.clone(), ..donor(Auto, Some(unknown)) });
        assert!(kind == "blocking" && why.contains("not with mariadb-backup either: on the joiner"), "{why}");
        let only = Donor { not_mariabackup: not, ..donor(SnapshotChoice::Mariabackup, None) };
        assert!(predicted(&only).1.contains("not possible: on the joiner"), "{only:?}");
    }

    #[test]
    fn other_reasons_block_writes_unless_that_is_forbidden() {
        let grant = "GRANT RELOAD ON *.* TO `a`@`b`;".to_owned();
        let poor = donor(SnapshotChoice::Auto, Some(Declined::MissingPrivilege { grant }));
        let (kind, why) = predicted(&poor);
        assert!(kind == "blocking" && why.contains("GRANT RELOAD"), "{kind}: {why}");
        let limited = Donor { blocking: Blocking::AtMost(Duration::from_secs(9)), ..poor.clone() };
        assert_eq!(predicted(&limited).0, "blocking");
        let never = Donor { blocking: Blocking::Never, ..poor };
        let (kind, why) = predicted(&never);
        assert!(kind == "none" && why.contains("blocking=never forbids it"), "{kind}: {why}");
    }

    #[test]
    fn a_joiner_of_another_series_gets_files_without_redo() {
        let of = |choice| donor(choice, None).predict(true).map(|predicted| predicted.kind);
        assert_eq!(of(SnapshotChoice::Auto), Ok(SnapshotKind::Blocking));
        assert!(of(SnapshotChoice::Online).is_err());
        let mariabackup = of(SnapshotChoice::Mariabackup).unwrap_err();
        assert!(mariabackup.contains("may be of another series"), "{mariabackup}");
    }
}
